"""BLEU (Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation") by sacrebleu."""

from collections.abc import Sequence

from record.scores import Contract
from scoring.bootstrap import Corpus
from scoring.corpus import corpus_of


def rows(
    predictions: Sequence[str], references: Sequence[str], schemas: Sequence[str], contract: Contract
) -> dict[str, Corpus]:
    """`bleu` of all rows together, in sacrebleu's default settings, divided by 100."""
    from sacrebleu.metrics import BLEU

    return {"bleu": corpus_of(BLEU(force=True), predictions, references)}
