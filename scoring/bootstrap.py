"""Percentile bootstrap of a mean over rows (Efron & Tibshirani 1993, chapter 13)."""

import math
from functools import lru_cache

import numpy as np

from record.scores import Interval

RESAMPLES = 1_000
CONFIDENCE = 0.95
SEED = 2137


def mean(scores: list[float]) -> float:
    """Mean of the scores that are not NaN; 0 if there are none."""
    applying = [score for score in scores if not math.isnan(score)]
    return sum(applying) / len(applying) if applying else 0.0


def intervals(per_row: dict[str, list[float]], resamples: int, confidence: float, seed: int) -> dict[str, Interval]:
    """Mean and interval per metric over the same seeded resamples, so that metrics and models stay paired.

    Parameters:
        per_row: per metric, one score a row; all of one length n > 0. NaN where the metric does not apply to the row:
            the mean is then one of the other rows (0 if there are none), in each resample as well.
        resamples: number of resamples of n rows with replacement.
    """
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
