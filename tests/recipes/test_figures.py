"""Exact figures without weights: the true FLAN-T5 shapes on the meta device, against arithmetic on those shapes."""

import pytest
import torch
from transformers import M2M100Config, M2M100ForConditionalGeneration, T5Config, T5ForConditionalGeneration

from recipes.config import parse_recipe
from recipes.training.model import add_adapter, size_of
from record.run_record import Pin

VOCABULARY = 32_128
# 32,000 pieces and 100 sentinels: the rows above them are spare.
PIECES = 32_100
# d_model, d_ff, layers of each stack, heads; d_kv is 64 throughout (the config.json of google/flan-t5-*).
SHAPES = {
    "base": (768, 2048, 12, 12),
    "large": (1024, 2816, 24, 16),
    "xl": (2048, 5120, 24, 32),
    "xxl": (4096, 10240, 24, 64),
}


def base_parameters(size: str) -> int:
    """Embedding, untied head, 4 matrices an attention, 3 a gated feed-forward, norms, 2 tables of position bias."""
    d, ff, layers, heads = SHAPES[size]
    attentions, blocks = 3 * layers, 2 * layers
    norms = d * (attentions + blocks + 2)
    return 2 * VOCABULARY * d + attentions * 4 * d * heads * 64 + blocks * 3 * d * ff + norms + 2 * 32 * heads


def adapter_parameters(size: str, r: int, matrices: int) -> int:
    """Per attention and adapted matrix an A (r × in) and a B (out × r)."""
    d, _, layers, heads = SHAPES[size]
    return 3 * layers * matrices * r * (d + heads * 64)


def on_meta(recipe: str, size: str):
    d, ff, layers, heads = SHAPES[size]
    config = T5Config(
        vocab_size=VOCABULARY, d_model=d, d_kv=64, d_ff=ff, num_layers=layers, num_heads=heads,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0,
    )  # fmt: skip
    whole = ["--load_in_4bit", "false", "--use_bnb_nested_quant", "false"]
    parsed = parse_recipe(["--config", f"recipes/{recipe}.yaml", *whole])
    with torch.device("meta"):
        model = T5ForConditionalGeneration(config).to(torch.bfloat16)
        # transformers 5 ties the head of a model made from a config; FLAN-T5's checkpoints untie it.
        model.lm_head.weight = torch.nn.Parameter(torch.empty(VOCABULARY, d, dtype=torch.bfloat16))
        pin = Pin(kind="model", id="google/flan-t5", revision="0" * 40)
        token_ids = range(PIECES, PIECES + len(parsed.arguments.added_tokens))
        return parsed.arguments.expect, size_of(
            add_adapter(model, pin, parsed.model, seed=0, token_ids=token_ids), "t5"
        )


@pytest.mark.parametrize(
    ("recipe", "size", "r", "matrices", "tokens"),
    [("finance", "large", 32, 2, 0), ("finance-base", "base", 32, 2, 0), ("finance-xl", "xl", 32, 2, 0),
     ("finance-xxl", "xxl", 32, 2, 0), ("cnn_dailymail", "large", 16, 3, 0),
     ("cnn_dailymail-official", "large", 16, 3, 0), ("xsum-official", "large", 16, 3, 0),
     ("text2sql", "large", 16, 3, 1)],
)  # fmt: skip
def test_the_recipe_has_the_parameters_that_arithmetic_says(recipe, size, r, matrices, tokens):
    expect, model = on_meta(recipe, size)
    # An added token has a row of the embedding and one of the head.
    rows = 2 * tokens * SHAPES[size][0]
    trainable = adapter_parameters(size, r, matrices) + rows
    total = base_parameters(size) + trainable
    assert (model.trainable, model.total) == (trainable, total)
    # The base in bfloat16 (2 bytes), the adapter in float32 (4 bytes), and what its rows replace, too.
    assert model.memory_bytes == 2 * base_parameters(size) + 4 * trainable + 4 * rows
    assert expect["trainable_parameters"] == trainable
    assert expect.get("all_parameters", total) == total
    assert expect.get("memory_bytes", model.memory_bytes) == model.memory_bytes


def test_nllb_has_the_parameters_that_arithmetic_says():
    # The config.json of facebook/nllb-200-distilled-600M: 12 layers of 1,024 each, feed-forward layers of 4,096.
    d, ff, layers, tokens = 1024, 4096, 12, 256_206
    config = M2M100Config(vocab_size=tokens, d_model=d, encoder_layers=layers, decoder_layers=layers,
                          encoder_ffn_dim=ff, decoder_ffn_dim=ff)  # fmt: skip
    parsed = parse_recipe(["--config", "recipes/nllb-en-de.yaml"])
    with torch.device("meta"):
        pin = Pin(kind="model", id="facebook/nllb", revision="0" * 40)
        model = size_of(add_adapter(M2M100ForConditionalGeneration(config), pin, parsed.model, seed=0), "m2m_100")
    # q and v of an attention in each encoder layer and of two in each decoder layer; fc1 and fc2 of all.
    adapter = 3 * layers * 2 * 16 * (d + d) + 2 * layers * 2 * 16 * (d + ff)
    assert model.trainable == adapter == parsed.arguments.expect["trainable_parameters"]
    assert model.total - adapter == pytest.approx(615e6, rel=0.01)


def test_the_known_figures():
    # The figures of the reference's finance run, and of r 16 on q, v and o.
    assert adapter_parameters("large", 32, 2) == 9_437_184
    assert base_parameters("large") + adapter_parameters("large", 32, 2) == 792_587_264
    assert 2 * base_parameters("large") + 4 * 9_437_184 == 1_604_048_896
    assert adapter_parameters("large", 16, 3) == 7_077_888
    # With the row of `<` in the embedding and in the head, as llama2sql takes it over from text2sql.
    for name in ("text2sql", "llama2sql"):
        expect = parse_recipe(["--config", f"recipes/{name}.yaml"]).arguments.expect
        assert expect["trainable_parameters"] == 7_077_888 + 2 * 1024
    assert f"{100 * 9_437_184 / 792_587_264:.2f}" == "1.19"
