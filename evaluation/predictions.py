"""The predictions file: one row per test row, as parquet, so that the Hub's viewer shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recipes.errors import UserError

PREDICTIONS_FILE = "predictions.parquet"
# The same columns for the parent adapter's test rows, `base` holding what the parent wrote.
FORGETTING_FILE = "forgetting.parquet"
SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("reference", pa.string()),
        ("schema", pa.string()),
        ("seen", pa.string()),
        ("base", pa.string()),
        ("adapter", pa.string()),
        ("base_tokens", pa.list_(pa.int32())),
        ("adapter_tokens", pa.list_(pa.int32())),
    ]
)


@dataclass
class Predictions:
    """What both models wrote for every test row, in the test split's order.

    `schema` holds the tables that a row's SQL is about ("" without), `seen` whether a training of the chain has seen
    the row's input: as "exact" copy, as "near" duplicate, or "".
    """

    prompt: list[str]
    reference: list[str]
    schema: list[str]
    seen: list[str]
    base: list[str]
    adapter: list[str]
    base_tokens: list[list[int]]
    adapter_tokens: list[list[int]]

    def save(self, run: Path, name: str = PREDICTIONS_FILE) -> None:
        """Writes the parquet file `name` into the folder `run`, whole or not at all."""
        temporary = run / f".{name}"
        pq.write_table(pa.Table.from_pydict(self.__dict__, schema=SCHEMA), temporary)
        temporary.replace(run / name)

    def take(self, rows: Sequence[int]) -> "Predictions":
        """The predictions for the test rows with these numbers."""
        return Predictions(**{name: [column[row] for row in rows] for name, column in self.__dict__.items()})


def load_predictions(run: Path, name: str = PREDICTIONS_FILE) -> Predictions:
    """The predictions in the parquet file `name` of the folder `run`.

    Raises:
        `UserError`: there are none, or the file is not of this schema.
    """
    try:
        table = pq.read_table(run / name)
        if table.schema.remove_metadata() != SCHEMA:
            raise UserError(f"{run / name} has other columns than {', '.join(SCHEMA.names)}")
        if any(column.null_count for column in table.columns):
            raise UserError(f"{run / name} lacks values")
    except FileNotFoundError:
        raise UserError(f"{run} holds no {name}: score it first (make evaluate-{run.name})") from None
    except pa.ArrowException as error:
        raise UserError(f"{run / name} is not a parquet file: {str(error).splitlines()[0]}") from None
    return Predictions(**table.to_pydict())
