"""Percentile bootstrap over rows of a mean, or of a score of a corpus (Efron & Tibshirani 1993, chapter 13)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from record.scores import Contract, Interval

RESAMPLES = 1_000
CONFIDENCE = 0.95
SEED = 2137


@dataclass(frozen=True)
class Corpus:
    """A score of all rows together, which is no mean over rows.

    Parameters:
        statistics: what each row adds, shape `(rows, k)`.
        score: the score (0 to 1, an error rate 0 or more) of sums of `statistics` over rows.
    """

    statistics: np.ndarray
    score: Callable[[np.ndarray], float]

    def of(self, counts: np.ndarray) -> np.ndarray:
        """The score of each resample; `counts` holds how often each row stands in it, shape `(resamples, rows)`."""
        return np.array([self.score(sums) for sums in counts @ self.statistics])


# A metric row by row: one number a row, NaN where it does not apply, or what each row adds to a corpus's score.
Rows = list[float] | Corpus


def take(rows: Rows, numbers: Sequence[int]) -> Rows:
    """The rows with these numbers."""
    if isinstance(rows, Corpus):
        return Corpus(rows.statistics[list(numbers)], rows.score)
    return [rows[row] for row in numbers]


def applies(rows: Rows) -> bool:
    """Whether a metric applies to any of the rows."""
    return isinstance(rows, Corpus) or not all(map(math.isnan, rows))


def mean(scores: Rows) -> float:
    """Mean of the scores that are not NaN, 0 if there are none; of a corpus its score."""
    if isinstance(scores, Corpus):
        return float(scores.score(scores.statistics.sum(axis=0)))
    applying = [score for score in scores if not math.isnan(score)]
    return sum(applying) / len(applying) if applying else 0.0


def intervals(per_row: dict[str, list[float]], resamples: int, confidence: float, seed: int) -> dict[str, Interval]:
    """Mean and interval per metric over the same seeded resamples, so that metrics and models stay paired.

    Parameters:
        per_row: per metric, one score a row; all of one length n > 0. NaN where the metric does not apply to the row:
            the mean is then one of the other rows (0 if there are none), in each resample as well.
        resamples: number of resamples of n rows with replacement.
    """
    if not per_row:
        return {}
    names = list(per_row)
    scores = np.array([per_row[name] for name in names], dtype=np.float64)
    rows = scores.shape[1]
    counts = draws(resamples, rows, seed).astype(np.float64)
    applies = ~np.isnan(scores)
    scores = np.where(applies, scores, 0.0)
    means = counts @ scores.T / np.maximum(counts @ applies.T, 1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    mean = scores.sum(axis=1) / np.maximum(applies.sum(axis=1), 1)
    return {name: Interval(mean=float(mean[i]), low=float(low[i]), high=float(high[i])) for i, name in enumerate(names)}


def compared(base: dict[str, Rows], adapter: dict[str, Rows], contract: Contract) -> dict[str, dict[str, Interval]]:
    """Two scores of the same rows by every metric, and the paired difference adapter − base, on the same resamples.

    Returns:
        `base`, `adapter` and `difference`, each by metric; without metrics that apply to no row, but where the contract
        says that these count 0.
    """
    how = (contract.resamples, contract.confidence, contract.seed)
    names = [name for name in base if contract.without_rows == "zero" or applies(base[name])]
    means = [name for name in names if not isinstance(base[name], Corpus)]
    differences = {name: [a - b for a, b in zip(adapter[name], base[name], strict=True)] for name in means}
    parts = {
        "base": intervals({name: base[name] for name in means}, *how),
        "adapter": intervals({name: adapter[name] for name in means}, *how),
        "difference": intervals(differences, *how),
    }
    for name in names:
        if name not in means:
            one, other = base[name], adapter[name]
            counts = draws(contract.resamples, len(one.statistics), contract.seed)
            ones, others = one.of(counts), other.of(counts)
            parts["base"][name] = _interval(mean(one), ones, contract.confidence)
            parts["adapter"][name] = _interval(mean(other), others, contract.confidence)
            parts["difference"][name] = _interval(mean(other) - mean(one), others - ones, contract.confidence)
    return {part: {name: found[name] for name in names} for part, found in parts.items()}


def interval_of_mean(scored: Sequence[Rows], contract: Contract) -> Interval:
    """The mean of several models' scores of the same rows, and its interval over the rows, all models in each resample.

    It says how far the rows, not the models, decide the mean.
    """
    rows = len(scored[0].statistics) if isinstance(scored[0], Corpus) else len(scored[0])
    counts = draws(contract.resamples, rows, contract.seed)
    resampled = [one.of(counts) if isinstance(one, Corpus) else _means(one, counts) for one in scored]
    return _interval(float(np.mean([mean(one) for one in scored])), np.mean(resampled, axis=0), contract.confidence)


def standard_error(rows: Rows, contract: Contract) -> float:
    """The standard deviation of a mean or score in the contract's resamples (Efron & Tibshirani 1993, chapter 6)."""
    many = len(rows.statistics) if isinstance(rows, Corpus) else len(rows)
    counts = draws(contract.resamples, many, contract.seed)
    return float(np.std(rows.of(counts) if isinstance(rows, Corpus) else _means(rows, counts), ddof=1))


def _means(scores: list[float], counts: np.ndarray) -> np.ndarray:
    """The mean of each resample over the rows that the metric applies to."""
    array = np.array(scores, dtype=np.float64)
    applies = ~np.isnan(array)
    return counts @ np.where(applies, array, 0.0) / np.maximum(counts @ applies, 1)


def _interval(mean: float, resampled: np.ndarray, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(mean=mean, low=float(low), high=float(high))


@lru_cache(maxsize=2)
def draws(resamples: int, rows: int, seed: int) -> np.ndarray:
    """How often each row stands in each resample, shape `(resamples, rows)`; models and differences share them.

    They are the very resamples that rouge_score's aggregator draws after `numpy.random.seed(seed)`.
    """
    rng = np.random.RandomState(seed)
    counts = np.empty((resamples, rows), dtype=np.min_scalar_type(rows))
    for resample in counts:
        resample[:] = np.bincount(rng.randint(rows, size=rows), minlength=rows)
    return counts
