"""The measurements of training: what they count is right by hand, and no contender learns something else."""

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from benchmarks import training
from benchmarks.counting import Positions, padding_share, saved_bytes, step_flop
from benchmarks.shapes import make_model
from benchmarks.training import (
    gradients,
    grouped_rows,
    our_trainer,
    padding_of,
    peft_loop,
    stock_trainer,
)
from recipes.training.flop import attention_flop, linear_flop

# Source and target tokens of four rows, so that a batch of two pads both sides.
LENGTHS = [(3, 7), (9, 4), (2, 2), (5, 8)]
ROWS = [{"input_ids": [5] * (source - 1) + [1], "labels": [6] * (target - 1) + [1]} for source, target in LENGTHS]


@pytest.fixture(scope="module")
def model():
    return make_model("tiny", dropout=0.0)


def counted(model, train) -> Positions:
    with Positions(model) as positions:
        train()
    return positions


def test_the_stock_trainers_padding_is_what_hand_arithmetic_gives(model):
    positions = counted(model, lambda: training.timed(stock_trainer(model, ROWS, "cpu", 2, 4)))
    # Batches of two: sources padded to 9, 9, 5, 5, targets to 7, 7, 8, 8.
    for name, seen in positions.seen.items():
        from_source = ".encoder." in name or ".EncDecAttention.k." in name or ".EncDecAttention.v." in name
        assert seen == (28 if from_source else 30), name
    source_weights = sum(1 for name in positions.seen if positions.seen[name] == 28)
    target_weights = len(positions.seen) - source_weights
    real = source_weights * 19 + target_weights * 21
    assert padding_share(positions, ROWS) == pytest.approx(1 - real / (source_weights * 28 + target_weights * 30))


def test_one_row_at_a_time_pads_nothing_and_the_example_loop_pads_to_its_length(model):
    alone = counted(model, lambda: training.timed(stock_trainer(model, ROWS, "cpu", 1, 4)))
    assert padding_share(alone, ROWS) == 0
    loop = counted(model, lambda: peft_loop(model, ROWS, "cpu", 20, 10, batch=2))
    assert set(loop.seen.values()) == {80, 40}


def test_a_weight_that_saw_too_little_is_no_lack_of_padding(model):
    positions = counted(model, lambda: training.timed(stock_trainer(model, ROWS[:2], "cpu", 1, 2)))
    with pytest.raises(ValueError, match="positions, and the rows have"):
        padding_share(positions, ROWS)


def test_products_with_a_view_of_a_weight_count_too(model):
    name, weight = next((n, w) for n, w in model.named_parameters() if n.endswith("lm_head.weight"))
    with Positions(model) as positions:
        torch.ones(3, 5, 64) @ weight.T
        torch.mm(torch.ones(4, 64), weight.t())
        torch.ones(3, 64) @ torch.ones(64, 2)
    assert {seen: count for seen, count in positions.seen.items() if count} == {name: 19}


def test_saved_bytes_are_those_of_the_distinct_tensors_alive():
    weight = torch.nn.Linear(8, 8, bias=False)
    first = torch.ones(4, 8, requires_grad=True)
    with saved_bytes(weight) as saved:
        for _ in range(2):
            # exp keeps its result, the linear layer its input, which is that result: 4·8 floats, once.
            weight(first.exp()).sum().backward()
    assert saved.peak == 4 * 8 * 4
    assert saved.total == 2 * saved.peak
    assert saved.live == 0


def test_every_contender_takes_the_same_gradient(model):
    def of(make, *arguments):
        found = gradients(make(make_model("tiny", 0.0), ROWS, "cpu", *arguments))
        return torch.cat([found[name].flatten() for name in sorted(found)])

    whole = of(stock_trainer, 4, 4)
    assert whole.norm() > 0.1
    for other in (of(stock_trainer, 1, 4), of(stock_trainer, 2, 4), of(our_trainer, 4, None)):
        assert (other - whole).norm() < 1e-5 * whole.norm()


def test_grouped_batches_are_of_like_lengths_and_stand_for_the_epoch():
    rows = [{"input_ids": [1] * (1 + at % 97), "labels": [1] * (1 + at % 97)} for at in range(970)]
    order = grouped_rows(rows, 80, 8)
    assert order(3) == order(3) != order(4)
    for number in range(3):
        taken = [len(row["input_ids"]) for row in order(number)]
        spread = [max(batch) - min(batch) for batch in (taken[at : at + 8] for at in range(0, 80, 8))]
        assert len(taken) == 80 and max(spread) <= 8
        assert abs(sum(taken) / 80 - 49) < 6


# GFLOP a source and a target token: PERFORMANCE's arithmetic for FLAN-T5 with LoRA r=32 on q and v.
@pytest.mark.parametrize(("size", "expected"), [("small", (0.092, 0.158)), ("large", (1.463, 1.594))])
def test_flop_are_those_of_the_published_shapes(size, expected):
    with torch.device("meta"):
        found = linear_flop(make_model(size))
    assert [round(flop / 1e9, 3) for flop in found] == list(expected)


def test_flop_of_a_model_small_enough_to_count_by_hand():
    config = T5Config(vocab_size=10, d_model=4, d_kv=2, d_ff=6, num_layers=1, num_heads=3, feed_forward_proj="relu")
    small = T5ForConditionalGeneration(config).requires_grad_(False)
    # q, k, v, o are 4 x 6 and the feed-forward's two 4 x 6; the head 4 x 10. Four FLOP a frozen parameter.
    encoder, decoder = 4 * (4 * 24 + 2 * 24 + 2 * 24), 4 * (4 * 24 + 2 * 24 + 2 * 24 + 40)
    row = {"input_ids": [1] * 3, "labels": [1] * 2}
    assert linear_flop(small) == (encoder, decoder)
    # Nine pairs in the encoder, two (of four) in the decoder, six across.
    assert attention_flop(small, [(3, 2)]) == 12 * 6 * (9 + 2 + 6)
    assert step_flop(small, [row]) == 3 * encoder + 2 * decoder + 12 * 6 * 17


def test_padding_is_counted_over_the_rows_that_were_trained(model):
    contender = training.Contender(
        rows=lambda number: ROWS[2 * number : 2 * number + 2],
        train=lambda rows: training.timed(stock_trainer(model, rows, "cpu", 2, 2)),
        model=model,
    )
    both = counted(model, lambda: training.timed(stock_trainer(model, ROWS, "cpu", 2, 4)))
    assert padding_of(contender, 2) == padding_share(both, ROWS)
