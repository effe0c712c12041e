"""Percentile bootstrap of a mean over rows (Efron & Tibshirani 1993, chapter 13)."""

import numpy as np

from recipes.record import Interval

RESAMPLES = 1_000
CONFIDENCE = 0.95
SEED = 2137
# Two scores closer than this are the same for all purposes: a fifth of the last digit that papers print in percent.
EQUIVALENCE = 0.002


def intervals(per_row: dict[str, list[float]], resamples: int, confidence: float, seed: int) -> dict[str, Interval]:
    """Mean and interval per metric over the same seeded resamples, so that metrics and models stay paired.

    Parameters:
        per_row: per metric, one score a row; all of one length n > 0.
        resamples: number of resamples of n rows with replacement.
    """
    names = list(per_row)
    scores = np.array([per_row[name] for name in names], dtype=np.float64)
    rows = scores.shape[1]
    rng = np.random.default_rng(seed)
    # How often each row is drawn in a resample is multinomial: counts @ scores is the resample's sum.
    counts = rng.multinomial(rows, np.full(rows, 1 / rows), size=resamples)
    means = counts @ scores.T / rows
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return {
        name: Interval(mean=float(scores[i].mean()), low=float(low[i]), high=float(high[i]))
        for i, name in enumerate(names)
    }


def equivalent(difference: Interval) -> bool:
    """Whether a paired difference shows no change: its interval contains 0, or lies within ± `EQUIVALENCE`."""
    return difference.low <= 0 <= difference.high or max(-difference.low, difference.high) <= EQUIVALENCE
