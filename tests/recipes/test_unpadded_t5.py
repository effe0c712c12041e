"""Flat micro-batches against transformers' own padded ones: the same losses and gradients, without padding."""

import pytest
import torch
from accelerate.utils import send_to_device
from peft import LoraConfig, get_peft_model
from torch._dynamo.utils import counters
from torch.nn import functional
from torch.nn.functional import cross_entropy
from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration
from transformers.trainer_pt_utils import LabelSmoother

from recipes.training import autograd, unpadded_t5
from recipes.training.autograd import SeededDropout, dropout
from recipes.training.layout import micro_batch
from recipes.training.lora import _Lora
from recipes.training.unpadded_t5 import compile_blocks, make_flat

VOCABULARY, HEADS = 300, 4
# Source and target tokens; beyond 128 positions T5's bias has one value left.
LENGTHS = [(3, 1), (150, 2), (9, 140), (1, 12), (40, 11), (38, 9), (40, 1)]


def rows_of(lengths, seed=0):
    random = torch.Generator().manual_seed(seed)
    draw = lambda size: torch.randint(3, VOCABULARY, (size,), generator=random).tolist()  # noqa: E731
    return [{"input_ids": draw(source), "labels": draw(target)} for source, target in lengths]


def model_of(kind="gated-gelu", dropout_rate=0.0, **lora):
    torch.manual_seed(0)
    of_config, of_model = (T5Config, T5ForConditionalGeneration)
    if kind == "mt5":
        of_config, of_model, kind = MT5Config, MT5ForConditionalGeneration, "gated-gelu"
    config = of_config(
        vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=HEADS, dropout_rate=dropout_rate,
        feed_forward_proj=kind, decoder_start_token_id=0, tie_word_embeddings=kind != "gated-gelu",
    )  # fmt: skip
    base = of_model(config)
    base.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, 32) * 0.2)
    lora = {"target_modules": ["q", "v"], "lora_dropout": dropout_rate, "init_lora_weights": False} | lora
    return get_peft_model(base, LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, **lora)).train()


def padded_logits(model, rows):
    """Logits of transformers' own forward of one padded batch, and its labels."""
    widest = {name: max(len(row[name]) for row in rows) for name in ("input_ids", "labels")}
    ids = torch.tensor([row["input_ids"] + [0] * (widest["input_ids"] - len(row["input_ids"])) for row in rows])
    labels = torch.tensor([row["labels"] + [-100] * (widest["labels"] - len(row["labels"])) for row in rows])
    return model(input_ids=ids, attention_mask=ids.ne(0).long(), labels=labels).logits, labels


def padded_losses(model, rows):
    """Every row's summed loss by transformers' own forward of one padded batch."""
    logits, labels = padded_logits(model, rows)
    return cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none").sum(1)


def gradients(model):
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    model.zero_grad()
    return found


def furthest(found, expected):
    """The largest relative difference of any weight's gradient."""
    assert found.keys() == expected.keys() and len(found) >= 12
    return max(float((found[name] - one).norm() / one.norm()) for name, one in expected.items())


@pytest.mark.parametrize(
    ("kind", "lora"),
    [
        ("gated-gelu", {}),
        ("mt5", {}),
        ("relu", {}),
        ("gated-gelu", {"target_modules": ["q", "k", "v", "o", "wi_0", "wi_1", "wo"]}),
        ("gated-gelu", {"trainable_token_indices": {"shared": [7, 8, 9], "head": [7, 8, 9]}}),
    ],
)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_loss_and_gradients_are_those_of_the_padded_batch(kind, lora, checkpointing, packed, monkeypatch):
    monkeypatch.setitem(unpadded_t5.LOGIT_ROWS, "cpu", 50)
    model, rows = model_of(kind, **lora), rows_of(LENGTHS)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    expected = padded_losses(model, rows)
    expected.sum().backward()
    padded = gradients(model)
    make_flat(model)
    loss = model(**micro_batch(rows, HEADS, 0, packed))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.sum().detach()), rel=1e-6)
    assert furthest(gradients(model), padded) < 1e-5


