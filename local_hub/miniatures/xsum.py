"""A miniature of XSum: invented local news, each article with one sentence that sums it up."""

import io
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from local_hub.miniatures import news

SEED = 2018
SPLITS = {"train": 240, "validation": 30, "test": 30}


def row(rng: Random, number: int) -> dict[str, str]:
    """One article; the real ids, too, are numbers as texts."""
    sentences, highlights = news.story(rng, rng.randint(2, 8))
    return {"document": "\n".join(sentences), "summary": f"{highlights[0]}.", "id": str(10_000_000 + number)}


def rows() -> dict[str, list[dict[str, str]]]:
    """The three splits."""
    rng = Random(SEED)
    return {split: [row(rng, number) for number in range(size)] for split, size in SPLITS.items()}


def files() -> dict[str, bytes]:
    """One parquet file a split, in the real layout."""
    schema = pa.schema([(name, pa.string()) for name in ("document", "summary", "id")])
    parts = {}
    for split, part in rows().items():
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(part, schema=schema), sink)
        parts[f"data/{split}-00000-of-00001.parquet"] = sink.getvalue()
    return parts
