"""Rows that tell queries apart: small seeded tables in which the predicates of a reference query bite.

After Zhong et al. 2020, "Semantic Evaluation for Text-to-SQL with Distilled Test Suites" (arXiv:2010.02840): values are
drawn from the literals of the reference and from their neighbours, and several databases of different kinds are made.
The rows depend on the reference, the tables and the seed alone, never on a prediction.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from string import ascii_lowercase, ascii_uppercase
from typing import NamedTuple

from sqlglot import exp

Value = int | float | str | None
Rows = dict[str, list[tuple[Value, ...]]]

# SQLite takes names that differ in the case of ASCII letters alone for the same name.
FOLD = str.maketrans(ascii_uppercase, ascii_lowercase)
WORDS = ["Alder", "alder", "Birch", "Cedar", "Elm", "Fir", "birchwood", "Hazel", "Ivy", "Larch", "Maple", "Oak", "Pine"]
MIRRORED = {exp.GT: exp.LT, exp.LT: exp.GT, exp.GTE: exp.LTE, exp.LTE: exp.GTE}
MOST_COUNTED = 40


class Column(NamedTuple):
    """A column as SQLite describes it: its declared type in capitals, and whether it takes NULL."""

    name: str
    type: str
    nullable: bool


Tables = dict[str, list[Column]]


class Kind(NamedTuple):
    """What one database is like.

    Parameters:
        rows: rows a table, before LIMIT and COUNT ask for more.
        distinct: values for each set of joined columns; few of them make duplicates and ties, 0 stands for none twice.
        keyed: whether ids are unique in the table that they belong to, as they are where a schema declares its keys.
        null: share of cells that are NULL; where no value comes twice, share of columns that have one NULL.
    """

    rows: int
    distinct: int
    keyed: bool
    null: float


KINDS = (
    Kind(rows=9, distinct=0, keyed=True, null=0.0),
    Kind(rows=7, distinct=0, keyed=True, null=1.0),
    Kind(rows=12, distinct=4, keyed=True, null=0.0),
    Kind(rows=5, distinct=3, keyed=False, null=0.0),
    Kind(rows=12, distinct=4, keyed=False, null=0.0),
    Kind(rows=15, distinct=9, keyed=True, null=0.0),
    Kind(rows=7, distinct=3, keyed=False, null=0.0),
    Kind(rows=6, distinct=0, keyed=False, null=0.0),
    Kind(rows=28, distinct=14, keyed=False, null=0.0),
    Kind(rows=12, distinct=6, keyed=False, null=0.4),
    Kind(rows=16, distinct=6, keyed=True, null=0.1),
)


@dataclass
class Domain:
    """The values that a set of joined columns share.

    Parameters:
        inside: values that make a predicate of the reference true.
        around: its literals and their neighbours.
        number: whether the reference or the schema takes the columns for numbers.
        dated: whether the schema takes them for dates.
        home: the table in which the values are ids.
        columns: how many columns share them.
    """

    inside: list[Value] = field(default_factory=list)
    around: list[Value] = field(default_factory=list)
    number: bool = False
    dated: bool = False
    home: str | None = None
    columns: int = 0


class Plan(NamedTuple):
    """What a reference query asks of the rows: per folded column name a domain, its LIMIT, its groups' size."""

    domains: dict[str, Domain]
    limit: int
    count: int


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


