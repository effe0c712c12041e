"""Whether two queries answer alike: both run in SQLite, bounded, on databases made for the reference.

Both texts and the schema are strangers' words: every database lives in memory, only CREATE TABLE and SELECT are
authorised, and the bounds count SQLite's own steps and bytes, never seconds, so that an outcome is the same on every
machine.

Result columns have no names and stand in their order: with the names gone, the place alone says which is which.
(Test-suite accuracy, Zhong et al. 2020, also tries every permutation of them, which takes `MIN(x), MAX(x)` for
`MAX(x), MIN(x)`.)
"""

import sqlite3
from collections import Counter
from random import Random
from typing import NamedTuple

from sqlglot import exp

from scoring.sql.databases import KINDS, Column, Rows, Tables, fill, fold, plan_rows

LONGEST = 4_000  # characters of a query or a schema; the longest of 4,000 real ones has 557
STEPS = 200_000  # instructions of SQLite's virtual machine for one query; of 1,000 real ones none needed 20,000
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
TRIES = 3


class Result(NamedTuple):
    """A query's answer: its number of columns and its rows."""

    width: int
    rows: list[tuple]


class Outcome(NamedTuple):
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
    release(connection)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE)
    return connection


def release(connection: sqlite3.Connection) -> None:
    connection.set_authorizer(None)
    connection.set_progress_handler(None, STRIDE)


def allow_creating(action: int, first: str | None, second: str | None, *_) -> int:
    """Authorises CREATE TABLE and what SQLite itself does for it."""
    own = action in WRITING and first in ("sqlite_master", "sqlite_sequence")
    return permission(action in CREATING or own, action, second)


def allow_selecting(action: int, _first: str | None, second: str | None, *_) -> int:
    """Authorises one SELECT."""
    return permission(action in SELECTING, action, second)


