"""A base model's very shape with random weights: what can be measured before its own are downloaded."""

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedModel
from trl import ModelConfig

from hub.pins import refuse_local
from recipes.base_model import base_config
from recipes.training.dtype import pick_dtype
from recipes.training.model import suit_training
from record.errors import UserError
from record.run_record import Pin

# Numbers that are drawn, and every weight is filled with: to draw billions would take longer than what is timed.
DRAWN = 2**20


def base_shape(base: Pin, config: ModelConfig) -> PreTrainedModel:
    """The base model on "meta", which takes no memory; `config` then has the dtype that training will take.

    Raises:
        `UserError`: its weights are quantized, which happens where they are loaded; and as `recipes.base_model`.
    """
    if config.load_in_4bit or config.load_in_8bit:
        raise UserError(
            f"{base.id} is quantized while its weights are loaded: what that takes is told by `train`, in its first "
            "lines"
        )
    refuse_local(base.id)
    stated = base_config(base)
    dtype = pick_dtype(config.dtype, base)
    config.dtype = str(dtype).removeprefix("torch.")
    settings = AutoConfig.from_pretrained(base.id, revision=base.revision, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(settings, attn_implementation=config.attn_implementation)
    model = suit_training(model.to(dtype), base)
    if stated.get("tie_word_embeddings") is False:
        _untie_head(model)
    return model


def _untie_head(model: PreTrainedModel) -> None:
    """Gives the head weights of its own: transformers 5.23 ties a T5's unless it loads a checkpoint that holds two."""
    head = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        head.weight = torch.nn.Parameter(torch.empty_like(head.weight))


def fill(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """The model of `base_shape` in memory, its weights small random numbers."""
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model = model.to_empty(device="cpu")
    model.tie_weights()
    if not tied:
        _untie_head(model)
    numbers = torch.empty(DRAWN).uniform_(-0.05, 0.05, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if not tensor.is_floating_point():
                tensor.zero_()
                continue
            drawn = numbers.to(tensor.dtype)
            for part in tensor.view(-1).split(DRAWN):
                part.copy_(drawn[: len(part)])
    return model
