"""Large files by the sha256 of their content, one copy for all repositories.

Whoever knows a large file's sha256 can name it in a commit: unlike on the real Hub, no repository has a store of its
own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from . import durable
from .errors import HubError
from .store import Store

READ_SIZE = 1 << 20


def path_of(store: Store, sha256: str) -> Path:
    """Where the content with this sha256 is, or would be."""
    return store.root / "lfs" / sha256[:2] / sha256[2:4] / sha256


def size_of(store: Store, sha256: str) -> int | None:
    """The size in bytes of the content with this sha256, or None where the Hub does not have it."""
    try:
        return path_of(store, sha256).stat().st_size
    except FileNotFoundError:
        return None


class Writer:
    """Takes content piece by piece and publishes it under its sha256, only if it is the promised one."""

    def __init__(self, store: Store):
        self._store = store
        self._partial = store.temporary()
        self._file = self._partial.open("wb")
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def finish(self, sha256: str, size: int | None = None) -> None:
        """Publish, durably; raises 422 and keeps nothing where the content has another hash or size."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError:
            self.abandon()
            raise
        if self._hash.hexdigest() != sha256 or size not in (None, self.size):
            self._partial.unlink()
            raise HubError(422, f"Content does not match: expected sha256 {sha256}, got {self._hash.hexdigest()}")
        durable.publish(self._partial, path_of(self._store, sha256))

    def abandon(self) -> None:
        """Drop what was written."""
        self._partial.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            # Closing writes what is left in the buffer, for which there may be no room.
            self._file.close()


async def receive(store: Store, chunks: AsyncIterator[bytes], sha256: str, size: int) -> None:
    """Store an upload under its sha256; raises 422 where it is not that content."""
    writer = Writer(store)
    try:
        async for chunk in chunks:
            writer.write(chunk)
    except BaseException:
        writer.abandon()
        raise
    writer.finish(sha256, size)


def put(store: Store, data: bytes) -> str:
    """Store bytes; their sha256."""
    sha256 = hashlib.sha256(data).hexdigest()
    if size_of(store, sha256) is None:
        writer = Writer(store)
        writer.write(data)
        writer.finish(sha256)
    return sha256


def _part_path(store: Store, sha256: str, number: int) -> Path:
    return store.root / "lfs" / "parts" / f"{sha256}.{number}"


def put_part(store: Store, sha256: str, number: int, data: bytes) -> str:
    """Store part ``number``, from 1, of a multipart upload; its ETag."""
    durable.write_bytes(_part_path(store, sha256, number), data)
    return f'"{hashlib.sha256(data).hexdigest()}"'


def join_parts(store: Store, sha256: str, size: int, etags: list[str]) -> None:
    """Publish a multipart upload; raises 422 where a part is missing or the whole is not the promised content."""
    paths = [_part_path(store, sha256, number) for number in range(1, len(etags) + 1)]
    writer = Writer(store)
    try:
        for path, etag in zip(paths, etags, strict=True):
            data = path.read_bytes()
            if etag != f'"{hashlib.sha256(data).hexdigest()}"':
                raise HubError(422, f"Wrong ETag for {path.name}")
            writer.write(data)
    except FileNotFoundError as error:
        writer.abandon()
        raise HubError(422, f"A part was not uploaded: {error.filename}") from None
    except BaseException:
        writer.abandon()
        raise
    writer.finish(sha256, size)
    for path in paths:
        path.unlink(missing_ok=True)
