"""Level prefill: the models read the published outputs, and find those that they would not write."""

from functools import partial

import pytest
from forger import (
    ALL_ROWS,
    check,
    columns,
    drawn_anew,
    flattered,
    found_out,
    predictions,
    published_as,
    said,
    scaled,
    the_reference,
    weights,
)  # fmt: skip

from evaluation.reproduce import reproduce
from evaluation.verdict_page import render_report
from record.verdict import why_unrelated

REPO = "local-user/prefill"


@pytest.fixture(scope="module")
def finance(scored_on_few_rows, tmp_path_factory):
    return published_as("prefill", scored_on_few_rows, tmp_path_factory.mktemp("runs") / "finance")


def test_an_honest_release_is_read_as_it_was_written(finance):
    run, _ = finance
    verdict, findings = reproduce(REPO, level="prefill")
    assert (verdict.verdict, verdict.evidence, verdict.rows) == ("REPRODUCED", "margins", {}), verdict.line
    assert "published tokens" in verdict.reason and verdict.reason.endswith("nothing was generated")
    assert why_unrelated(verdict, REPO, findings.record, run) is None
    assert "the models read the published outputs" in render_report(verdict, findings)
    some, _ = reproduce(REPO, level="prefill", sample=30)
    assert (some.verdict, some.sample) == ("REPRODUCED", 30) and "for a sample of 30 rows" in some.reason


def others(who):
    """Each row's output is that of the next row."""
    return said(who, ALL_ROWS, lambda found, _, row: getattr(found, f"{who}_tokens")[(row + 1) % len(ALL_ROWS)])


@pytest.mark.parametrize(
    ("forge", "part"),
    [
        pytest.param(weights(partial(scaled, by=1.5)), "weights", id="a-larger-alpha"),
        pytest.param(predictions(others("adapter")), "weights", id="outputs-of-other-rows"),
        pytest.param(predictions(others("base")), "generation", id="base-outputs-of-other-rows"),
        pytest.param(predictions(flattered), "weights", id="the-right-answers"),
        pytest.param(predictions(said("adapter", range(1), the_reference)), "weights", id="one-better-output"),
        pytest.param(
            predictions(columns(adapter="base", adapter_tokens="base_tokens")), "weights", id="the-base-s-outputs"
        ),
    ],
)
def test_a_forgery_is_found_by_reading(finance, tmp_path, forge, part):
    verdict = check(REPO, finance, forge, tmp_path, level="prefill")
    found_out(verdict, part, "fall short of the likeliest by")
    assert verdict.evidence == "margins"


def test_beams_are_refused_in_one_line(finance, tmp_path):
    forge = drawn_anew(recipe__num_beams=2, contract__num_beams=2)
    verdict = check(REPO, finance, forge, tmp_path, level="prefill")
    assert verdict.verdict == "UNCHECKED" and "2 beams" in verdict.reason and "use level generate" in verdict.reason
