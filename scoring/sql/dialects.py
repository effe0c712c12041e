"""Schemas and queries in the dialects of MySQL, Postgres and SQL Server, written as SQLite reads them."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

# In MySQL's dialect sqlglot reads KEY and ENGINE, in the others double quotes around names, in T-SQL brackets.
SCHEMA_DIALECTS = ("mysql", "postgres", "tsql", "sqlite")
QUERY_DIALECTS = ("sqlite", "postgres", "mysql", "tsql")
KEPT = (
    exp.NotNullColumnConstraint,
    exp.PrimaryKeyColumnConstraint,
    exp.UniqueColumnConstraint,
    exp.CheckColumnConstraint,
    exp.ComputedColumnConstraint,
    exp.Reference,
)
# A type as SQLite takes it: `VARCHAR(10)`, `REAL(10, 2)`; not `ENUM('a')` and not `ARRAY<TEXT>`.
PLAIN_TYPE = re.compile(r"\w+( \w+)*(\(\d+(, \d+)?\))?")


class Schema(NamedTuple):
    """A schema's CREATE TABLE statements as one text, and its INSERT statements."""

    tables: str
    inserts: list[str]


def read_schema(schema: str) -> Iterator[Schema]:
    """The schema in SQLite's words, once for each dialect in which it reads as tables and rows alone.

    What has no meaning for a query's answer is left out: defaults, comments, indexes, engines, the names of databases.
    """
    for dialect in SCHEMA_DIALECTS:
        try:
            statements = [
                tree
                for part in split(schema, dialect)
                for tree in sqlglot.parse(part, dialect=dialect)
                if tree is not None
            ]
            tables = [write_table(tree) for tree in statements if isinstance(tree, exp.Create)]
            inserts = [write_insert(tree) for tree in statements if isinstance(tree, exp.Insert)]
        # A stranger's text: sqlglot's parser has failed with many kinds of error on such.
        except (SqlglotError, ValueError, RecursionError, AttributeError, TypeError, IndexError, KeyError):
            continue
        if tables and None not in (*tables, *inserts) and len(tables) + len(inserts) == len(statements):
            yield Schema(";".join(filter(None, tables)), list(filter(None, inserts)))


def split(schema: str, dialect: str) -> list[str]:
    """The statements, also where the semicolon between two is missing."""
    depth, starts = 0, []
    for token in sqlglot.tokenize(schema, dialect=dialect):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 and token.text.upper() in ("CREATE", "INSERT"):
            starts.append(token.start)
    return [schema[start:end] for start, end in zip([0, *starts], [*starts, len(schema)], strict=True)]


def write_table(tree: exp.Create) -> str | None:
    """CREATE TABLE in SQLite's words; None for anything else that can be created."""
    if (
        tree.kind != "TABLE"
        or not isinstance(tree.this, exp.Schema)
        or tree.expression
        or tree.find(exp.TemporaryProperty)
    ):
        return None
    for item in list(tree.this.expressions):
        if isinstance(item, exp.IndexColumnConstraint):
            item.pop()
    for unique in tree.find_all(exp.UniqueColumnConstraint):
        # MySQL names it.
        if isinstance(unique.this, exp.Schema):
            unique.this.set("this", None)
    for column in tree.this.find_all(exp.ColumnDef):
        column.set(
            "constraints", [part for part in column.args.get("constraints") or [] if isinstance(part.kind, KEPT)]
        )
        if column.kind is not None:
            column.set("kind", exp.Var(this=write_type(column.kind)))
    tree.set("properties", None)
    return without_databases(tree).sql(dialect="sqlite", identify=True)


def write_type(kind: exp.DataType) -> str:
    if kind.is_type("tinyint") and [part.name for part in kind.expressions] == ["1"]:
        return "BOOLEAN"
    text = kind.sql(dialect="sqlite")
    if "SERIAL" in text:
        return "INTEGER"
    return text if PLAIN_TYPE.fullmatch(text) else "TEXT"


def write_insert(tree: exp.Insert) -> str | None:
    """INSERT ... VALUES in SQLite's words, without the rows that a constraint forbids; None for any other INSERT."""
    if not isinstance(tree.expression, exp.Values):
        return None
    bare = exp.Insert(this=tree.this, expression=tree.expression, alternative="IGNORE")
    return without_databases(bare).sql(dialect="sqlite", identify=True)


def without_databases(tree: exp.Expression) -> exp.Expression:
    """The statement with `t` for `public.t`: there is one database."""
    for node in tree.find_all(exp.Table, exp.Column):
        node.set("db", None)
        node.set("catalog", None)
    return tree


def in_sqlite(tree: exp.Query) -> exp.Query:
    """A query as SQLite reads it: as sqlglot writes it for SQLite, on the one database that there is.

    Raises:
        `sqlglot.errors.SqlglotError`: SQLite has no words for it.
    """
    text = without_databases(tree.copy()).sql(dialect="sqlite")
    tree = sqlglot.parse_one(text, dialect="sqlite")
    if not isinstance(tree, exp.Query):
        raise SqlglotError("it is no query")
    return tree
