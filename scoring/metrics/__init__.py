"""Scores of texts under a scoring contract, row by row; needs neither torch nor a model.

A family of metrics is one file here, by the name that stands in `record.scores.METRICS`, with one function `rows`.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module

from record.scores import Contract
from scoring.bootstrap import Rows
from scoring.corpus import CLASSES


def rows_of(
    predictions: Sequence[str],
    references: Sequence[str],
    schemas: Sequence[str],
    contract: Contract,
    equals: Sequence[str] = (),
) -> dict[str, Rows]:
    """Every metric of the contract, row by row; the same texts are scored once.

    Parameters:
        schemas: the CREATE TABLE statements that each row's SQL is about; unused but by `sql`.
        equals: each row's further references, a JSON list of texts ("" for none), which count where the contract says
            that there are several.
    """
    equals = tuple(equals) if contract.references == "several" else ("",) * len(references)
    texts = tuple(predictions), tuple(references), tuple(schemas), equals
    # Where and how fast outputs were generated decides no score of theirs.
    anywhere = contract.model_copy(update={"engine": "", "dtype": "", "batch_size": 1})
    settings = anywhere.model_dump_json()
    return {name: rows for family in contract.families for name, rows in _rows(family, *texts, settings).items()}


@lru_cache(maxsize=32)
def _rows(
    family: str,
    predictions: tuple[str, ...],
    references: tuple[str, ...],
    schemas: tuple[str, ...],
    equals: tuple[str, ...],
    settings: str,
) -> dict[str, Rows]:
    contract = Contract.model_validate_json(settings)
    rows = import_module(f"scoring.metrics.{family}").rows
    if not any(equals):
        return rows(predictions, references, schemas, contract)
    answers = [(one, *(json.loads(others) if others else ())) for one, others in zip(references, equals, strict=True)]
    if family in CLASSES:
        return rows(predictions, answers, schemas, contract)
    return _best(rows, predictions, answers, schemas, contract)


def _best(rows, predictions, answers: list[tuple[str, ...]], schemas, contract: Contract) -> dict[str, Rows]:
    """The best of each row's scores against its references, metric by metric.

    So do SQuAD's script (`metric_max_over_ground_truths`) and rouge_score (`score_multi`).
    """
    pairs = [(row, answer) for row, several in enumerate(answers) for answer in several]
    numbers, texts = zip(*pairs, strict=True)
    scored = rows([predictions[row] for row in numbers], texts, [schemas[row] for row in numbers], contract)
    best: dict[str, Rows] = {}
    for name, scores in scored.items():
        best[name] = highest = [0.0] * len(answers)
        for row, score in zip(numbers, scores, strict=True):
            highest[row] = max(highest[row], score)
    return best
