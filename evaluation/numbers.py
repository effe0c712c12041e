"""The numbers of a release, as they follow from its published predictions and the rows that it pins."""

from pathlib import Path

from tokenizers import Tokenizer

from evaluation.checks import check_baselines, check_leakage, check_rows, check_scores, read_predictions, rebuild_splits
from evaluation.evaluate import baseline_table
from evaluation.findings import Findings, note
from evaluation.own_rows import with_rows
from recipes.data.splits import Splits
from record.predictions import Predictions
from record.run_record import FilePin
from record.scored_record import AnyScored
from record.scores import METRIC_NAMES
from record.signs_of_life import waiting_for


def check_numbers(
    findings: Findings, folder: Path, record: AnyScored, tokens: Tokenizer, data: Path | None = None
) -> tuple[Splits, Predictions]:
    """Rebuilds the test rows, and holds all that follows from them and the published predictions against the record.

    Parameters:
        data: the rows of one's own, where they were not published.
    """
    waiting_for("Rebuilding the test rows")
    splits = rebuild_splits(record, tokens, data)
    predictions = read_predictions(folder, rows=len(splits.test))
    if isinstance(record.pins.dataset, FilePin):
        predictions = with_rows(predictions, splits.test)
    findings.published = predictions
    note(findings, "data", check_rows(record, predictions, splits.test))
    waiting_for("Looking for the test rows among the training rows")
    note(findings, "leakage", check_leakage(record, predictions, splits))
    note(findings, "scoring", check_scores(folder, record, predictions, tokens, splits.test))
    waiting_for("Scoring what answers without a model")
    note(findings, "scoring", check_baselines(record, predictions, splits))
    print(f"\n{baseline_table(record.baselines, record.contract)}\n", flush=True)
    return splits, predictions


def decide_by_numbers(findings: Findings, record: AnyScored) -> None:
    """Where nothing is generated: what was reproduced, and by what."""
    findings.evidence = "numbers"
    findings.reason = (
        f"{leading_score(record)}: every number follows from the published predictions; nothing was generated"
    )


def leading_score(record: AnyScored) -> str:
    """The published score that the recipe names first."""
    leading = record.contract.deciding(record.scores.adapter)[0]
    score = record.scores.adapter[leading]
    return f"{METRIC_NAMES[leading]} {score.figure(score.mean)}"
