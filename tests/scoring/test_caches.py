"""On a CPU in bfloat16 keys and values are kept in it, and read whole."""

import torch

from benchmarks.shapes import make_model
from scoring.decoding import slot_decoding
from scoring.decoding.slot_decoding import SlotBatch, _attend
from scoring.decoding.t5_weights import weights_of


def test_attention_is_that_of_float32():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 4, 64) / 8, torch.randn(3, 4, 20, 64), torch.randn(3, 4, 20, 64)
    hidden = torch.arange(20) >= torch.tensor([20, 7, 1])[:, None, None, None]
    mask = torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
    found = _attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), _attend(q, k, v, mask), atol=0.03, rtol=0.02)


def test_caches_fit_the_rows_in_work(monkeypatch):
    """After long prompts, short ones read no more than if they were alone, and write the same."""
    # Each prompt is encoded alone: sums of other sizes are rounded otherwise.
    monkeypatch.setattr(slot_decoding, "ENCODED", 1)
    copied = []

    def attend(q, *cached_and_mask):
        copied.extend(one for one in cached_and_mask[:2] if not one.is_contiguous())
        return _attend(q, *cached_and_mask)

    monkeypatch.setattr(slot_decoding, "_attend", attend)
    model = make_model("tiny", dtype=torch.bfloat16).eval()
    short = [[*range(3, 20), 1], [*range(30, 40), 1]]
    long = [4 * one for one in short]

    def write(prompts: list[list[int]]) -> tuple[dict[int, list[int]], SlotBatch]:
        batch = SlotBatch(model, weights_of(model), prompts, [40] * len(prompts), 40, 2, forced=True)
        batch.queue.extend(range(len(prompts)))
        outputs = {}
        with torch.inference_mode():
            while batch.admit():
                outputs |= batch.advance()
        return outputs, batch

    alone, batch = write(short)
    after, same = write([*long, *short])
    assert [after[2], after[3]] == [alone[0], alone[1]] and len(batch.caches) == 2
    for cache, other in zip(batch.caches, same.caches, strict=True):
        assert cache.past.dtype == torch.bfloat16
        assert cache.source.shape[4] == other.source.shape[4] == max(map(len, short))
    # oneDNN copies what is not in one piece.
    assert not copied
