"""ROUGE, Lin's (2004, "ROUGE: A Package for Automatic Evaluation of Summaries") as Google's `rouge_score` computes it,
by its port `rouge-score-rs`, whose values are the same to the last bit.
"""

import re
from collections.abc import Sequence

from record.scores import Contract

# ROUGE-Lsum compares sentence by sentence and takes newlines for their borders, which T5 cannot write.
# Texts that are scored by characters put none between their sentences.
SENTENCE_END = {
    "words": re.compile(r"(?<=[.!?])\s+"),
    "characters": re.compile(r"(?<=[.!?])\s+|(?<=[。！？।؟])\s*"),
}
SENTENCES = {
    "words": "newlines, and white space after . ! ?",
    "characters": "newlines, white space after . ! ?, and after 。 ！ ？ । ؟",
}


def split_sentences(text: str, tokenizer: str = "words") -> str:
    """The text with a newline after each sentence."""
    return SENTENCE_END[tokenizer].sub("\n", text)


def rouge_rows(
    predictions: Sequence[str], references: Sequence[str], stemmer: bool, tokenizer: str = "words"
) -> dict[str, list[float]]:
    """F-measures (0 to 1) row by row, by their names in `record.scores.METRICS`.

    ROUGE-Lsum is given in both readings: with a newline after each sentence, and (`rougeLsum_flat`) of the text without
    newlines, as it comes out of a T5 decoder. One sentence has one longest common subsequence: that reading is ROUGE-L.

    Parameters:
        tokenizer: `words` of a to z and digits, or `characters`: the letters and digits of any script, each with its
            marks (grapheme clusters of Unicode, UAX #29, after NFKC and case folding), which have no stems.
    """
    from rouge_score_rs.rouge_scorer import RougeScorer
    from rouge_score_rs.tokenizers import CharacterTokenizer, DefaultTokenizer

    takes = CharacterTokenizer() if tokenizer == "characters" else DefaultTokenizer(stemmer)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], tokenizer=takes)
    # Newlines are white space to the other three.
    texts = ([split_sentences(text, tokenizer) for text in part] for part in (references, predictions))
    scores = scorer.score_batch(*texts)
    rows = {name: [row[name].fmeasure for row in scores] for name in scorer.rouge_types}
    return rows | {"rougeLsum_flat": rows["rougeL"]}


def rows(
    predictions: Sequence[str], references: Sequence[str], schemas: Sequence[str], contract: Contract
) -> dict[str, list[float]]:
    """`rouge_rows` by the contract's settings."""
    return rouge_rows(predictions, references, contract.stemmer, contract.rouge_tokenizer)
