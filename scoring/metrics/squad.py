"""Exact match and F1 of words as SQuAD's own script gives them (Rajpurkar et al. 2016, evaluate-v1.1.py)."""

import re
import string
from collections import Counter
from collections.abc import Sequence

from record.scores import Contract

PUNCTUATION = str.maketrans("", "", string.punctuation)


def words(text: str) -> list[str]:
    """Words by SQuAD's normalisation: in lower case, without ASCII punctuation, without articles."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(PUNCTUATION)).split()


def rows(
    predictions: Sequence[str], references: Sequence[str], schemas: Sequence[str], contract: Contract
) -> dict[str, list[float]]:
    """Whether the words are the reference's (1 or 0), and their F1 (0 to 1), row by row.

    As in the script, nothing in common is 0, two empty texts included, which match exactly all the same.
    """
    pairs = [(words(text), words(wanted)) for text, wanted in zip(predictions, references, strict=True)]
    return {
        "squad_exact_match": [float(text == wanted) for text, wanted in pairs],
        "squad_f1": [
            2 * sum((Counter(text) & Counter(wanted)).values()) / max(len(text) + len(wanted), 1)
            for text, wanted in pairs
        ],
    }
