"""Text-to-SQL scored as SQL, row by row: does it parse, is it the reference up to spelling, does it answer alike.

sql_rows(["SELECT a FROM t"], ["SELECT T1.a FROM t AS T1"], ["CREATE TABLE t (a VARCHAR)"], seed=0)
"""

import logging
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import sqlglot
from sqlglot import exp

from scoring.sql.databases import Tables
from scoring.sql.dialects import QUERY_DIALECTS
from scoring.sql.execution import Outcome, execute
from scoring.sql.literals import fold, is_text
from scoring.sql.sandbox import LONGEST, open_schema, read_tables

POOL_ROWS = 400
CHUNK = 50

# sqlglot warns of statements that it does not know; such a text is simply no query.
logging.getLogger("sqlglot").setLevel(logging.ERROR)


@dataclass(frozen=True)
class SqlRows:
    """The scores of a list of predictions, one entry a row.

    Parameters:
        scores: `sql_parsed`, `sql_exact_match` and `sql_execution_match`, each 0 or 1, or NaN where it does not apply.
        executable: whether the reference runs on its own schema.
        empty_match: whether an execution match rests on answers without any row alone.
    """

    scores: dict[str, list[float]]
    executable: list[bool]
    empty_match: list[bool]


def sql_rows(predictions: list[str], references: list[str], schemas: list[str], seed: int, rules: int = 2) -> SqlRows:
    """Scores predictions against references, each on its schema (CREATE TABLE statements).

    `sql_parsed`: sqlglot reads exactly one query (in SQLite's dialect; from rules 2 on, Postgres', MySQL's and T-SQL's,
    too). `sql_exact_match`: equal parse trees after
    normalisation; NaN where the reference does not parse. `sql_execution_match`: equal answers on seeded databases;
    NaN where the reference does not run on its schema.

    Parameters:
        rules: `record.run_record.Contract.sql_rules`.
    """
    score = partial(score_row, seed=seed, rules=rules)
    columns = (predictions, references, schemas)
    if len(references) < POOL_ROWS:
        rows = list(map(score, *columns))
    else:
        # Spawned, not forked: a fork of a process that runs torch's threads may hang.
        with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
            rows = list(pool.map(score, *columns, chunksize=CHUNK))
    parsed, exact, outcomes = zip(*rows, strict=True) if rows else ((), (), ())
    return SqlRows(
        scores={
            "sql_parsed": list(parsed),
            "sql_exact_match": list(exact),
            "sql_execution_match": [float(outcome.match) if outcome.executable else math.nan for outcome in outcomes],
        },
        executable=[outcome.executable for outcome in outcomes],
        empty_match=[outcome.match and outcome.empty for outcome in outcomes],
    )


def score_row(prediction: str, reference: str, schema: str, seed: int, rules: int = 2) -> tuple[float, float, Outcome]:
    """`sql_parsed`, `sql_exact_match` and the outcome of the execution for one row."""
    gold = parse(reference, rules)
    guess = gold if prediction == reference else parse(prediction, rules)
    if gold is None:
        return float(guess is not None), math.nan, Outcome(False, False, False)
    exact = guess is not None and is_same_query(guess, gold, schema, rules)
    outcome = execute(reference, prediction, schema, seed, gold, guess, rules)
    return float(guess is not None), float(exact), outcome


def parse(text: str, rules: int = 2) -> exp.Query | None:
    """The parse tree of exactly one query, in the first dialect that has it; None for anything else."""
    trees = (parse_in(dialect, text) for dialect in (("sqlite",) if rules == 1 else QUERY_DIALECTS))
    return next((tree for tree in trees if tree is not None), None)


def parse_in(dialect: str, text: str) -> exp.Query | None:
    if len(text) > LONGEST:
        return None
    try:
        text.encode()
        trees = [tree for tree in sqlglot.parse(text, dialect=dialect) if not isinstance(tree, exp.Semicolon | None)]
    # Any text may come here, and sqlglot's parser has failed with many kinds of error on such.
    except Exception:
        return None
    if (
        len(trees) != 1
        or not isinstance(trees[0], exp.Query)
        or not all(s.selects for s in trees[0].find_all(exp.Select))
    ):
        return None
    for name in trees[0].find_all(exp.Identifier):
        # sqlglot forgets what the quotes were, and only "x" can be a text.
        name.meta["double"] = text[name.meta["start"]] == '"' if "start" in name.meta else False
    return trees[0]


def is_same_query(guess: exp.Query, gold: exp.Query, schema: str, rules: int = 2) -> bool:
    """Whether two parsed queries on a schema have one normal form."""
    if guess is gold:
        return True
    connection = open_schema(schema, rules)
    tables = read_tables(connection) if connection else {}
    return normal_form(guess, tables) == normal_form(gold, tables)


