"""Predicates over expressions: the values of a column at which `length(name) > 12` turns from false to true.

Nothing is inverted. SQLite computes the expression for values that are likely, and those next to the border are taken.
"""

import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import NamedTuple

from sqlglot import exp

from scoring.sql.literals import Value, constant, fold, neighbours, number

Evaluate = Callable[[str, list[Value]], list[tuple] | None]

COMPARING = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)
ARITHMETIC = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Abs, exp.Round, exp.Neg)
DATING = (exp.Date, exp.TimeToStr, exp.TsOrDsToDate, exp.TsOrDsToTimestamp)
PER_SIDE = 2  # values taken below a border, at it, and above it
OTHER = 2  # what the further columns of an expression hold while one is looked for
LONGEST_TEXT = 200  # characters
SMALL = range(-3, 61)


class Border(NamedTuple):
    """Values of a column: those that make a predicate true, and those on both sides of its border."""

    inside: list[Value]
    around: list[Value]


def bare(node: exp.Expression) -> exp.Expression:
    while isinstance(node, exp.Paren):
        node = node.this
    return node


def value_of(node: exp.Expression | None, names: set[str], evaluate: Evaluate) -> Value:
    """The value of a literal, of TRUE and FALSE, and of an expression over them; None for anything else."""
    value = constant(node, names)
    if value is not None or node is None:
        return value
    if isinstance(node, exp.Boolean):
        return int(node.this)
    if node.find(exp.Column, exp.Query, exp.AggFunc, exp.Star, exp.Null) or not isinstance(
        node, exp.Func | exp.Binary | exp.Cast | exp.Paren | exp.Neg
    ):
        return None
    rows = evaluate(f"SELECT {node.sql(dialect='sqlite')}", [])
    return rows[0][0] if rows and not isinstance(rows[0][0], bytes) else None


def conditions(tree: exp.Query) -> Iterator[tuple[exp.Expression, type, Value]]:
    """Every column that is a condition itself: `WHERE active` reads `active = 1`, `WHERE NOT active` `active = 0`."""
    for column in tree.find_all(exp.Column):
        node = column
        while isinstance(node.parent, exp.Paren):
            node = node.parent
        place = node.parent
        condition = isinstance(place, exp.Where | exp.Having | exp.And | exp.Or | exp.Not)
        if condition or (isinstance(place, exp.Join) and node.arg_key == "on"):
            yield column, exp.EQ, 0 if isinstance(place, exp.Not) else 1


def truths(tree: exp.Query) -> Iterator[exp.Column]:
    """The columns that a query takes for TRUE or FALSE: conditions themselves, or compared with one of the two."""
    yield from (column for column, *_ in conditions(tree) if isinstance(column, exp.Column))
    for node in tree.find_all(exp.EQ, exp.NEQ, exp.Is):
        for one, other in ((node.this, node.expression), (node.expression, node.this)):
            if isinstance(other, exp.Boolean) and isinstance(bare(one), exp.Column):
                yield bare(one)


def is_solvable(subject: exp.Expression, operator: type) -> bool:
    """Whether it is an expression of a row's columns, and not one of them as it stands."""
    return (
        operator in COMPARING
        and not isinstance(bare(subject), exp.Column)
        and subject.find(exp.AggFunc, exp.Query, exp.Window) is None
    )


def solve(
    subject: exp.Expression, column: exp.Column, operator: type, value: Value, domain, evaluate: Evaluate
) -> Border:
    """The column's values at the border of `subject OPERATOR value`; none where no likely value comes to it.

    Further columns of the subject hold `OTHER` meanwhile.

    Parameters:
        domain: the column's `scoring.sql.databases.Domain`, which says whether it holds numbers or dates.
    """
    tree = exp.Paren(this=subject.copy())
    name = fold(column.name)
    several = False
    for place in list(tree.find_all(exp.Column)):
        if fold(place.name) == name:
            place.replace(exp.column("v"))
        else:
            several = True
            place.replace(exp.Literal.number(OTHER))
    candidates = likely(subject, value, domain)
    marks = ", ".join(["(?)"] * len(candidates))
    rows = evaluate(f"WITH c(v) AS (VALUES {marks}) SELECT v, {tree.sql(dialect='sqlite')} FROM c", candidates) or []
    spelled = number(value) if isinstance(value, str) and any(not isinstance(row[1], str) for row in rows) else None
    aim = value if spelled is None else spelled
    text = isinstance(aim, str)
    levels = [
        (result, candidate) for candidate, result in rows if result is not None and isinstance(result, str) == text
    ]
    below, above = [one for one, _ in levels if one < aim], [one for one, _ in levels if one > aim]

    def at(level: Value) -> list[Value]:
        return [candidate for result, candidate in levels if result == level][:PER_SIDE]

    same = at(aim)
    low, high = at(max(below)) if below else [], at(min(above)) if above else []
    true = {exp.EQ: same, exp.NEQ: low + high, exp.GT: high, exp.GTE: same + high, exp.LT: low, exp.LTE: low + same}
    more = [OTHER] if several and true[operator] else []
    other_case = at(aim.swapcase()) if isinstance(aim, str) and aim.swapcase() != aim else []
    return Border(true[operator] + more, low + same + high + other_case + more)


