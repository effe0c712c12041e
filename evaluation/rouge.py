"""ROUGE as an `evaluate.Metric` that lives in this repository: no metric code is ever downloaded.

    import evaluate
    evaluate.load("evaluation/rouge.py").compute(predictions=["a b"], references=["a c"])

Computed by Google's `rouge_score` (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries").
"""

import re

import datasets
import evaluate
from rouge_score.rouge_scorer import RougeScorer

from recipes.record import ROUGE_NAMES

# ROUGE-Lsum compares sentence by sentence and takes newlines for their borders, which T5 cannot write.
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
SENTENCES = "newlines, and white space after . ! ?"


def split_sentences(text: str) -> str:
    """The text with a newline after each sentence."""
    return SENTENCE_END.sub("\n", text)


class Rouge(evaluate.Metric):
    """F-measures (0 to 1) of ROUGE-1, -2, -L and -Lsum, row by row, with Porter's stemmer unless told otherwise."""

    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Lin, Chin-Yew. 2004. ROUGE: A Package for Automatic Evaluation of Summaries.",
            inputs_description="predictions, references: lists of texts; returns a list of F-measures per ROUGE type.",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions, references, use_stemmer=True):
        scorer = RougeScorer([name for name in ROUGE_NAMES if name != "rougeLsum"], use_stemmer=use_stemmer)
        summary_scorer = RougeScorer(["rougeLsum"], use_stemmer=use_stemmer)
        rows = [
            scorer.score(reference, prediction)
            | summary_scorer.score(split_sentences(reference), split_sentences(prediction))
            for reference, prediction in zip(references, predictions, strict=True)
        ]
        return {name: [row[name].fmeasure for row in rows] for name in ROUGE_NAMES}
