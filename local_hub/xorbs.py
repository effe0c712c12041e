"""The file formats of Xet storage: xorbs (packs of compressed chunks) and shards (which chunks make which file).

After the public Xet protocol specification (huggingface/hub-docs, ``docs/xet``). Only what a server needs: where each
chunk of a xorb begins, its bytes, and the files that a shard describes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

CHUNK_HEADER = struct.Struct("<B3sB3s")
SHARD_HEADER_SIZE = 48
ENTRY_SIZE = 48
WITH_VERIFICATION = 1 << 31
WITH_METADATA = 1 << 30
BOOKEND = b"\xff" * 32


class FormatError(ValueError):
    """The bytes are not a xorb or a shard."""


@dataclass(frozen=True)
class Chunk:
    """One chunk in a xorb: where its header starts, where the next one does, its compression and its real length."""

    start: int
    end: int
    scheme: int
    length: int


@dataclass(frozen=True)
class Term:
    """A run of chunks ``start`` to ``end`` (exclusive) of one xorb, ``length`` bytes long when unpacked."""

    xorb: str
    start: int
    end: int
    length: int


@dataclass(frozen=True)
class ShardFile:
    """A file as a shard describes it: its Xet hash, its sha256 if given, and the runs of chunks that make it."""

    hash: str
    sha256: str | None
    terms: list[Term]


def hash_text(raw: bytes) -> str:
    """A Xet hash as text: four little-endian 64-bit numbers in hexadecimal."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def chunks(xorb: bytes) -> list[Chunk]:
    """The chunks of a xorb; raises FormatError."""
    parts, position = [], 0
    # A xorb may end in a footer; it opens with the letter X where a chunk has the version number 0.
    while position < len(xorb) and xorb[position] == 0:
        if position + CHUNK_HEADER.size > len(xorb):
            raise FormatError("a chunk header is cut off")
        _, packed, scheme, length = CHUNK_HEADER.unpack_from(xorb, position)
        end = position + CHUNK_HEADER.size + int.from_bytes(packed, "little")
        if end > len(xorb):
            raise FormatError("a chunk is cut off")
        parts.append(Chunk(position, end, scheme, int.from_bytes(length, "little")))
        position = end
    if not parts:
        raise FormatError("no chunks")
    return parts


def unpack(stored: bytes, chunk: Chunk) -> bytes:
    """The bytes of a chunk from its stored form, header included; raises FormatError."""
    packed = stored[CHUNK_HEADER.size :]
    if chunk.scheme == 0:
        data = packed
    elif chunk.scheme == 1:
        data = decompress_lz4_frame(packed)
    elif chunk.scheme == 2:
        data = _ungroup(decompress_lz4_frame(packed))
    else:
        raise FormatError(f"unknown compression {chunk.scheme}")
    if len(data) != chunk.length:
        raise FormatError(f"a chunk unpacks to {len(data)} bytes instead of {chunk.length}")
    return data


def _ungroup(data: bytes) -> bytes:
    # "Byte grouping 4": all first bytes of each group of four, then all second ones, and so on.
    result = bytearray(len(data))
    position = 0
    for offset in range(4):
        count = (len(data) - offset + 3) // 4
        result[offset::4] = data[position : position + count]
        position += count
    return bytes(result)


def decompress_lz4_frame(frame: bytes) -> bytes:
    """Decompress an LZ4 frame (checksums are not looked at: the caller checks a sha256); raises FormatError."""
    if frame[:4] != b"\x04\x22\x4d\x18":
        raise FormatError("not an LZ4 frame")
    flags = frame[4]
    position = 7 + (8 if flags & 0x08 else 0) + (4 if flags & 0x01 else 0)
    out = bytearray()
    try:
        while size := int.from_bytes(frame[position : position + 4], "little"):
            position += 4
            stored = size & 0x7FFFFFFF
            block = frame[position : position + stored]
            if size & 0x80000000:
                out += block
            else:
                _decompress_lz4_block(block, out)
            position += stored + (4 if flags & 0x10 else 0)
    except IndexError:
        raise FormatError("an LZ4 block is cut off") from None
    return bytes(out)


def _decompress_lz4_block(block: bytes, out: bytearray) -> None:
    position, end = 0, len(block)
    while position < end:
        token = block[position]
        position += 1
        length = token >> 4
        if length == 15:
            while (more := block[position]) == 255:
                length += 255
                position += 1
            length += more
            position += 1
        out += block[position : position + length]
        position += length
        if position >= end:
            return
        distance = block[position] | block[position + 1] << 8
        position += 2
        length = (token & 15) + 4
        if length == 19:
            while (more := block[position]) == 255:
                length += 255
                position += 1
            length += more
            position += 1
        start = len(out) - distance
        if distance == 0 or start < 0:
            raise FormatError("an LZ4 match points outside the data")
        if distance >= length:
            out += out[start : start + length]
        else:
            # The match overlaps what it produces: the last ``distance`` bytes repeat.
            repeated = bytes(out[start:]) * (length // distance + 1)
            out += repeated[:length]


def shard_files(shard: bytes) -> list[ShardFile]:
    """The files that a shard describes; raises FormatError."""
    files = []
    position = SHARD_HEADER_SIZE
    try:
        while (raw := shard[position : position + 32]) != BOOKEND:
            flags, count = struct.unpack_from("<II", shard, position + 32)
            position += ENTRY_SIZE
            terms = []
            for _ in range(count):
                _, length, start, end = struct.unpack_from("<4I", shard, position + 32)
                terms.append(Term(hash_text(shard[position : position + 32]), start, end, length))
                position += ENTRY_SIZE
            if flags & WITH_VERIFICATION:
                position += ENTRY_SIZE * count
            sha256 = None
            if flags & WITH_METADATA:
                sha256 = hash_text(shard[position : position + 32])
                position += ENTRY_SIZE
            files.append(ShardFile(hash_text(raw), sha256, terms))
    except struct.error:
        raise FormatError("the shard is cut off") from None
    return files
