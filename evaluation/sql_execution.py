"""Whether two queries answer alike: both run in SQLite, bounded, on databases made for the reference.

Both texts and the schema are strangers' words: every database lives in memory, only CREATE TABLE and SELECT are
authorised, and the bounds count SQLite's own steps and bytes, never seconds, so that a verdict is the same on every machine.

Result columns have no names and stand in their order: with the names gone, the place alone says which is which. (Test-suite
accuracy, Zhong et al. 2020, also tries every permutation of them, which takes `MIN(x), MAX(x)` for `MAX(x), MIN(x)`.)
"""

import sqlite3
from collections import Counter
from random import Random
from typing import NamedTuple

from sqlglot import exp

from evaluation.sql_databases import KINDS, Column, Rows, Tables, fill, plan_rows

LONGEST = 10_000  # characters of a query or a schema
STEPS = 1_000_000  # instructions of SQLite's virtual machine for one query
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
# Deterministic, and in every SQLite since 3.34. Not the mathematical ones, which many builds lack; not random(); nothing
# that reads a clock or a time zone (none of 4,000 real queries does).
FUNCTIONS = set(
    "abs avg char coalesce count cume_dist dense_rank first_value glob group_concat hex ifnull iif instr lag last_value lead"
    " length like lower ltrim max min nth_value ntile nullif percent_rank printf quote rank replace round row_number rtrim"
    " substr substring sum total trim typeof unicode upper".split()
)
SELECTING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
CREATING = {sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_READ}
WRITING = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE}
TRIES = 3


class Result(NamedTuple):
    """A query's answer: its number of columns and its rows."""

    width: int
    rows: list[tuple]


class Verdict(NamedTuple):
    """What execution says of a prediction.

    Parameters:
        executable: whether the reference runs on its own schema.
        match: whether the prediction answers as the reference on every database.
        empty: whether the reference answers with no row on every database: a match says little then.
    """

    executable: bool
    match: bool
    empty: bool


def open_schema(schema: str) -> sqlite3.Connection | None:
    """An empty database in memory with the schema's tables; None where it does not run or asks for more than tables."""
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)
    # The second bound holds for the whole process and can only be lowered.
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA hard_heap_limit = {HEAP}")
    for limit, most in LIMITS.items():
        connection.setlimit(limit, most)
    connection.set_authorizer(allow_creating)
    connection.set_progress_handler(countdown(), STRIDE)
    try:
        if len(schema) > LONGEST:
            raise sqlite3.DataError("too long")
        connection.executescript(schema)
    except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError):
        connection.close()
        return None
    finally_free(connection)
    return connection


def finally_free(connection: sqlite3.Connection) -> None:
    connection.set_authorizer(None)
    connection.set_progress_handler(None, STRIDE)


def allow_creating(action: int, first: str | None, second: str | None, *_) -> int:
    """Authorises CREATE TABLE and what SQLite itself does for it."""
    own = action in WRITING and first in ("sqlite_master", "sqlite_sequence")
    return allowed(action in CREATING or own, action, second)


def allow_selecting(action: int, _first: str | None, second: str | None, *_) -> int:
    """Authorises one SELECT."""
    return allowed(action in SELECTING, action, second)


def allowed(ok: bool, action: int, function: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        ok = function is not None and function.lower() in FUNCTIONS
    return sqlite3.SQLITE_OK if ok else sqlite3.SQLITE_DENY


def countdown():
    """A progress handler that interrupts after `STEPS` instructions."""
    left = STEPS // STRIDE

    def step() -> int:
        nonlocal left
        left -= 1
        return left < 0

    return step


def describe(connection: sqlite3.Connection) -> Tables:
    """The tables of a database with the columns that rows can be inserted into."""
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    )
    return {
        name: [
            Column(column, (declared or "").upper(), not required)
            for _, column, declared, required, _, _ in connection.execute(f"PRAGMA table_info({quoted(name)})")
        ]
        for (name,) in names.fetchall()
    }


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def run(connection: sqlite3.Connection, query: str) -> Result | None:
    """The answer of one SELECT; None where it fails, is no SELECT, or goes beyond a bound."""
    connection.set_authorizer(allow_selecting)
    connection.set_progress_handler(countdown(), STRIDE)
    rows, size = [], 0
    try:
        # Python takes a second semicolon for a second statement.
        cursor = connection.execute(query.rstrip("; \n\t"))
        for row in cursor:
            rows.append(tuple(map(plain, row)))
            size += sum(len(value) for value in row if isinstance(value, str | bytes))
            if len(rows) > RESULT_ROWS or size > RESULT_SIZE:
                return None
        return Result(len(cursor.description), rows) if cursor.description else None
    except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError):
        return None
    finally:
        finally_free(connection)


def plain(value):
    """A value without the last digits of a float: they depend on the order in which a sum was taken."""
    return float(f"{value:.9g}") if isinstance(value, float) and not value.is_integer() else value


