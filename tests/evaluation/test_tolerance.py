"""The rules that decide whether outputs that differ are the published ones, and how often they err.

An honest re-run on another stack changes some rows' outputs, and which of both runs scores higher is a coin's toss: the
differences are symmetric. Two models, base and adapter, are compared each time, by ROUGE-L. `-s` prints the figures
that docs/checking.md states.
"""

import numpy as np
import pytest

from evaluation.margins import summarize
from evaluation.tolerance import (
    LARGEST_MARGIN,
    MARGIN,
    NEAR,
    NOISE,
    change_interval,
    hidden_share,
    margin_of,
    outcome,
    rows_to_decide,
    same_stack,
    unlikely,
    visible_change,
)
from record.project import PACKAGE
from record.run_record import Environment
from record.scores import Interval
from scoring.decoding.margins import Margins


def differences(rng, rows: int, share: float, spread: float, shift: float = 0.0) -> list[float]:
    """Score differences of a re-run in which a share of the rows comes out otherwise and moves the mean by `shift`."""
    changed = rng.random(rows) < share
    return (changed * rng.normal(shift / share, spread, rows)).tolist()


def verdict(margin: float, *runs: list[float]) -> str:
    shown = {outcome(change_interval(run), margin) for run in runs}
    return next(kind for kind in ("moved", "undecided", "same") if kind in shown)


@pytest.mark.parametrize(
    ("rows", "share", "spread", "same"),
    [(2, 1.0, 0.3, 0), (5, 1.0, 0.3, 0), (20, 0.2, 0.3, 0), (50, 1.0, 0.3, 0), (100, 0.03, 0.3, 0),
     (500, 0.02, 0.3, 0.95), (500, 0.3, 0.1, 0.95), (1_000, 0.1, 0.3, 0.9), (4_800, 0.1, 0.3, 0.95)],
)  # fmt: skip
def test_honest_re_runs_are_seldom_called_drifted(rows, share, spread, same):
    rng, trials = np.random.default_rng(rows), 20 if rows > 500 else 100
    runs = [[differences(rng, rows, share, spread) for _ in range(2)] for _ in range(trials)]
    shown = [verdict(LARGEST_MARGIN, *pair) for pair in runs]
    moved, equal = shown.count("moved") / trials, shown.count("same") / trials
    print(f"{rows} rows, {share:.0%} changed by {spread}: {moved:.0%} DRIFTED, {equal:.0%} REPRODUCED")
    assert moved <= 0.05 and equal >= same


@pytest.mark.parametrize(("rows", "claim", "step"), [(20, 0.55, 1), (50, 0.22, 4), (100, 0.11, 9), (500, 0.022, 45)])
def test_flipped_rows_hide_no_claim(rows, claim, step):
    """Rows published as right that are wrong, and so many the other way round that the interval would contain 0."""
    passed = []
    for wrong in range(0, rows + 1, step):
        for right in range(0, min(wrong, rows - wrong) + 1, step):
            shown = change_interval([-1.0] * wrong + [1.0] * right + [0.0] * (rows - wrong - right))
            if outcome(shown, LARGEST_MARGIN) == "same":
                passed.append((wrong - right) / rows)
    for wrong in range(round(rows * claim), rows + 1, step):
        right = wrong - round(rows * claim)
        if wrong + right <= rows:
            shown = change_interval([-1.0] * wrong + [1.0] * right + [0.0] * (rows - wrong - right))
            assert outcome(shown, LARGEST_MARGIN) != "same", (wrong, right)
    assert max(passed) <= LARGEST_MARGIN


def test_a_shift_on_4800_rows_is_found():
    rng, trials = np.random.default_rng(1), 25
    runs = {shift: [differences(rng, 4_800, 0.05, 0.3, shift) for _ in range(trials)] for shift in (0.01, 0.03)}
    shown = {shift: [outcome(change_interval(run), MARGIN) for run in runs[shift]] for shift in runs}
    print({shift: [shown[shift].count(kind) for kind in ("moved", "undecided", "same")] for shift in shown})
    assert shown[0.01].count("same") <= 1 and shown[0.03].count("moved") == trials


def test_so_many_rows_as_are_named_decide():
    rng = np.random.default_rng(5)
    few = [change_interval(differences(rng, 100, 0.2, 0.3)) for _ in range(50)]
    assert {outcome(one, LARGEST_MARGIN) for one in few} == {"undecided"}
    rows = int(np.median([rows_to_decide(100, one, LARGEST_MARGIN) for one in few]))
    more = [outcome(change_interval(differences(rng, rows, 0.2, 0.3)), LARGEST_MARGIN) for _ in range(50)]
    print(f"{rows} rows decide {more.count('same')} of 50")
    assert more.count("same") >= 48
    assert rows_to_decide(1, Interval(mean=-1, low=-1, high=0), 0.01) == 10_000
    assert rows_to_decide(90, Interval(mean=0, low=-0.01, high=0.0247), 0.02) == 280


def test_the_margin_grows_with_the_gain_and_ends_where_the_same_weights_write_again():
    assert [margin_of(gain, True) for gain in (0.0, 0.05, -0.15, 0.5)] == pytest.approx([0.01, 0.01, 0.015, 0.02])
    assert [margin_of(gain, False) for gain in (0.0, 0.15, 0.5)] == pytest.approx([0.01, 0.015, 0.05])


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [(-0.1, 0.1, "undecided"), (0.0005, 0.0019, "same"), (-0.01, 0.01, "same"), (0.002, 0.03, "undecided"),
     (0.011, 0.03, "moved"), (-0.2, -0.1, "moved"), (-0.011, 0, "undecided")],
)  # fmt: skip
def test_an_interval_lies_within_the_margin_or_outside_or_tells_nothing(low, high, shown):
    assert outcome(Interval(mean=(low + high) / 2, low=low, high=high), 0.01) == shown


