"""How much of a text ROUGE's words hold: they are made of the letters a to z and the digits, and of nothing else."""

import string
from collections import Counter
from collections.abc import Sequence

from record.cache import batches

WORD_CHARACTERS = frozenset(string.ascii_lowercase + string.digits)
# The share of hidden letters above which a score of words is no longer one of the text: an occasional name or loan word
# stays below, German with its umlauts too.
MOST_HIDDEN = 0.05


def hidden_share(texts: Sequence[str]) -> float:
    """The share of all letters and digits that no word of ROUGE holds (0 to 1); 1 where there are signs only."""
    counts: Counter[str] = Counter()
    for batch in batches(texts):
        counts.update("".join(batch).lower())
    letters = {character: count for character, count in counts.items() if character.isalnum()}
    hidden = sum(count for character, count in letters.items() if character not in WORD_CHARACTERS)
    return hidden / sum(letters.values()) if letters else float(bool("".join(counts).strip()))


def rouge_remark(references: Sequence[str], tokenizer: str) -> str | None:
    """One line where ROUGE of words cannot see much of the references; else None."""
    if tokenizer != "words" or (share := hidden_share(references)) <= MOST_HIDDEN:
        return None
    return (
        f"ROUGE of words reads a to z and digits only: it cannot see {100 * share:.1f} % of the references' letters. "
        "Set `rouge_tokenizer: characters`"
    )
