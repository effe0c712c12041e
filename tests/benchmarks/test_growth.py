"""How training grows: the projection's formula, and one process beside two."""

import pytest
import torch

from benchmarks.growth import by_length, project, projection, train_on
from benchmarks.machine import EPOCHS, TEST_ROWS, TRAIN_ROWS, matmul_rate, whole_job
from benchmarks.shapes import make_rows
from benchmarks.training import OURS


def test_the_projection_on_an_example_by_hand():
    # 800 bytes in a node of 4: 2 · 3/4 · 800 / 100 = 12 s; a GPU's 200 bytes between 2 nodes: 2 · 1/2 · 200 / 50 = 4 s.
    assert project(48.0, 800, gpus=4, nodes=2, in_node=100, between=50) == {
        "step_seconds": 64.0,
        "summing_seconds": 16.0,
        "efficiency": 0.75,
    }
    assert project(5.0, 800, gpus=1, nodes=1) == {"step_seconds": 5.0, "summing_seconds": 0.0, "efficiency": 1.0}


def test_the_projection_of_flan_t5_large():
    assumed, measured = projection(None), projection(1_000.0)
    # 9,437,184 trained parameters (recipes/finance.yaml's `expect`), four bytes each.
    assert assumed["gradient_bytes"] == 4 * 9_437_184
    assert (assumed["from"], measured["from"]) == ("assumed", "measured")
    rows = make_rows(8_192)[1]
    tokens = sum(len(row["input_ids"]) + len(row["labels"]) for row in rows) / len(rows)
    assert measured["one_gpu_step_seconds"] == pytest.approx(64 * tokens / 1_000)
    # Between what its cheapest and its dearest token cost (1.463 and 1.594 GFLOP), plus a little attention.
    assert 1.463e9 < assumed["one_gpu_step_seconds"] * 790e12 * 0.4 / (64 * tokens) < 1.62e9
    by_nodes = [found["efficiency"] for found in assumed["nodes"].values()]
    assert by_nodes == sorted(by_nodes, reverse=True) and 0 < by_nodes[-1] < by_nodes[0] < 1


def test_longer_rows_keep_more():
    short, long = by_length("cpu", "tiny", 1, (8, 32))
    assert (short["tokens"], long["tokens"]) == (16, 64)
    for name in ("ours", "stock"):
        # At least in proportion; attention grows faster.
        assert long[f"{name}_bytes"] > 3.5 * short[f"{name}_bytes"] > 0
        assert long[f"{name}_seconds"] > 0


def test_two_processes_share_a_step():
    found = train_on(2, "tiny", 1, effective=4)
    # Two rows each: if both took all four, there would be two steps.
    assert found["steps_a_round"] == 1
    assert found["tokens_per_second"] > 0


def test_the_whole_job_by_hand():
    training = {
        "size": "tiny",
        "best_stock": "stock",
        "contenders": {OURS: {"tokens_per_second": 200.0}, "stock": {"tokens_per_second": 50.0}},
    }
    found = whole_job(training, {"rows_per_second": 2.0}, rate=1e12)
    rows = make_rows(8_192)[1]
    tokens = sum(len(row["input_ids"]) + len(row["labels"]) for row in rows) / len(rows)
    assert found["ours_epoch_seconds"] == pytest.approx(TRAIN_ROWS * tokens / 200)
    assert found["stock_epoch_seconds"] == pytest.approx(4 * found["ours_epoch_seconds"])
    assert found["ours_flop_share"] == pytest.approx(200 * found["flop_per_token"] / 1e12)
    assert found["job_seconds"] == pytest.approx(EPOCHS * found["ours_epoch_seconds"] + TEST_ROWS)


def test_the_machines_rate_is_plausible():
    # More than a scalar core could do, less than any CPU does.
    assert 1e9 < matmul_rate("cpu", torch.float32, repeats=3) < 1e14