def normal_form(query: exp.Query, tables: Tables) -> exp.Query:
    """The query without what has no meaning in SQLite; two queries with equal normal forms answer alike.

    Gone are the case of names and their quotes, the names of table aliases, table names before columns that only one
    table has, column aliases of the result, INNER and OUTER, and double quotes around texts. Literals, the order of
    joins and of conditions, and redundant parentheses stay.
    """
    tree = query.copy()
    names = {fold(column.name) for columns in tables.values() for column in columns}
    aliases = {fold(alias.alias) for alias in tree.find_all(exp.Alias, exp.TableAlias)}
    for column in list(tree.find_all(exp.Column)):
        # Without the tables nobody knows whether "x" is a text or a column.
        if tables and is_text(column, names | aliases | {"rowid", "oid", "_rowid_"}):
            column.replace(exp.Literal.string(column.name))
    for identifier in tree.find_all(exp.Identifier):
        identifier.set("this", fold(identifier.name))
        identifier.set("quoted", False)
    for join in tree.find_all(exp.Join):
        if join.args.get("kind") in ("INNER", "OUTER"):
            join.set("kind", None)
    rename_sources(tree, {fold(table): {fold(column.name) for column in tables[table]} for table in tables})
    drop_result_names(tree)
    return tree


def rename_sources(tree: exp.Query, tables: dict[str, set[str]]) -> None:
    """Names every table of the query by a number, and puts that before every column whose table is sure."""
    own = {cte.alias for cte in tree.find_all(exp.CTE)}
    sources = {id(select): sources_of(select) for select in tree.find_all(exp.Select)}
    numbers = {id(node): f"t{number}" for number, node in enumerate(node for node in tree.walk() if is_source(node))}

    def has(source: exp.Expression, column: str) -> bool | None:
        """Whether a table has the column; None where that cannot be said."""
        if not isinstance(source, exp.Table) or source.name in own or source.name not in tables:
            return None
        return column in tables[source.name]

    def source_of(column: exp.Column) -> exp.Expression | None:
        scope = column.find_ancestor(exp.Select, exp.SetOperation)
        while isinstance(scope, exp.Select):
            here = sources[id(scope)]
            if here is None:
                return None
            if column.table:
                if column.table in here:
                    return here[column.table]
            else:
                if column.name in {fold(alias.alias) for alias in scope.selects if isinstance(alias, exp.Alias)}:
                    return None
                answers = [has(source, column.name) for source in here.values()]
                if None in answers:
                    return None
                if any(answers):
                    return list(here.values())[answers.index(True)] if sum(answers) == 1 else None
            scope = scope.find_ancestor(exp.Select, exp.SetOperation)
        return None

    # All are looked up before the first is renamed.
    pairs = [(column, source_of(column)) for column in tree.find_all(exp.Column)]
    for column, source in pairs:
        if source is not None:
            column.set("table", exp.to_identifier(numbers[id(source)]))
    for here in sources.values():
        for source in (here or {}).values():
            source.set("alias", exp.TableAlias(this=exp.to_identifier(numbers[id(source)])))


def is_source(node: exp.Expression) -> bool:
    return isinstance(node, exp.Table | exp.Subquery) and isinstance(node.parent, exp.From | exp.Join)


def sources_of(select: exp.Select) -> dict[str, exp.Expression] | None:
    """What a SELECT reads from, by name; None where a name occurs twice or columns of the tables flow together."""
    joins = select.args.get("joins") or []
    parts = [select.args.get("from_"), *joins]
    nodes = [part.this for part in parts if part is not None]
    names = [node.alias_or_name for node in nodes]
    plain = all(is_source(node) and not node.args.get("joins") and not node.args.get("db") for node in nodes)
    columned = any(node.args.get("alias") is not None and node.args["alias"].columns for node in nodes)
    flowing = any(join.args.get("using") or join.args.get("method") for join in joins)
    if not plain or columned or flowing or "" in names or len(set(names)) < len(names):
        return None
    return dict(zip(names, nodes, strict=True))


def drop_result_names(tree: exp.Query) -> None:
    """Drops the aliases of a single SELECT's result columns; an ORDER BY that uses one gets its expression instead."""
    if not isinstance(tree, exp.Select):
        return
    aliases = {item.alias: item for item in tree.selects if isinstance(item, exp.Alias)}
    order = tree.args.get("order")
    for term in order.expressions if order else []:
        if isinstance(term.this, exp.Column) and not term.this.table and term.this.name in aliases:
            term.this.replace(aliases[term.this.name].this.copy())
    names = {column.name for column in tree.find_all(exp.Column) if not column.table}
    for name, item in aliases.items():
        if name not in names:
            item.replace(item.this)
