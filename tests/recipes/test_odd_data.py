"""Data as people have them: odd cells and odd files, each with the rows that come of it, or the line that refuses it.

Nothing here is trained: the splits are built from a dataset's repository, as training builds them.
"""

import datetime
import hashlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Image, Value
from huggingface_hub import CommitOperationAdd, HfApi
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from evaluation.checks import rebuild_splits
from evaluation.findings import Drift
from hub.pins import pin
from recipes.config import RecipeArguments
from recipes.data.columns import cut
from recipes.data.splits import build_splits, references
from recipes.data.tokenizer import audit, load_tokens
from record.errors import UserError
from record.release_files import RECORD_FILE
from record.run_record import Pin, load_record

ROWS = 6
# Ids and commits of the repositories made so far.
REPOS = []
PAIRS = [{"q": f"question {n}", "a": f"answer {n}"} for n in range(ROWS)]
TARGETS = [row["a"] for row in PAIRS]


@pytest.fixture(scope="module")
def tokenizer():
    """A token a letter, and a final `</s>`."""
    letters = Tokenizer(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), *((chr(n), -1.0) for n in range(33, 127))], 0))
    letters.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    letters.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return letters


def jsonl(*cells, column="a"):
    """Rows of the column's cells; a cell of `...` is left out."""
    rows = [{"q": f"question {n}"} | ({} if cell is ... else {column: cell}) for n, cell in enumerate(cells)]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def csv(*cells, head="q,a", end="\n"):
    return end.join([head, *(f"question {n},{cell}" for n, cell in enumerate(cells)), ""]).encode()


def parquet(cells, kind=None):
    column = pa.array(cells) if kind is None else pa.array(cells, kind)
    table = pa.table({"q": [f"question {n}" for n in range(len(cells))], "a": column})
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def with_kind(cells, feature):
    """Parquet whose own metadata say what a column is, as `datasets` writes them."""
    features = Features({"q": Value("string"), "a": feature})
    questions = [f"question {n}" for n in range(len(cells))]
    table = pa.table({"q": questions, "a": pa.array(cells, features.arrow_schema.field("a").type)})
    file = io.BytesIO()
    pq.write_table(table.cast(features.arrow_schema), file)
    return file.getvalue()


