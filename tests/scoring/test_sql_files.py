"""Queries on a benchmark's own SQLite files: what matches there, what a hostile file costs, and that none changes."""

import math
import resource
import sqlite3
import time

import pytest

from scoring.sql.files import matches_on_files
from scoring.sql.sandbox import open_file, run

TABLES = "CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, country TEXT);"
SINGERS = [(1, "Ann", 40, "France"), (2, "Ben", 25, "France"), (3, "Cleo", 40, "Chad"), (4, "Dan", 19, "Peru")]


def make(path, script=TABLES, rows=SINGERS):
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.executemany("INSERT INTO singer VALUES (?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()
    return path


@pytest.fixture(scope="module")
def singers(tmp_path_factory):
    return make(tmp_path_factory.mktemp("databases") / "singer ?#%.sqlite")


@pytest.mark.parametrize(
    ("reference", "prediction", "match"),
    [
        ("SELECT name FROM singer WHERE age > 30", "SELECT T1.name FROM singer AS T1 WHERE T1.age >= 40", 1),
        # Made rows tell these two apart; this file's rows do not.
        ("SELECT name FROM singer WHERE age > 30", "SELECT name FROM singer WHERE age <> 19 AND age <> 25", 1),
        ("SELECT name FROM singer WHERE age > 30", "SELECT name FROM singer", 0),
        ("SELECT count(*) FROM singer", "SELECT count(name) FROM singer", 1),
        ("SELECT name FROM singer", "SELECT name FROM singers", 0),
        ("SELECT name FROM singer", "no query", 0),
        ("SELECT name FROM singer", "DROP TABLE singer", 0),
        # Two singers are 40: which one the LIMIT leaves is open, that it is a singer of 40 is not.
        ("SELECT name FROM singer ORDER BY age DESC LIMIT 1", "SELECT name FROM singer WHERE age = 40 LIMIT 1", 1),
        ("SELECT name FROM singer ORDER BY age DESC LIMIT 1", "SELECT 'Eve'", 0),
        ("SELECT name FROM singer ORDER BY name", "SELECT name FROM singer ORDER BY name DESC", 0),
        ("SELECT name FROM singer WHERE age > 90", "SELECT name FROM singer WHERE age > 80", 1),
        ("SELECT nothing FROM singer", "SELECT name FROM singer", math.nan),
        ("no query", "SELECT name FROM singer", math.nan),
        # Another dialect than SQLite's.
        ("SELECT TOP 1 name FROM singer ORDER BY id", "SELECT name FROM singer WHERE id = 1", 1),
    ],
)
def test_a_match_on_the_rows_of_a_file(singers, reference, prediction, match):
    assert matches_on_files([singers], [prediction], [reference]) == pytest.approx([match], nan_ok=True)


def test_each_row_runs_on_its_own_file_and_none_is_changed(singers, tmp_path):
    others = make(tmp_path / "others.sqlite", rows=[(1, "Ann", 40, "Chad")])
    before = singers.read_bytes(), others.read_bytes(), sorted(p.name for p in singers.parent.iterdir())
    queries = ["SELECT name FROM singer WHERE age = 40"] * 3
    guesses = ["SELECT name FROM singer WHERE country = 'Chad'"] * 3
    assert matches_on_files([others, singers, others], guesses, queries) == [1, 0, 1]
    for statement in ("DELETE FROM singer", "CREATE TABLE t (a)", "ATTACH 'x.db' AS x", "PRAGMA query_only = OFF"):
        assert math.isnan(matches_on_files([singers], ["SELECT 1"], [statement])[0])
    assert (singers.read_bytes(), others.read_bytes(), sorted(p.name for p in singers.parent.iterdir())) == before


COUNT = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n FROM r"
HOSTILE = {
    "a view without end": f"{TABLES} CREATE VIEW v AS {COUNT};",
    "views that read each other": f"{TABLES} CREATE VIEW v AS SELECT * FROM w; CREATE VIEW w AS SELECT * FROM v;",
    "a view that loads code": f"{TABLES} CREATE VIEW v AS SELECT load_extension('evil.so');",
    "a view that reads the clock": f"{TABLES} CREATE VIEW v AS SELECT random(), current_timestamp;",
    "doubling views": TABLES + "CREATE VIEW v0 AS SELECT 1 AS x;" + "".join(
        f"CREATE VIEW v{n} AS SELECT p.x FROM v{n - 1} p, v{n - 1} q;" for n in range(1, 40)) +
        "CREATE VIEW v AS SELECT x FROM v39;",
    "a trigger": f"{TABLES} CREATE VIEW v AS SELECT name FROM absent; CREATE TRIGGER t AFTER INSERT ON singer BEGIN "
                 "UPDATE singer SET age = 1; END;",
    "large values": f"{TABLES} CREATE TABLE v (a); INSERT INTO v VALUES (zeroblob(5000000));",
    "many rows": f"{TABLES} CREATE TABLE v (a); INSERT INTO v {COUNT} LIMIT 100000;",
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_costs_little_and_its_sound_tables_are_read(what, tmp_path):
    path = make(tmp_path / "hostile.sqlite", HOSTILE[what])
    peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    matches = matches_on_files([path] * 2, ["SELECT * FROM v"] * 2, ["SELECT name FROM singer", "SELECT * FROM v"])
    assert matches[0] == 0 and math.isnan(matches[1])
    # As for hostile queries on made rows (test_sql_execution): what a bound of 5 million steps and 64 MB allows.
    assert time.process_time() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 120 * 1024


def test_what_is_no_sound_database_is_not_read(singers, tmp_path):
    virtual = make(tmp_path / "virtual.sqlite", f"{TABLES} CREATE VIRTUAL TABLE v USING fts5(a);")
    (tmp_path / "text.sqlite").write_text("no database\n" * 100)
    whole = bytearray(singers.read_bytes())
    whole[4096 + 8 : 4096 + 600] = b"\xff" * 592
    (tmp_path / "damaged.sqlite").write_bytes(whole)
    (tmp_path / "wide.sqlite").write_bytes(b"")
    make(tmp_path / "wide.sqlite", f"{TABLES} CREATE TABLE w ({', '.join(f'a{n}' for n in range(900))});")
    for path in (virtual, *(tmp_path / f"{name}.sqlite" for name in ("text", "damaged", "wide"))):
        assert open_file(path) is None, path.name
        assert math.isnan(matches_on_files([path], ["SELECT 1"], ["SELECT 1"])[0])


def test_text_that_is_no_utf_8_is_read(tmp_path):
    path = make(tmp_path / "latin.sqlite", rows=[])
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO singer VALUES (1, CAST(x'4de97a' AS TEXT), 1, NULL)")
    connection.commit()
    connection.close()
    assert run(open_file(path), "SELECT name FROM singer").rows == [("M\udce9z",)]
