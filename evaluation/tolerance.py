"""The rules that tell noise from drift: when tokens must be equal, and when scores that moved show a change."""

import math
from typing import Literal

import numpy as np

from record.run_record import Environment
from record.scores import Interval
from scoring.bootstrap import Corpus, mean

# The packages that decide which tokens come out.
DECISIVE = ("torch", "transformers", "peft", "tokenizers", "bitsandbytes")

# At most four intervals decide (two models, two metrics): each at 1 - .05 / 4, together they hold at 95 % (Bonferroni).
ALPHA = 0.05 / 4
RESAMPLES, CHUNK = 5_000, 500

SEED = 2137
# Fewer changed rows than these may all move one way by chance more often than ALPHA allows (sign test: 2 · 2 ** -8).
FEW = 8
# A mean may move by a tenth of what the adapter is said to gain, by a hundredth at least (where ROUGE in percent is
# printed, one point), and where the same weights write again by two hundredths at most: weights rounded to bfloat16 or
# off by .5 % move the miniature's ROUGE-L by .006 or less (172 rows of the finance recipe). Another training with the
# same recipe is another adapter: four seeds differ by up to .018 where the gain is .52, and such a gain may be so much.
SHARE_OF_GAIN, MARGIN, LARGEST_MARGIN = 0.1, 0.01, 0.02
# Nats by which greedy outputs that differ fall short of the likeliest in the mean at most, were their shortfalls
# exponential: weights in bfloat16 give the miniature .03 to .06, weights off by .5 % .02 to .17 (3 or 4 of 172 rows of
# the finance recipe). The references, published as if they were outputs, fall short by 11 in the median.
NEAR_TIE = 0.2
# The same of beams: a near-tie early in the search can end in an output that is some nats less likely, or likelier. Two
# or four beams and weights off by .1 to .5 % give the miniature 1.4 in the mean at most (one row of 115; .7 in 5 of 90
# rows of a barely trained adapter, 3.0 at worst); the references give 28 in the median for the base, 3 for the adapter.
NEAR_TIE_OF_BEAMS = 1.0
# No output alone may fall short by more than so many times the mean: an exponential does once in 22,000.
WORST = 10
# An honest re-run falls short by more than the limit once in a thousand.
UNLIKELY = 0.001

Outcome = Literal["same", "moved", "undecided"]


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
    would be. Fewer than `FEW` such rows cannot show a direction: the interval then reaches to 0.

    Parameters:
        differences: per row, now − published; NaN where a metric does not apply to the row.
    """
    scores = np.asarray(differences, dtype=np.float64)
    scores = scores[~np.isnan(scores)]
    rows, changed = len(scores), scores[scores != 0]
    if len(changed) == 0:
        return Interval(mean=0.0, low=0.0, high=0.0)
    many = len(changed)
    rng = np.random.default_rng(SEED)
    means = []
    for _ in range(RESAMPLES // CHUNK):
        # How many of the n draws of a resample fall on changed rows is binomial; the others add nothing.
        counts = rng.binomial(rows, many / rows, size=CHUNK)
        scores_drawn = changed[rng.integers(many, size=counts.sum())]
        means.append(np.bincount(np.repeat(np.arange(CHUNK), counts), weights=scores_drawn, minlength=CHUNK) / rows)
    return _expanded(float(scores.mean()), np.concatenate(means), many)


def corpus_change_interval(was: Corpus, now: Corpus) -> Interval:
    """As `change_interval`, of a score of all rows together: both are taken of the same resamples of the rows."""
    rows = len(was.statistics)
    many = int((was.statistics != now.statistics).any(axis=1).sum())
    if many == 0:
        return Interval(mean=0.0, low=0.0, high=0.0)
    rng = np.random.default_rng(SEED)
    moved = []
    for _ in range(RESAMPLES // CHUNK):
        counts = rng.multinomial(rows, np.full(rows, 1 / rows), size=CHUNK)
        moved.append(now.of(counts) - was.of(counts))
    return _expanded(mean(now) - mean(was), np.concatenate(moved), many)


def _expanded(mean: float, resampled: np.ndarray, many: int) -> Interval:
    """The interval of a mean by its resamples, when `many` rows have changed."""
    from scipy import stats

    tail = stats.norm.cdf(np.sqrt(many / (many - 1)) * stats.t.ppf(ALPHA / 2, many - 1)) if many > 1 else 0.0
    low, high = np.quantile(resampled, [tail, 1 - tail])
    if many < FEW:
        low, high = min(low, 0.0), max(high, 0.0)
    return Interval(mean=mean, low=float(low), high=float(high))


def margin_of(gain: float, same_weights: bool) -> float:
    """By how much a mean may move and count as the same.

    Parameters:
        gain: the published difference of the metric, adapter − base.
        same_weights: whether the published weights write again, not those of another training.
    """
    margin = max(MARGIN, SHARE_OF_GAIN * abs(gain))
    return min(margin, LARGEST_MARGIN) if same_weights else margin


def outcome(difference: Interval, margin: float) -> Outcome:
    """What a paired difference shows, as two one-sided tests (TOST; Schuirmann 1987) with its joint interval.

    "same" where the interval lies within ± `margin`, "moved" where it lies wholly outside, else "undecided".
    """
    if max(-difference.low, difference.high) <= margin:
        return "same"
    return "moved" if difference.low > margin or difference.high < -margin else "undecided"


def visible_change(difference: Interval) -> float:
    """The smallest change of the mean that would have shown: what the interval leaves possible at most."""
    return max(-difference.low, difference.high)


def rows_to_decide(rows: int, difference: Interval, margin: float) -> int:
    """About how many rows an honest re-run needs to show no change; two significant digits, rounded up.

    An interval shrinks by the root of the rows: with so many it is as wide as `margin`.

    Parameters:
        rows: number of the rows that gave the `difference`.
    """
    needed = rows * ((difference.high - difference.low) / margin) ** 2
    unit: int = 10 ** max(0, len(str(math.ceil(needed))) - 2)
    return math.ceil(needed / unit) * unit


def hidden_share(rows: int) -> float:
    """Share of all rows that may differ though none of a random sample of `rows` does, at 95 %."""
    return 1.0 - math.pow(0.05, 1 / rows)


def unlikely(shortfalls: list[float], num_beams: int) -> bool:
    """Whether the outputs that differ fall short of the likeliest by more than rounding explains.

    One by more than `WORST` near-ties, or all together by more than a sum of exponentials with the mean of a near-tie
    reaches once in 1 / `UNLIKELY` (a gamma distribution): for greedy outputs 1.4 nats for one row, .37 in the mean of
    20, .26 in that of 100.

    Parameters:
        shortfalls: nats, one for each output that differs; NaN where nothing is known.
    """
    shortfalls = [nats for nats in shortfalls if not math.isnan(nats)]
    if not shortfalls:
        return False
    from scipy import stats

    near_tie = NEAR_TIE if num_beams == 1 else NEAR_TIE_OF_BEAMS
    return max(shortfalls) > WORST * near_tie or sum(shortfalls) > near_tie * stats.gamma.isf(UNLIKELY, len(shortfalls))
