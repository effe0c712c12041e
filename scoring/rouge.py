"""This project's ROUGE as an `evaluate.Metric`: no metric code is ever downloaded.

import evaluate
evaluate.load("scoring/rouge.py").compute(predictions=["a b"], references=["a c"])
"""

import datasets
import evaluate

from scoring.metrics.rouge import rouge_rows


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
        return rouge_rows(predictions, references, use_stemmer)
