"""Concerns: each is told of a run that gives reason for it, with its number, and of no other."""

from dataclasses import replace

import pytest

from model_cards.card import front_matter
from record.run_record import Lengths
from record.scores import Baseline, Interval
from record.sweep import Sweep
from record.swept_run import swept_run
from scoring.concerns import find_concerns, one_letter_apart
from scoring.scores import score_predictions

ROWS = 120


@pytest.fixture
def sound(record, predictions):
    """A run of 120 rows that nothing speaks against."""
    numbers = range(ROWS)
    rows = replace(
        predictions,
        prompt=[f"What is item {number}?" for number in numbers],
        reference=[f"It is thing {number + 7000}." for number in numbers],
        base=["?"] * ROWS,
        adapter=["It is."] * ROWS,
        seen=[""] * ROWS,
        schema=[""] * ROWS,
    )
    record.data.dropped = {}
    scores = record.scores
    scores.rows, scores.seen = ROWS, {"exact": 0, "near": 0}
    scores.base_outputs.cut = 0
    for name in scores.difference:
        scores.difference[name] = Interval(mean=0.3, low=0.25, high=0.35)
    assert find_concerns(record, rows) == []
    return record, rows


def target_column(record, rows):
    record.recipe["prompt"] = ["{instruction} Hint: {output}", "{instruction}"]
    return rows


def verbatim(record, rows):
    return replace(rows, prompt=[f"{prompt} {reference}" for prompt, reference in zip(rows.prompt, rows.reference)])  # noqa: B905


def rule(record, rows):
    record.data.dropped = {"drop characters(output) >= 512": 11, "drop characters(instruction + input) >= 512": 3}
    return rows


def extracted(record, rows):
    record.recipe["extract"] = {"text": "(?P<output>.+)"}
    record.data.dropped = {"extract: no match in text": 2}
    return rows


def few(record, rows):
    record.scores.rows = 99
    return rows


def wide(record, rows):
    record.scores.difference["rougeL"] = Interval(mean=0.01, low=-0.01, high=0.03)
    return rows


def cut(record, rows):
    record.scores.base_outputs.cut = 12
    return rows


def short(record, rows):
    record.data.lengths = {"reference": Lengths(min=1, mean=2, max=9, p99=8)}
    return rows


def base(name):
    def change(record, rows):
        record.pins.base_model.id = name
        return rows

    return change


def chosen(record, rows):
    record.recipe["select_on_test"] = True
    return rows


def best_of(losses):
    """A run that is the best by score of two more, with these validation losses of its own and of theirs."""

    def change(record, rows):
        own = swept_run(record, ["seed"]).model_copy(update={"validation_loss": record.training.validation_loss})
        runs = [own]
        for seed, loss in enumerate(losses):
            worse = {metric: score - 0.1 for metric, score in own.scores.items()}
            update = {"settings": {"seed": str(seed)}, "scores": worse, "validation_loss": loss}
            runs.append(own.model_copy(update=update))
        record.sweep = Sweep(combinations=3, runs=runs)
        return rows

    return change


def seen(record, rows):
    record.scores.seen = {"exact": 1, "near": 1}
    return rows


def same(record, rows):
    return replace(rows, adapter=rows.base)


def cyrillic(record, rows):
    return replace(rows, reference=[f"Это вещь {number}." for number in range(ROWS)])


def nearest(record, rows):
    scores = {name: Interval(mean=0.2, low=0.1, high=0.3) for name in record.scores.adapter}
    difference = {name: Interval(mean=0.1, low=-0.01, high=0.2) for name in scores}
    record.baselines = {"nearest": Baseline(scores=scores, difference=difference)}
    return rows


def no_tables(record, rows):
    record.contract.sql, record.contract.sql_rules, record.contract.without_rows = "sqlglot, SQLite", 2, "absent"
    rows = replace(rows, schema=["no tables"] * ROWS, reference=["SELECT a FROM t"] * ROWS, base_tokens=[[1]] * ROWS,
                   adapter_tokens=[[1]] * ROWS)  # fmt: skip
    difference = record.scores.difference
    record.scores = score_predictions(rows, record.contract, 1.0, 1.0)
    record.scores.difference = difference
    assert record.scores.sql.not_executable == ROWS and "sql_exact_match" in record.scores.adapter
    metadata = front_matter(record, "owner/name").to_yaml()
    assert "SQL exact match" in metadata and "SQL execution match" not in metadata
    return rows


