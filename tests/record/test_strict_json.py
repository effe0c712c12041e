"""The one reader of JSON files, and files that are written whole or not at all."""

import pytest
from pydantic import BaseModel

from record import strict_json
from record.errors import UserError
from record.release_files import CARD_FILE, RECORD_FILE, VERDICT_FILE, largest_size
from record.whole_file import replacing, write_whole


class Thing(BaseModel):
    count: int


def test_a_file_is_what_its_model_says(tmp_path):
    path = tmp_path / "thing.json"
    write_whole(path, b'{"count": 3}')
    assert strict_json.load(path, Thing, "a thing") == Thing(count=3)
    assert strict_json.load(path, Thing, "a thing", parse=lambda data: {"count": len(data)}) == Thing(count=12)


@pytest.mark.parametrize(
    "data, told",
    [
        (b'{"count": "x"}', "thing.json is not a thing: count: Input should be a valid integer"),
        (b'{"count": 1, "count": 2}', "thing.json is not a thing: it holds the key 'count' twice"),
        (b'{"count": NaN}', "thing.json is not a thing: NaN is not a number in JSON"),
        (b'{"count": 1e999}', "thing.json is not a thing: it holds a number that is not finite"),
        (b'{"count"', "thing.json is not a thing: it is not JSON"),
        (b"\xff", "thing.json is not a thing: it is not UTF-8"),
        (b"[" * 10**5, "thing.json is not a thing: its values are nested too deep"),
        (b" " * (2**20 + 1), "thing.json is larger than 1,048,576 bytes: it is not a thing"),
    ],
)
def test_anything_else_is_refused_in_one_line(tmp_path, data, told):
    path = tmp_path / "thing.json"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        strict_json.load(path, Thing, "a thing")
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_told_with_its_cure(tmp_path):
    with pytest.raises(UserError, match=rf"^{tmp_path} holds no thing\.json$"):
        strict_json.load(tmp_path / "thing.json", Thing, "a thing")
    with pytest.raises(UserError, match=r"holds no thing\.json: make one$"):
        strict_json.read(tmp_path / "thing.json", "a thing", "make one")


def test_what_is_interrupted_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "thing.json"
    write_whole(path, b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        assert path.read_bytes() == b"old"
        raise KeyboardInterrupt
    assert [item.name for item in tmp_path.iterdir()] == ["thing.json"] and path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert [item.name for item in tmp_path.iterdir()] == ["thing.json"] and path.read_bytes() == b"new"


def test_the_largest_size_goes_by_name_then_by_suffix():
    sizes = [largest_size(name) for name in (RECORD_FILE, CARD_FILE, VERDICT_FILE, "a/b.png", "model.sig")]
    assert sizes == [16 * 2**20, 2 * 2**20, 2**20, 8 * 2**20, 2**20]
