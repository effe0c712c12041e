"""Expected figures against a run's own."""

import pytest

from recipes.expectations import compare


@pytest.mark.parametrize(
    ("train", "test", "dropped", "verdicts"),
    [
        (18, 2, {}, ["met", "met"]),
        (20, 3, {}, ["missed", "missed"]),
        # Other trainings keep rows without an answer.
        (20, 3, {"empty target": 1, "empty prompt": 1}, ["met", "met"]),
        (21, 2, {"empty target": 2}, ["missed", "met"]),
        (17, 2, {"empty target": 2}, ["missed", "met"]),
        (20, 3, {"drop words(output) > 9": 3}, ["missed", "missed"]),
    ],
)
def test_rows_may_lack_where_empty_ones_were_dropped(record, train, test, dropped, verdicts):
    record.data.dropped = dropped
    figures = compare({"train_rows": train, "test_rows": test}, record)
    assert [item.verdict for item in figures] == verdicts