def put(connection: sqlite3.Connection, tables: Tables, rows: Rows) -> Rows:
    """Replaces the rows of all tables; those that a declared constraint forbids are left out.

    Returns:
        The rows that are in the tables now.
    """
    connection.set_progress_handler(countdown(), STRIDE)
    kept: Rows = {}
    try:
        for table, columns in tables.items():
            connection.execute(f"DELETE FROM {quoted(table)}")
            names = ", ".join(quoted(column.name) for column in columns)
            values = ", ".join("?" * len(columns))
            connection.executemany(f"INSERT OR IGNORE INTO {quoted(table)} ({names}) VALUES ({values})", rows[table])
        while orphans := {row[:2] for row in connection.execute("PRAGMA foreign_key_check")}:
            for table, row in orphans:
                connection.execute(f"DELETE FROM {quoted(table)} WHERE rowid = ?", (row,))
        for table, columns in tables.items():
            names = ", ".join(quoted(column.name) for column in columns)
            kept[table] = connection.execute(f"SELECT {names} FROM {quoted(table)}").fetchall()
    finally:
        finally_free(connection)
    return kept


def index_downwards(connection: sqlite3.Connection, tables: Tables) -> None:
    """A descending index on every column: it turns round every order that a query leaves to SQLite."""
    for number, (table, columns) in enumerate(tables.items()):
        for place, column in enumerate(columns):
            connection.execute(f"CREATE INDEX down_{number}_{place} ON {quoted(table)} ({quoted(column.name)} DESC)")


def hollow(result: Result) -> bool:
    """Whether an answer says next to nothing: no row, or one row of zeros and NULLs."""
    return not result.rows or (len(result.rows) == 1 and not any(result.rows[0]))


def is_ordered(query: exp.Query) -> bool:
    """Whether a query orders its rows itself, as a whole."""
    return query.args.get("order") is not None


def execute(reference: str, prediction: str | None, schema: str, seed: int, tree: exp.Query, ordered: bool) -> Verdict:
    """Runs the reference and the prediction on every database that is made for the reference.

    Parameters:
        prediction: None for one that sqlglot does not read.
        tree: the parsed reference.
        ordered: whether the prediction has an ORDER BY of its own.
    """

    def again(database: sqlite3.Connection, answer: Result | None) -> Result | None:
        """The prediction's answer: the reference's own where both are one text."""
        return answer if prediction == reference else run(database, prediction)

    connection, indexed = open_schema(schema), open_schema(schema)
    if connection is None or indexed is None:
        return Verdict(False, False, False)
    try:
        tables = describe(connection)
        index_downwards(indexed, tables)
        plan = plan_rows(tree, tables)
        match, empty = prediction is not None, True
        for number, kind in enumerate(KINDS):
            for attempt in range(TRIES):
                random = Random(f"{seed}|{number}|{attempt}|{schema}|{reference}")
                rows = put(connection, tables, fill(tables, plan, kind, random))
                answer = run(connection, reference)
                if answer is None:
                    return Verdict(False, False, False)
                if not hollow(answer):
                    break
            empty &= not answer.rows
            if match:
                golds, guesses = [answer], [again(connection, answer)]
                back = {table: part[::-1] for table, part in rows.items()}
                mixed = {table: sorted(part, key=lambda _: random.random()) for table, part in rows.items()}
                for database, other in ((connection, back), (indexed, mixed)):
                    put(database, tables, other)
                    golds.append(run(database, reference))
                    guesses.append(again(database, golds[-1]))
                match = agree(golds, guesses, is_ordered(tree), ordered)
        return Verdict(True, match, empty)
    except (sqlite3.Error, sqlite3.Warning, MemoryError):
        return Verdict(False, False, False)
    finally:
        connection.close()
        indexed.close()


def agree(golds: list[Result | None], guesses: list[Result | None], ordered: bool, guess_ordered: bool) -> bool:
    """Whether the prediction's answers are the reference's, as far as the reference determines its own.

    One database, stored in several ways, gives one answer each. Where they differ, the reference leaves something open:
    the order of rows with equal keys, which of them a LIMIT cuts off, which row of a group a bare column is taken from.
    That is not compared there; other databases have no such ties.
    """
    if None in golds or None in guesses or any(a.width != b.width for a, b in zip(golds, guesses, strict=True)):
        return False
    golds, guesses = [list(gold.rows) for gold in golds], [list(guess.rows) for guess in guesses]
    bags = [Counter(gold) for gold in golds]
    if all(bag == bags[0] for bag in bags):
        if ordered and len(bags[0]) > 1 and all(gold == golds[0] for gold in golds):
            return guess_ordered and all(guess == golds[0] for guess in guesses)
        return all(Counter(guess) == bags[0] for guess in guesses)
    if len({len(gold) for gold in golds}) > 1:
        return True
    columns = [[Counter(column) for column in zip(*gold, strict=True)] for gold in golds]
    fixed = [place for place in range(len(columns[0])) if all(column[place] == columns[0][place] for column in columns)]
    return all(
        len(guess) == len(golds[0])
        and all(Counter(row[place] for row in guess) == columns[0][place] for place in fixed)
        for guess in guesses
    )
