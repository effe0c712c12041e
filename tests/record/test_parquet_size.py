"""Predictions that would become larger than memory: found before they are read."""

import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import record.predictions
from record.errors import UserError, one_line
from record.parquet_size import column_sizes
from record.predictions import SCHEMA, TEXTS, Predictions, load_predictions
from record.release_files import PREDICTIONS_FILE

MIB = 2**20


def honest(rows=5_000):
    """Predictions of a few characters and tokens, no two rows alike."""
    texts = [f"row {number} é" for number in range(rows)]
    return Predictions(*[texts] * 3, [""] * rows, texts, texts, [[1, number] for number in range(rows)], [[]] * rows)


def written(folder, columns=None, table=None, **how):
    """A predictions file with other columns than an honest one of one row."""
    found = dict(zip(SCHEMA.names, table or pa.Table.from_pydict(honest(1).__dict__, SCHEMA).columns, strict=True))
    pq.write_table(pa.table(found | (columns or {})), folder / PREDICTIONS_FILE, store_schema=False, **how)
    return folder


def repeated(text, rows):
    """One text that all rows point to."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, "int32")), pa.array([text]))


def empty_lists(rows):
    return pa.array([[]] * rows, pa.list_(pa.int32()))


def one_list(tokens):
    """One row whose one number is repeated."""
    return pa.ListArray.from_arrays(pa.array([0, tokens], pa.int32()), pa.array(np.full(tokens, 7, "int32")))


def with_a_footer_that_lies(folder, was, says):
    """States another number in the footer: there it is a Thrift varint, which may be longer than it need be."""

    def varint(number, length):
        return bytes([(number >> 7 * place & 127) | (128 if place < length - 1 else 0) for place in range(length)])

    data = (folder / PREDICTIONS_FILE).read_bytes()
    (length,) = struct.unpack("<I", data[-8:-4])
    body, footer = data[: -8 - length], data[-8 - length :]
    size = -(-(2 * was).bit_length() // 7)
    assert varint(2 * was, size) in footer
    (folder / PREDICTIONS_FILE).write_bytes(body + footer.replace(varint(2 * was, size), varint(2 * says, size)))
    return folder


def bombs(folder):
    rows = 100_000
    of_rows = dict.fromkeys(TEXTS, pa.array([""] * rows)) | {name: empty_lists(rows) for name in SCHEMA.names[-2:]}
    yield "a-text-repeated", lambda: written(folder, of_rows | {"base": repeated("x" * MIB, rows)}), "bytes of text"
    yield "a-number-repeated", lambda: written(folder, {"base_tokens": one_list(4_000_000)}), "values of base_tokens"
    yield (
        "a-number-repeated-behind-a-lie",
        lambda: with_a_footer_that_lies(written(folder, {"base_tokens": one_list(4_000_000)}), 4_000_000, 5),
        "4,000,000 values of base_tokens",
    )
    yield (
        "a-page-of-zeros",
        lambda: written(folder, {"prompt": pa.array(["\0" * (51 * MIB)])}, compression="zstd", use_dictionary=False),
        "unpacks to",
    )
    yield "texts-that-share-their-beginnings", lambda: written(
        folder, of_rows | {"base": pa.array(["x" * 1_000 + str(row) for row in range(rows)])},
        use_dictionary=False, column_encoding={"base": "DELTA_BYTE_ARRAY"},
    ), "an encoding that is not read here (7)"  # fmt: skip


@pytest.mark.parametrize("name", [name for name, *_ in bombs(None)])
def test_a_bomb_is_refused_before_it_is_read(tmp_path, monkeypatch, name):
    # A twentieth of it, so that the bombs are made in a second.
    monkeypatch.setattr(record.predictions, "MAX_BYTES", 50 * MIB)
    (make, told) = next((make, told) for known, make, told in bombs(tmp_path) if known == name)
    make()
    assert (tmp_path / PREDICTIONS_FILE).stat().st_size < 2 * MIB
    pool = pa.system_memory_pool()
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        with pytest.raises(UserError, match=told.replace("(", r"\(").replace(")", r"\)")) as refusal:
            load_predictions(tmp_path)
        assert pool.max_memory() < 16 * MIB
    finally:
        pa.set_memory_pool(before)
    assert str(refusal.value) == one_line(str(refusal.value))


def test_honest_predictions_are_measured_as_they_are(tmp_path):
    predictions = honest()
    predictions.save(tmp_path)
    assert load_predictions(tmp_path, rows=5_000) == predictions
    sizes = dict(zip(SCHEMA.names, column_sizes(tmp_path / PREDICTIONS_FILE), strict=True))
    # An empty list counts for one value.
    assert [sizes[name].values for name in SCHEMA.names] == [5_000] * 6 + [10_000, 5_000]
    stated = pq.read_metadata(tmp_path / PREDICTIONS_FILE).row_group(0)
    for number, name in enumerate(SCHEMA.names):
        # The footer counts the pages' headers, too.
        assert 0 < stated.column(number).total_uncompressed_size - sizes[name].bytes < 200 * sizes[name].pages


def test_other_numbers_of_rows_are_told(tmp_path):
    honest(3).save(tmp_path)
    with pytest.raises(UserError, match="there are predictions for 3 rows, but 4 test rows"):
        load_predictions(tmp_path, rows=4)


@pytest.mark.parametrize("byte", range(4, 400, 7))
def test_a_broken_file_ends_in_one_line_or_is_read(tmp_path, byte):
    honest(3).save(tmp_path)
    data = bytearray((tmp_path / PREDICTIONS_FILE).read_bytes())
    data[byte] ^= 0x55
    (tmp_path / PREDICTIONS_FILE).write_bytes(data)
    try:
        assert len(load_predictions(tmp_path).prompt) == 3
    except UserError as refusal:
        assert "\n" not in str(refusal)
