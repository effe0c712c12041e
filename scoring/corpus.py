"""sacrebleu's metrics as scores of a corpus (Post 2018, "A Call for Clarity in Reporting BLEU Scores")."""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from scoring.bootstrap import Corpus

# Its classes by the family that stands in a recipe's `metrics`.
CLASSES = {"sacrebleu": "BLEU", "chrf": "CHRF", "ter": "TER"}


def corpus_of(metric, predictions: Sequence[str], references: Sequence[str | tuple[str, ...]]) -> Corpus:
    """A sacrebleu metric's sufficient statistics row by row, and its score of any sum of them, divided by 100.

    Parameters:
        references: a text a row, or all of a row's: sacrebleu takes None where a row has fewer than others.

    sacrebleu has no public name for either; `tests/test_names_of_libraries.py` holds the private ones.
    """
    rows = [(texts,) if isinstance(texts, str) else texts for texts in references]
    statistics = metric._extract_corpus_statistics(list(predictions), list(zip_longest(*rows)))
    return Corpus(
        np.array(statistics, dtype=np.float64),
        lambda sums: metric._compute_score_from_stats(sums.tolist()).score / 100,
    )


def signature(family: str, several: bool = False) -> str | None:
    """sacrebleu's signature of a family's metric with one reference a row; None of a family that is not sacrebleu's.

    Parameters:
        several: a row has one reference or more.
    """
    if family not in CLASSES:
        return None
    from sacrebleu.metrics import METRICS

    metric = METRICS[CLASSES[family]]()
    # It knows the number of references once it has scored.
    metric.corpus_score(["a", "a"], [["a", "a"], ["a", None]] if several else [["a", "a"]])
    return metric.get_signature().format()
