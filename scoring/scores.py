"""Predictions to scores with intervals, under a scoring contract; needs no model."""

from collections.abc import Sequence
from typing import Any

from record.predictions import SEEN
from record.scores import Compared, Contract, Forgetting, Outputs, Scores, SqlCounts
from record.signs_of_life import waiting_for


def score_forgetting(predictions, contract: Contract) -> Forgetting:
    """The parent's and the adapter's scores on the parent's test rows, and their paired difference."""
    scores = score_predictions(predictions, contract, 0.0, 0.0)
    return Forgetting(rows=scores.rows, parent=scores.base, adapter=scores.adapter, difference=scores.difference)


def score_predictions(
    predictions, contract: Contract, base_seconds: float, adapter_seconds: float, *, datasets: Sequence[int] = ()
) -> Scores:
    """Scores of published or fresh predictions under a contract; needs no model.

    Parameters:
        datasets: of several datasets, the number of each row's (`recipes.data.splits.datasets_of`).
    """
    waiting_for("Scoring the outputs")
    rows = {who: metric_rows(predictions, who, contract) for who in ("base", "adapter")}
    seen: dict[Any, int] = {kind: predictions.seen.count(kind) for kind in SEEN}
    clean = [row for row, kind in enumerate(predictions.seen) if not kind]
    numbers: list[list[int]] = [[] for _ in range(max(datasets, default=-1) + 1)]
    for row, number in enumerate(datasets):
        numbers[number].append(row)
    return Scores(
        **_comparison(rows, range(len(predictions.reference)), contract),
        base_outputs=_outputs(predictions.base, predictions.base_tokens, contract, base_seconds),
        adapter_outputs=_outputs(predictions.adapter, predictions.adapter_tokens, contract, adapter_seconds),
        sql=_sql_counts(predictions, contract) if "sql" in contract.families else None,
        seen={kind: many for kind, many in seen.items() if many or kind in ("exact", "near")},
        clean=Compared(**_comparison(rows, clean, contract)) if 0 < len(clean) < len(predictions.seen) else None,
        by_dataset=[Compared(**_comparison(rows, own, contract)) if own else None for own in numbers],
    )


def _sql_counts(predictions, contract: Contract) -> SqlCounts:
    from scoring.metrics.sql import sql_of

    base, adapter = (
        sql_of(texts, predictions.reference, predictions.schema, contract)
        for texts in (predictions.base, predictions.adapter)
    )
    return SqlCounts(
        not_executable=base.executable.count(False),
        base_empty=sum(base.empty_match),
        adapter_empty=sum(adapter.empty_match),
    )


def metric_rows(predictions, who: str, contract: Contract) -> dict[str, Any]:
    """Every metric of the contract, row by row, of what `who` ("base" or "adapter") wrote."""
    from scoring.metrics import rows_of

    return rows_of(
        getattr(predictions, who), predictions.reference, predictions.schema, contract, predictions.references
    )


def _comparison(rows: dict[str, dict[str, Any]], numbers: Sequence[int], contract: Contract) -> dict[str, Any]:
    from scoring.bootstrap import compared, take

    base, adapter = ({name: take(scores, numbers) for name, scores in rows[who].items()} for who in ("base", "adapter"))
    return {"rows": len(numbers)} | compared(base, adapter, contract)


def _outputs(texts: list[str], tokens: list[list[int]], contract: Contract, seconds: float) -> Outputs:
    return Outputs(
        mean_tokens=sum(map(len, tokens)) / len(tokens),
        cut=sum(len(ids) >= contract.max_new_tokens for ids in tokens),
        empty=sum(not text for text in texts),
        seconds=seconds,
    )
