"""The rules that tell noise from drift: when tokens must be equal, and when scores that moved show a change."""

import numpy as np

from record.run_record import Environment, Interval

# The packages that decide which tokens come out.
DECISIVE = ("torch", "transformers", "peft", "tokenizers", "bitsandbytes")

# At most four intervals decide (two models, two metrics): each at 1 - .05 / 4, together they hold at 95 % (Bonferroni).
ALPHA = 0.05 / 4
RESAMPLES, CHUNK = 5_000, 500

SEED = 2137
# Two scores closer than this are the same for all purposes: a fifth of the last digit that papers print in percent.
EQUIVALENCE = 0.002
# Nats by which a written token may fall short of the likeliest. A device that rounds otherwise writes near-ties only:
# the miniature's outputs with all weights in bfloat16 fall short by at most 0.11 in float32, the references, published
# as if they were outputs, by 11 in the median (343 rows of the finance recipe, 12 new tokens).
TIE = 2.0


def same_stack(here: Environment, there: Environment | None) -> bool:
    """Whether tokens must be equal: the same device and decisive versions, and on a CPU as many threads."""
    return (
        there is not None
        and here.device == there.device
        and (not here.device.startswith("CPU") or here.threads == there.threads)
        and all(here.packages.get(name) == there.packages.get(name) for name in DECISIVE)
    )


def change_interval(differences: list[float]) -> Interval:
    """Mean of paired differences over all rows, and its joint 95 % interval (one of four at `ALPHA`).

    An expanded percentile bootstrap (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 4.4):
    only rows whose outputs differ carry information, and the percentiles are widened for their number as Student's t
    would be. Fewer than two such rows prove nothing: the interval is then as wide as scores can be.

    Parameters:
        differences: per row, now − published; NaN where a metric does not apply to the row.
    """
    scores = np.asarray(differences, dtype=np.float64)
    scores = scores[~np.isnan(scores)]
    rows, changed = len(scores), scores[scores != 0]
    mean = float(scores.mean()) if rows else 0.0
    if len(changed) == 0:
        return Interval(mean=0.0, low=0.0, high=0.0)
    if len(changed) == 1:
        return Interval(mean=mean, low=-1.0, high=1.0)
    from scipy import stats

    many = len(changed)
    tail = stats.norm.cdf(np.sqrt(many / (many - 1)) * stats.t.ppf(ALPHA / 2, many - 1))
    rng = np.random.default_rng(SEED)
    means = []
    for _ in range(RESAMPLES // CHUNK):
        # How many of the n draws of a resample fall on changed rows is binomial; the others add nothing.
        counts = rng.binomial(rows, many / rows, size=CHUNK)
        scores_drawn = changed[rng.integers(many, size=counts.sum())]
        means.append(np.bincount(np.repeat(np.arange(CHUNK), counts), weights=scores_drawn, minlength=CHUNK) / rows)
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(mean=mean, low=float(low), high=float(high))


def equivalent(difference: Interval) -> bool:
    """Whether a paired difference shows no change: its interval contains 0, or lies within ± `EQUIVALENCE`."""
    return difference.low <= 0 <= difference.high or max(-difference.low, difference.high) <= EQUIVALENCE
