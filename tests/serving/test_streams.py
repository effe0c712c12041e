"""A stream's first token, and many streams at once."""

import pytest
import torch

from benchmarks.shapes import make_model
from benchmarks.streams import measure_first_token
from scoring.decoding.t5_weights import weights_of
from serving.engine import Engine, PendingRow
from serving.loading import Served


@pytest.mark.parametrize("look", [1, 8])
@torch.inference_mode()
def test_a_first_token_is_told_after_one_step_of_all(look):
    model = make_model("tiny").eval()
    engine = Engine([Served("model", model, weights_of(model), None, 32, 512, {})], slots=4, queue=8)
    lane = engine.lanes["model"]
    # As on a GPU, where several steps are launched before one looks at what they wrote.
    lane.steps = lane.batch.steps = look
    told: dict[str, list[int]] = {"first": [], "second": []}

    def row(name: str) -> PendingRow:
        return PendingRow(
            [5, 6, 7, 1], 30, forced=[5] * 30, likeliest=0, progress=lambda ids: told[name].append(len(ids))
        )

    engine.submit("model", [row("first")])
    for _ in range(2):
        lane.step(lane.entering())
    assert told["first"] == [1, 1 + look]
    engine.submit("model", [row("second")])
    lane.step(lane.entering())
    assert told["second"] == [1] and told["first"][-1] == 2 + look


def test_the_first_token_is_timed():
    found = measure_first_token("tiny", rounds=3, others=3)
    for place in ("alone", "among"):
        assert 0 < found[place]["read"] < found[place]["first"] and found[place]["step"] > 0