def plan_rows(reference: exp.Query, tables: Tables) -> Plan:
    """Reads out of a parsed reference which columns share values, and which values make its predicates true."""
    names = {fold(column.name) for columns in tables.values() for column in columns}
    leader = {name: name for name in names}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for left, right in column_pairs(reference):
        if left in names and right in names:
            leader[find(left)] = find(right)

    domains: dict[str, Domain] = defaultdict(Domain)
    for table, columns in tables.items():
        for column in columns:
            domain = domains[find(fold(column.name))]
            domain.number |= any(part in column.type for part in ("INT", "REAL", "FLOA", "DOUB", "NUM", "DEC"))
            domain.columns += 1
            domain.dated |= "DATE" in column.type or "TIME" in column.type
            # The shorter name: `customers` and not `customers_cards` is where a `customer_id` comes from.
            if is_id(column.name, table) and (domain.home is None or len(table) < len(domain.home)):
                domain.home = table
    for column in reference.find_all(exp.Column):
        if fold(column.name) in names and column.find_ancestor(exp.Sum, exp.Avg, exp.Add, exp.Sub, exp.Mul, exp.Div):
            domains[find(fold(column.name))].number = True

    limits, counts = [0], [0]
    for node in reference.find_all(exp.Limit, exp.Offset):
        limits.append(constant(node.expression, names))
    for subject, operator, value in comparisons(reference, names):
        if subject.find(exp.Count):
            counts.append(value)
            continue
        for column in subject.find_all(exp.Column):
            if fold(column.name) in names:
                domain = domains[find(fold(column.name))]
                domain.number |= not isinstance(value, str)
                domain.inside += inside(operator, value)
                domain.around += around(operator, value)
    return Plan({name: domains[find(name)] for name in names}, most(limits), most(counts))


def most(values: list[Value]) -> int:
    """The greatest number of rows that is asked for and can be had."""
    return max(value for value in values if isinstance(value, int) and 0 <= value <= MOST_COUNTED)


def is_id(column: str, table: str) -> bool:
    """Whether a column looks like its own table's id: `id`, or `church_id` in a table `church` or `churches`."""
    column, table = fold(column).replace("_", ""), fold(table).replace("_", "")
    return column == "id" or (column.endswith(("id", "code", "no")) and table.startswith(column[:-2].rstrip("_")[:4]))


def column_pairs(tree: exp.Query) -> Iterator[tuple[str, str]]:
    """Pairs of folded column names whose values meet: compared, looked up in a subquery, or united."""
    for node in tree.find_all(exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.In, exp.SetOperation):
        other = node.args.get("query") if isinstance(node, exp.In) else node.expression
        if isinstance(node, exp.SetOperation):
            pairs = zip(node.this.selects, node.expression.selects, strict=False)
        else:
            pairs = [(node.this, other)]
        for left, right in pairs:
            left, right = value_column(left), value_column(right)
            if left and right:
                yield left, right


def value_column(node: exp.Expression | None) -> str | None:
    """The folded name of the column whose values an expression holds: it, its aggregate, a subquery's first column."""
    if isinstance(node, exp.Query):
        node = node.selects[0] if node.selects else None
    while isinstance(node, exp.Alias | exp.Max | exp.Min | exp.Avg | exp.Paren):
        node = node.this
    return fold(node.name) if isinstance(node, exp.Column) else None


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


def comparisons(tree: exp.Query, names: set[str]) -> Iterator[tuple[exp.Expression, type, Value]]:
    """Every literal with what it is compared to and the operator, seen from there; `exp.Not` stands for NOT LIKE."""
    operators = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like, exp.Glob, exp.Is)
    for node in tree.find_all(*operators):
        operator = type(node)
        if isinstance(node.parent, exp.Not):
            operator = exp.Not if isinstance(node, exp.Like | exp.Glob) else exp.NEQ
        left, right = constant(node.this, names), constant(node.expression, names)
        if right is not None:
            yield node.this, operator, right
        if left is not None:
            yield node.expression, MIRRORED.get(operator, operator), left
    for node in tree.find_all(exp.In):
        for value in (constant(item, names) for item in node.expressions):
            if value is not None:
                yield node.this, exp.NEQ if isinstance(node.parent, exp.Not) else exp.EQ, value
    for node in tree.find_all(exp.Between):
        for operator, side in ((exp.GTE, node.args["low"]), (exp.LTE, node.args["high"])):
            value = constant(side, names)
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


class Cells(NamedTuple):
    """A column's values, one a row, before the rows' fates are drawn.

    Parameters:
        key: whether the column holds its own table's ids.
        null: the places of the rows that have NULL here.
    """

    domain: Domain
    values: list[Value]
    key: bool
    null: set[int]


def pick(values: list, random: Random) -> Value:
    return values[int(len(values) * random.random())]


def shuffle(values: list, random: Random) -> list:
    return sorted(values, key=lambda _: random.random())


