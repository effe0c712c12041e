"""The rules that tell noise from drift: which rows are looked at, when tokens must be equal, by how much they may fall
short of the likeliest, and when scores that moved show a change."""

import functools
import math
from typing import Literal, NamedTuple

import numpy as np

from record.project import PACKAGE
from record.run_record import Environment
from record.scores import Interval
from scoring.bootstrap import Corpus, mean

# The packages that decide which tokens come out. This one does as well, by the order of its sums, but for float32 on a
# CPU: there the order stays.
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
Precision = Literal["float32", "tf32", "bfloat16", "quantized"]


class Rounding(NamedTuple):
    """The coarser of where outputs were written and of where they are read.

    Parameters:
        precision: of the weights.
        dtype: in what the layers compute that are not quantized.
    """

    precision: Precision
    dtype: str


# Standard deviation, in nats, of the difference of two logits between an honest writer and an honest reader, by the
# coarser precision of the two. `benchmarks/prefill.py` measures it at the near-ties of one trained model of
# FLAN-T5-small's shape (benchmarks/results, docs/checking.md): two libraries' float32 differ by 4e-6, of which this is
# 200 times. TF32 rounds to 10 bits: .01 is what weights off by as much give the miniature. In bfloat16 models have from
# .02 to .09, quantized ones differ by what they are computed in, and their activations are rounded as well: there a
# model is asked for its own (`evaluation.margins.noise_of`), and these hold where it has too few near-ties to tell.
NOISE: dict[Precision, float] = {"float32": 0.001, "tf32": 0.01, "bfloat16": 0.1, "quantized": 0.15}
# So many near-ties tell a model's own noise: their root mean square is off by 1 / √(2 · 100) = 7 %, and by twice that
# seldom. Each is drawn ten times at most. The rest of the room is for noise that is not normal: logits in bfloat16 lie
# on steps of .03 and more. A model with more noise than the largest writes what it likes, and that is no rounding.
TELLING, DRAWS, ROOM, LARGEST_NOISE = 100, 10, 1.3, 0.25
# Tokens whose two likeliest are no further apart, in nats, tell how many near-ties a text holds.
NEAR = 0.5
# No token falls short by more than so many times the noise.
WORST_TOKEN = 10
# An honest output is refused so often at most, of the base or of the adapter.
FALSE_ALARMS = 0.01
# Nats by which outputs of beams that differ fall short of the best beam in the mean at most, were their shortfalls
# exponential: a near-tie early in the search can end in an output that is some nats less likely, or likelier. Two
# or four beams and weights off by .1 to .5 % give the miniature 1.4 in the mean at most (one row of 115; .7 in 5 of 90
# rows of a barely trained adapter, 3.0 at worst); the references give 28 in the median for the base, 3 for the adapter.
NEAR_TIE_OF_BEAMS = 1.0
# No output alone may fall short by more than so many times the mean: an exponential does once in 22,000.
WORST = 10
# An honest re-run falls short by more than the limit once in a thousand.
UNLIKELY = 0.001

Outcome = Literal["same", "moved", "undecided"]


def same_stack(here: Environment, there: Environment | None, dtype: str) -> bool:
    """Whether tokens must be equal: the same device and decisive versions, as many processes, and threads on a CPU.

    Parameters:
        dtype: in what both computed.
    """
    cpu = here.device.startswith("CPU")
    decisive = DECISIVE if cpu and dtype == "float32" else (*DECISIVE, PACKAGE)
    return (
        there is not None
        and here.device == there.device
        and here.processes == there.processes
        and (not cpu or here.threads == there.threads)
        and all(here.packages.get(name) == there.packages.get(name) for name in decisive)
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


def sample_rows(rows: int, sample: int | None, commit: str) -> list[int]:
    """Numbers of the test rows to generate for, in order: all of them, or a sample without replacement.

    The commit seeds the draw: nobody who publishes can know before which rows will be looked at.
    """
    if sample is None or sample >= rows:
        return list(range(rows))
    return sorted(np.random.default_rng(int(commit, 16)).choice(rows, sample, replace=False).tolist())


def hidden_share(rows: int) -> float:
    """Share of all rows that may differ though none of a random sample of `rows` does, at 95 %."""
    return 1.0 - math.pow(0.05, 1 / rows)


def largest_margin(gaps: np.ndarray, noise: float) -> float:
    """The mean by which honest greedy outputs fall short of the likeliest tokens at most, in nats a token.

    The statistic is Token-DiFR's of greedy decoding (arXiv:2511.20621): the largest logit − that of the written token,
    in the mean over the tokens. What is honest is modelled, since of many near-ties more are decided otherwise: noise
    of a standard deviation s between the logits of writer and reader exchanges two tokens that are d apart with the
    probability Φ(−d/s). Of gaps that lie evenly near 0, g a nat, that makes g·s/√(2π) exchanges, each of s·√(2π)/4 nats
    in the mean: a sum of a Poisson number of them, taken as exponential. It exceeds the limit once in 2 /
    `FALSE_ALARMS`, so that of two models one does once in 1 / `FALSE_ALARMS`.

    Parameters:
        gaps: by how much the likeliest token leads at each place, in nats.
        noise: s, in nats.
    """
    # One more than were seen: where there are none, a first one may have been written otherwise.
    return _largest_sum(int(np.count_nonzero(gaps < NEAR)) + 1, noise) / len(gaps)


@functools.lru_cache(4096)
def _largest_sum(near_ties: int, noise: float) -> float:
    """The sum of nats by which honest tokens fall short at most, of which so many are near-ties."""
    from scipy import optimize, stats

    near = near_ties / NEAR
    exchanges, size = near * noise / math.sqrt(2 * math.pi), noise * math.sqrt(2 * math.pi) / 4
    numbers = np.arange(1, math.ceil(exchanges + 10 * math.sqrt(exchanges)) + 20)
    weights = stats.poisson.pmf(numbers, exchanges)

    def excess(total: float) -> float:
        return float(weights @ stats.gamma.sf(total, numbers, scale=size)) - FALSE_ALARMS / 2

    most = size * (numbers[-1] + 50)
    return float(optimize.brentq(excess, 0, most)) if excess(0) > 0 else 0.0


def unlikely(shortfalls: list[float]) -> bool:
    """Whether outputs of beams that differ fall short of the best beams by more than rounding explains.

    One by more than `WORST` near-ties, or all together by more than a sum of exponentials with the mean of a near-tie
    reaches once in 1 / `UNLIKELY` (a gamma distribution).

    Parameters:
        shortfalls: nats, one for each output that differs; NaN where nothing is known.
    """
    shortfalls = [nats for nats in shortfalls if not math.isnan(nats)]
    if not shortfalls:
        return False
    from scipy import stats

    limit = NEAR_TIE_OF_BEAMS * stats.gamma.isf(UNLIKELY, len(shortfalls))
    return max(shortfalls) > WORST * NEAR_TIE_OF_BEAMS or sum(shortfalls) > limit
