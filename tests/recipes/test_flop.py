"""FLOP by arithmetic are those that PyTorch itself counts, with T5's names of layers and with BART's."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from recipes.training.flop import attention_flop, linear_flop, row_flop

LAYERS, WIDE, VOCABULARY = 4, 64, 200
T5 = T5Config(vocab_size=VOCABULARY, d_model=WIDE, d_kv=16, d_ff=128, num_layers=LAYERS, num_heads=4,
              feed_forward_proj="gated-gelu", decoder_start_token_id=0)  # fmt: skip
BART = BartConfig(vocab_size=VOCABULARY, d_model=WIDE, encoder_layers=LAYERS, decoder_layers=LAYERS,
                  encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128,
                  attn_implementation="eager")  # fmt: skip


@pytest.mark.parametrize(
    ("model", "targets"),
    [(lambda: T5ForConditionalGeneration(T5), ["q", "v"]),
     (lambda: BartForConditionalGeneration(BART), ["q_proj", "v_proj"])],
    ids=["t5", "bart"],
)  # fmt: skip
def test_a_step_s_flop_are_those_that_pytorch_counts(model, targets):
    source, target = 40, 24
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=8, target_modules=targets)
    adapter = get_peft_model(model(), lora)
    ids, labels = torch.full((1, source), 5), torch.full((1, target), 6)
    with FlopCounterMode(display=False) as counted:
        adapter(input_ids=ids, labels=labels).loss.backward()
    # Their forward pass knows nothing of causality: it takes the other half of the decoder's pairs, too.
    acausal = attention_flop(adapter, [(0, target)])[0]
    told = row_flop(adapter, [(source, target)])[0] + acausal
    # Of the first layers' inputs, which nothing trained precedes, they take no gradient.
    assert told == pytest.approx(counted.get_total_flops(), rel=0.06) and told >= counted.get_total_flops()
    assert min(linear_flop(adapter)) > 0
