"""A second run re-does nothing, and nothing stale is ever taken for its result."""

import inspect
import os
import random
import subprocess
import sys
from importlib.metadata import version

import pytest
from datasets import Dataset
from huggingface_hub import constants

from hub.pins import pin
from model_cards import escape, plots
from recipes import length_rules
from recipes.config import parse_recipe
from recipes.data import batches as batches_module
from recipes.data import columns, disguises, leakage, tokenizer
from recipes.data.batches import map_batches
from recipes.data.splits import build_splits, references, rows_sha256, tokenize
from recipes.data.tokenizer import audit, load_tokens
from record import cache
from record.cache import BATCH, batches, cached_bytes, cached_value

# Prepares a recipe's data in a process of its own; with `never`, whatever would read the texts again fails.
PREPARE = """
import sys
from recipes.data import leakage, lineage, sources, splits, tokenizer as tokens
from recipes.config import parse_recipe
from hub.pins import pin
from types import SimpleNamespace

def never(*args, **kwargs):
    raise AssertionError("done again")

if sys.argv[2] == "again":
    for module, name in ((sources, "fill"), (sources, "read_groups"), (splits, "measure"), (splits, "token_ids"),
                         (leakage, "groups"), (leakage, "compare"), (tokens, "_audit")):
        assert callable(getattr(module, name))
        named = lambda *args, **kwargs: never()
        named.__name__ = name
        setattr(module, name, named)
recipe = parse_recipe(["--config", f"recipes/{sys.argv[1]}.yaml", "--split", "grouped"]).arguments
base, dataset = pin("model", "google/flan-t5-large", "main"), pin("dataset", recipe.dataset_name, "main")
tokenizer = tokens.load_tokens(base, recipe.added_tokens)
made = splits.build_splits(recipe, dataset, tokenizer)
rows = splits.tokenize(made.train, tokenizer)
print(made.counts, tokens.audit(tokenizer, splits.references(made)), rows[0])
print(lineage.find_seen_rows(made, SimpleNamespace(dataset=dataset, more_datasets=[], parent_adapter=None)))
"""


def prepare(recipe: str, which: str, home) -> str:
    environ = os.environ | {"HF_HOME": str(home)}
    answer = subprocess.run(
        [sys.executable, "-c", PREPARE, recipe, which], env=environ, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    return answer.stdout


def test_a_second_run_does_nothing_again(tmp_path):
    first = prepare("llama2sql", "first", tmp_path)
    assert "Leakage(" in first
    assert prepare("llama2sql", "again", tmp_path) == first


# Each cached value's key, and a module that decides it.
CODES = {"rows": (batches_module.code, columns), "tokens": (batches_module.code, tokenizer),
         "rules": (batches_module.code, length_rules), "leakage": (leakage.code, leakage),
         "plots": (plots.code, plots), "escaping": (plots.code, escape)}  # fmt: skip


@pytest.fixture
def change(monkeypatch, tmp_path):
    """Makes a module's source a copy in which one text is another."""

    def replace(module, old, new):
        source = inspect.getsource(module)
        assert old in source
        copy = tmp_path / f"{len(list(tmp_path.iterdir()))}.py"
        copy.write_text(source.replace(old, new, 1))
        monkeypatch.setattr(module, "__file__", str(copy))

    return replace


@pytest.mark.parametrize("name", CODES)
def test_comments_and_docstrings_are_no_part_of_a_key(change, name):
    code, module = CODES[name]
    key = code()
    change(module, '"""', '"""Once upon a time: ')
    change(module, "\nimport ", "\n# A comment.\nimport ")
    assert code() == key
    change(module, "\nimport ", "\nNEW = 1\nimport ")
    assert code() != key


@pytest.mark.parametrize(
    ("code", "module", "old", "new", "same"),
    [
        (batches_module.code, columns, "simplify it", "make it simpler", True),
        (batches_module.code, length_rules, "is not understood: write", "cannot be read: write", True),
        (batches_module.code, tokenizer, "is not a T5's", "is another model's", True),
        (batches_module.code, length_rules, "operator.ge", "operator.gt", False),
        (batches_module.code, length_rules, 'self.relation == ">="', 'self.relation == ">"', False),
        (batches_module.code, length_rules, "drop|truncate", "drop|cut", False),
        (batches_module.code, columns, "whole[:longest]", "whole[: longest - 1]", False),
        (batches_module.code, tokenizer, "[ \\t\\r\\n]+", "[ \\t]+", False),
        (leakage.code, leakage, "NEAR = 0.8", "NEAR = 0.7", False),
        (leakage.code, leakage, '"NFKC"', '"NFC"', False),
        (leakage.code, disguises, "ORDERED = 4", "ORDERED = 5", False),
        (plots.code, plots, "#1A7FBF", "#1A7FBE", False),
    ],
)
def test_a_key_covers_what_decides_and_nothing_else(change, code, module, old, new, same):
    key = code()
    change(module, old, new)
    assert (code() == key) is same


@pytest.mark.parametrize(
    ("code", "libraries"),
    [
        (batches_module.code, {"datasets", "regex", "tokenizers"}),
        (leakage.code, {"confusable_homoglyphs", "datasketch", "numpy"}),
        (plots.code, {"matplotlib", "kiwisolver", "numpy", "pillow"}),
    ],
)
def test_a_key_covers_the_versions_of_its_libraries(monkeypatch, code, libraries):
    key = code()
    for library in {"datasets", "datasketch", "matplotlib", *libraries}:
        monkeypatch.setattr(cache, "version", lambda name, library=library: f"{version(name)}{name == library}")
        changed = code()
        monkeypatch.setattr(cache, "version", lambda name: f"{version(name)}False")
        assert (changed != code()) is (library in libraries), library
    monkeypatch.undo()
    assert code() == key


def test_other_code_computes_its_own_results(change, tmp_path):
    Dataset.from_dict({"text": ["a", "b"]}).to_parquet(tmp_path / "rows.parquet")
    rows = Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "datasets"))

    def upper(batch):
        return {"text": [text.upper() for text in batch["text"]]}

    def lower(batch):
        return {"text": [text.lower() for text in batch["text"]]}

    lower.__name__ = upper.__name__
    salt = str(random.random())

    def results(function, value):
        code = batches_module.code()
        return [
            *map_batches(rows, function, "Mapping")["text"][:],
            cached_value("test", lambda: value, code, salt, ["a"]),
        ]

    assert results(upper, "one") == ["A", "B", "one"]
    assert results(lower, "two") == ["A", "B", "one"]
    change(columns, "simplify it", "make it simpler")
    assert results(lower, "two") == ["A", "B", "one"]
    change(columns, "whole[:longest]", "whole[: longest - 1]")
    assert results(lower, "two") == ["a", "b", "two"]