def parent(verdict):
    def change(record, rows):
        theirs = record.leakage[0].model_copy(update={"adapter": f"someone/parent@{'a' * 40}", "verdict": verdict})
        record.leakage = [*record.leakage, theirs]
        return rows

    return change


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (target_column, "the prompt holds `output`, which the model is to write"),
        (
            verbatim,
            "stands word for word in the prompt of 120 of 120 (100.0 %) test rows; in prompts of other rows 0 do",
        ),
        (rule, "`drop characters(output) >= 512` selects rows by their target: it dropped 11 of 22 (50.0 %)"),
        (extracted, "`extract` of text selects rows by their target: it dropped 2 of 22 (9.1 %)"),
        (few, "there are only 99 test rows"),
        (wide, "ROUGE-L: the interval of the difference is 0.0400 wide, the difference itself 0.0100"),
        (cut, "12 of 120 (10.0 %) outputs of the base model were cut at 3 tokens"),
        (short, "outputs end at 3 tokens, and 1 % of the references are longer than 8 tokens"),
        (base("google/fIan-t5-large"), "is written almost as google/flan-t5-large, and is another one"),
        (base("g00gle/flan-t5-large"), "is written almost as google/flan-t5-large, and is another one"),
        (base("google/flan-t5-larg"), "is written almost as google/flan-t5-large, and is another one"),
        (base("someone/flan-t5-large"), "the base model someone/flan-t5-large is not one of the"),
        (chosen, "the published step was chosen by the loss on the 120 test rows themselves"),
        (best_of([1.0, 3.0]), "it is the best of 3 runs by ROUGE-L on the test rows, and not by its validation loss"),
        (best_of([3.0, None]), "it is the best of 3 runs by ROUGE-L on the test rows, and not by its validation loss"),
        (seen, "2 of 120 (1.7 %) test rows are in the training data"),
        (
            parent(None),
            "the release of someone/parent@aaaaaaaaaaaa, which it continues, carries no verdict: what it was",
        ),
        (parent("DRIFTED at level score"), "which it continues, says DRIFTED at level score of itself"),
        (cyrillic, "of the references' letters. Set `rouge_tokenizer: characters`"),
        (same, "all 120 outputs of the adapter are those of the base model"),
        (no_tables, "SQL execution match is not stated: it applies to none of the 120 test rows"),
        (nearest, "is not shown to be better than 0.200, which the target of the nearest training input scores"),
    ],
)
def test_each_reason_is_told_with_its_number(sound, change, line):
    record, rows = sound
    concerns = find_concerns(record, change(record, rows))
    # Where the base is another one, the adapter's name names it still.
    (concern,) = [concern for concern in concerns if not concern.startswith("the adapter's name says ")]
    assert line in concern


def test_a_parent_that_is_reproduced_is_no_concern(sound):
    record, rows = sound
    assert find_concerns(record, parent("REPRODUCED at level generate")(record, rows)) == []


def test_the_best_of_a_sweep_that_has_the_lowest_validation_loss_too_is_no_concern(sound):
    record, rows = sound
    assert find_concerns(record, best_of([2.0, 3.0])(record, rows)) == []


def test_references_in_prompts_by_chance_are_no_concern(sound):
    record, rows = sound
    rows = replace(rows, reference=["yes"] * ROWS, prompt=["Answer yes or no: is it?"] * ROWS)
    assert find_concerns(record, rows) == []


@pytest.mark.parametrize("other", ["loan", "loXn", "lon", "loans", "Xloan", "LOAN"])
def test_one_letter_apart(other):
    assert one_letter_apart("loan", other) and one_letter_apart(other, "loan")


@pytest.mark.parametrize("other", ["loXX", "lXaX", "loanees", "lo"])
def test_more_than_one_letter_apart(other):
    assert not one_letter_apart("loan", other) and not one_letter_apart(other, "loan")
