"""Hostile SQL: refused or cut off soon, in bounded memory, with nothing changed on disk."""

import resource
import time

import pytest

from scoring.sql.matching import score_row
from scoring.sql.sandbox import open_schema, put, read_tables, run

TABLE = "CREATE TABLE t (a INTEGER, b VARCHAR)"
QUERY = "SELECT a FROM t"
COUNT = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) "
COUNT_15_000 = COUNT.replace("FROM r)", "FROM r LIMIT 15000)")


def nested(step: str) -> str:
    """A query of 50 common table expressions, each of which reads `{c}`, the one before it, more than once."""
    steps = "".join(f", c{i} AS ({step.format(c=f'c{i - 1}')})" for i in range(1, 50))
    return f"WITH c0 AS (SELECT 1 AS x){steps} SELECT x FROM c49"


HOSTILE = {
    "attach": "ATTACH 'made.db' AS x",
    "attach a file that exists": "ATTACH '/etc/passwd' AS x",
    "vacuum": "VACUUM INTO 'made.db'",
    "pragma": "PRAGMA journal_mode = DELETE",
    "pragma as a table": "SELECT name FROM pragma_database_list",
    "schema table": "SELECT sql FROM sqlite_master",
    "insert": "INSERT INTO t VALUES (1, 'x')",
    "update": "UPDATE t SET a = 1",
    "delete": "DELETE FROM t",
    "delete that returns": "DELETE FROM t RETURNING a",
    "with delete": "WITH x AS (SELECT 1) DELETE FROM t",
    "create": "CREATE TABLE u (a)",
    "drop": "DROP TABLE t",
    "two statements": "SELECT a FROM t; DROP TABLE t",
    "extension": "SELECT load_extension('evil.so')",
    "read a file": "SELECT readfile('/etc/passwd')",
    "write a file": "SELECT writefile('made.db', 'x')",
    "random": "SELECT a FROM t ORDER BY random()",
    "clock": "SELECT current_timestamp",
    "date": "SELECT date('now')",
    "recursion": COUNT + "SELECT n FROM r",
    "recursive sum": COUNT + "SELECT sum(n) FROM r",
    "recursive text": "WITH RECURSIVE r(n) AS (SELECT 'a' UNION ALL SELECT n || n FROM r) SELECT n FROM r",
    "recursive sorting": COUNT_15_000 + f"SELECT n || '{'x' * 1_900}' FROM r ORDER BY 1 LIMIT 1",
    "searching": COUNT + f"SELECT sum(instr('{'a' * 1_900}' || n, '{'a' * 950}b')) FROM r",
    "patterns": COUNT + f"SELECT sum('{'a' * 1_900}' || n LIKE '{'%a' * 100}b_') FROM r",
    "joining": "SELECT count(*) FROM t, " + ", ".join(f"t AS t{i}" for i in range(20)),
    "sorted joining": "SELECT t.a FROM t, " + ", ".join(f"t AS t{i}" for i in range(9)) + " ORDER BY 1",
    "doubling": nested("SELECT p.x FROM {c} p, {c} q"),
    "doubling by union": nested("SELECT x FROM {c} UNION ALL SELECT x FROM {c}"),
    "doubling by subqueries": nested("SELECT (SELECT x FROM {c}) + (SELECT x FROM {c}) AS x"),
    "printf": "SELECT printf('%.*c', 1000000000, 'x')",
    "zeroblob": "SELECT zeroblob(1000000000)",
    "randomblob": "SELECT randomblob(1000000000)",
    "replace": f"SELECT replace(replace('{'a' * 1_900}', 'a', '{'b' * 1_900}'), 'b', '{'c' * 100}')",
    "10 MB of text": "SELECT '" + "a" * 10_000_000 + "'",
    "10 MB of nothing": "SELECT a" + " " * 10_000_000 + "FROM t",
    "parentheses": "SELECT " + "(" * 1_900 + "1" + ")" * 1_900,
    "subqueries": "SELECT " + "(SELECT " * 400 + "1" + ")" * 400,
    "a long sum": "SELECT " + "+".join("1" * 1_900),
    "a long condition": "SELECT a FROM t WHERE " + " AND ".join(["a=1"] * 480),
    "a long union": " UNION ALL ".join(["SELECT 1"] * 200),
    "many equal signs": "SELECT " + "=".join("1" * 1_900) + " FROM t ORDER BY 1",
    "null character": "SELECT a FROM t\x00",
    "half a character": "SELECT '\ud800'",
    "parameter": "SELECT ?",
}  # fmt: skip
# Processor seconds and MB that one hostile text may take: far above what was measured (0.5 s, and 66 MB where the heap
# is filled to its bound of 64 MB), far below what any of them takes unbounded.
SECONDS = 5
MEGABYTES = 120


