"""Xet storage: xorbs and file recipes on disk, and files rebuilt from them.

    ROOT/xet/xorbs/HASH       the packs of chunks, as uploaded
    ROOT/xet/files/HASH       how to make a file: its size and its runs of chunks (JSON)
    ROOT/xet/sha256/SHA256    the Xet hash of the file with this content

A commit names content by sha256 only. Before the Hub acknowledges it, ``ensure`` rebuilds the file, checks its sha256
and keeps the bytes with the other large files, so that plain HTTP and Xet clients read the same content.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from . import durable, lfs, xorbs
from .errors import HubError
from .store import Store

HASH = re.compile(r"[0-9a-f]{64}")


def xorb_path(store: Store, hash: str) -> Path:
    """Where a xorb is, or would be; raises 400 where ``hash`` is none."""
    if not HASH.fullmatch(hash):
        raise HubError(400, "Invalid hash")
    return store.root / "xet" / "xorbs" / hash[:2] / hash


def _recipe_path(store: Store, hash: str) -> Path:
    if not HASH.fullmatch(hash):
        raise HubError(400, "Invalid hash")
    return store.root / "xet" / "files" / hash[:2] / hash


def _sha256_path(store: Store, sha256: str) -> Path:
    return store.root / "xet" / "sha256" / sha256[:2] / sha256


@functools.lru_cache(maxsize=256)
def _chunks(path: Path) -> list[xorbs.Chunk]:
    # A xorb is named by its content and never changes, so its list of chunks may be kept.
    return xorbs.chunks(path.read_bytes())


def put_xorb(store: Store, hash: str, data: bytes) -> bool:
    """Store a xorb; whether it is new. Raises 400 where the bytes are no xorb."""
    path = xorb_path(store, hash)
    if path.exists():
        return False
    try:
        xorbs.chunks(data)
    except xorbs.FormatError as error:
        raise HubError(400, f"Invalid xorb: {error}") from None
    durable.write_bytes(path, data)
    return True


def put_shard(store: Store, shard: bytes) -> None:
    """Register the files of a shard; raises 400 where it is malformed or names chunks that are not here."""
    try:
        files = xorbs.shard_files(shard)
    except xorbs.FormatError as error:
        raise HubError(400, f"Invalid shard: {error}") from None
    for file in files:
        for term in file.terms:
            path = xorb_path(store, term.xorb)
            if not path.exists():
                raise HubError(400, f"Shard names a xorb that was not uploaded: {term.xorb}")
            if not term.start < term.end <= len(_chunks(path)):
                raise HubError(400, f"Shard names chunks that xorb {term.xorb} does not have")
        terms = [[term.xorb, term.start, term.end, term.length] for term in file.terms]
        durable.write_json(_recipe_path(store, file.hash), {"terms": terms, "size": sum(t.length for t in file.terms)})
        if file.sha256:
            durable.write_json(_sha256_path(store, file.sha256), file.hash)


def hash_of(store: Store, sha256: str) -> str | None:
    """The Xet hash of the content with this sha256, or None where it was not uploaded by Xet."""
    return durable.read_json(_sha256_path(store, sha256), None)


def ensure(store: Store, sha256: str, size: int | None) -> int:
    """Have the content with this sha256 as a whole, checked file; its size in bytes.

    Raises 400 where the Hub does not have the content, and 422 where what was uploaded as it is something else.
    """
    actual = lfs.size_of(store, sha256)
    if actual is None:
        hash = hash_of(store, sha256)
        if hash is None:
            raise HubError(400, f"Your push was rejected because an LFS pointer pointed to a missing file: {sha256}")
        writer = lfs.Writer(store)
        try:
            for term in _terms(store, hash):
                path = xorb_path(store, term.xorb)
                with path.open("rb") as file:
                    for chunk in _chunks(path)[term.start : term.end]:
                        file.seek(chunk.start)
                        writer.write(xorbs.unpack(file.read(chunk.end - chunk.start), chunk))
        except xorbs.FormatError as error:
            writer.abandon()
            raise HubError(400, f"The upload of {sha256} cannot be unpacked: {error}") from None
        except BaseException:
            writer.abandon()
            raise
        writer.finish(sha256, size)
        return writer.size
    if size not in (None, actual):
        raise HubError(400, f"LFS pointer names a wrong size for {sha256}: {size} instead of {actual}")
    return actual


def _terms(store: Store, hash: str) -> list[xorbs.Term]:
    recipe = durable.read_json(_recipe_path(store, hash), None)
    if recipe is None:
        raise HubError(404, "File not found")
    return [xorbs.Term(*term) for term in recipe["terms"]]


def _merged(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    # hf_xet panics ("range end out of bounds") when two ranges of one xorb overlap, as they do in a repetitive file.
    merged: list[tuple[int, int]] = []
    for start, end in sorted(runs):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def reconstruction(store: Store, hash: str, first: int, last: int | None, url: str) -> dict[str, Any]:
    """How a client makes bytes ``first`` to ``last`` (inclusive, None for the end) of a file.

    ``url`` is where xorbs are read, without their hash. Raises 404 for an unknown file, 416 for a range past its end.
    """
    terms = _terms(store, hash)
    size = sum(term.length for term in terms)
    last = size - 1 if last is None else min(last, size - 1)
    if first > last:
        raise HubError(416, "Range Not Satisfiable")
    overlap, offset, position = [], 0, 0
    for term in terms:
        if position <= last and position + term.length > first:
            if not overlap:
                offset = first - position
            overlap.append(term)
        position += term.length
    fetch = {
        xorb: [
            {
                "range": {"start": start, "end": end},
                "url": url + xorb,
                "url_range": {"start": chunks[start].start, "end": chunks[end - 1].end - 1},
            }
            for start, end in _merged([(term.start, term.end) for term in overlap if term.xorb == xorb])
        ]
        for xorb in {term.xorb for term in overlap}
        for chunks in [_chunks(xorb_path(store, xorb))]
    }
    return {
        "offset_into_first_range": offset,
        "terms": [
            {"hash": term.xorb, "unpacked_length": term.length, "range": {"start": term.start, "end": term.end}}
            for term in overlap
        ],
        "fetch_info": fetch,
    }
