"""Row-by-row scores of texts under a scoring contract; needs neither torch nor a model.

ROUGE is Lin's (2004, "ROUGE: A Package for Automatic Evaluation of Summaries") as Google's `rouge_score` computes it,
by its port `rouge-score-rs`, whose values are the same to the last bit.
"""

import math
import re
from collections.abc import Sequence
from functools import lru_cache

from record.scores import Contract
from scoring.sql.matching import SqlRows, sql_rows

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
    """F-measures (0 to 1) row by row, by the names in `record.scores.ROUGE_NAMES`.

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


def rows_of(
    predictions: Sequence[str], references: Sequence[str], schemas: Sequence[str], contract: Contract
) -> dict[str, list[float]]:
    """Every metric of the contract that applies to a row, row by row; the same texts are scored once.

    Parameters:
        schemas: the CREATE TABLE statements that each row's SQL is about; unused where `contract.sql` is None.
    """
    rouge = _rouge(tuple(predictions), tuple(references), contract.stemmer, contract.rouge_tokenizer)
    return (
        rouge | applying(sql_of(predictions, references, schemas, contract).scores, contract) if contract.sql else rouge
    )


def applying(rows: dict[str, list[float]], contract: Contract) -> dict[str, list[float]]:
    """The metrics that apply to a row at least; the first rules gave the others as 0."""
    if contract.sql_rules == 1:
        return rows
    return {name: scores for name, scores in rows.items() if not all(map(math.isnan, scores))}


def sql_of(
    predictions: Sequence[str], references: Sequence[str], schemas: Sequence[str], contract: Contract
) -> SqlRows:
    """The predictions scored as SQL; the same texts are scored once."""
    return _sql(tuple(predictions), tuple(references), tuple(schemas), contract.seed, contract.sql_rules)


@lru_cache(maxsize=8)
def _rouge(
    predictions: tuple[str, ...], references: tuple[str, ...], stemmer: bool, tokenizer: str
) -> dict[str, list[float]]:
    return rouge_rows(predictions, references, stemmer, tokenizer)


@lru_cache(maxsize=8)
def _sql(
    predictions: tuple[str, ...], references: tuple[str, ...], schemas: tuple[str, ...], seed: int, rules: int
) -> SqlRows:
    return sql_rows(list(predictions), list(references), list(schemas), seed, rules)
