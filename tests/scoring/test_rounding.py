"""What a model would write elsewhere: its own rounding, drawn anew, and a coarser one, next to the true one."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from evaluation.margins import noise_of, read_as
from evaluation.tolerance import NEAR, NOISE, ROOM, Rounding
from record.scores import Contract
from scoring.decoding.margins import read_margins
from scoring.decoding.rounding import Elsewhere, rounded

CONTRACT = Contract.model_construct(max_new_tokens=12, num_beams=1)


def t5():
    sizes = {"d_model": 64, "d_ff": 128, "d_kv": 16, "num_heads": 4, "num_layers": 3, "vocab_size": 300}
    config = T5Config(**sizes, feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config)
    model.lm_head.weight.data /= 8
    return model, ["q", "v"]


def bart():
    layers = {f"{part}_{name}": value for part in ("encoder", "decoder")
              for name, value in (("layers", 2), ("ffn_dim", 128), ("attention_heads", 4))}  # fmt: skip
    config = BartConfig(vocab_size=300, d_model=64, forced_eos_token_id=None, tie_word_embeddings=False, **layers)
    model = BartForConditionalGeneration(config)
    model.lm_head.weight.data *= 8
    return model, ["q_proj", "v_proj"]


def adapted(make):
    torch.manual_seed(1)
    base, targets = make()
    model = get_peft_model(base, LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, target_modules=targets)).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model


def texts(model, rows=60):
    """Prompts, and what the model writes after them."""
    prompts = np.random.default_rng(2).integers(3, 300, size=(rows, 12)).tolist()
    with torch.inference_mode():
        ids = model.generate(input_ids=torch.tensor(prompts), max_new_tokens=12, min_new_tokens=12, do_sample=False)
    return prompts, ids[:, 1:].tolist()


@pytest.mark.parametrize("make", [t5, bart])
def test_rounding_here_is_as_large_as_in_a_model_that_computes_so(make):
    model = adapted(make)
    prompts, outputs = texts(model)
    margins = read_margins(model, prompts, outputs, CONTRACT, True)
    coarse = read_margins(deepcopy(model).to(torch.bfloat16), prompts, outputs, CONTRACT, True)
    near = [(row.gaps < NEAR) & (row.short < NEAR) for row in margins]
    true = np.concatenate([(b.lead - a.lead)[at] for a, b, at in zip(margins, coarse, near, strict=True)])
    told = noise_of(model, prompts, outputs, margins, CONTRACT, True, "bfloat16")
    print(
        make.__name__, len(true), "near-ties", told and told / ROOM, "told,", float(np.sqrt(np.mean(true**2))), "true"
    )
    assert len(true) > 100 and told is not None
    assert told / ROOM == pytest.approx(float(np.sqrt(np.mean(true**2))), rel=0.35)


@pytest.mark.parametrize("make", [t5, bart])
def test_another_draw_of_its_own_rounding_is_another_reading_of_like_size(make):
    model = adapted(make).to(torch.bfloat16)
    prompts, outputs = texts(model, 20)
    plain = read_margins(model, prompts, outputs, CONTRACT, False)
    draws = [read_margins(model, prompts, outputs, CONTRACT, False, Elsewhere("bfloat16", draw)) for draw in range(2)]
    leads = [np.concatenate([row.lead for row in rows]) for rows in (plain, *draws)]
    sizes = [np.sqrt(np.mean((a - b) ** 2)) for a, b in ((leads[0], leads[1]), (leads[1], leads[2]))]
    assert min(sizes) > 0 and max(sizes) < 2 * min(sizes)


@pytest.mark.parametrize("make", [t5, bart])
def test_the_model_is_as_it_was_afterwards(make):
    model = adapted(make)
    prompts, outputs = texts(model, 4)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    plain = read_margins(model, prompts, outputs, CONTRACT, True)
    with pytest.raises(ZeroDivisionError), rounded(model, Elsewhere("bfloat16", 0)):
        model(input_ids=torch.ones(1, 3, dtype=torch.long), decoder_input_ids=torch.ones(1, 2, dtype=torch.long))
        raise ZeroDivisionError
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    again = read_margins(model, prompts, outputs, CONTRACT, True)
    assert all((a.short == b.short).all() and (a.gaps == b.gaps).all() for a, b in zip(plain, again, strict=True))


def test_a_model_is_asked_for_its_noise_where_the_precision_does_not_tell():
    model = adapted(t5)
    prompts, outputs = texts(model)
    read = {kind: read_as(model, prompts, outputs, CONTRACT, True, Rounding(kind, "bfloat16")) for kind in NOISE}
    assert {kind: one.noise for kind, one in read.items() if kind in ("float32", "tf32")} == {
        "float32": NOISE["float32"], "tf32": NOISE["tf32"],
    }  # fmt: skip
    assert read["bfloat16"].noise == read["quantized"].noise < NOISE["bfloat16"]
    # Too few near-ties tell none.
    model.get_base_model().lm_head.weight.data *= 1_000
    assert read_as(model, prompts, outputs, CONTRACT, True, Rounding("bfloat16", "bfloat16")).noise == NOISE["bfloat16"]


def test_a_layer_has_rounded_weights_hands_on_rounded_numbers_and_gets_its_own_back_when_it_fails():
    torch.manual_seed(3)
    layer, x = torch.nn.Linear(64, 8, bias=False), torch.randn(5, 64)
    before = layer.weight.detach().clone()
    with torch.inference_mode(), rounded(layer, Elsewhere("bfloat16", 0)):
        found = layer(x)
    assert torch.equal(found, (x @ before.bfloat16().float().T).bfloat16().float())
    with pytest.raises(RuntimeError), rounded(layer, Elsewhere("bfloat16", 0)):
        layer(torch.ones(3))
    assert torch.equal(layer.weight, before)
