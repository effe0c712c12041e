"""chrF2 (Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation") by sacrebleu."""

from collections.abc import Sequence

from record.scores import Contract
from scoring.bootstrap import Corpus
from scoring.corpus import corpus_of


def rows(
    predictions: Sequence[str], references: Sequence[str], schemas: Sequence[str], contract: Contract
) -> dict[str, Corpus]:
    """`chrf` of all rows together, in sacrebleu's default settings, divided by 100."""
    from sacrebleu.metrics import CHRF

    return {"chrf": corpus_of(CHRF(), predictions, references)}
