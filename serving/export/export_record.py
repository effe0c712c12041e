"""The record of an export, `export.json`: what was made of which adapter, and how it compares with it."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from record import strict_json
from record.field_types import Count, RepoPath, Section, Sha256, Share
from record.run_record import Environment, Pin, Positive
from record.scores import METRICS, Contract, Intervals, Metric
from record.whole_file import write_whole
from serving.export.timing import Speed

EXPORT_FILE = "export.json"
# The smallest loss of the leading metric that counts.
LOSS = 0.005


class Parity(Section):
    """The export's scores next to the adapter's published ones, on the same `rows` test rows, under one contract.

    `difference` is export − adapter, paired by row. `equal` is the share of rows whose text is the adapter's.
    """

    rows: Positive
    of: Positive
    adapter: Intervals
    export: Intervals
    difference: Intervals
    equal: Share


class Export(Section):
    """One export. `adapter` is None until it is known where the adapter is published.

    `speed` and `adapter_speed` were taken in one run. `bytes` is the size of all `files` but the card.
    """

    schema_version: Literal[1] = 1
    format: Literal["merged", "int8", "ct2", "ct2-int8"]
    adapter: Pin | None
    adapter_sha256: Sha256
    base_model: Pin
    parity: Parity
    speed: Speed
    adapter_speed: Speed
    contract: Contract
    environment: Environment
    bytes: Count
    files: dict[RepoPath, Sha256] = Field(max_length=100)

    @property
    def leading(self) -> Metric:
        """The metric that decides: ROUGE-L unless the recipe names others."""
        return self.contract.deciding(self.parity.difference)[0]

    @property
    def verdict(self) -> Literal["kept", "open", "lost"]:
        """Whether the leading metric is shown to be kept within `LOSS`, shown to be worse by more, or neither."""
        moved = self.parity.difference[self.leading]
        low, high = (-moved.high, -moved.low) if METRICS[self.leading].lower_is_better else (moved.low, moved.high)
        return "lost" if high < -LOSS else "kept" if low >= -LOSS else "open"

    def to_bytes(self) -> bytes:
        """The record as it stands in `export.json`."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    def save(self, folder: Path) -> None:
        """Writes `export.json` into `folder`, whole or not at all."""
        write_whole(folder / EXPORT_FILE, self.to_bytes())


def load_export(folder: Path) -> Export:
    """The record in `folder`, which may be a stranger's.

    Raises:
        `UserError`: there is none, or it is something else.
    """
    return strict_json.load(folder / EXPORT_FILE, Export, "the record of an export", "it is not an export")
