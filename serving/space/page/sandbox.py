"""Strangers' SQL, run on a throwaway SQLite database in memory.

Only CREATE TABLE and INSERT fill it and only SELECT reads it: nothing else is authorised, so no file can be opened, and
time, memory, text and rows are bounded.
"""

import sqlite3
import time
from collections import defaultdict
from typing import NamedTuple

import sqlglot
from sqlglot import exp

SECONDS = 2.0
STRIDE = 1_000  # instructions of SQLite's virtual machine between two looks at the clock
LONGEST = 20_000  # characters of a statement
VALUE = 10_000  # characters or bytes of one value: what one instruction can take grows with their square
HEAP = 64 * 2**20  # bytes, for all of SQLite in this process
SHOWN_ROWS, SHOWN_CHARACTERS = 20, 200
MADE_UP_ROWS = 6
LIMITS = {
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: LONGEST,
    sqlite3.SQLITE_LIMIT_COLUMN: 100,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 25_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 20,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 500,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
# Not printf(), which counts to a thousand million in one instruction, and nothing that reads a file or loads code.
FUNCTIONS = frozenset([
    "abs", "avg", "char", "coalesce", "count", "cume_dist", "date", "datetime", "dense_rank", "first_value", "glob",
    "group_concat", "hex", "ifnull", "iif", "instr", "julianday", "lag", "last_value", "lead", "length", "like",
    "lower", "ltrim", "max", "min", "nth_value", "ntile", "nullif", "percent_rank", "quote", "rank", "replace",
    "round", "row_number", "rtrim", "strftime", "substr", "substring", "sum", "time", "total", "trim", "typeof",
    "unicode", "upper",
])  # fmt: skip
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
FILLING = READING | {sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_INSERT}
OWN_TABLES = ("sqlite_master", "sqlite_sequence")
NUMERIC = ("INT", "REAL", "NUM", "DEC", "FLO", "DOUB", "BOOL")


class Refused(Exception):
    """Why something is not run; its text is a sentence."""


class Table(NamedTuple):
    """Column names and rows, cut to what is shown; `more` says that further rows were left out."""

    columns: list[str]
    rows: list[tuple]
    more: bool


def parse(text: str) -> exp.Query:
    """The parse tree of exactly one query in SQLite's dialect.

    Raises:
        `Refused`: it is anything else.
    """
    if not text.strip():
        raise Refused("The answer is empty.")
    if len(text) > LONGEST:
        raise Refused(f"The answer has {len(text):,} characters: too many for a query.")
    try:
        trees = [tree for tree in sqlglot.parse(text, dialect="sqlite") if not isinstance(tree, exp.Semicolon | None)]
    # Any text may come here, and sqlglot's parser has failed with many kinds of error on such.
    except Exception:
        raise Refused("This cannot be read as SQL.") from None
    if len(trees) != 1:
        raise Refused(f"These are {len(trees)} statements: only a single SELECT is run.")
    if not isinstance(trees[0], exp.Query) or not all(part.selects for part in trees[0].find_all(exp.Select)):
        raise Refused("This is no query: only a single SELECT is run.")
    return trees[0]


def open_tables(schema: str, inserts: str, queries: list[str]) -> tuple[sqlite3.Connection, bool]:
    """A database in memory with the tables of the CREATE TABLE statements and the rows of the INSERT statements.

    Without any INSERT, rows are made up that the `queries` can find.

    Returns:
        The connection, and whether rows were made up.

    Raises:
        `Refused`: the statements do not run, or ask for more.
    """
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)
    connection.execute("PRAGMA temp_store = MEMORY")
    # It holds for the whole process and can only be lowered.
    connection.execute(f"PRAGMA hard_heap_limit = {HEAP}")
    for limit, most in LIMITS.items():
        connection.setlimit(limit, most)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    try:
        for what, statements in (("tables", schema), ("rows", inserts)):
            if len(statements) > LONGEST:
                raise Refused(f"The {what} have {len(statements):,} characters; at most {LONGEST:,} are taken.")
            with _guarded(connection, FILLING, f"The {what} cannot be made"):
                connection.executescript(statements)
        columns = describe(connection)
        if not columns:
            raise Refused("There are no tables to run a query on: give CREATE TABLE statements.")
        if not inserts.strip():
            _make_up(connection, columns, queries)
    except Refused:
        connection.close()
        raise
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE)
    return connection, not inserts.strip()


def run(connection: sqlite3.Connection, query: str) -> Table:
    """The first rows that one SELECT gives.

    Raises:
        `Refused`: it fails, is no SELECT, or takes too long.
    """
    with _guarded(connection, READING, "The query does not run on these tables"):
        # Python takes a second semicolon for a second statement.
        cursor = connection.execute(query.rstrip("; \n\t"))
        rows = cursor.fetchmany(SHOWN_ROWS + 1)
        names = [str(column[0]) for column in cursor.description or []]
    head = [tuple(map(_cell, row)) for row in rows[:SHOWN_ROWS]]
    return Table([_cell(name) for name in names], head, len(rows) > SHOWN_ROWS)


def contents(connection: sqlite3.Connection) -> dict[str, Table]:
    """Every table with its first rows."""
    return {name: run(connection, f"SELECT * FROM {_quote(name)}") for name in describe(connection)}


def describe(connection: sqlite3.Connection) -> dict[str, dict[str, str]]:
    """The declared types of every table's columns, by table and column."""
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    ).fetchall()
    return {
        name: {row[1]: (row[2] or "").upper() for row in connection.execute(f"PRAGMA table_info({_quote(name)})")}
        for (name,) in names
    }


