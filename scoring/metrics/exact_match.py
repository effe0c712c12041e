"""Whether an output is its reference, letter by letter: what `evaluate`'s `exact_match` counts by default."""

from collections.abc import Sequence

from record.scores import Contract


def rows(
    predictions: Sequence[str], references: Sequence[str], schemas: Sequence[str], contract: Contract
) -> dict[str, list[float]]:
    """1 or 0 a row."""
    return {"exact_match": [float(text == wanted) for text, wanted in zip(predictions, references, strict=True)]}
