"""A second run re-does nothing, and nothing stale is ever taken for its result."""

import os
import random
import subprocess
import sys

import pytest
from datasets import Dataset
from huggingface_hub import constants

from hub.pins import pin
from recipes.config import parse_recipe
from recipes.data.batches import map_batches
from recipes.data.splits import build_splits, references, rows_sha256, tokenize
from recipes.data.tokenizer import audit, load_tokens
from record import cache
from record.cache import BATCH, batches, cached_bytes, cached_value

# Prepares a recipe's data in a process of its own; with `never`, whatever would read the texts again fails.
PREPARE = """
import sys
from recipes.data import lineage, splits, tokenizer as tokens
from recipes.config import parse_recipe
from hub.pins import pin
from types import SimpleNamespace

def never(*args, **kwargs):
    raise AssertionError("done again")

if sys.argv[2] == "again":
    for module, name in ((splits, "_fill"), (splits, "_groups"), (splits, "_measure"), (splits, "_tokenize"),
                         (splits, "groups"), (lineage, "compare"), (tokens, "_audit")):
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
print(lineage.find_seen_rows(made, SimpleNamespace(dataset=dataset, parent_adapter=None)))
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


def test_other_code_makes_its_own_results(monkeypatch):
    rows = Dataset.from_dict({"text": ["a", "b"]})

    def upper(batch):
        return {"text": [text.upper() for text in batch["text"]]}

    def lower(batch):
        return {"text": [text.lower() for text in batch["text"]]}

    lower.__name__ = upper.__name__
    made = {}
    for function, version in ((upper, "one"), (lower, "two")):
        monkeypatch.setattr(cache, "code", lambda version=version: version)
        made[version] = map_batches(rows, function, "Mapping")["text"][:]
        made[version] += [cached_value("test", lambda version=version: version, "", ["a"])]
    assert made == {"one": ["A", "B", "one"], "two": ["a", "b", "two"]}


def test_what_is_remembered_depends_on_every_text_and_where_it_ends(monkeypatch):
    monkeypatch.setattr(cache, "BATCH", 2)
    draws = iter(range(100))
    given = [([["ab", "c", "d"]], ""), ([["a", "bc", "d"]], ""), ([["ab", "c"], ["d"]], ""), ([["ab", "c", "d"]], "x"),
             ([["ab", "c", "e"]], ""), ([["ab", "c", "\ud800"]], "")]  # fmt: skip
    salt = str(random.random())
    first = [cached_value("test", lambda: next(draws), settings + salt, *columns) for columns, settings in given]
    assert first == list(range(6))
    again = [cached_value("test", lambda: next(draws), settings + salt, *columns) for columns, settings in given]
    assert again == first


@pytest.mark.parametrize("torn", [b"", b"short", bytes(40)])
def test_a_torn_file_is_made_anew(tmp_path, monkeypatch, torn):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    assert cached_bytes("test", lambda: b"made", "key") == b"made"
    (file,) = (tmp_path / "kept").iterdir()
    whole = file.read_bytes()
    file.write_bytes(torn)
    assert cached_bytes("test", lambda: b"made", "key") == b"made" and file.read_bytes() == whole
    assert cached_bytes("test", lambda: b"other", "key") == b"made"
    assert list((tmp_path / "kept").iterdir()) == [file]


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
