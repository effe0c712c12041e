"""What a reproduction found, and the rule that decides on another machine."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, StringConstraints, ValidationError

from evaluation.predictions import PREDICTIONS_FILE, Predictions
from recipes.errors import UserError
from recipes.hashes import sha256_file
from recipes.record import Environment, Interval, Record, Section, Sha1, Sha256

# A release may carry the verdict on an earlier commit of the same adapter and predictions.
VERDICT_FILE = "verdict.json"
MAX_VERDICT_BYTES = 2**20

Level = Literal["score", "generate", "train"]
Part = Literal[
    "signature", "files", "lineage", "data", "leakage", "scoring", "card", "generation", "weights", "training"
]

EVIDENCE = {
    "hashes": "the bytes of the published files, against the sha256 that the record states",
    "numbers": "scores, computed again from the published outputs",
    "tokens": "outputs, generated again and compared token by token",
    "statistics": "what the outputs that differ do to the scores, with intervals",
}
# The scores that decide when outputs differ: the others move with them, and each further test is a further false alarm.
DECIDING = ("rougeL", "sql_execution_match")
# At most four intervals decide (two models, two metrics): each at 1 - .05 / 4, together they hold at 95 % (Bonferroni).
ALPHA = 0.05 / 4
RESAMPLES, CHUNK = 5_000, 500
SEED = 2137
# Floating-point sums may differ in their last bits between machines; a changed number differs in a digit that is shown.
ROUNDING = 1e-9
# Two scores closer than this are the same for all purposes: a fifth of the last digit that papers print in percent.
EQUIVALENCE = 0.002
# Nats by which a written token may fall short of the likeliest. A device that rounds otherwise writes near-ties only:
# the miniature's outputs with all weights in bfloat16 fall short by at most 0.11 in float32, the references, published
# as if they were outputs, by 11 in the median (343 rows of the finance recipe, 12 new tokens).
TIE = 2.0


class Check(Section):
    """One thing that was looked at."""

    part: Part
    outcome: Literal["passed", "failed", "not checked"]
    detail: str


class Change(Section):
    """A mean over the compared rows, as published and now, and the paired difference now − published."""

    model: Literal["base", "adapter"]
    metric: str
    published: float
    now: float
    difference: Interval


class Verdict(Section):
    """The outcome of one reproduction.

    Parameters:
        verdict: REPRODUCED, DRIFTED (what was found is not what was published), or UNCHECKED.
        reason: what was reproduced, moved, or prevented the check, in one line.
        evidence: what decided: hashes of bytes, numbers computed again, tokens generated again row by row, or the
            statistics of the differences.
        moved: which part is not as published, when DRIFTED.
        sample: how many rows were generated again; None for all of them.
        rows: numbers of the test rows whose outputs differ, per model.
        date: when it was checked, ISO 8601 in UTC.
        adapter_sha256, predictions_sha256: the published files that it speaks of, where it came to them.
    """

    verdict: Literal["REPRODUCED", "DRIFTED", "UNCHECKED"] = "UNCHECKED"
    reason: str = ""
    adapter: str
    revision: Sha1 | None = None
    level: Level
    sample: int | None = None
    evidence: Literal["hashes", "numbers", "tokens", "statistics"] | None = None
    moved: Part | None = None
    rows: dict[Literal["base", "adapter"], list[int]] = Field(default_factory=dict)
    checks: list[Check] = Field(default_factory=list)
    changes: list[Change] = Field(default_factory=list)
    environment: Environment | None = None
    date: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d[\d:.+Z-]{0,20}$")]
    adapter_sha256: Sha256 | None = None
    predictions_sha256: Sha256 | None = None

    @property
    def line(self) -> str:
        """The last line of the output."""
        name = self.adapter if self.revision is None else f"{self.adapter}@{self.revision}"
        return f"{self.verdict} {name} {self.reason}"


def load_verdict(folder: Path) -> Verdict | None:
    """The verdict that a release carries, if there is one.

    Raises:
        `UserError`: it is too large, or no verdict as `--json` prints it.
    """
    path = folder / VERDICT_FILE
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_VERDICT_BYTES:
        raise UserError(f"{path} is larger than {MAX_VERDICT_BYTES} bytes: this is no verdict")
    try:
        return Verdict.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path} is no verdict as `reproduce --json` prints it: {where}: {first['msg']}") from None


def misfit(verdict: Verdict, adapter: str, record: Record, folder: Path) -> str | None:
    """Why a verdict says nothing about this run, in one line; None where it speaks of it.

    Parameters:
        adapter: the id under which the run is published.
        folder: holds the run's predictions.
    """
    if verdict.verdict == "UNCHECKED" or verdict.revision is None:
        return "a verdict of nothing checked says nothing"
    if verdict.adapter != adapter:
        return f"the verdict speaks of {verdict.adapter}, not of {adapter}"
    if verdict.adapter_sha256 != record.training.adapter_sha256:
        return "the verdict speaks of other adapter weights"
    if verdict.predictions_sha256 != sha256_file(folder / PREDICTIONS_FILE):
        return "the verdict speaks of other predictions"
    for change in verdict.changes:
        published = getattr(record.scores, change.model).get(change.metric)
        if verdict.sample is None and (published is None or abs(published.mean - change.published) > ROUNDING):
            return f"the verdict speaks of another {change.metric} of the {change.model} than the record's"
    return None


@dataclass
class Found:
    """What a reproduction held in its hands, as far as it came; for the report.

    `folder` holds the published files. `fresh` holds what the models wrote now for the test rows with the numbers
    `rows` (all other columns as published).
    """

    record: Record | None = None
    published: Predictions | None = None
    fresh: Predictions | None = None
    rows: list[int] = field(default_factory=list)
    folder: Path | None = None


class Drift(Exception):
    """What was published and what was found differ.

    Parameters:
        part: what moved.
        detail: where, in one line.
    """

    def __init__(self, part: Part, detail: str):
        super().__init__(detail)
        self.part = part


def change_interval(differences: list[float]) -> Interval:
    """Mean of paired differences over all rows, and its joint 95 % interval (one of four at `ALPHA`).

    An expanded percentile bootstrap (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 4.4):
    only rows whose outputs differ carry information, and the percentiles are widened for their number as Student's t
    would be. Fewer than two such rows prove nothing: the interval is then as wide as scores can be.

    Parameters:
        differences: per row, now − published; NaN where a metric does not apply to the row.
    """
    scores = np.asarray(differences, dtype=np.float64)
    scores = scores[~np.isnan(scores)]
    rows, changed = len(scores), scores[scores != 0]
    mean = float(scores.mean()) if rows else 0.0
    if len(changed) == 0:
        return Interval(mean=0.0, low=0.0, high=0.0)
    if len(changed) == 1:
        return Interval(mean=mean, low=-1.0, high=1.0)
    from scipy import stats

    many = len(changed)
    tail = stats.norm.cdf(np.sqrt(many / (many - 1)) * stats.t.ppf(ALPHA / 2, many - 1))
    rng = np.random.default_rng(SEED)
    means = []
    for _ in range(RESAMPLES // CHUNK):
        # How many of the n draws of a resample fall on changed rows is binomial; the others add nothing.
        drawn = rng.binomial(rows, many / rows, size=CHUNK)
        scores_drawn = changed[rng.integers(many, size=drawn.sum())]
        means.append(np.bincount(np.repeat(np.arange(CHUNK), drawn), weights=scores_drawn, minlength=CHUNK) / rows)
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(mean=mean, low=float(low), high=float(high))


def equivalent(difference: Interval) -> bool:
    """Whether a paired difference shows no change: its interval contains 0, or lies within ± `EQUIVALENCE`."""
    return difference.low <= 0 <= difference.high or max(-difference.low, difference.high) <= EQUIVALENCE
