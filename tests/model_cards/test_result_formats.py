"""A run scored by every metric, in others' formats: what their own code reads is what its record holds."""

import json

import pytest
from result_files import compare_all, compare_every_eval_ever, compare_lm_eval, convert_lm_eval, export

from model_cards.results.export import command
from record.command_line import run_command
from record.predictions import Predictions
from record.run_record import FilePin, Pin
from record.scores import FAMILIES, OwnDatabases
from scoring.contract import contract_of
from scoring.scores import score_predictions

ROWS = 40
# What breaks lines, quotes and bytes apart in careless writers; the miniature's models write none of it.
ODD = ("a\u2028b", 'say "no"\\', "两匹马 🐎", "tab\tand\nline", "", "\x85")
TABLES = "CREATE TABLE farm (id INTEGER, horses INTEGER)"


@pytest.fixture
def predictions():
    """Right, wrong and odd outputs; two references a row, every third of them no query that runs."""
    queries = [f"SELECT horses FROM {'farm' if row % 3 else 'nothing'} WHERE id = {row}" for row in range(ROWS)]
    return Predictions(
        prompt=[f"How many horses has farm {row}? {ODD[row % 6]}" for row in range(ROWS)],
        reference=queries,
        schema=[TABLES] * ROWS,
        seen=["exact" if row % 5 == 0 else "" for row in range(ROWS)],
        base=[ODD[row % 6] or query[:20] for row, query in enumerate(queries)],
        adapter=[query if row % 2 else f"{query[:-1]} {ODD[row % 6]}" for row, query in enumerate(queries)],
        base_tokens=[[5, 6]] * ROWS,
        adapter_tokens=[[5, 6, 7]] * ROWS,
        references=[json.dumps([f"{query} LIMIT 1"]) for query in queries],
    )


@pytest.fixture
def run(record, predictions, tmp_path):
    """A scored run in a folder."""
    wanted = SimpleRecipe(list(FAMILIES), "{schema}", "words", "{more}")
    record.contract = contract_of(wanted, "float32", 8).model_copy(update={"max_new_tokens": 3})
    record.scores = score_predictions(predictions, record.contract, 1.0, 2.0)
    clean = record.scores.clean.model_dump()
    record.scores.databases = OwnDatabases(
        **clean, not_executable=1, both=2, base_agree=1, adapter_agree=1, files=1, bytes=1, sha256="9" * 64
    )
    record.pins.parent_adapter = Pin(kind="model", id="somebody/first-stage", revision="7" * 40)
    record.data.test = ROWS
    folder = tmp_path / "finance"
    folder.mkdir()
    record.save(folder)
    predictions.save(folder)
    return folder


class SimpleRecipe:
    """What a contract asks of a recipe."""

    engine, num_beams, max_new_tokens = "transformers", 2, 3

    def __init__(self, metrics, sql_schema, rouge_tokenizer, references):
        self.metrics, self.rouge_tokenizer = metrics, rouge_tokenizer
        self.stated = {"sql_schema": sql_schema, "references": references}

    def metric_families(self):
        return self.metrics

    def templates(self, key):
        return [self.stated[key]]


def test_a_run_of_every_metric_comes_back_from_every_format(run, record, predictions, tmp_path):
    assert set(record.scores.adapter) >= {"rougeL", "bleu", "ter", "squad_f1", "sql_execution_match"}
    compare_all(str(run), tmp_path, record, predictions, ("unpublished/flan-t5-large-finance", None))


def test_every_eval_ever_s_own_converter_reads_what_lm_eval_would_have_written(run, record, tmp_path):
    folder = export(str(run), "lm-eval", tmp_path)
    convert_lm_eval(folder / "unpublished__flan-t5-large-finance", tmp_path / "converted" / "data", record)


def test_no_row_of_files_of_ones_own_stands_in_any_file(run, record, predictions, tmp_path, capsys):
    record.pins.dataset = FilePin(kind="file", id="my-farm.csv", revision="f" * 64)
    record.recipe["dataset_name"] = "/home/me/secret-place/my farm.csv"
    record.save(run)
    own = ("unpublished/flan-t5-large-finance", None)
    compare_every_eval_ever(export(str(run), "every-eval-ever", tmp_path), record, None, own)
    compare_lm_eval(export(str(run), "lm-eval", tmp_path), record, None, own)
    assert capsys.readouterr().out.count("no file of rows is written") == 2
    export(str(run), "aibom", tmp_path)
    written = "".join(
        path.read_text()
        for form in ("every-eval-ever", "lm-eval", "aibom")
        for path in (tmp_path / form).rglob("*")
        if path.is_file()
    )
    assert "secret-place" not in written and "my-farm.csv" in written
    for texts in (predictions.prompt, predictions.reference, predictions.base, predictions.adapter):
        assert not any(json.dumps(text)[1:-1] in written for text in texts if len(text) > 10)


SLIPS = {
    "eval-results": "the Hub's result files name a dataset on the Hub, and my-farm.csv is none: choose another format",
    "other scores": "do not give the rougeL of its record: `pubrep reproduce` says more",
    "not scored": "is not scored yet: run",
    "full": "is not empty: name a new folder",
    "neither": "owner is neither the folder of a run nor an id on the Hub (owner/name)",
}


@pytest.mark.parametrize("slip", SLIPS)
def test_what_cannot_be_exported_is_refused_in_one_line(slip, run, record, tmp_path, capsys):
    into, form = tmp_path / "into", "eval-results" if slip == "eval-results" else "lm-eval"
    if slip == "eval-results":
        record.pins.dataset = FilePin(kind="file", id="my-farm.csv", revision="f" * 64)
    elif slip == "other scores":
        record.scores.adapter["rougeL"].mean += 0.001
    elif slip == "not scored":
        record.scores = None
    elif slip == "full":
        into.mkdir()
        (into / "file").touch()
    record.save(run)
    with pytest.raises(SystemExit):
        run_command(command, ["owner" if slip == "neither" else str(run), "--format", form, "--into", str(into)], "x")
    (line,) = capsys.readouterr().err.splitlines()
    assert SLIPS[slip] in line and line.startswith("error: ")
    assert slip == "full" or not into.exists()
