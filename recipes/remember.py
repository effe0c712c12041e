"""Results of this code kept in the cache of `datasets`, under the hash of all that they follow from."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
from datasets.fingerprint import Hasher

# Rows that are in memory at once.
BATCH = 10_000
# The libraries whose versions decide over texts, ids and findings.
LIBRARIES = ("datasets", "datasketch", "numpy", "regex", "tokenizers")


@cache
def code() -> str:
    """The hash of this folder's code and of the libraries' versions.

    `datasets` knows a function by its name: after a change of the code it would give what the old code had made.
    """
    digest = hashlib.sha256(" ".join(map(version, LIBRARIES)).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def map_batches(
    rows: datasets.Dataset, function: Callable[..., dict[str, list]], desc: str, **arguments: Any
) -> datasets.Dataset:
    """The columns that `function` gives for each batch of `rows`, streamed to a file and kept.

    Parameters:
        function: takes a batch as a dict of columns, and the `arguments`.
    """
    # The name under which datasets itself keeps what a dataset has become; it has no public way to it.
    fingerprint = Hasher.hash((rows._fingerprint, code(), function.__name__, arguments))
    return rows.map(
        function,
        batched=True,
        batch_size=BATCH,
        fn_kwargs=arguments,
        remove_columns=rows.column_names,
        new_fingerprint=fingerprint,
        desc=desc,
    )


def batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts, `BATCH` at a time: a column of a dataset is read from its file, which one by one takes long."""
    return (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))


def remembered(name: str, compute: Callable[[], Any], settings: str, *columns: Sequence[str]) -> Any:
    """What `compute` gives (JSON's types) for these settings and columns of texts; kept in a file."""
    digest = hashlib.sha256(json.dumps([code(), name, settings]).encode())
    for column in columns:
        for text in chain.from_iterable(batches(column)):
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(encoded) + encoded)
        digest.update(b"end;")
    folder = Path(datasets.config.HF_DATASETS_CACHE, "recipes")
    path = folder / f"{name}-{digest.hexdigest()}.json"
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        found = compute()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=folder)
    with os.fdopen(descriptor, "w") as file:
        json.dump(found, file)
    Path(temporary).replace(path)
    return found
