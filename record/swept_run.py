"""What a sweep states of a run, taken from the run's own record."""

from typing import Any

from record.run_record import Record
from record.scored_record import ScoredRecord, require_scores
from record.sweep import SweptRun, settings_text


def swept_run(record: ScoredRecord, keys: list[str]) -> SweptRun:
    """What a sweep over `keys` lists of the record's run."""
    metrics = record.contract.deciding(record.scores.adapter)
    return SweptRun(
        settings={key: as_text(dict(record.recipe).get(key)) for key in keys},
        adapter_sha256=record.training.adapter_sha256,
        validation_loss=record.training.validation_loss,
        scores={metric: record.scores.adapter[metric].mean for metric in metrics},
    )


def own_run(record: Record) -> SweptRun | None:
    """The record's run among those of its sweep; None without a sweep, or where that does not list the run as it is.

    Raises:
        `UserError`: the record holds no scores.
    """
    if record.sweep is None:
        return None
    run = swept_run(require_scores(record), list(record.sweep.runs[0].settings))
    return run if run in record.sweep.runs else None


def run_label(record: Record, name: str) -> str:
    """The run's `name`; of a swept run with its settings, which alone tell it from the others."""
    digest = record.training and record.training.adapter_sha256
    runs = [] if record.sweep is None else record.sweep.runs
    settings = next((run.settings for run in runs if run.adapter_sha256 == digest), {})
    return f"{name} ({settings_text(settings)})" if settings else name


def as_text(value: Any) -> str:
    """A recipe's value as tables show it."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
