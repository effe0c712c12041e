"""Whether two queries answer alike: both run in SQLite, bounded, on databases made for the reference.

Result columns have no names and stand in their order: with the names gone, the place alone says which is which.
(Test-suite accuracy, Zhong et al. 2020, also tries every permutation of them, which takes `MIN(x), MAX(x)` for
`MAX(x), MIN(x)`.)
"""

import sqlite3
from collections import Counter
from random import Random
from typing import NamedTuple

from sqlglot import exp

from scoring.sql.databases import KINDS, Kind, fill, plan_rows
from scoring.sql.dialects import in_sqlite
from scoring.sql.literals import Value, fold
from scoring.sql.sandbox import Result, open_schema, put, read_rows, read_tables, run

TRIES = 3


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
def execute(
    reference: str, prediction: str, schema: str, seed: int, tree: exp.Query, guess_tree: exp.Query | None, rules: int
) -> Outcome:
    """Runs the reference and the prediction on every database that is made for the reference.

    Parameters:
        tree: the parsed reference.
        guess_tree: the parsed prediction, None where sqlglot does not read it.
        rules: `record.run_record.Contract.sql_rules`.
    """
    connection = open_schema(schema, rules)
    if connection is None:
        return Outcome(False, False, False)

    def answers(queries: list[str | None]) -> list[Result | None]:
        results = {query: run(connection, query) for query in set(queries) - {None}}
        return [results.get(query) for query in queries]

    def evaluate(query: str, parameters: list[Value]) -> list[tuple] | None:
        result = run(connection, query, parameters)
        return None if result is None else result.rows

    try:
        same_text = prediction == reference
        if run(connection, reference) is None:
            if rules == 1:
                return Outcome(False, False, False)
            tree, reference = translate(tree)
            if run(connection, reference) is None:
                return Outcome(False, False, False)
        guess_query = None if guess_tree is None else reference if same_text else prediction
        if rules > 1 and guess_query is not None and guess_tree is not None and run(connection, guess_query) is None:
            guess_query = translate(guess_tree)[1]
        tables = read_tables(connection)
        plan = plan_rows(tree, tables, None if rules == 1 else evaluate)
        given = read_rows(connection, tables)
        executable, empty, outcomes, alike = False, True, [], guess_query is not None
        queries = None
        # The rows that a schema states are a database, too.
        for number, kind in enumerate([*KINDS[rules], *([given] if any(given.values()) else [])]):
            for attempt in range(TRIES):
                random = Random(f"{seed}|{number}|{attempt}|{schema}|{reference}")
                made = fill(tables, plan, kind, random) if isinstance(kind, Kind) else kind
                rows = put(connection, tables, made)
                answer = run(connection, reference)
                if answer is not None and not hollow(answer):
                    break
            # Too many rows joined to too many: such a database is left out.
            if answer is None:
                continue
            executable = True
            empty &= not answer.rows if rules == 1 else hollow(answer)
            if guess_query is None or False in outcomes:
                continue
            queries = queries or [reference, guess_query, without_limit(tree), *variants(tree, answer.width)]
            guess, whole, *both = answers(queries[1:]) if guess_query != reference else [answer, *answers(queries[2:])]
            put(connection, tables, {table: part[::-1] for table, part in rows.items()})
            back, back_guess, back_whole = answers(queries[:3])
            candidates = whole if same_rows(whole, back_whole) else None
            alike &= same_rows(answer, guess) and same_rows(back, back_guess)
            golds = [answer, back, *both]
            ordered = guess_tree is not None and is_ordered(guess_tree)
            outcomes.append(agree(golds, [guess, back_guess], candidates, is_ordered(tree), ordered))
        # Where the reference determines its answer nowhere, the answers as they are have to do.
        match = False not in outcomes and (True in outcomes or (alike and executable))
        return Outcome(executable, match, empty)
    except (sqlite3.Error, sqlite3.Warning, MemoryError):
        return Outcome(False, False, False)
    finally:
        connection.close()


def translate(tree: exp.Query) -> tuple[exp.Query, str]:
    """A query in another dialect than SQLite's, as SQLite reads it; a text that is no query where that fails."""
    try:
        translated = in_sqlite(tree)
        return translated, translated.sql(dialect="sqlite")
    # A stranger's text: sqlglot's generator has failed with many kinds of error on such.
    except Exception:
        return tree, ""


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