def fill(tables: Tables, plan: Plan, kind: Kind, random: Random) -> Rows:
    """Rows for every table.

    Four tenths of a table's rows are meant to satisfy the reference, a quarter to miss it by one predicate, the rest is
    drawn freely. Only `random.random()` is called: Python promises that it gives the same numbers in every version.
    """
    size = max(kind.rows, 2 * plan.limit + 3, 3 * plan.count + 3)
    values_of = {id(domain): others(domain, 2 * size, random) for domain in unique(plan)}
    common = {key: shuffle(values, random) for key, values in values_of.items()}
    rows: Rows = {}
    for table, columns in tables.items():
        cells = []
        for column in columns:
            domain = plan.domains[fold(column.name)]
            key = kind.keyed and domain.home == table
            values = draw_values(domain, key, values_of[id(domain)], common[id(domain)], size, plan, kind, random)
            places = range(size) if kind.distinct else [int(size * random.random())]
            null = {place for place in places if column.nullable and random.random() < kind.null}
            cells.append(Cells(domain, values, key, null))
        rows[table] = draw_rows(cells, size, random)
    return rows


def draw_values(
    domain: Domain, key: bool, spaced: list, common: list, size: int, plan: Plan, kind: Kind, random: Random
) -> list[Value]:
    """At least `size` values of one column.

    Parameters:
        spaced: the domain's values in their order.
        common: the same, shuffled once for all its columns.
    """
    # Every column lacks another quarter of the shared values, or the same: some rows find no partner.
    gap = int(4 * random.random())
    values = [value for index, value in enumerate(common) if index % 4 != gap]
    if key:
        return shuffle(list(dict.fromkeys(domain.around + values))[:size], random)
    if not kind.distinct:
        # Evenly spaced numbers stay so: one of an odd number of rows holds the average of all.
        first = int(size / 2 * random.random())
        return shuffle(spaced[first : first + size], random)
    if plan.count and random.random() < 0.7:
        # Groups just below, at and just above the size that is asked for.
        sizes = (plan.count, plan.count + 1, plan.count - 1)
        groups = [value for value, times in zip(values, sizes, strict=False) for _ in range(times)]
        return shuffle((groups + values)[:size], random)
    distinct = max(kind.distinct, plan.limit + 2)
    few = distinct if domain.columns > 1 or random.random() < 0.5 else max(2, distinct // 2, plan.limit + 2)
    skew = 1 if 3 * few > size else 2
    return [values[int(few * random.random() ** skew)] for _ in range(size)]


def draw_rows(cells: list[Cells], size: int, random: Random) -> list[tuple[Value, ...]]:
    """The rows of one table, each with its fate: to satisfy the reference, to miss it by one predicate, or neither."""
    predicates = [place for place, cell in enumerate(cells) if cell.domain.inside and not cell.key]
    rows = []
    for index in range(size):
        fate = random.random()
        miss = pick(predicates, random) if predicates and 0.4 < fate < 0.65 else None
        row = []
        for place, (domain, values, key, null) in enumerate(cells):
            if index in null:
                row.append(None)
            elif key or not domain.around:
                row.append(values[index])
            elif place == miss:
                row.append(pick(domain.around, random))
            elif domain.inside and fate < 0.65:
                row.append(pick(domain.inside, random))
            else:
                row.append(pick([*domain.around, values[index]], random))
        rows.append(tuple(row))
    return rows


def unique(plan: Plan) -> list[Domain]:
    """The plan's domains, each once, in an order that no hash decides."""
    return list({id(plan.domains[name]): plan.domains[name] for name in sorted(plan.domains)}.values())


def others(domain: Domain, many: int, random: Random) -> list[Value]:
    """So many different values of a domain's type that owe nothing to the reference's literals."""
    start, step = int(random.random() * 40) + 1, int(random.random() * 6) + 1
    if domain.dated:
        days = [(start + 23 * index) % (28 * 12 * 7) for index in range(many)]
        return [f"{2000 + day // 336}-{1 + day // 28 % 12:02}-{1 + day % 28:02}" for day in days]
    if domain.number:
        return [start + step * index for index in range(many)]
    words = [WORDS[(start + index) % len(WORDS)] + str(index // len(WORDS) or "") for index in range(many)]
    return [str(start + index) if index % 5 == 4 else word for index, word in enumerate(words)]