class _guarded:
    """Runs its block with these actions authorised and against the clock; SQLite's errors become sentences."""

    def __init__(self, connection: sqlite3.Connection, actions: set[int], failure: str):
        self.connection, self.actions, self.failure = connection, actions, failure

    def __enter__(self) -> None:
        end = time.monotonic() + SECONDS
        self.connection.set_authorizer(self._authorize)
        self.connection.set_progress_handler(lambda: time.monotonic() > end, STRIDE)

    def __exit__(self, _type, error: BaseException | None, _traceback) -> None:
        self.connection.set_authorizer(None)
        self.connection.set_progress_handler(None, STRIDE)
        # SQLite itself has room for this error only sometimes.
        if isinstance(error, MemoryError) or str(error) == "out of memory":
            raise Refused(f"{self.failure}: they need more than {HEAP >> 20} MB of memory.") from None
        if isinstance(error, sqlite3.Error | sqlite3.Warning | ValueError):
            message = str(error)
            if message == "interrupted":
                raise Refused(f"{self.failure}: stopped after {SECONDS:g} seconds.") from None
            if message.startswith(("not authorized", "authorization denied")):
                raise Refused(
                    f"{self.failure}: here CREATE TABLE and INSERT make tables and SELECT reads them, and nothing else "
                    f"is allowed ({message})."
                ) from None
            raise Refused(f"{self.failure}: {message[:SHOWN_CHARACTERS]}.") from None

    def _authorize(self, action: int, first: str | None, second: str | None, *_) -> int:
        if action == sqlite3.SQLITE_FUNCTION:
            ok = second is not None and second.lower() in FUNCTIONS
        elif action == sqlite3.SQLITE_UPDATE:
            # SQLite itself does so for CREATE TABLE.
            ok = first in OWN_TABLES and sqlite3.SQLITE_INSERT in self.actions
        else:
            ok = action in self.actions
        return sqlite3.SQLITE_OK if ok else sqlite3.SQLITE_DENY


def _make_up(connection: sqlite3.Connection, tables: dict[str, dict[str, str]], queries: list[str]) -> None:
    """Fills every table with a few rows, of which every second one holds what the queries ask for.

    Columns that a query compares with each other hold the same values, so that joins find partners.
    """
    names = {column.lower() for columns in tables.values() for column in columns}
    literals, partner = _constants(queries, names)
    for table, columns in tables.items():
        for place in range(MADE_UP_ROWS):
            row = []
            for column, declared in columns.items():
                name = partner.get(column.lower(), column.lower())
                row.append(_value(name, declared, literals[name], place))
            marks = ", ".join("?" * len(row))
            listed = ", ".join(map(_quote, columns))
            with _guarded(connection, FILLING, "Rows cannot be made up for these tables"):
                # What a declared constraint forbids is left out.
                connection.execute(f"INSERT OR IGNORE INTO {_quote(table)} ({listed}) VALUES ({marks})", row)


def _value(name: str, declared: str, literals: list, place: int) -> int | float | str:
    if literals and place % 2 == 0:
        return literals[place // 2 % len(literals)]
    if literals and not isinstance(literals[0], str):
        return literals[0] + (place if place % 4 == 1 else -place)
    numeric = any(part in declared for part in NUMERIC)
    return place + 1 if numeric and not literals else f"{name} {place + 1}"


def _constants(queries: list[str], names: set[str]) -> tuple[dict[str, list], dict[str, str]]:
    """The literals that queries compare each column with; for columns compared with others, whose values they share."""
    literals, partner = defaultdict(list), {}
    for query in queries:
        try:
            tree = parse(query)
        except Refused:
            continue
        for node in tree.find_all(exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like, exp.In, exp.Between):
            parts = [part for part in node.iter_expressions() if isinstance(part, exp.Column | exp.Literal)]
            # In SQLite "x" is a text where no column is called so.
            columns = [
                part.name.lower() for part in parts if isinstance(part, exp.Column) and part.name.lower() in names
            ]
            texts = [part for part in parts if isinstance(part, exp.Literal) or part.name.lower() not in names]
            if len(columns) == 2:
                first, second = (partner.get(column, column) for column in columns)
                others = [column for column, shared in partner.items() if shared == second]
                partner |= dict.fromkeys([*columns, *others], first)
            elif len(columns) == 1:
                above = {exp.GT: 1, exp.NEQ: 1, exp.LT: -1}.get(type(node), 0)
                literals[columns[0]] += [_literal(text, -above if text is node.this else above) for text in texts]
    for column, shared in partner.items():
        if column != shared:
            literals[shared] += literals.pop(column, [])
    return literals, partner


def _literal(node: exp.Expression, above: int) -> int | float | str:
    """The value of a literal, or one that is just above (1) or below it (-1)."""
    if isinstance(node, exp.Literal) and not node.is_string:
        number = float(node.name)
        return above + (int(number) if number.is_integer() and abs(number) < 2**53 else number)
    text = node.name.replace("%", "")
    return text[:above] if above < 0 else text + "q" * above


def _cell(value: object) -> object:
    if isinstance(value, bytes):
        value = "x'" + value[: SHOWN_CHARACTERS // 2].hex() + "'"
    if isinstance(value, str) and len(value) > SHOWN_CHARACTERS:
        return value[:SHOWN_CHARACTERS] + " …"
    return value


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
