"""The measurement of how preparing the data grows, at a small size."""

from benchmarks.data import STAGES, bytes_a_row, measure


def test_time_and_memory_are_given_with_empty_caches_and_again():
    (size,) = measure(sizes=(300,))["sizes"]
    assert size["rows"] == 300
    for which in ("first", "again"):
        assert set(size[which]["seconds"]) == set(STAGES)
        # The imports alone take more than 100 MB.
        assert 2**40 > size[which]["peak_bytes"] > 100 * 2**20
    assert size["first"]["tokens"] == size["again"]["tokens"] > 10 * size["rows"]


def test_the_slope_is_that_between_the_two_largest_sizes():
    peaks = [
        {"rows": rows, "first": {"peak_bytes": first}, "again": {"peak_bytes": again}}
        for rows, first, again in ((10, 9_000, 9_000), (100, 10_000, 9_100), (1_100, 40_000, 9_100))
    ]
    assert bytes_a_row(peaks) == {"first": 30, "again": 0}
    assert bytes_a_row(peaks[:1]) == {}
