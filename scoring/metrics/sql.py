"""Outputs read as SQL: see `scoring.sql`."""

from collections.abc import Sequence
from functools import lru_cache

from record.scores import Contract
from scoring.sql.matching import SqlRows, sql_rows


def rows(
    predictions: Sequence[str], references: Sequence[str], schemas: Sequence[str], contract: Contract
) -> dict[str, list[float]]:
    """Whether each row's SQL parses, is the reference's, and gives its answers; see `scoring.sql.matching.SqlRows`."""
    return sql_of(predictions, references, schemas, contract).scores


def sql_of(
    predictions: Sequence[str], references: Sequence[str], schemas: Sequence[str], contract: Contract
) -> SqlRows:
    """The predictions scored as SQL; the same texts are scored once."""
    return _sql(tuple(predictions), tuple(references), tuple(schemas), contract.seed, contract.sql_rules)


@lru_cache(maxsize=8)
def _sql(
    predictions: tuple[str, ...], references: tuple[str, ...], schemas: tuple[str, ...], seed: int, rules: int
) -> SqlRows:
    return sql_rows(list(predictions), list(references), list(schemas), seed, rules)
