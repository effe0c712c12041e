"""What this code has made, kept in a file under the hash of all that it follows from."""

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


def batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts, `BATCH` at a time: a column of a dataset is read from its file, which one by one takes long."""
    return (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))


def cached_value(name: str, compute: Callable[[], Any], settings: str, *columns: Sequence[str]) -> Any:
    """What `compute` gives (JSON's types) for these settings and columns of texts."""
    digest = hashlib.sha256(json.dumps([code(), settings]).encode())
    for column in columns:
        for text in chain.from_iterable(batches(column)):
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(encoded) + encoded)
        digest.update(b"end;")
    return json.loads(cached_bytes(name, lambda: json.dumps(compute()).encode(), digest.hexdigest()))


def cached_bytes(name: str, make: Callable[[], bytes], key: str) -> bytes:
    """The bytes that `make` gives, read from the file of this name and key if it is whole, else made and written.

    Parameters:
        key: a hash of all that the bytes follow from, the code among it.
    """
    from huggingface_hub import constants

    path = Path(constants.HF_HOME, "kept", f"{name}-{key}")
    stored = path.read_bytes() if path.is_file() else b""
    if len(stored) >= 32 and hashlib.sha256(stored[32:]).digest() == stored[:32]:
        return stored[32:]
    made = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(hashlib.sha256(made).digest() + made)
    Path(temporary).replace(path)
    return made
