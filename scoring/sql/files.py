"""Whether two queries answer alike on a database that is there: a benchmark's own SQLite file.

What the reference leaves open is found as on made rows (`scoring.sql.execution`), with one difference: the rows of a
file are not stored again in another order, but read in the other order where no index or ORDER BY gives one.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from sqlglot import exp

from scoring.sql.execution import agree, is_ordered, same_rows, translate, variants, without_limit
from scoring.sql.matching import parse
from scoring.sql.sandbox import Database, Result, open_file, run


def matches_on_files(paths: Sequence[Path], predictions: Sequence[str], references: Sequence[str]) -> list[float]:
    """1 for each prediction that answers as its reference on its row's file, else 0; NaN where the reference does not
    run there, or the file is no database that is read."""
    matches = [math.nan] * len(paths)
    for path in dict.fromkeys(paths):
        connection = open_file(path)
        if connection is None:
            continue
        try:
            for row in (row for row, other in enumerate(paths) if other == path):
                matches[row] = _match(connection, references[row], predictions[row])
        finally:
            connection.close()
    return matches


def _match(connection: Database, reference: str, prediction: str) -> float:
    tree = parse(reference)
    if tree is None:
        return math.nan
    tree, reference, answer = _answer(connection, tree, reference)
    if answer is None:
        return math.nan
    guess_tree = parse(prediction)
    if guess_tree is None:
        return 0.0
    guess_tree, prediction, guess = _answer(connection, guess_tree, prediction)
    if guess is None:
        return 0.0
    whole_query = without_limit(tree)
    whole = None if whole_query is None else run(connection, whole_query)
    both = [run(connection, query) for query in variants(tree, answer.width)]
    connection.execute("PRAGMA reverse_unordered_selects = ON")
    back, back_guess = run(connection, reference), run(connection, prediction)
    back_whole = None if whole_query is None else run(connection, whole_query)
    connection.execute("PRAGMA reverse_unordered_selects = OFF")
    candidates = whole if same_rows(whole, back_whole) else None
    golds, guesses = [answer, back, *both], [guess, back_guess]
    match = agree(golds, guesses, candidates, is_ordered(tree), is_ordered(guess_tree))
    # Where the reference does not determine its answer, the answers as they are have to do.
    return float(same_rows(answer, guess) and same_rows(back, back_guess) if match is None else match)


def _answer(connection: Database, tree: exp.Query, query: str) -> tuple[exp.Query, str, Result | None]:
    """A query's answer, where it has none that of its translation, with the query that gave it."""
    answer = run(connection, query)
    if answer is not None:
        return tree, query, answer
    tree, translated = translate(tree)
    return tree, translated, run(connection, translated) if translated != query else None
