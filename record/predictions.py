"""The predictions file: one row per test row, as parquet, so that the Hub's viewer shows it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from record import strict_json
from record.errors import UserError, make
from record.parquet_size import column_sizes
from record.release_files import PREDICTIONS_FILE
from record.whole_file import replacing

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
# Where the recipe names several right answers a row.
WITH_REFERENCES = SCHEMA.append(pa.field("references", pa.string()))
TEXTS = [column.name for column in SCHEMA if column.type == pa.string()]
# What is not read: far beyond the predictions of the largest recipe here (31,000 rows with 100 MB of text).
MAX_BYTES, MAX_ROWS, MAX_TOKENS = 2**30, 2_000_000, 50_000_000
# Tokens of one output, and the one value that an empty list counts for.
LONGEST = 4_097

# How a training has seen a test row, the gravest first: its input as an exact copy or a near-duplicate, its prompt or
# the prompt's token ids, its input in disguise.
SEEN = ("exact", "near", "prompt", "disguised")


@dataclass
class Predictions:
    """What both models wrote for every test row, in the test split's order.

    `schema` holds the tables that a row's SQL is about ("" without), `seen` whether a training of the chain has seen
    the row: one of `SEEN`, or "". `references` holds a row's further right answers, as a JSON list of
    texts ("" without).
    """

    prompt: list[str]
    reference: list[str]
    schema: list[str]
    seen: list[str]
    base: list[str]
    adapter: list[str]
    base_tokens: list[list[int]]
    adapter_tokens: list[list[int]]
    references: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.references = self.references or [""] * len(self.prompt)

    def save(self, run: Path, name: str = PREDICTIONS_FILE) -> None:
        """Writes the parquet file `name` into the folder `run`, whole or not at all."""
        with replacing(run / name) as temporary:
            schema = WITH_REFERENCES if any(self.references) else SCHEMA
            pq.write_table(pa.Table.from_pydict(self.__dict__, schema=schema), temporary)

    def without_rows(self) -> "Predictions":
        """What the models wrote, without what the dataset holds: its prompts, references and tables are ""."""
        nothing = [""] * len(self.prompt)
        return replace(self, prompt=nothing, reference=nothing, schema=nothing, references=nothing)

    def take(self, rows: Sequence[int]) -> "Predictions":
        """The predictions for the test rows with these numbers."""
        return Predictions(**{name: [column[row] for row in rows] for name, column in self.__dict__.items()})


def load_predictions(run: Path, name: str = PREDICTIONS_FILE, rows: int | None = None) -> Predictions:
    """The predictions in the parquet file `name` of the folder `run`, which may be a stranger's.

    Parameters:
        rows: how many test rows there are, where that is known.

    Raises:
        `UserError`: there are none, the file is not of this schema, or it would become larger than any predictions are.
    """
    path = run / name
    try:
        schema = pq.read_schema(path).remove_metadata()
        if schema not in (SCHEMA, WITH_REFERENCES):
            raise UserError(f"{path} has other columns than {', '.join(SCHEMA.names)}")
        texts = [*TEXTS, *({"references"} & set(schema.names))]
        _refuse_bombs(path, rows, schema.names, texts)
        # Each text is kept once, until it is known what they come to.
        table = pq.read_table(path, read_dictionary=texts, partitioning=None)
        # Not every reader holds the texts to be UTF-8.
        table.validate(full=True)
        if any(column.null_count for column in table.columns):
            raise UserError(f"{path} lacks values")
        if (size := sum(map(_characters, table.select(texts).columns))) > MAX_BYTES:
            raise UserError(f"{path} holds {size:,} bytes of text: it is not read")
        table = table.cast(schema)
    except FileNotFoundError:
        raise UserError(f"{run} holds no {name}: score it first ({make(f'evaluate-{run.name}')})") from None
    except (pa.ArrowException, ValueError, OSError) as error:
        raise UserError(f"{path} is not a parquet file: {str(error).splitlines()[0]}") from None
    predictions = Predictions(**table.to_pydict())
    for row, equals in enumerate(predictions.references):
        if equals and not _is_list_of_texts(equals):
            raise UserError(f"{path} holds references of row {row} that are no list of texts")
    return predictions


def _is_list_of_texts(text: str) -> bool:
    try:
        texts = strict_json.parse(text.encode())
    except ValueError:
        return False
    return isinstance(texts, list) and all(isinstance(one, str) for one in texts)


def _refuse_bombs(path: Path, rows: int | None, names: list[str], texts: list[str]) -> None:
    count = pq.read_metadata(path).num_rows
    if rows is not None and count != rows:
        raise UserError(f"there are predictions for {count:,} rows, but {rows:,} test rows")
    sizes = column_sizes(path)
    if (unpacked := sum(size.bytes for size in sizes)) > MAX_BYTES:
        raise UserError(f"{path} unpacks to {unpacked:,} bytes: it is not read")
    for column, size in zip(names, sizes, strict=True):
        if size.values > (min(count * LONGEST, MAX_TOKENS) if column not in texts else min(count, MAX_ROWS)):
            raise UserError(f"{path} holds {size.values:,} values of {column} for {count:,} rows: it is not read")


def _characters(column: pa.ChunkedArray) -> int:
    """Bytes of a column of texts once each stands in its row."""
    return sum(
        pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices).cast(pa.int64())).as_py() or 0
        for chunk in column.chunks
    )
