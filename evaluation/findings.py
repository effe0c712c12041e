"""What a reproduction held in its hands, and what it found to differ."""

from dataclasses import dataclass, field
from pathlib import Path

from record.predictions import Predictions
from record.run_record import Record
from record.verdict import Part


@dataclass
class Findings:
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
