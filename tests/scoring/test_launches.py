"""Decoding as a GPU does it, on a CPU: in arrays of few sizes, by launches that a graph may take the place of."""

import copy
import itertools
import time

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

from scoring.decoding import launches, slot_decoding
from scoring.decoding.launches import Launches
from scoring.decoding.t5_weights import weights_of

MOST = 70
# Longer and shorter than a part, and more than one look.
PROMPTS = [[3 + (row * 7 + place) % 90 for place in range(3 + 9 * row)] + [1] for row in range(11)]


class Replayed(Launches):
    """What a graph does, by running the step again on the arrays that it was made with; it is always the faster one."""

    def __init__(self):
        super().__init__()
        self.graphs = None
        self.made, self.replayed = [], 0
        batches.append(self)

    def run(self, *what):
        written = super().run(*what)
        self.seconds = float("inf")
        return written

    def _capture(self, step):
        self.made.append((self.storage, len(self.kept)))

        def replay():
            self.replayed += 1
            step()

        return replay


batches: list[Replayed] = []


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    config = T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=3, decoder_start_token_id=0)
    base = T5ForConditionalGeneration(config)
    base.lm_head.weight = torch.nn.Parameter(torch.randn(96, 32))
    base.generation_config = GenerationConfig(decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    return get_peft_model(base, LoraConfig(r=4, target_modules=["q", "v"], init_lora_weights=False)).eval()


@pytest.fixture(scope="module")
def answers(model):
    """What the CPU's own way writes, which is what `generate` writes (test_decoding.py)."""
    written = slot_decoding.greedy(model, PROMPTS, MOST, 4)
    assert len({tuple(one) for one in written}) == len(PROMPTS) and {len(one) for one in written} != {MOST}
    return written


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(slot_decoding, "_on_cpu", lambda device: False)
    batches.clear()


@pytest.mark.parametrize("slots", [1, 3, 8, 64])
def test_graphs_write_the_same_tokens(model, answers, slots, as_on_a_gpu, monkeypatch):
    monkeypatch.setattr(slot_decoding, "Launches", Replayed)
    assert slot_decoding.greedy(model, PROMPTS, MOST, slots) == answers
    (batch,) = batches
    assert batch.graphs is True and batch.replayed == slot_decoding.STEPS_PER_LOOK * (batch.calls - launches.TIMED)
    # Few sizes, so that few graphs are made.
    assert len(batch.made) <= 12 < batch.replayed


def test_a_cache_that_grows_moves_and_gets_new_graphs(model, answers, as_on_a_gpu, monkeypatch):
    monkeypatch.setattr(slot_decoding, "Launches", Replayed)
    written = {}
    with torch.inference_mode():
        batch = slot_decoding.SlotBatch(model, weights_of(model), PROMPTS, [MOST] * len(PROMPTS), MOST, 8)
        (cache,) = batch.caches
        # Longer prompts, and more of them, come when the first is half written.
        for number in range(len(PROMPTS)):
            batch.queue.append(number)
            for _ in range(launches.TIMED + 1):
                batch.admit()
                written |= batch.advance()
                assert batch.launches.storage in (None, (cache.past.data_ptr(), cache.source.data_ptr()))
        while batch.admit():
            written |= batch.advance()
    assert [written[row] for row in range(len(PROMPTS))] == answers
    made = batch.launches.made
    moved = [kept for (before, _), (storage, kept) in itertools.pairwise(made) if storage != before]
    assert len(moved) >= 3 and not any(moved)


def test_where_no_graph_can_be_made_kernels_are_launched_one_by_one(model, answers, as_on_a_gpu, monkeypatch, caplog):
    tried = []

    class Kept(Launches):
        def __init__(self):
            super().__init__()
            self.graphs = None

        def _capture(self, step):
            tried.append(self)
            return super()._capture(step)

    if torch.cuda.is_available():
        pytest.skip("graphs can be made here")
    monkeypatch.setattr(slot_decoding, "Launches", Kept)
    assert slot_decoding.greedy(model, PROMPTS, MOST, 4) == answers
    (batch,) = tried
    assert batch.graphs is False and batch.calls > launches.TIMED + 1
    (line,) = caplog.messages
    assert line.startswith("decoding goes on without CUDA graphs, as none can be made: ") and "\n" not in line
    # On a device that is no NVIDIA GPU none is tried.
    assert Launches().graphs is False


def test_the_clock_decides():
    def decided(by_kernels: float, by_graph: float) -> Launches:
        class Timed(Launches):
            def _capture(self, step):
                time.sleep(0.2)
                return lambda: time.sleep(by_graph)

        one = Timed()
        one.graphs = None
        arrays = (torch.zeros(2, dtype=torch.long),)
        for _ in range(launches.TIMED + 1):
            one.run(lambda *arrays: time.sleep(by_kernels), arrays, 2, "storage", "sizes")
        return one

    # Making the graph takes longest, once: it is not counted.
    assert decided(0.05, 0.0).graphs is True and decided(0.0, 0.05).graphs is False


def test_a_step_asks_the_device_for_nothing_so_that_it_can_be_captured(model, as_on_a_gpu, monkeypatch):
    """Arrays without numbers: whatever would have to be read from the device fails."""
    passed = []

    class Traced(Launches):
        def run(self, step, arrays, *what):
            with FakeTensorMode(allow_non_fake_inputs=True) as mode:
                step(*map(mode.from_tensor, arrays))
            passed.append(step)
            return super().run(step, arrays, *what)

    monkeypatch.setattr(slot_decoding, "Launches", Traced)
    # In 64 bits, which oneDNN has no layout for: its products have no arrays without numbers.
    slot_decoding.greedy(copy.deepcopy(model).double(), PROMPTS[:2], 4, 2)
    assert passed
