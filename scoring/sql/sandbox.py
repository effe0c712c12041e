"""Strangers' SQL in a bounded SQLite: only CREATE TABLE and SELECT are authorised, in a database in memory.

A file that a stranger has filled is only read: nothing is written beside it, and what lies beside it is not read.

The bounds count SQLite's own steps and bytes, never seconds, so that an outcome is the same on every machine.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from scoring.sql.databases import Column, Rows, Tables
from scoring.sql.dates import DATES, add_dates
from scoring.sql.dialects import read_schema
from scoring.sql.literals import Value, fold

LONGEST = 4_000  # characters of a query or a schema; the longest of 4,000 real ones has 557
STEPS = 200_000  # instructions of SQLite's virtual machine for one query; of 1,000 real ones none needed 20,000
FILE_STEPS = 5_000_000  # the same in a file, whose tables are larger: as many as all made databases take together
FILE_SCHEMA = 100_000  # characters of one of a file's CREATE statements
VALUE = 2_000  # characters or bytes of one value: what one instruction can take grows with their square
STRIDE = 1_000  # instructions between two looks at the count
RESULT_ROWS = 5_000
RESULT_SIZE = 1_000_000  # characters and bytes
HEAP = 64 * 2**20  # bytes, for all of SQLite in this process
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: LONGEST,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: LONGEST,
    sqlite3.SQLITE_LIMIT_COLUMN: 200,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 25_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 20,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 500,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
# Deterministic, and in every SQLite since 3.34. Not the mathematical ones, which many builds lack; not random(); none
# that reads a clock or a time zone; not printf(), which counts to a thousand million in one instruction. None of 4,000
# real queries calls any of these.
FUNCTIONS = frozenset([
    "abs", "avg", "char", "coalesce", "count", "cume_dist", "dense_rank", "first_value", "glob", "group_concat", "hex",
    "ifnull", "iif", "instr", "lag", "last_value", "lead", "length", "like", "lower", "ltrim", "max", "min",
    "nth_value", "ntile", "nullif", "percent_rank", "quote", "rank", "replace", "round", "row_number", "rtrim",
    "substr", "substring", "sum", "total", "trim", "typeof", "unicode", "upper",
])  # fmt: skip
SELECTING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
CREATING = {sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_READ}
WRITING = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE}


class Result(NamedTuple):
    """A query's answer: its number of columns and its rows."""

    width: int
    rows: list[tuple]


class Database(sqlite3.Connection):
    """A connection with the functions that a query on it may call."""

    functions = FUNCTIONS
    steps = STEPS


def open_schema(schema: str, rules: int = 2) -> Database | None:
    """A database in memory with the schema's tables; None where it does not run or asks for more than tables.

    From rules 2 on a schema that SQLite does not read is read in other dialects, and the rows of its INSERTs stand in
    the tables.
    """
    connection = create(schema)
    if rules == 1:
        return connection
    if connection is None:
        others = (
            filter(None, (create(*written) for written in read_schema(schema))) if len(schema) <= LONGEST else iter(())
        )
        connection = next(others, None)
    if connection is not None:
        connection.functions = FUNCTIONS | DATES
        add_dates(connection)
    return connection


def create(tables: str, inserts: Sequence[str] = ()) -> Database | None:
    """A database with the tables, and the rows that break no constraint; None where a statement does not run."""
    connection = connect(":memory:")
    connection.set_authorizer(allow_creating)
    connection.set_progress_handler(countdown(connection.steps), STRIDE)
    try:
        if len(tables) > LONGEST:
            raise sqlite3.DataError("too long")
        connection.executescript(tables)
        connection.set_authorizer(allow_inserting)
        for insert in inserts:
            connection.execute(insert)
    except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError):
        connection.close()
        return None
    release(connection)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE)
    return connection


def connect(uri: str) -> Database:
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, cached_statements=0, factory=Database)
    # The second bound holds for the whole process and can only be lowered.
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA hard_heap_limit = {HEAP}")
    for limit, most in LIMITS.items():
        connection.setlimit(limit, most)
    return connection


def open_file(path: Path) -> Database | None:
    """A database file with its views and tables, for reading alone; None where it is damaged, or none, or too large.

    What is done to files of unknown origin is what sqlite.org/security.html asks for. Virtual tables are read by code
    that such files have deceived before: a file that has any is refused.
    """
    connection = connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1")
    connection.steps = FILE_STEPS
    # Many a benchmark's texts are no UTF-8.
    connection.text_factory = lambda text: text.decode(errors="surrogateescape")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, FILE_SCHEMA)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, FILE_SCHEMA)
    connection.set_progress_handler(countdown(FILE_STEPS), STRIDE)
    try:
        for setting in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "query_only = ON"):
            connection.execute(f"PRAGMA {setting}")
        sound = connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
        virtual = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND rootpage = 0").fetchone()
    except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError):
        sound, virtual = False, None
    if not sound or virtual is not None:
        connection.close()
        return None
    release(connection)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, LONGEST)
    connection.functions = FUNCTIONS | DATES
    add_dates(connection)
    return connection


