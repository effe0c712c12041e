"""What a check finds of a claimed score."""

from evaluation.tolerance import ALPHA, change_interval, outcome
from record.errors import Slip
from record.run_record import Claim
from record.scores import BASELINES, METRIC_NAMES, METRICS, Baseline, BaselineName, Contract, Interval, Scores
from scoring.bootstrap import Corpus, Rows, compared, mean


def parse_claims(texts: tuple[str, ...], contract_families: list[str]) -> dict[str, float]:
    """The claimed score by metric, of texts such as `rougeL=0.2899`.

    Raises:
        `Slip`: a text is none, its metric is unknown or not scored, or its value is no score.
    """
    claims = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in METRICS:
            raise Slip(f"--claim {text} is no claim: write METRIC=SCORE, METRIC one of {', '.join(METRICS)}")
        kind = METRICS[name]
        if kind.family not in contract_families:
            raise Slip(f"--claim {text}: the recipe scores {', '.join(contract_families)} only: add {kind.family} to "
                       "its `metrics`")  # fmt: skip
        try:
            score = float(value)
        except ValueError:
            raise Slip(f"--claim {text}: {value!r} is no number") from None
        if not 0 <= score <= (1 if not kind.lower_is_better else 1_000):
            raise Slip(f"--claim {text}: scores are from 0 to 1: write 0.2899 for 28.99 %")
        claims[name] = score
    return claims


def decide(metric: str, value: float, tolerance: float, rows: Rows, contract: Contract) -> Claim:
    """Holds a claimed score against the scores of the rows that were checked.

    CONTRADICTED where the joint interval of score − claim (`tolerance.change_interval`) and the one that is shown lie
    wholly outside ± `tolerance`: a claim within the interval never is. Else CONFIRMED where the score of these very
    rows is within the tolerance of the claim, and UNDECIDED where other rows of the same kind might give it, but these
    do not.

    Parameters:
        rows: the metric of what was checked, row by row.
    """
    # Of a corpus the resamples give the joint interval, of a mean `change_interval` knows a better one.
    share = 1 - ALPHA if isinstance(rows, Corpus) else contract.confidence
    how = contract.model_copy(update={"confidence": share})
    shown = compared({metric: rows}, {metric: rows}, how)["adapter"][metric]
    low, high = shown.low - value, shown.high - value
    if not isinstance(rows, Corpus):
        joint = change_interval([score - value for score in rows])
        low, high = min(low, joint.low), max(high, joint.high)
    difference = Interval(mean=mean(rows) - value, low=low, high=high)
    if outcome(difference, tolerance) == "moved":
        verdict = "CONTRADICTED"
    else:
        verdict = "CONFIRMED" if abs(difference.mean) <= tolerance else "UNDECIDED"
    return Claim(metric=metric, value=value, tolerance=tolerance, difference=difference, verdict=verdict)


def claim_line(claim: Claim, scores: Scores) -> str:
    """The verdict on a claim with the score that it was held against."""
    return (
        f"{METRIC_NAMES[claim.metric]} {scores.adapter[claim.metric].text()} on {scores.rows:,} rows, "
        f"claimed {claim.value:g} ± {claim.tolerance:g}"
    )


def look_alikes(claim: Claim, scores: Scores, baselines: dict[BaselineName, Baseline]) -> list[str]:
    """Which other numbers of the same check the claimed value is, within its tolerance; each in a few words."""
    others = (
        *((f"{METRIC_NAMES[name]} of what was checked", x) for name, x in scores.adapter.items()),
        *((f"{METRIC_NAMES[name]} of the base model", x) for name, x in scores.base.items()),
        *(
            (f"{METRIC_NAMES[claim.metric]} of {BASELINES[name]}", baseline.scores[claim.metric])
            for name, baseline in baselines.items()
            if claim.metric in baseline.scores
        ),
    )
    return [f"{what} ({x.figure(x.mean)})" for what, x in others if abs(x.mean - claim.value) <= claim.tolerance]
