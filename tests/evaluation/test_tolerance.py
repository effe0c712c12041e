"""The rule that decides on another stack: how often it errs, on simulated re-runs.

An honest re-run on another stack changes some rows' outputs, and which of both runs scores higher is a coin's toss: the
differences are symmetric. Two models, base and adapter, are compared each time, by ROUGE-L.
"""

import numpy as np
import pytest

from evaluation.tolerance import change_interval, equivalent


def differences(rng, rows: int, share: float, spread: float, shift: float = 0.0) -> list[float]:
    """Score differences of a re-run in which a share of the rows comes out otherwise and moves the mean by `shift`."""
    changed = rng.random(rows) < share
    return (changed * rng.normal(shift / share, spread, rows)).tolist()


def drifted(*runs: list[float]) -> bool:
    return any(not equivalent(change_interval(run)) for run in runs)


@pytest.mark.parametrize(
    ("rows", "share", "spread"),
    [(50, 0.1, 0.3), (50, 1.0, 0.3), (500, 0.02, 0.3), (500, 0.3, 0.1), (500, 1.0, 0.3), (4_800, 0.02, 0.3),
     (4_800, 0.1, 0.3)],
)  # fmt: skip
def test_honest_re_runs_are_seldom_called_drifted(rows, share, spread):
    rng = np.random.default_rng(rows)
    trials = 200
    false = sum(
        drifted(differences(rng, rows, share, spread), differences(rng, rows, share, spread)) for _ in range(trials)
    )
    print(f"{rows} rows, {share:.0%} changed: {false / trials:.1%} of honest re-runs called DRIFTED")
    assert false / trials <= 0.05


@pytest.mark.parametrize(("share", "spread"), [(0.05, 0.3), (0.2, 0.3), (0.4, 0.2)])
def test_a_shift_of_a_hundredth_on_4800_rows_is_found(share, spread):
    rng = np.random.default_rng(1)
    trials = 100
    found = sum(drifted(differences(rng, 4_800, share, spread, shift=0.01)) for _ in range(trials))
    print(f"{share:.0%} changed, spread {spread}: a shift of .01 found in {found / trials:.1%}")
    assert found / trials >= 0.99


def test_a_difference_of_one_row_proves_nothing_and_none_is_none():
    assert equivalent(change_interval([0.0] * 99 + [0.9]))
    none = change_interval([0.0, 0.0, float("nan")])
    assert (none.mean, none.low, none.high) == (0, 0, 0)


def test_rows_to_which_a_metric_does_not_apply_are_left_out():
    rng = np.random.default_rng(3)
    scores = differences(rng, 200, 0.5, 0.3)
    assert change_interval(scores) == change_interval([x for score in scores for x in (score, float("nan"))])


def test_few_rows_that_all_lose_a_lot_are_found():
    assert drifted([0.0] * 60 + [-0.5] * 40)
