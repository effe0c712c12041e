"""The verdict of a reproduction, as `verdict.json` holds it."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from record import strict_json
from record.field_types import Count, Line, Section, Sha1, Sha256
from record.hashes import sha256_file
from record.release_files import PREDICTIONS_FILE, VERDICT_FILE
from record.run_record import Environment, Record
from record.scores import METRIC_NAMES, Interval

Level = Literal["score", "prefill", "generate", "train"]

Model = Literal["base", "adapter"]
Evidence = Literal["hashes", "numbers", "margins", "tokens", "statistics"]
Part = Literal[
    "signature", "files", "lineage", "data", "leakage", "scoring", "card", "generation", "weights", "training"
]
Unchecked = Literal["card", "pictures"]
UNCHECKED = {"card": "scores; the card was not checked", "pictures": "the card's pictures were not checked"}
EVIDENCE = {
    "hashes": "the bytes of the published files, against the sha256 that the record states",
    "numbers": "scores, computed again from the published outputs",
    "margins": "published outputs, read by their models: by how much each token falls short of the likeliest",
    "tokens": "outputs, generated again and compared token by token",
    "statistics": "what the outputs that differ do to the scores, with intervals",
}
# By what a release is reproduced, by level.
DECIDED_BY: dict[Level, tuple[Evidence, ...]] = {
    "score": ("numbers",),
    "prefill": ("margins",),
    "generate": ("tokens", "statistics"),
    "train": ("tokens", "statistics"),
}
# Floating-point sums may differ in their last bits between machines; a changed number differs in a digit that is shown.
ROUNDING = 1e-9


class Check(Section):
    """One thing that was looked at."""

    part: Part
    outcome: Literal["passed", "failed", "not checked"]
    detail: str


class Change(Section):
    """A mean over the compared rows, as published and now, and the paired difference now − published.

    Parameters:
        margin: by how much the mean may move and count as the same; 0.002 was the rule before verdicts stated it.
    """

    model: Model
    metric: str
    published: float
    now: float
    difference: Interval
    margin: float = 0.002


class Verdict(Section):
    """The outcome of one reproduction.

    Parameters:
        verdict: REPRODUCED, DRIFTED (what was found is not what was published), or UNCHECKED.
        reason: what was reproduced, moved, or prevented the check, in one line.
        evidence: what decided: hashes of bytes, numbers computed again, margins of the published tokens, tokens
            generated again row by row, or the statistics of the differences.
        moved: which part is not as published, when DRIFTED.
        unchecked: what of the card could not be compared, so that the verdict does not speak of it.
        sample: how many rows were generated again; None for all of them.
        rows: numbers of the test rows whose outputs differ, per model.
        miniature: whether the numbers are those of a local stand-in.
        test_rows: how many test rows there are.
        concerns: what speaks against the published numbers, though they are what was published; each in one line.
        date: when it was checked, ISO 8601 in UTC.
        adapter_sha256, predictions_sha256: the published files that it speaks of, where it came to them.
    """

    verdict: Literal["REPRODUCED", "DRIFTED", "UNCHECKED"] = "UNCHECKED"
    reason: str = ""
    adapter: str
    revision: Sha1 | None = None
    level: Level
    sample: int | None = None
    unchecked: Unchecked | None = None
    evidence: Evidence | None = None
    moved: Part | None = None
    rows: dict[Model, list[int]] = Field(default_factory=dict)
    checks: list[Check] = Field(default_factory=list)
    changes: list[Change] = Field(default_factory=list)
    miniature: bool = False
    test_rows: Count | None = None
    concerns: list[Line] = Field(default_factory=list, max_length=100)
    environment: Environment | None = None
    date: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d[\d:.+Z-]{0,20}$")]
    adapter_sha256: Sha256 | None = None
    predictions_sha256: Sha256 | None = None

    @property
    def line(self) -> str:
        """The last line of the output."""
        name = self.adapter if self.revision is None else f"{self.adapter}@{self.revision}"
        many = len(self.concerns)
        concerns = f"; with {many} concern{'s' if many > 1 else ''}" if many and self.verdict == "REPRODUCED" else ""
        return f"{self.word} {name} {self.reason}{concerns}"

    @property
    def word(self) -> str:
        """The verdict with what it is limited to: `REPRODUCED (miniature, 500 of 4,827 rows)`."""
        limits = ["miniature"] if self.miniature else []
        if self.sample is not None and self.test_rows is not None:
            limits.append(f"{self.sample:,} of {self.test_rows:,} rows")
        if self.unchecked is not None:
            limits.append(UNCHECKED[self.unchecked])
        return f"{self.verdict} ({', '.join(limits)})" if limits and self.verdict == "REPRODUCED" else self.verdict


def load_verdict(folder: Path) -> Verdict | None:
    """The verdict that a release carries, if there is one.

    Raises:
        `UserError`: it is too large, or not a verdict as `--json` prints it.
    """
    path = folder / VERDICT_FILE
    if not path.is_file():
        return None
    return strict_json.load(path, Verdict, "a verdict as `reproduce --json` prints it")


def why_unrelated(verdict: Verdict, adapter: str, record: Record, folder: Path) -> str | None:
    """Why a verdict says nothing about this run, in one line; None where it speaks of it.

    Parameters:
        adapter: the id under which the run is published.
        folder: holds the run's predictions.
    """
    if verdict.verdict == "UNCHECKED" or verdict.revision is None:
        return "a verdict of nothing checked says nothing"
    if verdict.adapter != adapter:
        return f"the verdict speaks of {verdict.adapter}, not of {adapter}"
    if record.training is None or verdict.adapter_sha256 != record.training.adapter_sha256:
        return "the verdict speaks of other adapter weights"
    if verdict.predictions_sha256 != sha256_file(folder / PREDICTIONS_FILE):
        return "the verdict speaks of other predictions"
    return contradiction(verdict, record)


def contradiction(verdict: Verdict, record: Record) -> str | None:
    """What a verdict says that no check of this run could have given, in one line; None if nothing."""
    for change in verdict.changes:
        published = getattr(record.scores, change.model).get(change.metric)
        if verdict.sample is None and (published is None or abs(published.mean - change.published) > ROUNDING):
            return f"the verdict speaks of another {change.metric} of the {change.model} than the record's"
    rows = record.data.test
    if (verdict.sample or 0) > rows or any(row >= rows for numbers in verdict.rows.values() for row in numbers):
        return f"the verdict speaks of more rows than the {rows:,} test rows"
    if verdict.verdict != "REPRODUCED":
        return None
    decided = DECIDED_BY[verdict.level]
    if verdict.evidence not in decided:
        return f"at level {verdict.level} nothing is reproduced by {verdict.evidence or 'nothing'}"
    if verdict.moved is not None or any(check.outcome == "failed" for check in verdict.checks):
        return "the verdict says REPRODUCED and names what is not as published"
    if verdict.level == "train" and "training" not in {check.part for check in verdict.checks}:
        return "the verdict speaks of level train, and no training is among its checks"
    if verdict.evidence == "tokens" and any(abs(c.now - c.published) > ROUNDING for c in verdict.changes):
        return "the verdict says that all outputs are equal, and that scores moved"
    return None if verdict.sample is not None else _other_score(verdict, record)


def _other_score(verdict: Verdict, record: Record) -> str | None:
    """The score in a verdict's reason that is neither the record's nor, by its own figures, the one found now."""
    now = {change.metric: change.now for change in verdict.changes if change.model == "adapter"}
    for name, interval in (record.scores.adapter if record.scores else {}).items():
        stated = re.search(rf"{re.escape(METRIC_NAMES[name])} (\d*\.\d+)", verdict.reason)
        if stated is None:
            continue
        decimals = len(stated[1].partition(".")[2])
        means = (interval.mean, now.get(name, interval.mean))
        if not any(abs(round(mean, decimals) - float(stated[1])) < 10 ** -(decimals + 2) for mean in means):
            return f"the verdict states {METRIC_NAMES[name]} {stated[1]}, the record {interval.mean:.4f}"
    return None
