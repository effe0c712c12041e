"""A sweep: runs of one recipe with other settings, of which one is published. The record lists the scores of all."""

import statistics
from typing import Annotated

from pydantic import Field, model_validator

from record.field_types import Amount, Line, Positive, Section, Sha256
from record.scores import METRICS, Figure, Metric

# Combinations of one sweep, and keys that differ between them.
LARGEST_SWEEP, MOST_KEYS = 1_000, 10
SEED = "seed"


class SweptRun(Section):
    """One scored run: its values of the swept keys, as text; its `validation_loss` in nats a target token, None where
    none was taken; and its means over the test rows by the metrics that decide."""

    settings: Annotated[dict[Line, Line], Field(min_length=1, max_length=MOST_KEYS)]
    adapter_sha256: Sha256
    validation_loss: Amount | None = None
    scores: Annotated[dict[Metric, Figure], Field(min_length=1)]

    def others(self) -> dict[str, str]:
        """Its settings but for the seed."""
        return {key: value for key, value in self.settings.items() if key != SEED}


class Sweep(Section):
    """The scored runs of a sweep over so many `combinations`; those that are not listed were not trained and scored to
    their end when the record was written."""

    combinations: Positive
    runs: Annotated[list[SweptRun], Field(min_length=1, max_length=LARGEST_SWEEP)]

    @model_validator(mode="after")
    def alike(self) -> "Sweep":
        first = self.runs[0]
        if any(run.settings.keys() != first.settings.keys() for run in self.runs):
            raise ValueError("runs of one sweep have settings of the same keys")
        if any(run.scores.keys() != first.scores.keys() for run in self.runs):
            raise ValueError("runs of one sweep are scored by the same metrics")
        if len({tuple(sorted(run.settings.items())) for run in self.runs}) < len(self.runs):
            raise ValueError("a sweep lists settings twice")
        if len(self.runs) > self.combinations:
            raise ValueError("a sweep lists more runs than it has combinations")
        return self

    def loss_place(self, run: SweptRun) -> int | None:
        """The place of a run's validation loss among those of all runs, 1 the lowest; None where one has none."""
        losses = [other.validation_loss for other in self.runs if other.validation_loss is not None]
        if run.validation_loss is None or len(losses) < len(self.runs):
            return None
        return 1 + sum(loss < run.validation_loss for loss in losses)

    def score_place(self, run: SweptRun, metric: Metric) -> int:
        """The place of a run's score among those of all runs, 1 the best."""
        sign = -1 if METRICS[metric].lower_is_better else 1
        return 1 + sum(sign * (other.scores[metric] - run.scores[metric]) > 0 for other in self.runs)

    def seeds_of(self, run: SweptRun) -> list[SweptRun]:
        """The runs that differ from it in nothing but the seed, itself among them."""
        return [other for other in self.runs if other.others() == run.others()]


def settings_text(settings: dict[str, str]) -> str:
    """Settings in one line."""
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def mean_and_deviation(values: list[float]) -> tuple[float, float | None]:
    """The mean, and the standard deviation of a sample (divided by n - 1); None of a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
