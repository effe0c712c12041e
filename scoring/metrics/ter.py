"""TER (Snover et al. 2006, "A Study of Translation Edit Rate with Targeted Human Annotation") by sacrebleu."""

from collections.abc import Sequence

from record.scores import Contract
from scoring.bootstrap import Corpus
from scoring.corpus import corpus_of


def rows(
    predictions: Sequence[str], references: Sequence[str], schemas: Sequence[str], contract: Contract
) -> dict[str, Corpus]:
    """`ter` of all rows together, in sacrebleu's default settings, divided by 100."""
    from sacrebleu.metrics import TER

    return {"ter": corpus_of(TER(), predictions, references)}