def likely(subject: exp.Expression, value: Value, domain) -> list[Value]:
    """Values of a column for which an expression of it may come to a value."""
    literals = [constant(node, set()) for node in subject.find_all(exp.Literal)]
    numbers = [part for part in literals if isinstance(part, int | float)]
    spelled = number(value) if isinstance(value, str) else value
    if domain.number:
        return likely_numbers(spelled or 0, numbers)
    if domain.dated or subject.find(*DATING) or any("%" in part for part in literals if isinstance(part, str)):
        return likely_dates(value)
    texts = [part for part in literals if isinstance(part, str)]
    return likely_texts(value, spelled, [*texts, "q"], [int(part) for part in numbers if abs(part) < LONGEST_TEXT])


def likely_numbers(aim: int | float, numbers: list[int | float]) -> list[Value]:
    """Whole numbers around the aim and what a single arithmetical step makes of it."""
    near = {aim, *SMALL}
    for step in {1, OTHER, *numbers[:8]}:
        near |= {aim + step, aim - step, step - aim, aim * step, *([aim / step, step / aim] if step and aim else [])}
    whole = {int(one // 1) + shift for one in near if abs(one) < 1e15 for shift in (-1, 0, 1, 2)}
    return sorted(whole | {2 * one for one in (aim, -aim) if one == int(one)})


def likely_texts(value: Value, spelled: int | float | None, parts: list[str], places: list[int]) -> list[Value]:
    """Texts of many lengths, and the literals in other cases, after fillings of several lengths, and before one."""
    lengths = {length for length in range(20)}
    if spelled is not None and 0 <= spelled < LONGEST_TEXT:
        lengths |= {int(spelled) + shift for shift in range(3)} | {max(0, int(spelled) - 1)}
    texts = ["q" * length for length in sorted(lengths)]
    for core in [*([value] if isinstance(value, str) else []), *parts]:
        for text in dict.fromkeys([core, *(one for one in neighbours(core) if isinstance(one, str)), core + "zz"]):
            fillings = ["q" * place for place in sorted({0, 1, 2, *places, *(max(0, place - 1) for place in places)})]
            texts += [
                text,
                text.lower(),
                text.upper(),
                text.title(),
                f" {text} ",
                *(pad + text + "q" for pad in fillings),
            ]
    return list(dict.fromkeys(text[:LONGEST_TEXT] for text in texts))


def likely_dates(value: Value) -> list[Value]:
    """Days next to a date, the borders of its month and year, some of every month, and moments of its day."""
    start = date(2020, 1, 1)
    text = str(value)
    for part in (text[:10], f"{text[:7]}-01", f"{text[:4]}-01-01"):
        # timedelta would leave the calendar at both its ends.
        if re.fullmatch(r"[1-8]\d{3}-\d\d-\d\d", part) and number(part[5:7]) in range(1, 13):
            start = date(int(part[:4]), int(part[5:7]), max(1, min(28, int(part[8:]))))
            break
    shifts = (-400, -366, -365, -31, -30, -2, -1, 0, 1, 2, 3, 27, 28, 29, 30, 31, 364, 365, 366, 400)
    days = [start + timedelta(days=shift) for shift in shifts]
    days += [date(start.year, month, day) for month in range(1, 13) for day in (1, 2, 15, 28)]
    days += [date(start.year, 1, day) for day in range(1, 32)]
    hours = [f"{start.isoformat()} {hour:02}:30:00" for hour in range(24)]
    return [*dict.fromkeys(day.isoformat() for day in days), *hours]