def test_few_changed_rows_show_no_direction_and_none_no_change():
    for rows in (1, 20, 100):
        shown = change_interval([0.0] * (rows - 1) + [-1.0])
        assert shown.low < -0.02 and shown.high == 0 and outcome(shown, LARGEST_MARGIN) == "undecided"
    # One row of many moves no mean by a hundredth.
    assert outcome(change_interval([0.0] * 4_799 + [1.0]), MARGIN) == "same"
    assert outcome(change_interval([-0.9] * 7), MARGIN) == "undecided"
    assert outcome(change_interval([-0.9, -0.8] * 4), MARGIN) == "moved"
    none = change_interval([0.0, 0.0, float("nan")])
    assert (none.mean, none.low, none.high) == (0, 0, 0) == (visible_change(none), 0, 0)


def test_rows_to_which_a_metric_does_not_apply_are_left_out():
    rng = np.random.default_rng(3)
    scores = differences(rng, 200, 0.5, 0.3)
    assert change_interval(scores) == change_interval([x for score in scores for x in (score, float("nan"))])


def test_few_rows_that_all_lose_a_lot_are_found():
    assert verdict(LARGEST_MARGIN, [0.0] * 60 + [-0.5] * 40) == "moved"


def test_a_sample_of_equal_rows_tells_how_many_others_may_differ():
    # The rule of three: 3 / n of all rows.
    assert hidden_share(100) == pytest.approx(0.03, rel=0.02) and hidden_share(1) == pytest.approx(0.95)


def read(rng, tokens, near, noise, precision):
    """What an honest reader finds of tokens of which the share `near` are near-ties, written with so much noise."""
    gaps = np.where(rng.random(tokens) < near, rng.uniform(0, NEAR, tokens), 5.0)
    short = np.where(rng.normal(0, noise, tokens) > gaps, gaps, 0.0)
    return summarize([Margins(short, gaps)], NOISE[precision])


@pytest.mark.parametrize(("tokens", "near"), [(100, 0.05), (1_000, 0.02), (1_000, 0.2), (20_000, 0.05)])
def test_honest_noise_is_refused_in_one_of_a_hundred_at_most(tokens, near):
    rng = np.random.default_rng(tokens)
    for precision, noise in NOISE.items():
        honest = [read(rng, tokens, near, noise, precision).unlikely for _ in range(400)]
        # 1 % of two models; the rest is the draw's own chance.
        assert sum(honest) <= 6, (precision, sum(honest))
        if tokens >= 1_000 and near >= 0.2:
            # Less than a twelfth of a nat exchanges too few of so many near-ties.
            larger = max(8 * noise, 0.08)
            eight = [read(rng, tokens, near, larger, precision).unlikely for _ in range(100)]
            assert sum(eight) >= 99, (precision, sum(eight))


def test_a_single_token_far_from_the_likeliest_is_refused_whatever_surrounds_it():
    gaps = np.full(20_000, 5.0)
    for noise in NOISE.values():
        short = np.zeros(20_000)
        short[7] = 11 * noise
        assert summarize([Margins(short, gaps)], noise).unlikely
        assert not summarize([Margins(np.zeros(5), gaps[:5])], noise).unlikely
    # As a forger who stays within 1.9 nats at each of twenty tokens.
    short[:20] = np.random.default_rng(7).uniform(0.3, 1.9, 20)
    assert summarize([Margins(short, gaps)], NOISE["quantized"]).unlikely


def test_beams_may_end_less_likely_but_not_all_of_them():
    # The same miniature with two and four beams: near-ties early in the search.
    for honest in ([1.37], [0.03, 0.04, 0.05, 0.14, 1.37], [0.133, 0.066, 0.048], [3.0, 0.3, 0.1, 0.05, 0.0]):
        assert not unlikely(honest)
    # The references: the quartiles of base model and adapter.
    assert unlikely([11.8]) and unlikely([0.76, 2.96, 5.73] * 20) and unlikely([0.0] * 99 + [10.1])
    assert not unlikely([]) and not unlikely([float("nan")] * 3) and unlikely([float("inf"), float("nan")])


@pytest.mark.parametrize(
    ("device", "dtype", "equal"),
    [
        ("CPU A", "float32", True),
        ("CPU A", "bfloat16", False),
        ("GPU A", "bfloat16", False),
        ("GPU A", "float32", False),
    ],
)
def test_but_for_float32_on_a_cpu_the_version_of_this_package_decides_too(device, dtype, equal):
    def computed_by(**packages: str) -> Environment:
        versions = {"torch": "2.13.0", "numpy": "2"} | packages
        return Environment(python="3.11", platform="Linux", device=device, threads=2, packages=versions,
                           code_commit=None, code_dirty=False)  # fmt: skip

    now, later, before = computed_by(**{PACKAGE: "0.1.0"}), computed_by(**{PACKAGE: "0.2.0"}), computed_by()
    assert same_stack(now, now.model_copy(update={"code_commit": "f" * 40}), dtype)
    assert same_stack(now, later, dtype) is same_stack(now, before, dtype) is equal
    assert not same_stack(now, computed_by(**{PACKAGE: "0.1.0", "torch": "2.14.0"}), dtype)
