"""The record of an export, `export.json`: what was made of which adapter, and how it compares with it."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from record.errors import UserError, first_problem
from record.field_types import Count, RepoPath, Sha256, Share
from record.run_record import Contract, Environment, Interval, Metric, Pin, Positive, Section
from serving.export.timing import Speed

EXPORT_FILE = "export.json"
MAX_EXPORT_BYTES = 2**20
# The smallest loss of ROUGE-L that counts.
LOSS = 0.005


class Parity(Section):
    """The export's scores beside the adapter's published ones, on the same `rows` test rows, under one contract.

    `difference` is export − adapter, paired by row. `equal` is the share of rows whose text is the adapter's.
    """

    rows: Positive
    of: Positive
    adapter: dict[Metric, Interval]
    export: dict[Metric, Interval]
    difference: dict[Metric, Interval]
    equal: Share

    @property
    def verdict(self) -> Literal["kept", "open", "lost"]:
        """Whether ROUGE-L is shown to be kept within `LOSS`, shown to be worse by more, or neither."""
        difference = self.difference["rougeL"]
        return "lost" if difference.high < -LOSS else "kept" if difference.low >= -LOSS else "open"


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

    def to_bytes(self) -> bytes:
        """The record as it stands in `export.json`."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    def save(self, folder: Path) -> None:
        """Writes `export.json` into `folder`, whole or not at all."""
        temporary = folder / f".{EXPORT_FILE}.{os.getpid()}"
        temporary.write_bytes(self.to_bytes())
        temporary.replace(folder / EXPORT_FILE)


def load_export(folder: Path) -> Export:
    """The record in `folder`, which may be a stranger's.

    Raises:
        `UserError`: there is none, or it is none.
    """
    path = folder / EXPORT_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no {EXPORT_FILE}: it is no export")
    if path.stat().st_size > MAX_EXPORT_BYTES:
        raise UserError(f"{path} is larger than {MAX_EXPORT_BYTES:,} bytes: this is no record of an export")
    try:
        return Export.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(f"{path} is not the record of an export: {first_problem(error)}") from None
