"""What answers without any model score on the test rows, so that a score has something to be held against."""

import re
from array import array
from collections import Counter
from collections.abc import Sequence

import numpy as np

from recipes.data.splits import Splits
from record.cache import batches, cached_value, code_of
from record.predictions import Predictions
from record.scores import Baseline, BaselineName, Contract
from scoring.bootstrap import compared
from scoring.metrics import rows_of
from scoring.scores import metric_rows

WORD = re.compile(r"\w+")
# Words of more training inputs than this tell no input from another, and cost as much as all others together.
COMMON_ROWS, COMMON_SHARE = 2_000, 0.01
# Test inputs that are compared at once.
CHUNK = 200


def score_baselines(splits: Splits, predictions: Predictions, contract: Contract) -> dict[BaselineName, Baseline]:
    """Scores of each baseline over all test rows, by the metrics and resamples of the contract.

    Returns:
        Per baseline its scores, and the paired difference adapter − baseline.
    """
    adapter = metric_rows(predictions, "adapter", contract)
    scored: dict[BaselineName, Baseline] = {}
    for name, outputs in baseline_outputs(splits, contract.seed).items():
        rows = rows_of(outputs, predictions.reference, predictions.schema, contract, predictions.references)
        both = compared(rows, adapter, contract)
        scored[name] = Baseline(scores=both["base"], difference=both["difference"])
    return scored


def baseline_outputs(splits: Splits, seed: int) -> dict[BaselineName, list[str]]:
    """What each baseline answers to each test row.

    `copied` answers with the input without the prompt's own words, `frequent` with the most frequent training target
    (of several the first), `random` with that of a row drawn with replacement, `nearest` with that of the most similar
    training input; where none shares a word, as `frequent`.
    """
    inputs, targets = splits.test["input"][:], splits.train["target"][:]
    frequent = Counter(targets).most_common(1)[0][0]
    drawn = np.random.RandomState(seed).randint(len(targets), size=len(inputs))
    here = code_of([nearest_rows, _incidence], ["numpy", "scipy"])
    train, test = splits.train["input"], splits.test["input"]
    nearest = cached_value("nearest", lambda: nearest_rows(inputs, train), here, "", test, train)
    return {
        "copied": inputs,
        "frequent": [frequent] * len(inputs),
        "random": [targets[row] for row in drawn],
        "nearest": [frequent if row is None else targets[row] for row in nearest],
    }


def nearest_rows(inputs: Sequence[str], training: Sequence[str]) -> list[int | None]:
    """Per input the number of the training input with the most similar set of words; None where none shares a word.

    Similarity is Jaccard's, of two whole numbers, so that every machine finds the same; of several as similar the first
    is taken. Words that stand in more than `COMMON_ROWS` training inputs, and more than `COMMON_SHARE` of them, are
    left out of both sets.
    """
    from scipy.sparse import csr_array

    vocabulary: dict[str, int] = {}
    theirs, ours = _incidence(training, vocabulary), _incidence(inputs, vocabulary)
    shapes = ((len(training), len(vocabulary)), (len(inputs), len(vocabulary)))
    known, asked = (csr_array(parts, shape=shape) for parts, shape in zip((theirs, ours), shapes, strict=True))
    rows_with = np.bincount(known.indices, minlength=len(vocabulary))
    telling = np.flatnonzero(rows_with <= max(COMMON_ROWS, COMMON_SHARE * len(training)))
    known, asked = known[:, telling], asked[:, telling]
    sizes, columns = np.diff(known.indptr), known.T.tocsr()
    nearest: list[int | None] = []
    for start in range(0, len(inputs), CHUNK):
        chunk = asked[start : start + CHUNK]
        shared = (chunk @ columns).tocsr()
        rows = np.repeat(np.arange(chunk.shape[0]), np.diff(shared.indptr))
        similarity = shared.data / (np.diff(chunk.indptr)[rows] + sizes[shared.indices] - shared.data)
        best, first = np.zeros(chunk.shape[0]), np.full(chunk.shape[0], len(training))
        np.maximum.at(best, rows, similarity)
        ties = similarity == best[rows]
        np.minimum.at(first, rows[ties], shared.indices[ties])
        nearest += [int(row) if row < len(training) else None for row in first]
    return nearest


def _incidence(texts: Sequence[str], vocabulary: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which words stand in which text, as `scipy.sparse` takes it; new words are added to the vocabulary."""
    numbers, ends = array("i"), [0]
    for batch in batches(texts):
        for text in batch:
            numbers.extend({vocabulary.setdefault(word, len(vocabulary)) for word in WORD.findall(text.lower())})
            ends.append(len(numbers))
    return np.ones(len(numbers), dtype=np.int32), np.frombuffer(numbers, dtype=np.int32), np.array(ends)