def release(connection: Database) -> None:
    connection.set_authorizer(None)
    connection.set_progress_handler(None, STRIDE)


def allow_creating(action: int, first: str | None, second: str | None, *_) -> int:
    """Authorises CREATE TABLE and what SQLite itself does for it."""
    own = action in WRITING and first in ("sqlite_master", "sqlite_sequence")
    return permission(action in CREATING or own, action, second)


def allow_inserting(action: int, first: str | None, second: str | None, *_) -> int:
    """Authorises INSERT ... VALUES into the tables."""
    own = action == sqlite3.SQLITE_INSERT and first is not None and not first.startswith("sqlite_")
    return permission(own or action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ), action, second)


def allow_selecting(functions: frozenset[str]):
    """Authorises one SELECT that calls no other functions."""

    def allow(action: int, _first: str | None, second: str | None, *_) -> int:
        return permission(action in SELECTING, action, second, functions)

    return allow


def permission(ok: bool, action: int, function: str | None, functions: frozenset[str] = FUNCTIONS) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        ok = function is not None and function.lower() in functions
    return sqlite3.SQLITE_OK if ok else sqlite3.SQLITE_DENY


def countdown(steps: int = STEPS):
    """A progress handler that interrupts after so many instructions."""
    calls = steps // STRIDE

    def step() -> int:
        nonlocal calls
        calls -= 1
        return calls < 0

    return step


def read_tables(connection: Database) -> Tables:
    """The tables of a database with the columns that rows can be inserted into."""
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    )
    return {
        name: [
            Column(column, (declared or "").upper(), not required)
            for _, column, declared, required, _, _ in connection.execute(f"PRAGMA table_info({quote(name)})")
        ]
        for (name,) in names.fetchall()
    }


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def run(connection: Database, query: str, parameters: Sequence[Value] = ()) -> Result | None:
    """The answer of one SELECT; None where it fails, is no SELECT, or goes beyond a bound."""
    connection.set_authorizer(allow_selecting(connection.functions))
    connection.set_progress_handler(countdown(connection.steps), STRIDE)
    rows, size = [], 0
    try:
        # Python takes a second semicolon for a second statement.
        cursor = connection.execute(query.rstrip("; \n\t"), parameters)
        for row in cursor:
            rows.append(tuple(map(plain, row)))
            size += sum(len(value) for value in row if isinstance(value, str | bytes))
            if len(rows) > RESULT_ROWS or size > RESULT_SIZE:
                return None
        return Result(len(cursor.description), rows) if cursor.description else None
    except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError):
        return None
    finally:
        release(connection)


def plain(value):
    """A value without the last digits of a float: they depend on the order in which a sum was taken."""
    return float(f"{value:.9g}") if isinstance(value, float) and not value.is_integer() else value


def put(connection: Database, tables: Tables, rows: Rows) -> Rows:
    """Replaces the rows of all tables; those that a declared constraint forbids are left out.

    Returns:
        The rows that are in the tables now.
    """
    connection.set_progress_handler(countdown(), STRIDE)
    try:
        for table, columns in tables.items():
            connection.execute(f"DELETE FROM {quote(table)}")
            names = ", ".join(quote(column.name) for column in columns)
            values = ", ".join("?" * len(columns))
            connection.executemany(f"INSERT OR IGNORE INTO {quote(table)} ({names}) VALUES ({values})", rows[table])
        delete_orphans(connection, tables)
        contents = read_rows(connection, tables)
    finally:
        release(connection)
    return contents


def read_rows(connection: Database, tables: Tables) -> Rows:
    """All rows of all tables."""
    contents: Rows = {}
    for table, columns in tables.items():
        names = ", ".join(quote(column.name) for column in columns)
        contents[table] = connection.execute(f"SELECT {names} FROM {quote(table)}").fetchall()
    return contents


def delete_orphans(connection: Database, tables: Tables) -> None:
    """Deletes the rows that a declared foreign key forbids; keys that SQLite cannot check bind nothing."""
    names = {fold(table) for table in tables}
    try:
        while orphans := {
            (table, row)
            for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check")
            if fold(parent) in names
        }:
            for table, row in orphans:
                connection.execute(f"DELETE FROM {quote(table)} WHERE rowid = ?", (row,))
    except sqlite3.OperationalError:
        return
