"""Scores of texts under a scoring contract, row by row; needs neither torch nor a model.

A family of metrics is one file here, by the name that stands in `record.scores.METRICS`, with one function `rows`.
"""

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module

from record.scores import Contract
from scoring.bootstrap import Rows


def rows_of(
    predictions: Sequence[str], references: Sequence[str], schemas: Sequence[str], contract: Contract
) -> dict[str, Rows]:
    """Every metric of the contract, row by row; the same texts are scored once.

    Parameters:
        schemas: the CREATE TABLE statements that each row's SQL is about; unused but by `sql`.
    """
    texts = tuple(predictions), tuple(references), tuple(schemas)
    # Where and how fast outputs were generated decides no score of theirs.
    anywhere = contract.model_copy(update={"engine": "", "dtype": "", "batch_size": 1})
    settings = anywhere.model_dump_json()
    return {name: rows for family in contract.families for name, rows in _rows(family, *texts, settings).items()}


@lru_cache(maxsize=32)
def _rows(
    family: str, predictions: tuple[str, ...], references: tuple[str, ...], schemas: tuple[str, ...], settings: str
) -> dict[str, Rows]:
    contract = Contract.model_validate_json(settings)
    return import_module(f"scoring.metrics.{family}").rows(predictions, references, schemas, contract)