def cost(prediction: str, reference: str, schema: str):
    """The score of a row, its processor seconds, and the MB by which it raised the process's peak."""
    peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    row = score_row(prediction, reference, schema, 0)
    return row, time.process_time() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_predictions(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (_, exact, verdict), seconds, megabytes = cost(HOSTILE[name], QUERY, TABLE)
    assert (exact, verdict.match, verdict.executable) == (0.0, False, True)
    assert seconds < SECONDS and megabytes < MEGABYTES
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_references(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (_, _, verdict), seconds, megabytes = cost(QUERY, HOSTILE[name], TABLE)
    assert not verdict.match
    assert seconds < SECONDS and megabytes < MEGABYTES
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "schema",
    [
        "",
        "no tables",
        "\x00",
        TABLE + "; INSERT INTO t SELECT 1, 'x'",
        TABLE + "; INSERT INTO t VALUES (printf('%.*c', 1000000000, 'x'), 'x')",
        TABLE + "; INSERT INTO sqlite_sequence VALUES ('t', 1)",
        TABLE + "; " + QUERY,
        "BEGIN; " + TABLE,
        "CREATE TABLE t AS " + COUNT + "SELECT n AS a FROM r",
        "CREATE TEMP TABLE t (a)",
        "CREATE VIRTUAL TABLE t USING fts5(a)",
        TABLE + "; CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM t; END",
        TABLE + "; CREATE VIEW v AS SELECT 1",
        "ATTACH 'made.db' AS x; CREATE TABLE x.t (a)",
        "PRAGMA writable_schema = 1; " + TABLE,
        TABLE + "; VACUUM INTO 'made.db'",
        "CREATE TABLE t (a INTEGER CHECK (length(printf('%.*c', 1000000000, 'x')) > 1))",
        "CREATE TABLE t (a, b AS (zeroblob(1000000000)))",
        "CREATE TABLE t (a DEFAULT (" + "(" * 400 + "1" + ")" * 400 + "))",
        TABLE + " " * 10_000_000,
        TABLE + "; " + TABLE,
        "CREATE TABLE t (a, " + ", ".join(f"c{i}" for i in range(300)) + ")",
        "CREATE TABLE t (a COLLATE nowhere, \ud800)",
    ],
    ids=range(23),
)
def test_a_schema_may_only_create_tables(schema, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (_, _, verdict), seconds, megabytes = cost(QUERY, QUERY, schema)
    assert not verdict.executable
    assert seconds < SECONDS and megabytes < MEGABYTES
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "schema",
    [
        TABLE,
        "CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT)",
        "CREATE TABLE t (a INTEGER) STRICT",
        'create table "t" ("a" int, "x""y; -- " text, "select" text)',
        "CREATE TABLE t (a INTEGER DEFAULT (abs(-1)) CHECK (a > 5))",
        "CREATE TABLE t (a INTEGER REFERENCES nowhere (x))",
        "CREATE TABLE t (a INTEGER REFERENCES t (b), b INTEGER)",
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b REFERENCES t (a)) WITHOUT ROWID",
        "CREATE TABLE t (a INTEGER, b AS (a + 1))",
        "CREATE TABLE t (a DATE NOT NULL UNIQUE)",
        ";".join(f"CREATE TABLE t{i or ''} (a)" for i in range(100)),
        "CREATE TABLE t (a, b TEXT CHECK (instr(b, '" + "x" * 900 + "') = 0))",
    ],
    ids=range(12),
)
def test_tables_of_every_kind_are_filled(schema):
    (_, _, verdict), seconds, _ = cost(QUERY, QUERY, schema)
    assert verdict == (True, True, False)
    assert seconds < SECONDS


def test_nothing_that_runs_can_write():
    connection = open_schema(TABLE)
    tables = read_tables(connection)
    rows = {"t": [(1, "x"), (2, None)]}
    for text in HOSTILE.values():
        put(connection, tables, rows)
        run(connection, text)
        assert connection.execute("SELECT * FROM t").fetchall() == rows["t"]
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)


def test_declared_constraints_hold():
    schema = (
        "CREATE TABLE u (k INTEGER PRIMARY KEY);"
        "CREATE TABLE t (a INTEGER NOT NULL UNIQUE CHECK (a > 1), k INTEGER REFERENCES u (k))"
    )
    connection = open_schema(schema)
    kept = put(
        connection,
        read_tables(connection),
        {"u": [(1,), (1,)], "t": [(1, 1), (2, 1), (2, 1), (None, 1), (3, 9), (4, None)]},
    )
    assert kept == {"u": [(1,)], "t": [(2, 1), (4, None)]}


def test_steps_decide_and_not_seconds():
    connection = open_schema(TABLE)
    put(connection, read_tables(connection), {"t": [(n, "x") for n in range(20)]})
    assert run(connection, "SELECT count(*) FROM t AS a, t AS b, t AS c").rows == [(8_000,)]
    assert run(connection, "SELECT count(*) FROM t AS a, t AS b, t AS c, t AS d, t AS e") is None
    # The bound is each query's own.
    assert run(connection, QUERY).rows == [(n,) for n in range(20)]


def test_floats_differ_by_more_than_their_last_digits():
    connection = open_schema("CREATE TABLE t (a REAL)")
    assert run(connection, "SELECT 0.1 + 0.2") == run(connection, "SELECT 0.3")
    assert run(connection, "SELECT 0.3") != run(connection, "SELECT 0.3001")
    assert run(connection, "SELECT 1") == run(connection, "SELECT 1.0")
    assert run(connection, "SELECT 1") != run(connection, "SELECT '1'")
