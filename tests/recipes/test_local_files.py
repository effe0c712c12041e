"""Every kind of file of rows, and folders of them, give the rows that the Hub's own reader would."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipes.data.local_files import load_files, pin_files
from record.errors import UserError, one_line

ROWS = [{"q": "What is NA?", "a": "1"}, {"q": "übrigens, what?", "a": "null"}]


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        sep = {".csv": ",", ".tsv": "\t"}[path.suffix]
        quoted = [[f'"{row["q"]}"', row["a"]] for row in rows]
        path.write_text("\n".join(map(sep.join, [["q", "a"], *quoted])), encoding="utf-8")
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows) if path.suffix == ".jsonl" else json.dumps(rows))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_a_file_gives_its_rows_as_they_stand_and_only_while_it_stays_the_same(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    write(path, ROWS)
    pinned = pin_files(str(path))
    parts = load_files(str(path), pinned, None)
    assert {name: part.to_list() for name, part in parts.items()} == {"train": ROWS}
    write(path, ROWS[::-1])
    with pytest.raises(UserError, match="has changed since this run began"):
        load_files(str(path), pinned, None)
    assert load_files(str(path), pin_files(str(path)), None)["train"].to_list() == ROWS[::-1]


def test_a_folder_gives_its_splits(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    write(folder / "train.csv", ROWS)
    write(folder / "test.csv", ROWS[:1])
    (folder / ".hidden.csv").write_text("no,thing")
    pinned = pin_files(str(folder))
    parts = load_files(str(folder), pinned, None)
    assert {name: part.to_list() for name, part in parts.items()} == {"train": ROWS, "test": ROWS[:1]}
    (folder / "test.csv").rename(folder / "validation.csv")
    assert pin_files(str(folder)).revision != pinned.revision


@pytest.mark.parametrize("name", ["absent.csv", "./absent", "empty/"])
def test_what_holds_no_rows_is_refused_with_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is neither a file of rows") as refused:
        pin_files(name)
    assert str(refused.value) == one_line(str(refused.value))