def permission(ok: bool, action: int, function: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        ok = function is not None and function.lower() in FUNCTIONS
    return sqlite3.SQLITE_OK if ok else sqlite3.SQLITE_DENY


def countdown():
    """A progress handler that interrupts after `STEPS` instructions."""
    calls = STEPS // STRIDE

    def step() -> int:
        nonlocal calls
        calls -= 1
        return calls < 0

    return step


def read_tables(connection: sqlite3.Connection) -> Tables:
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
        release(connection)


def plain(value):
    """A value without the last digits of a float: they depend on the order in which a sum was taken."""
    return float(f"{value:.9g}") if isinstance(value, float) and not value.is_integer() else value


def put(connection: sqlite3.Connection, tables: Tables, rows: Rows) -> Rows:
    """Replaces the rows of all tables; those that a declared constraint forbids are left out.

    Returns:
        The rows that are in the tables now.
    """
    connection.set_progress_handler(countdown(), STRIDE)
    contents: Rows = {}
    try:
        for table, columns in tables.items():
            connection.execute(f"DELETE FROM {quote(table)}")
            names = ", ".join(quote(column.name) for column in columns)
            values = ", ".join("?" * len(columns))
            connection.executemany(f"INSERT OR IGNORE INTO {quote(table)} ({names}) VALUES ({values})", rows[table])
        delete_orphans(connection, tables)
        for table, columns in tables.items():
            names = ", ".join(quote(column.name) for column in columns)
            contents[table] = connection.execute(f"SELECT {names} FROM {quote(table)}").fetchall()
    finally:
        release(connection)
    return contents


def delete_orphans(connection: sqlite3.Connection, tables: Tables) -> None:
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


def hollow(result: Result) -> bool:
    """Whether an answer says next to nothing: no row, or one row of zeros and NULLs."""
    return not result.rows or (len(result.rows) == 1 and not any(result.rows[0]))


def is_ordered(query: exp.Query) -> bool:
    """Whether a query orders its rows itself, as a whole."""
    return query.args.get("order") is not None


def variants(tree: exp.Query, width: int) -> list[str]:
    """The query twice more, with what it leaves open decided in the one way and in the other.

    Where the two answer alike, nothing is left open. Ties in an ORDER BY or before a LIMIT are broken by the result's
    columns: `ORDER BY age` becomes `ORDER BY age, 1, 2` and `ORDER BY age, 1 DESC, 2 DESC`. A bare column next to
    GROUP BY becomes the least and the greatest value of its group.

    Parameters:
        width: the number of the query's result columns.
    """
    if tree.find(exp.Order, exp.Limit, exp.AggFunc, exp.Group) is None:
        return []
    queries = []
    for downwards in (False, True):
        copy = tree.copy()
        for query in list(copy.find_all(exp.Select, exp.SetOperation)):
            for column in bare_columns(query):
                column.replace(exp.Max(this=column.copy()) if downwards else least(column))
            if is_ordered(query) or is_cut(query):
                places = range(1, 1 + (width if query is copy else len(query.selects)))
                keys = [
                    exp.Ordered(this=exp.Literal.number(place), desc=downwards, nulls_first=not downwards)
                    for place in places
                ]
                order = query.args.get("order")
                query.set("order", exp.Order(expressions=[*(order.expressions if order else []), *keys]))
        queries.append(copy.sql(dialect="sqlite"))
    return queries


def bare_columns(query: exp.Query) -> list[exp.Column]:
    """The columns of an aggregating SELECT's result, HAVING and ORDER BY that stand in no aggregate.

    None next to MIN or MAX: SQLite then takes them from the row that holds it (sqlite.org/lang_select.html#bareagg).
    """
    parts = [*query.selects, query.args.get("having"), query.args.get("order")] if isinstance(query, exp.Select) else []
    parts = [part for part in parts if part is not None]
    aggregates = [
        node for part in parts for node in part.find_all(exp.AggFunc) if node.find_ancestor(exp.Select) is query
    ]
    if any(isinstance(node, exp.Min | exp.Max) for node in aggregates) or not (aggregates or query.args.get("group")):
        return []
    names = {fold(item.alias) for item in query.selects if isinstance(item, exp.Alias)}
    return [
        column
        for part in parts
        for column in part.find_all(exp.Column)
        if column.find_ancestor(exp.AggFunc, exp.Select) is query
        and not isinstance(column.this, exp.Star)
        and (column.table or fold(column.name) not in names)
    ]


def least(column: exp.Column) -> exp.Expression:
    """The least value of a column in its group, where NULL is less than all."""
    missing = exp.LT(this=exp.Count(this=column.copy()), expression=exp.Count(this=exp.Star()))
    return exp.Case().when(missing, exp.null()).else_(exp.Min(this=column.copy()))


def is_cut(query: exp.Query) -> bool:
    return query.args.get("limit") is not None or query.args.get("offset") is not None


def without_limit(tree: exp.Query) -> str | None:
    """A query with a LIMIT without it: all the rows that the LIMIT can choose from; None where they are open, too."""
    if not is_cut(tree) or bare_columns(tree):
        return None
    whole = tree.copy()
    whole.set("limit", None)
    whole.set("offset", None)
    return whole.sql(dialect="sqlite")


# It stays whole: what follows on each database shares nearly every one of its names.
def execute(reference: str, prediction: str | None, schema: str, seed: int, tree: exp.Query, ordered: bool) -> Outcome:
    """Runs the reference and the prediction on every database that is made for the reference.

    Parameters:
        prediction: None for one that sqlglot does not read.
        tree: the parsed reference.
        ordered: whether the prediction has an ORDER BY of its own.
    """
    connection = open_schema(schema)
    if connection is None:
        return Outcome(False, False, False)

    def answers(queries: list[str | None]) -> list[Result | None]:
        results = {query: run(connection, query) for query in set(queries) - {None}}
        return [results.get(query) for query in queries]

    try:
        if run(connection, reference) is None:
            return Outcome(False, False, False)
        tables = read_tables(connection)
        plan = plan_rows(tree, tables)
        executable, empty, outcomes, alike = False, True, [], prediction is not None
        queries = None
        for number, kind in enumerate(KINDS):
            for attempt in range(TRIES):
                random = Random(f"{seed}|{number}|{attempt}|{schema}|{reference}")
                rows = put(connection, tables, fill(tables, plan, kind, random))
                answer = run(connection, reference)
                if answer is not None and not hollow(answer):
                    break
            # Too many rows joined to too many: such a database is left out.
            if answer is None:
                continue
            executable = True
            empty &= not answer.rows
            if prediction is None or False in outcomes:
                continue
            queries = queries or [reference, prediction, without_limit(tree), *variants(tree, answer.width)]
            guess, whole, *both = answers(queries[1:]) if prediction != reference else [answer, *answers(queries[2:])]
            put(connection, tables, {table: part[::-1] for table, part in rows.items()})
            back, back_guess, back_whole = answers(queries[:3])
            candidates = whole if same_rows(whole, back_whole) else None
            alike &= same_rows(answer, guess) and same_rows(back, back_guess)
            golds = [answer, back, *both]
            outcomes.append(agree(golds, [guess, back_guess], candidates, is_ordered(tree), ordered))
        # Where the reference determines its answer nowhere, the answers as they are have to do.
        match = False not in outcomes and (True in outcomes or (alike and executable))
        return Outcome(executable, match, empty)
    except (sqlite3.Error, sqlite3.Warning, MemoryError):
        return Outcome(False, False, False)
    finally:
        connection.close()


def same_rows(one: Result | None, other: Result | None) -> bool:
    """Whether two answers hold the same rows, each as often, in any order."""
    return None not in (one, other) and one.width == other.width and Counter(one.rows) == Counter(other.rows)


def agree(
    golds: list[Result | None], guesses: list[Result | None], whole: Result | None, ordered: bool, guess_ordered: bool
) -> bool | None:
    """Whether the prediction's answers are the reference's, as far as the reference determines its own.

    One database gives several answers: with its rows stored in another order, and with what is open decided.
    Where they differ, the reference leaves something open: the order of rows with equal keys, which of them a LIMIT
    cuts off, which row of a group a bare column is taken from. What is left open is not compared.

    Parameters:
        whole: all the rows that the reference's LIMIT chooses from.

    Returns:
        None where the answers agree, but have no row or nothing in them is determined.
    """
    first = golds[0]
    if None in guesses or any(guess.width != first.width for guess in guesses):
        return False
    # A query in which nothing can be decided in this way fails and says nothing.
    golds = [gold for gold in golds if gold is not None]
    if all(same_rows(gold, first) for gold in golds):
        if ordered and len(set(first.rows)) > 1 and all(gold == first for gold in golds):
            return guess_ordered and all(guess == first for guess in guesses)
        return all(same_rows(guess, first) for guess in guesses) and (True if first.rows else None)
    if len({len(gold.rows) for gold in golds}) > 1:
        return None
    if any(len(guess.rows) != len(first.rows) for guess in guesses):
        return False
    if whole is not None:
        return all(Counter(guess.rows) <= Counter(whole.rows) for guess in guesses) and fixed_columns(golds, guesses)
    return fixed_columns(golds, guesses) and None


def fixed_columns(golds: list[Result], guesses: list[Result]) -> bool:
    """Whether the columns that are the same in all of the reference's answers are so in the prediction's, too."""

    def columns(result: Result) -> list[Counter]:
        return [Counter(column) for column in zip(*result.rows, strict=True)]

    first, *others = map(columns, golds)
    places = [place for place in range(golds[0].width) if all(other[place] == first[place] for other in others)]
    return all(columns(guess)[place] == first[place] for guess in guesses for place in places)
