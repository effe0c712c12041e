"""What a reproduction learns, as far as it comes, and what ends it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from record.errors import one_line
from record.field_types import Section
from record.run_record import Environment, Record
from record.verdict import ROUNDING, Change, Check, Evidence, Model, Part, Unchecked

if TYPE_CHECKING:
    from record.predictions import Predictions


@dataclass
class Findings:
    """What a reproduction has learned so far: the verdict is built from it, and the report shows it.

    Parameters:
        published: the published predictions.
        fresh: what the models wrote now for the test rows with the numbers `rows` (all other columns as published).
        adapter, revision: the Hub's own name for the adapter, and the commit that is checked.
        hashes: the sha256 of every published file by its path, once all bytes are known to have it.
        sample: how many test rows are generated again; None for all of them.
        differing: numbers of the test rows whose outputs differ, per model.
        environment: where the outputs were generated now.
        unchecked: what of the card nobody can vouch for.
        concerns: what speaks against the published numbers, each in one line.
        evidence, reason: what decided, and what was reproduced, in one line.
    """

    record: Record | None = None
    published: "Predictions | None" = None
    fresh: "Predictions | None" = None
    rows: list[int] = field(default_factory=list)
    adapter: str = ""
    revision: str | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    sample: int | None = None
    checks: list[Check] = field(default_factory=list)
    differing: dict[Model, list[int]] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    environment: Environment | None = None
    concerns: list[str] = field(default_factory=list)
    evidence: Evidence | None = None
    reason: str = ""
    unchecked: Unchecked | None = None


def note(findings: Findings, part: Part, detail: str) -> None:
    """Notes that a check has passed, and prints its result."""
    findings.checks.append(Check(part=part, outcome="passed", detail=detail))
    print(f"  {one_line(detail)}", flush=True)


class Drift(Exception):
    """What was published and what a check gives differ.

    Parameters:
        part: what moved.
        detail: where, in one line.
        evidence: what decided it, where outputs were compared.
    """

    def __init__(self, part: Part, detail: str, evidence: Evidence | None = None):
        super().__init__(detail)
        self.part = part
        self.evidence = evidence


class Undecided(Exception):
    """Outputs differ, and their rows are too few to tell whether a score has moved; says how many would tell."""


class Difference(NamedTuple):
    """The name of a value, what it is here, and what it is in the record."""

    where: str
    ours: Any
    theirs: Any


def first_difference(ours: Any, theirs: Any, where: str = "") -> Difference | None:
    """The first place where two sections, or plain values, differ by more than rounding."""
    if isinstance(ours, Section) and isinstance(theirs, Section):
        ours, theirs = ours.model_dump(), theirs.model_dump()
    if isinstance(ours, dict) and isinstance(theirs, dict):
        places = (
            first_difference(ours.get(key), theirs.get(key), f"{where}.{key}".lstrip("."))
            for key in dict.fromkeys([*ours, *theirs])
        )
        return next((place for place in places if place is not None), None)
    if isinstance(ours, float) and isinstance(theirs, int | float):
        return None if abs(ours - theirs) <= ROUNDING else Difference(where, ours, theirs)
    return None if ours == theirs else Difference(where, ours, theirs)
