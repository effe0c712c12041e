"""Rows that tell queries apart: small seeded tables in which the predicates of a reference query bite.

After Zhong et al. 2020, "Semantic Evaluation for Text-to-SQL with Distilled Test Suites" (arXiv:2010.02840): values are
drawn from the literals of the reference and from their neighbours, and several databases of different kinds are made.
The rows depend on the reference, the tables and the seed alone, never on a prediction.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from sqlglot import exp

from scoring.sql import expressions
from scoring.sql.literals import Value, around, comparisons, constant, fold, inside

Rows = dict[str, list[tuple[Value, ...]]]

WORDS = ["Alder", "alder", "Birch", "Cedar", "Elm", "Fir", "birchwood", "Hazel", "Ivy", "Larch", "Maple", "Oak", "Pine"]
MOST_COUNTED = {1: 40, 2: 100}  # rows, by rules


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
        sharp: whether every predicate's column holds the literal or a neighbour in every row.
    """

    rows: int
    distinct: int
    keyed: bool
    null: float
    sharp: bool = False


FIRST_KINDS = (
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
# By rules.
KINDS = {
    1: FIRST_KINDS,
    2: (
        *FIRST_KINDS,
        Kind(rows=60, distinct=30, keyed=False, null=0.0, sharp=True),
        Kind(rows=60, distinct=30, keyed=False, null=0.0, sharp=True),
        Kind(rows=60, distinct=30, keyed=False, null=0.0, sharp=True),
    ),
}


@dataclass
class Domain:
    """The values that a set of joined columns share.

    Parameters:
        inside: values that make a predicate of the reference true.
        around: its literals and their neighbours.
        number: whether the reference or the schema takes the columns for numbers.
        dated: whether the schema takes them for dates.
        boolean: whether they are TRUE and FALSE, which SQLite writes as 1 and 0 (from rules 2 on).
        home: the table in which the values are ids.
        columns: how many columns share them.
    """

    inside: list[Value] = field(default_factory=list)
    around: list[Value] = field(default_factory=list)
    number: bool = False
    dated: bool = False
    boolean: bool = False
    home: str | None = None
    columns: int = 0


class Plan(NamedTuple):
    """What a reference query asks of the rows: per folded column name a domain, its LIMIT, its groups' size."""

    domains: dict[str, Domain]
    limit: int
    count: int


# It stays whole: the domains that it fills are what its parts would hand each other.
def plan_rows(reference: exp.Query, tables: Tables, evaluate: expressions.Evaluate | None = None) -> Plan:
    """Reads out of a parsed reference which columns share values, and which values make its predicates true.

    Parameters:
        evaluate: the rows of a query with its parameters; None under rules 1, which know neither TRUE and FALSE nor
            predicates over expressions.
    """
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
            domain.boolean |= evaluate is not None and ("BOOL" in column.type or column.type in ("BIT", "BIT(1)"))
            # The shorter name: `customers` and not `customers_cards` is where a `customer_id` comes from.
            if is_id(column.name, table) and (domain.home is None or len(table) < len(domain.home)):
                domain.home = table
    for column in reference.find_all(exp.Column):
        if fold(column.name) in names and column.find_ancestor(exp.Sum, exp.Avg, exp.Add, exp.Sub, exp.Mul, exp.Div):
            domains[find(fold(column.name))].number = True

    limits, counts = [0], [0]
    for node in reference.find_all(exp.Limit, exp.Offset):
        limits.append(constant(node.expression, names))
    if evaluate is None:
        compared = comparisons(reference, lambda node: constant(node, names))
    else:
        compared = [
            *comparisons(reference, lambda node: expressions.value_of(node, names, evaluate)),
            *expressions.conditions(reference),
        ]
        for column in expressions.truths(reference):
            if fold(column.name) in names:
                domains[find(fold(column.name))].boolean = True
    for subject, operator, value in compared:
        if subject.find(exp.Count):
            counts.append(value)
            continue
        columns = {fold(column.name): column for column in subject.find_all(exp.Column) if fold(column.name) in names}
        if evaluate is not None and expressions.is_solvable(subject, operator):
            borders = {
                name: expressions.solve(subject, column, operator, value, domains[find(name)], evaluate)
                for name, column in columns.items()
            }
            for name, border in borders.items():
                domains[find(name)].inside += border.inside
                domains[find(name)].around += border.around
            if any(border.inside for border in borders.values()):
                continue
        for column in subject.find_all(exp.Column):
            if fold(column.name) in names:
                domain = domains[find(fold(column.name))]
                domain.number |= not isinstance(value, str)
                domain.inside += inside(operator, value)
                domain.around += around(operator, value)
    for domain in domains.values():
        # A column that is compared with a text, or looked up elsewhere, holds more than TRUE and FALSE.
        domain.boolean &= domain.home is None and not any(isinstance(value, str) for value in domain.around)
        if domain.boolean:
            domain.number = True
            domain.inside = [value for value in domain.inside if value in (0, 1)]
            domain.around = [0, 1] if domain.around else []
    most_counted = MOST_COUNTED[1 if evaluate is None else 2]
    return Plan({name: domains[find(name)] for name in names}, most(limits, most_counted), most(counts, most_counted))


def most(values: list[Value], bound: int) -> int:
    """The greatest number of rows that is asked for and can be had."""
    return max(value for value in values if isinstance(value, int) and 0 <= value <= bound)


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
    # Groups of more than 40 rows are two, not three: joining their tables takes the square of their rows.
    size = max(kind.rows, 2 * plan.limit + 3, (3 if plan.count <= MOST_COUNTED[1] else 2) * plan.count + 3)
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
        rows[table] = draw_rows(cells, size, kind, random)
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


def draw_rows(cells: list[Cells], size: int, kind: Kind, random: Random) -> list[tuple[Value, ...]]:
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
            elif place == miss or kind.sharp:
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
    if domain.boolean:
        return [index % 2 for index in range(many)]
    if domain.number:
        return [start + step * index for index in range(many)]
    words = [WORDS[(start + index) % len(WORDS)] + str(index // len(WORDS) or "") for index in range(many)]
    return [str(start + index) if index % 5 == 4 else word for index, word in enumerate(words)]
