"""The literals of a reference query: what they are compared to, and the values next to them on both sides."""

from collections.abc import Callable, Iterator
from string import ascii_lowercase, ascii_uppercase

from sqlglot import exp

Value = int | float | str | None

# SQLite takes names that differ in the case of ASCII letters alone for the same name.
FOLD = str.maketrans(ascii_uppercase, ascii_lowercase)
MIRRORED = {exp.GT: exp.LT, exp.LT: exp.GT, exp.GTE: exp.LTE, exp.LTE: exp.GTE}


def fold(name: str) -> str:
    return name.translate(FOLD)


def is_text(node: exp.Expression, names: set[str]) -> bool:
    """Whether the node is a text in double quotes: SQLite reads `"x"` so where no column has that name.

    `scoring.sql.matching.parse` marks what stood in double quotes.
    """
    return (
        isinstance(node, exp.Column)
        and not node.table
        and node.this.meta.get("double", False)
        and fold(node.name) not in names
    )


def constant(node: exp.Expression | None, names: set[str]) -> Value:
    """The value of a literal, also a negative one or a text in double quotes; None for anything else."""
    if isinstance(node, exp.Neg):
        value = constant(node.this, names)
        return None if isinstance(value, str | None) else -value
    if isinstance(node, exp.Literal) and not node.is_string:
        return number(node.name)
    return node.name if isinstance(node, exp.Literal) or is_text(node, names) else None


def number(text: str) -> int | float | None:
    """A text as the number that it spells; None where it spells none, or one too long to count with."""
    try:
        value = float(text)
    except ValueError:
        return None
    if not abs(value) < 1e15:
        return None
    return int(value) if value.is_integer() else value


def comparisons(
    tree: exp.Query, value_of: Callable[[exp.Expression | None], Value]
) -> Iterator[tuple[exp.Expression, type, Value]]:
    """Every literal with what it is compared to and the operator, seen from there; `exp.Not` stands for NOT LIKE.

    Parameters:
        value_of: the value of a literal, None for what is none.
    """
    operators = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like, exp.Glob, exp.Is)
    for node in tree.find_all(*operators):
        operator = type(node)
        if isinstance(node.parent, exp.Not):
            operator = exp.Not if isinstance(node, exp.Like | exp.Glob) else exp.NEQ
        left, right = value_of(node.this), value_of(node.expression)
        if right is not None:
            yield node.this, operator, right
        if left is not None:
            yield node.expression, MIRRORED.get(operator, operator), left
    for node in tree.find_all(exp.In):
        for value in map(value_of, node.expressions):
            if value is not None:
                yield node.this, exp.NEQ if isinstance(node.parent, exp.Not) else exp.EQ, value
    for node in tree.find_all(exp.Between):
        for operator, side in ((exp.GTE, node.args["low"]), (exp.LTE, node.args["high"])):
            value = value_of(side)
            if value is not None:
                yield node.this, operator, value


def inside(operator: type, value: Value) -> list[Value]:
    """Values for which `value OPERATOR literal` is true, the one at the border first."""
    if operator in (exp.Like, exp.Glob):
        pattern = str(value).replace("*", "%").replace("_", "x").replace("?", "x")
        return [pattern.replace("%", ""), pattern.replace("%", "q")]
    if operator is exp.Not:
        return [around(exp.Like, value)[-1]]
    low, same, high = neighbours(value)
    return {
        exp.GT: [high],
        exp.GTE: [same, high],
        exp.LT: [low],
        exp.LTE: [same, low],
        exp.NEQ: [low, high],
    }.get(operator, [same])


def around(operator: type, value: Value) -> list[Value]:
    """A literal, what lies next to it on both sides, and for a text its likes: other case, longer, shorter."""
    if operator in (exp.Like, exp.Glob, exp.Not):
        core = inside(exp.Like, value)[0]
        return [core, core + "q", "q" + core, "q" + core + "q", core.swapcase(), core[:-1] + "~"]
    values = list(neighbours(value))
    if isinstance(value, str) and number(value) is None:
        values += [value.swapcase(), "q" + value]
    elif not isinstance(value, str):
        # The difference of two columns can be the literal, too.
        values.append(2 * value)
    return values


def neighbours(value: Value) -> tuple[Value, Value, Value]:
    """The next smaller value, the value, the next greater one; a text that spells a number counts as one."""
    if not isinstance(value, str):
        return value - 1, value, value + 1
    as_number = number(value)
    if as_number is not None:
        return str(as_number - 1), value, str(as_number + 1)
    return value[:-1], value, value + "q"