def test_unwritable_texts_are_counted_again_by_other_code(change, monkeypatch, tmp_path):
    tokens = load_tokens(pin("model", "google/flan-t5-large", "main"), [])
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    first = audit(tokens, ["a < b"])

    def never(*args):
        raise AssertionError("counted again")

    monkeypatch.setattr(tokenizer, "_audit", never)
    change(tokenizer, "is not a T5's", "is another model's")
    assert audit(tokens, ["a < b"]) == first
    change(tokenizer, "MOST_FREQUENT = 20", "MOST_FREQUENT = 10")
    with pytest.raises(AssertionError, match="counted again"):
        audit(tokens, ["a < b"])


def test_what_is_remembered_depends_on_every_text_and_where_it_ends(monkeypatch):
    monkeypatch.setattr(cache, "BATCH", 2)
    draws = iter(range(100))
    given = [([["ab", "c", "d"]], ""), ([["a", "bc", "d"]], ""), ([["ab", "c"], ["d"]], ""), ([["ab", "c", "d"]], "x"),
             ([["ab", "c", "e"]], ""), ([["ab", "c", "\ud800"]], "")]  # fmt: skip
    salt = str(random.random())
    first = [cached_value("test", lambda: next(draws), "code", settings + salt, *texts) for texts, settings in given]
    assert first == list(range(6))
    again = [cached_value("test", lambda: next(draws), "code", settings + salt, *texts) for texts, settings in given]
    assert again == first


@pytest.mark.parametrize("torn", [b"", b"short", bytes(40)])
def test_a_torn_file_is_made_again(tmp_path, monkeypatch, torn):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    assert cached_bytes("test", lambda: b"made", "key") == b"made"
    (file,) = (tmp_path / "values").iterdir()
    whole = file.read_bytes()
    file.write_bytes(torn)
    assert cached_bytes("test", lambda: b"made", "key") == b"made" and file.read_bytes() == whole
    assert cached_bytes("test", lambda: b"other", "key") == b"made"
    assert list((tmp_path / "values").iterdir()) == [file]


def test_many_rows_have_the_ids_that_encode_gives():
    # Worker processes, which many rows were given once, read the scores again, and ties fell otherwise.
    tokens = load_tokens(pin("model", "google/flan-t5-large", "main"), ["<"])
    draw = random.Random(1)
    texts = ["------------|--------------------|------", "x <> y", " two  spaces\n\nand\ta line ", "</s>a e\u0301", ""]
    texts += ["".join(draw.choices("ab-| \n\u3000<", k=12)) for _ in range(200)]
    rows = Dataset.from_dict({"prompt": texts * 60, "target": texts[::-1] * 60})
    assert len(rows) > BATCH
    made = tokenize(rows, tokens)
    ids = [tokens.encode(text).ids for text in texts]
    assert made["input_ids"][:] == ids * 60 and made["labels"][:] == ids[::-1] * 60


def test_references_are_read_batch_by_batch(monkeypatch):
    recipe = parse_recipe(["--config", "recipes/finance.yaml"]).arguments
    tokens = load_tokens(pin("model", "google/flan-t5-large", "main"), [])
    splits = build_splits(recipe, pin("dataset", recipe.dataset_name, "main"), tokens)
    column = references(splits)
    whole = [text for rows in (splits.train, splits.validation, splits.test) for text in rows["target"][:]]
    monkeypatch.setattr(cache, "BATCH", 7)
    assert [text for batch in batches(column) for text in batch] == whole and len(column) == len(whole)
    assert audit(tokens, column) == audit(tokens, whole)
    assert rows_sha256(splits.test) == splits.counts.test_sha256