def splits_of(files, folder, tokenizer, rules=2, **keys):
    """The splits of a dataset of these files, by name; `keys` of the recipe."""
    repo = f"local-user/odd-{hashlib.sha256(str(files).encode()).hexdigest()[:12]}"
    HfApi().create_repo(repo, repo_type="dataset", exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    operations = [CommitOperationAdd(name, folder / name) for name in files]
    commit = HfApi().create_commit(repo, operations, commit_message="odd", repo_type="dataset").oid
    REPOS.append((repo, commit))
    recipe = {"title": "t", "adapter_name": "a", "dataset_name": repo, "prompt": ["{q}"], "target": "{a}"}
    arguments = RecipeArguments(**(recipe | {"validation_size": 0} | keys))
    return build_splits(arguments, Pin(kind="dataset", id=repo, revision=commit), tokenizer, rules)


def targets_of(splits):
    rows = [(row["prompt"], row["target"]) for part in (splits.train, splits.test) for row in part]
    return [target for _, target in sorted(rows)]


# Files or cells, keys of the recipe, the targets in the order of the questions, and what is dropped.
READ = {
    "jsonl": ({"a.jsonl": jsonl(*TARGETS)}, {}, TARGETS, {}),
    "json, a list": ({"a.json": json.dumps(PAIRS).encode()}, {}, TARGETS, {}),
    "json with a byte order mark": ({"a.jsonl": b"\xef\xbb\xbf" + jsonl(*TARGETS)}, {}, TARGETS, {}),
    "csv": ({"a.csv": csv(*TARGETS)}, {}, TARGETS, {}),
    "csv with a byte order mark": ({"a.csv": b"\xef\xbb\xbf" + csv(*TARGETS)}, {}, TARGETS, {}),
    "csv with Windows line ends": ({"a.csv": csv(*TARGETS, end="\r\n")}, {}, TARGETS, {}),
    "csv, quoted": ({"a.csv": csv('"a, b"', '"say ""no"""', '"two\nlines"')}, {},
                    ["a, b", 'say "no"', "two\nlines"], {}),
    "tsv": ({"a.tsv": csv(*TARGETS).replace(b",", b"\t")}, {}, TARGETS, {}),
    "parquet": ({"a.parquet": parquet(TARGETS)}, {}, TARGETS, {}),
    "csv, words for nothing": ({"a.csv": csv("NA", "null", "None", "nan", "N/A", "")}, {},
                               ["NA", "null", "None", "nan", "N/A"], {"empty target": 1}),
    "csv, integers with gaps": ({"a.csv": csv(1, "", 3, "", 5, 6)}, {}, ["1", "3", "5", "6"], {"empty target": 2}),
    "csv, leading zeros": ({"a.csv": csv("007", "010", "1")}, {}, ["007", "010", "1"], {}),
    "csv, fractions as written": ({"a.csv": csv("1.50", "2.0", "1e3")}, {}, ["1.50", "2.0", "1e3"], {}),
    "csv, truth as written": ({"a.csv": csv("true", "FALSE", "yes")}, {}, ["true", "FALSE", "yes"], {}),
    "csv, numbers at first and words far on": (
        {"a.csv": csv(*range(10_050), "word")}, {}, None, {}),
    "csv whose card speaks of numbers": (
        {"a.csv": csv("007", "NA", ""), "README.md":
         b"---\ndataset_info:\n  features:\n  - {name: q, dtype: string}\n  - {name: a, dtype: int64}\n---\n"},
        {}, ["007", "NA"], {"empty target": 1}),
    "csv, a column's name with a space": ({"a.csv": csv(*TARGETS, head="q,the answer")}, {"target": "{the answer}"},
                                          TARGETS, {}),
    "csv, a column's name with a dot": ({"a.csv": csv(*TARGETS, head="q,a.b")}, {"target": "{a.b}"}, TARGETS, {}),
    "null": ({"a.jsonl": jsonl("x", None, "y")}, {}, ["x", "y"], {"empty target": 1}),
    "left out": ({"a.jsonl": jsonl("x", ..., "y")}, {}, ["x", "y"], {"empty target": 1}),
    "white space only": ({"a.jsonl": jsonl("x", " \n\t ", "y", "")}, {}, ["x", "y"], {"empty target": 2}),
    "words of the template are no target": ({"a.jsonl": jsonl("x", "", "y")}, {"target": "Answer: {a}"},
                                            ["Answer: x", "Answer: y"], {"empty target": 1}),
    "a target of two columns, one empty": ({"a.jsonl": jsonl("x", "", "y")}, {"target": "{q}: {a}"},
                                           ["question 0: x", "question 1:", "question 2: y"], {}),
    "an empty prompt": ({"a.jsonl": b'{"q": "", "a": "x"}\n{"q": null, "a": "y"}\n' + jsonl("z", "w")}, {},
                        ["z", "w"], {"empty prompt": 2}),
    "a test split without answers": (
        {"train.jsonl": jsonl("x", "y", "z"), "test.jsonl": jsonl(None, None)}, {}, ["x", "y", "z"],
        {"empty target": 2}),
    "integers": ({"a.jsonl": jsonl(1, 20, 3)}, {}, ["1", "20", "3"], {}),
    "integers with gaps": ({"a.jsonl": jsonl(1, None, 3)}, {}, ["1", "3"], {"empty target": 1}),
    "integers with gaps in a list": ({"a.json": json.dumps([{"q": str(n), "a": n if n else None} for n in range(3)])
                                      .encode()}, {}, ["1", "2"], {"empty target": 1}),
    "fractions": ({"a.jsonl": jsonl(0.5, 1.25, 2.0)}, {}, ["0.5", "1.25", "2.0"], {}),
    "zero is a target": ({"a.jsonl": jsonl(0, 1, 0)}, {}, ["0", "1", "0"], {}),
    "truth": ({"a.jsonl": jsonl(True, False)}, {}, ["True", "False"], {}),
    "numbers among texts": ({"a.jsonl": jsonl("x", 2, "y")}, {}, ["x", "2", "y"], {}),
    "no number": ({"a.parquet": parquet([0.5, float("nan"), 2.0])}, {}, ["0.5", "2.0"], {"empty target": 1}),
    "a date": ({"a.parquet": parquet([datetime.date(2020, 1, n) for n in (1, 2)])}, {}, ["2020-01-01", "2020-01-02"],
               {}),
    "classes": ({"a.parquet": with_kind([0, 1, -1, None], ClassLabel(names=["bad", "good"]))}, {}, ["bad", "good"],
                {"empty target": 2}),
    "an item of a list": ({"a.jsonl": jsonl(["x", "y"], ["z"], [])}, {"target": "{a.0}"}, ["x", "z"],
                          {"empty target": 1}),
    "a part of an object": ({"a.jsonl": jsonl({"text": ["x"]}, {"text": ["y"]}, None)}, {"target": "{a.text.0}"},
                            ["x", "y"], {"empty target": 1}),
    "an item that only some rows have": ({"a.jsonl": jsonl(["x", "y"], ["z", "w"], ["v"])}, {"target": "{a.1}"},
                                         ["y", "w"], {"empty target": 1}),
    "a pattern on numbers": ({"a.jsonl": jsonl(17, 250, 3)}, {"extract": {"a": "(?P<x>..+)"}, "target": "{x}"},
                             ["17", "250"], {"extract: no match in a": 1}),
    "a pattern on fractions with gaps": ({"a.jsonl": jsonl(0.5, None, 1.5)},
                                         {"extract": {"a": "(?P<x>.+)"}, "target": "{x}"}, ["0.5", "1.5"],
                                         {"extract: no match in a": 1}),
    "a rule for the short": ({"a.jsonl": jsonl("x", "yy", "zzz")}, {"length_rules": ["drop characters(a) < 2"]},
                             ["yy", "zzz"], {"drop characters(a) < 2": 1}),
    "chinese": ({"a.jsonl": jsonl("今天天气很好。", "我喜欢")}, {}, ["今天天气很好。", "我喜欢"], {}),
    "line separators within": ({"a.jsonl": jsonl("x\u2028y", "z\x85w")}, {}, ["x\u2028y", "z\x85w"], {}),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_what_comes_of_odd_cells(case, tokenizer, tmp_path):
    files, keys, targets, dropped = READ[case]
    splits = splits_of(files, tmp_path, tokenizer, **keys)
    assert splits.counts.dropped == dropped
    if targets is None:
        targets = sorted([*map(str, range(10_050)), "word"])
        assert sorted(targets_of(splits)) == targets
    else:
        assert targets_of(splits) == targets
    assert splits.counts.loaded == len(targets) + sum(dropped.values())


REFUSED = {
    "nothing but empty targets": ({"a.jsonl": jsonl("", " ", None)}, {},
                                  "no row of .* has both a prompt and a target (empty target: 3)"),
    "one row left": ({"a.jsonl": jsonl("x", "", None)}, {}, "1 of 3 rows of "),
    "a list": ({"a.jsonl": jsonl(["x"], ["y"])}, {},
               "`a` is no text but a list: name an item of it, the first is {a.0}"),
    "an object": ({"a.jsonl": jsonl({"x": "1", "y": "2"}, {"x": "3", "y": "4"})}, {},
                  "`a` is no text but has parts: name one of {a.x}, {a.y}"),
    "a list within an object": ({"a.jsonl": jsonl({"x": ["1"]}, {"x": ["3"]})}, {"target": "{a.x}"},
                                "`a.x` is no text but a list: name an item of it, the first is {a.x.0}"),
    "a part that is not there": ({"a.jsonl": jsonl({"x": "1"}, {"x": "2"})}, {"target": "{a.z}"},
                                 "`a` has no part `z` but has parts: name one of {a.x}"),
    "a part of a text": ({"a.jsonl": jsonl("x", "y")}, {"target": "{a.0}"}, "`a` has no part `0`"),
    "a list among texts": ({"a.jsonl": jsonl("x", ["y"], "z")}, {}, "`a` of one row is a list, of others a text"),
    "a pattern on lists": ({"a.jsonl": jsonl(["x"], ["y"])}, {"extract": {"a": "(?P<x>.+)"}, "target": "{x}"},
                           "`a` is no text but a list"),
    "bytes": ({"a.parquet": parquet([b"x", b"y"])}, {}, "`a` holds Value, no text"),
    "pictures": ({"a.parquet": with_kind([None, None], Image())}, {}, "`a` holds Image, no text"),
    "a column that is not there": ({"a.jsonl": jsonl("x", "y")}, {"target": "{b}"}, "has no column `b`, but q, a: "),
    "a column cut after it was used": ({"a.jsonl": jsonl("x", "y")}, {"length_rules": ["truncate words(a) > 1"]},
                                       "comes after the prompt is filled: cut `prompt` or `target`"),
    "csv with more cells than columns": ({"a.csv": csv("x", "y, z, w")}, {}, "Expected 2 fields in line 3, saw 4"),
    "csv in latin-1": ({"a.csv": "q,a\nx,ä\ny,ö\n".encode("latin-1")}, {}, "save the file as UTF-8"),
    "json cut off": ({"a.jsonl": jsonl("x", "y")[:-8]}, {}, "cannot be loaded: "),
    "an empty file": ({"a.csv": b""}, {}, "cannot be loaded: No columns to parse from file"),
    "splits of other columns": ({"train.jsonl": jsonl("x"), "test.jsonl": jsonl("y", column="b")}, {}, "column"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_with_one_line(case, tokenizer, tmp_path):
    files, keys, line = REFUSED[case]
    with pytest.raises(UserError) as refusal:
        splits_of(files, tmp_path, tokenizer, **keys)
    before, _, after = line.partition(".*")
    text = str(refusal.value)
    assert before in text and after in text and "\n" not in text, text
    assert "An error occurred while" not in text


# How the rows of records before version 5 came out, and still do.
FIRST = {
    "csv, words for nothing": (READ["csv, words for nothing"][0], ["", "", "", "", "", ""]),
    "csv, integers with gaps": (READ["csv, integers with gaps"][0], ["1.0", "", "3.0", "", "5.0", "6.0"]),
    "csv, leading zeros": (READ["csv, leading zeros"][0], ["7", "10", "1"]),
    "lists": ({"a.jsonl": jsonl(["x"], ["y"], [])}, ["['x']", "['y']", "[]"]),
    "no number": (READ["no number"][0], ["0.5", "nan", "2.0"]),
    "classes": ({"a.parquet": with_kind([0, 1, -1], ClassLabel(names=["bad", "good"]))}, ["0", "1", "-1"]),
    "empty": (READ["white space only"][0], ["x", "", "y", ""]),
}


@pytest.mark.parametrize("case", FIRST)
def test_rows_by_the_first_rules_stay_as_they_were(case, tokenizer, tmp_path):
    files, targets = FIRST[case]
    splits = splits_of(files, tmp_path, tokenizer, rules=1)
    assert targets_of(splits) == targets and splits.counts.dropped == {} and splits.counts.rules == 1


def test_a_record_before_version_5_is_checked_by_the_first_rules(tmp_path):
    tokens = load_tokens(pin("model", "google/flan-t5-large", "main"), [])
    keys = {"prompt": ["{q}"], "target": "{a}", "validation_size": 0, "length_rules": ["truncate tokens(prompt) > 4"]}
    files = {"a.csv": csv("NA", "1", "", "3", "4", "5")}
    splits = splits_of(files, tmp_path, tokens, rules=1, **keys)
    old = json.loads(Path("tests/record/records/version-4.json").read_text())
    repo, commit = REPOS[-1]
    old["recipe"] = {"title": "t", "adapter_name": "a", "dataset_name": repo, **keys}
    old["pins"]["dataset"] |= {"id": repo, "revision": commit}
    old["data"] = splits.counts.model_dump(exclude={"rules"})
    old["unwritable"] = audit(tokens, references(splits)).model_dump()
    (tmp_path / RECORD_FILE).write_text(json.dumps(old))
    record = load_record(tmp_path)
    assert rebuild_splits(record, tokens).counts == splits.counts == record.data
    record.data.rules = 2
    with pytest.raises(Drift, match="gives other rows than the record states"):
        rebuild_splits(record, tokens)


def test_a_cut_text_has_at_most_the_tokens_of_its_rule():
    tokens = load_tokens(pin("model", "google/flan-t5-large", "main"), [])
    words = "unbelievably counterintuitive refinancing, ﬁne ½ SELECT <name> FROM 'überweisungen' 今天 e\u0301a"
    texts = [words[start:] for start in range(0, 60, 7)]
    longer = {1: 0, 2: 0}
    for longest in range(2, 40):
        for rules in longer:
            short = cut({"prompt": texts}, "prompt", "tokens", longest, tokens, rules)["prompt"]
            counts = [len(tokens.encode(text).ids) for text in short]
            longer[rules] += sum(count > longest for count in counts)
            assert all(text.startswith(start) for text, start in zip(texts, short, strict=True))
            if rules == 2:
                # No more is cut off than must be: 8 tokens are one word here.
                assert all(
                    longest - count < 8 or text == start
                    for text, start, count in zip(texts, short, counts, strict=True)
                )
    assert longer[2] == 0 < longer[1]
