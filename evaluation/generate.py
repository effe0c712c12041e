"""Outputs of the base model and the adapter for a list of prompts."""

import contextlib
import time

import torch
from peft import PeftModel
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedTokenizerBase

from recipes.batch import out_of_memory
from recipes.record import Contract


def generate(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], contract: Contract, adapter: bool
) -> tuple[list[list[int]], float]:
    """Generates an output for every prompt, with the adapter or (`adapter=False`) with the bare base model.

    Rows run sorted by length, so that a batch holds little padding; the outputs come back in the prompts' order. Where
    memory does not suffice for a batch, half as many rows run at once: in float32 the outputs do not depend on it.

    Returns:
        Token ids per row, without decoder start, padding and `</s>` (a row cut at `max_new_tokens` has that many);
        the seconds it took.
    """
    config = model.generation_config
    decoding = GenerationConfig(
        max_new_tokens=contract.max_new_tokens,
        num_beams=contract.num_beams,
        do_sample=False,
        decoder_start_token_id=config.decoder_start_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
    encoded = tokenizer(prompts)["input_ids"]
    order = sorted(range(len(prompts)), key=lambda row: (-len(encoded[row]), row))
    outputs: list[list[int]] = [[] for _ in prompts]
    start = time.perf_counter()
    bar = tqdm(total=len(prompts), unit="row", desc="Adapter" if adapter else "Base model")
    size = contract.batch_size
    with torch.inference_mode(), contextlib.nullcontext() if adapter else model.disable_adapter(), bar:
        while order:
            rows = order[:size]
            batch = tokenizer.pad({"input_ids": [encoded[row] for row in rows]}, return_tensors="pt").to(model.device)
            try:
                generated = model.generate(**batch, generation_config=decoding)
            except RuntimeError as error:
                if not out_of_memory(error) or size == 1:
                    raise
                size //= 2
                continue
            # The decoder start token is dropped here, `</s>` and the padding after it below.
            for row, ids in zip(rows, generated[:, 1:].tolist(), strict=True):
                outputs[row] = ids[: ids.index(config.eos_token_id)] if config.eos_token_id in ids else ids
            order = order[size:]
            bar.update(len(rows))
    return outputs, time.perf_counter() - start


def shortfalls(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    outputs: list[list[int]],
    contract: Contract,
    adapter: bool,
) -> list[float]:
    """By how much the model prefers another token to one of the output's, at worst, each after the output's own past.

    Greedy decoding takes the likeliest token: what another device has written falls short by its rounding alone.

    Parameters:
        outputs: token ids per row, as `generate` returns them.

    Returns:
        Per row the largest difference between the best logit and the written token's, in nats; 0 for a greedy output.
    """
    config = model.generation_config
    found = []
    with torch.inference_mode(), contextlib.nullcontext() if adapter else model.disable_adapter():
        # Row by row: the logits of a batch of long outputs take gigabytes.
        for prompt, ids in zip(prompts, outputs, strict=True):
            written = [*ids, config.eos_token_id] if len(ids) < contract.max_new_tokens else ids
            if max(written) >= model.config.vocab_size:
                found.append(float("inf"))
                continue
            past = torch.tensor([[config.decoder_start_token_id, *written[:-1]]], device=model.device)
            batch = tokenizer(prompt, return_tensors="pt").to(model.device)
            logits = model(**batch, decoder_input_ids=past).logits[0].float()
            taken = logits[range(len(written)), written]
            found.append((logits.amax(1) - taken).max().item())
    return found


def decode(tokenizer: PreTrainedTokenizerBase, outputs: list[list[int]]) -> list[str]:
    """The outputs as texts, special tokens left out."""
    return [text.strip() for text in tokenizer.batch_decode(outputs, skip_special_tokens=True)]
