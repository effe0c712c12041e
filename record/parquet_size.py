"""How much a parquet file becomes when it is read, found without reading it.

Some hundred bytes may stand for gigabytes: a page of compressed zeros, a dictionary of one long text that a million
rows point to, a list whose one number is repeated. The file's footer states sizes, but pyarrow 26 believes the headers
of the pages and not the footer. So these are summed up here. They are Thrift structures in its compact protocol:
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift (PageHeader),
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 0, 2, 3
# The field of PageHeader that holds each kind's own header; in all three the first field counts the values.
OWN_HEADER = {DATA_PAGE: 5, DICTIONARY_PAGE: 7, DATA_PAGE_V2: 8}
# Where it names the encoding. Those below write out every value, or point to one that is written out.
ENCODING = {DATA_PAGE: 2, DICTIONARY_PAGE: 2, DATA_PAGE_V2: 4}
PLAIN, PLAIN_DICTIONARY, RLE_DICTIONARY = 0, 2, 8
# pyarrow cuts at a mebibyte.
MAX_PAGES = 100_000


@dataclass
class Size:
    """Of one column: bytes of its pages once unpacked, values in its data pages (of a list, its items), pages."""

    bytes: int = 0
    values: int = 0
    pages: int = 0


def column_sizes(path: Path) -> list[Size]:
    """What each column of a parquet file becomes, its dictionary not yet written out row by row.

    Raises:
        `ValueError`: the pages are not where the footer says, or in an encoding that repeats parts of other values.
        `pyarrow.ArrowException`: the footer cannot be read.
    """
    footer = pq.read_metadata(path)
    sizes = [Size() for _ in range(footer.num_columns)]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for group in range(footer.num_row_groups):
            for number, size in enumerate(sizes):
                chunk = footer.row_group(group).column(number)
                start = chunk.data_page_offset
                # As pyarrow finds it.
                if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
                    start = chunk.dictionary_page_offset
                _add_pages(size, data, start, start + chunk.total_compressed_size)
    return sizes


def _add_pages(size: Size, data: mmap.mmap, start: int, end: int) -> None:
    if not 0 < start <= end <= len(data):
        raise ValueError("its pages lie outside of it")
    while start < end:
        size.pages += 1
        if size.pages > MAX_PAGES:
            raise ValueError(f"a column is cut into more than {MAX_PAGES:,} pages")
        try:
            header, start = _struct(data, start)
            # Of other types than these the arithmetic below would raise `TypeError`, which the caller would not expect.
            kind, unpacked, packed = (_number(header[field]) for field in (1, 2, 3))
            own = header[OWN_HEADER[kind]]
            if not isinstance(own, dict):
                raise TypeError("a header is a structure")
            values, encoding = _number(own[1]), _number(own[ENCODING[kind]])
        except (LookupError, TypeError) as error:
            raise ValueError("a page has no header that is understood here") from error
        if encoding not in (PLAIN, PLAIN_DICTIONARY, RLE_DICTIONARY):
            raise ValueError(f"a page is in an encoding that is not read here ({encoding})")
        if min(unpacked, packed, values) < 0 or start + packed > end:
            raise ValueError("a page is larger than its column")
        start += packed
        size.bytes += unpacked
        size.values += values if kind != DICTIONARY_PAGE else 0


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("not a number")
    return value


def _struct(data: mmap.mmap, place: int, depth: int = 0) -> tuple[dict[int, object], int]:
    """The fields of a Thrift structure by their numbers, and where it ends; of texts only that they are there."""
    fields: dict[int, object] = {}
    number = 0
    while data[place]:
        kind, step = data[place] & 15, data[place] >> 4
        place += 1
        if step:
            number += step
        else:
            number, place = _whole(data, place)
        if kind in (1, 2):
            fields[number] = kind == 1
        elif kind in (4, 5, 6):
            fields[number], place = _whole(data, place)
        elif kind == 8:
            length, place = _varint(data, place)
            fields[number], place = None, place + length
        elif kind == 12 and depth < 3:
            fields[number], place = _struct(data, place, depth + 1)
        else:
            raise LookupError(kind)
    return fields, place + 1


def _varint(data: mmap.mmap, place: int) -> tuple[int, int]:
    value = 0
    for number in range(10):
        byte = data[place + number]
        value |= (byte & 127) << (7 * number)
        if byte < 128:
            return value, place + number + 1
    raise LookupError("varint")


def _whole(data: mmap.mmap, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place