@pytest.mark.parametrize(
    "lora", [{}, {"trainable_token_indices": {"shared": [7, 8, 9], "head": [7, 8, 9]}}], ids=["lora", "rows"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_label_smoothing_has_the_loss_and_gradients_of_transformers_own(lora, packed, monkeypatch):
    monkeypatch.setitem(unpadded_t5.LOGIT_ROWS, "cpu", 50)
    model, rows = model_of(**lora), rows_of(LENGTHS)
    tokens = sum(target for _, target in LENGTHS)
    logits, labels = padded_logits(model, rows)
    expected = LabelSmoother(0.3)({"logits": logits}, labels) * tokens
    expected.backward()
    padded = gradients(model)
    make_flat(model)
    loss = model(**micro_batch(rows, HEADS, 0, packed), smoothing=0.3)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert furthest(gradients(model), padded) < 1e-5


def in_bfloat16(model):
    """The base in bfloat16, the adapter in float32."""
    for weight in model.parameters():
        weight.data = weight.data if weight.requires_grad else weight.data.bfloat16()
    return model


@pytest.mark.parametrize("lora", [{}, {"target_modules": ["q", "k", "v", "o", "wi_0", "wi_1", "wo"], "lora_alpha": 3}])
def test_in_bfloat16_gradients_are_as_near_to_float32_s_as_transformers_own(lora):
    rows = rows_of(LENGTHS)
    exact, stock, ours = model_of(**lora), in_bfloat16(model_of(**lora)), in_bfloat16(model_of(**lora))
    for model in (exact, stock):
        padded_losses(model, rows).sum().backward()
    make_flat(ours)
    loss = ours(**micro_batch(rows, HEADS, 0))
    assert loss.dtype == torch.float32
    loss.backward()
    assert {weight.grad.dtype for weight in ours.parameters() if weight.requires_grad} == {torch.float32}
    exact, stock, ours = map(gradients, (exact, stock, ours))
    assert furthest(ours, exact) < 1.5 * furthest(stock, exact) < 0.3


def test_lora_s_dropout_in_bfloat16_has_the_mean_of_none_and_the_gradient_of_its_mask():
    torch.manual_seed(2)
    values, weight = torch.randn(40, 16).bfloat16().requires_grad_(), torch.zeros(24, 16).bfloat16()
    a, b = torch.randn(4, 16, requires_grad=True), torch.randn(24, 4, requires_grad=True)
    with torch.no_grad():
        plain = _Lora.apply(values, weight, a, b, 2.0, 0.0).float()
        several = torch.stack([_Lora.apply(values, weight, a, b, 2.0, 0.3).float() for _ in range(400)])
    assert float((several.mean(0) - plain).norm() / plain.norm()) < 0.1
    out = _Lora.apply(values, weight, a, b, 2.0, 0.3).float()
    out.square().sum().backward()
    # The output is linear in each of the three: the gradient by one, times it, is the output of the very mask.
    for part in (values, a, b):
        product = (part.grad * part.detach()).sum()
        assert float(product) == pytest.approx(2 * float(out.detach().square().sum()), rel=0.02)


@pytest.mark.parametrize("packed", [False, True])
def test_neftune_s_noise_is_uniform_and_as_wide_as_the_row_s_own_length_says(packed):
    model, rows = model_of().get_base_model(), rows_of(LENGTHS)
    flat = micro_batch(rows, HEADS, 0, packed)
    places = ((model.encoder, flat["input_ids"], 0), (model.decoder, flat["decoder_input_ids"], 1))
    for (stack, ids, side), lengths in zip(places, flat["row_lengths"], strict=True):
        # Rows lie the longest first.
        assert lengths.tolist() == [
            size for size in sorted((one[side] for one in LENGTHS), reverse=True) for _ in range(size)
        ]
        torch.manual_seed(1)
        noise = unpadded_t5._embed(stack, ids, lengths, 5.0) - unpadded_t5._embed(stack, ids, lengths, 0.0)
        # arXiv:2310.05914: alpha / sqrt(L d), d = 32 here.
        share = noise[0].detach() * (lengths * 32).sqrt()[:, None] / 5.0
        assert float(share.abs().max()) <= 1 + 1e-5
        # A uniform draw from ±1 has the standard deviation 1/√3; five standard errors of some thousand draws.
        assert float(share.std()) == pytest.approx(3**-0.5, rel=0.03)
        assert float(share.mean()) == pytest.approx(0, abs=5 * 3**-0.5 / share.numel() ** 0.5)


@pytest.mark.parametrize("packed", [False, True])
def test_a_row_s_loss_does_not_depend_on_its_neighbours(packed):
    model, rows = model_of(), rows_of(LENGTHS)
    model.eval()
    with torch.no_grad():
        alone = torch.cat([padded_losses(model, [row]) for row in rows])
        make_flat(model)
        together = model(**micro_batch(rows, HEADS, 0, packed))
        assert together[:, 1].tolist() == [target for _, target in LENGTHS]
        torch.testing.assert_close(together[:, 0], alone, rtol=1e-5, atol=1e-5)
        # Other neighbours, another order.
        turned = model(**micro_batch(rows[::-1] + rows_of([(33, 10)], seed=1), HEADS, 0, packed))
        torch.testing.assert_close(turned[:-1, 0].flip(0), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_linear_layers_see_real_tokens_only(packed):
    model, rows = model_of(), rows_of(LENGTHS)
    make_flat(model)
    seen = {}
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, torch.nn.Linear) and "lora" not in name:
            module.register_forward_hook(
                lambda _, inputs, __, name=name: seen.__setitem__(
                    name, seen.get(name, 0) + inputs[0].numel() // inputs[0].shape[-1]
                )
            )
    model(**micro_batch(rows, HEADS, 0, packed)).backward()
    sources, targets = (sum(pair[side] for pair in LENGTHS) for side in (0, 1))
    # In cross-attention keys and values are of the encoder's tokens.
    of_source = {
        name for name in seen
        if name.startswith("encoder") or ("EncDecAttention" in name and not name.endswith(("q.base_layer", "o")))
    }  # fmt: skip
    assert len(seen) == 2 * 7 + 2 * 11 + 1
    assert {name: seen[name] for name in of_source} == dict.fromkeys(of_source, sources)
    assert {seen[name] for name in seen.keys() - of_source} == {targets}


def test_bins_hold_as_many_rows_as_fit_in_source_and_target():
    lengths = [(16, 40), (8, 24), (8, 16), (3, 38), (5, 2)]
    layout = micro_batch(rows_of(lengths), HEADS, 0, packed=True)["layout"]
    assert [one.tolist() for one in layout.source.lengths] == [[16, 16, 8]]
    # The first fit by targets; row 2 fits row 1 in both.
    assert [one.tolist() for one in layout.target.lengths] == [[40, 40, 40]]
    assert [one.tolist() for one in layout.cross.lengths] == [[16, 8, 16]]
    assert [one[1].unique().tolist() for one in layout.cross.owners] == [[1, 4]]
    # Targets would fit, sources do not.
    crowded = micro_batch(rows_of([(16, 40), (12, 24), (12, 16)]), HEADS, 0, packed=True)["layout"]
    assert [one.tolist() for one in crowded.target.lengths] == [[40, 24, 16]]
    # A GPU's attention reads eight places at a time.
    odd = micro_batch(rows_of([(3, 5)]), HEADS, 0, packed=True)["layout"]
    assert [tuple(shape.shape[:2]) for groups in odd for shape in groups.shapes] == [(1, 8)] * 3


def test_a_step_off_the_cpu_asks_the_device_for_nothing_and_mixes_neither_devices_nor_types():
    """On torch's meta device, which has shapes and types but no values to ask for, where a GPU's way is taken."""
    model = model_of(dropout_rate=0.1)
    make_flat(model)
    model.to("meta")
    model.get_base_model().to(torch.bfloat16)
    for name, weight in model.named_parameters():
        if "lora" in name:
            weight.data = weight.data.float()
    batch = send_to_device(micro_batch(rows_of(LENGTHS), HEADS, 0, packed=True), "meta")
    model(**batch, smoothing=0.1, noise=5.0).backward()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert {(weight.grad.device.type, weight.grad.dtype) for weight in trained} == {("meta", torch.float32)}


def test_layers_are_compiled_once_for_every_size(monkeypatch):
    # A GPU's dropout; the CPU's is drawn by numpy.
    monkeypatch.setattr(autograd, "dropout", functional.dropout)
    monkeypatch.setattr(
        unpadded_t5,
        "attention",
        lambda q, k, v, bias, p: functional.scaled_dot_product_attention(q, k, v, bias, p, scale=1.0),
    )
    counters.clear()
    plain, compiled = model_of(dropout_rate=0.1), model_of(dropout_rate=0.1)
    make_flat(plain)
    for seed, lengths in enumerate((LENGTHS, LENGTHS[2:], [*LENGTHS, (77, 30), (12, 5)])):
        # As every trainer of the model does it, also the second.
        make_flat(compiled)
        compile_blocks(compiled, backend="eager")
        batch, found = micro_batch(rows_of(lengths, seed), HEADS, 0, packed=True), []
        for model in (plain, compiled):
            torch.manual_seed(7)
            model(**batch).backward()
            found.append(gradients(model))
        assert furthest(*found) < 1e-5
        # First and later layers of both stacks.
        assert counters["stats"]["unique_graphs"] == 4 and not counters["graph_break"]


def test_checkpointing_repeats_the_masks_of_dropout():
    found = []
    for checkpointing in (False, True):
        model = model_of(dropout_rate=0.1)
        make_flat(model)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        torch.manual_seed(3)
        model(**micro_batch(rows_of(LENGTHS), HEADS, 0)).backward()
        found.append(gradients(model))
    assert furthest(*found) < 1e-6


def test_dropout_is_everywhere_that_transformers_has_it():
    model = model_of(dropout_rate=0.1)
    kinds = [type(module) for module in model.modules()]
    make_flat(model)
    assert kinds.count(torch.nn.Dropout) == sum(isinstance(module, SeededDropout) for module in model.modules()) > 20
    assert not any(type(module) is torch.nn.Dropout for module in model.modules())
    rows = micro_batch(rows_of(LENGTHS), HEADS, 0)
    for module in model.modules():
        if isinstance(module, SeededDropout):
            module.p = 0.0
    # What is left is the dropout of attention's weights.
    assert len({round(float(model(**rows).detach()), 4) for _ in range(3)}) == 3
    model.eval()
    assert model(**rows) == model(**rows)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.01])
def test_dropout_keeps_its_share_and_the_mean(p):
    torch.manual_seed(1)
    values = torch.ones(1000, 1001, requires_grad=True)
    dropped = dropout(values, p)
    # Five standard deviations of a share over a million draws.
    assert float(dropped.eq(0).float().mean()) == pytest.approx(p, abs=5 * (p * (1 - p) / 1e6) ** 0.5)
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / (1 - p))]
    dropped.sum().backward()
    # The gradient passes where the value passed.
    assert torch.equal(values.grad, dropped.detach())
    # Neither the same mask twice, nor a pattern along rows or columns.
    assert not torch.equal(dropout(values, p).eq(0), dropped.eq(0))
    for along in (0, 1):
        shares = dropped.eq(0).float().mean(along)
        assert float(shares.std()) == pytest.approx((p * (1 - p) / 1000) ** 0.5, rel=0.15)


def test_dropout_follows_torch_s_random_state():
    masks = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        masks.append(dropout(torch.ones(7, 9), 0.5))
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
