"""Outputs of the base model and the adapter for a list of prompts."""

import contextlib
import time
from collections.abc import Callable

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedTokenizerBase

from recipes.families import FAMILIES
from recipes.training.micro_batches import out_of_memory
from record.errors import UserError
from record.progress import progress
from record.scores import Contract
from scoring.decoding.processes import share_rows
from scoring.decoding.slot_decoding import greedy
from scoring.engines import engine_here

# Prompt tokens, padding included, that `generate` takes at once.
PROMPT_TOKENS = 8192
# Keys of a generation config that say nothing of the tokens to take: ids, limits that the contract sets, and figures
# for sampling.
HARMLESS = {
    *("decoder_start_token_id", "eos_token_id", "pad_token_id", "bos_token_id", "max_length", "max_new_tokens"),
    *("do_sample", "temperature", "top_k", "top_p", "use_cache", "_from_model_config", "transformers_version"),
}
# What older versions of transformers saved with every model: values by which a key asks for nothing, or for more to be
# returned next to the tokens.
NEUTRAL = {
    "num_beams": (1,), "num_beam_groups": (1,), "num_return_sequences": (1,), "min_length": (0,),
    "diversity_penalty": (0,), "repetition_penalty": (1,), "encoder_repetition_penalty": (1,), "length_penalty": (1,),
    "typical_p": (1,), "epsilon_cutoff": (0,), "eta_cutoff": (0,), "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,), "early_stopping": (False,), "renormalize_logits": (False,),
    "remove_invalid_values": (False,), "token_healing": (False,), "is_assistant": (False,), "low_memory": (False,),
    "output_attentions": (False, True), "output_hidden_states": (False, True), "output_scores": (False, True),
    "output_logits": (False, True), "return_dict_in_generate": (False, True),
}  # fmt: skip
# Keys that say how beams are ranked and when they end, by likelihood alone.
OF_BEAMS = {"length_penalty", "early_stopping", "num_beams"}


def generate(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], contract: Contract, adapter: bool
) -> tuple[list[list[int]], float]:
    """Generates an output for every prompt, with the adapter or (`adapter=False`) with the bare base model, on all
    processes.

    Greedy decoding runs in `slot_decoding`, or in CTranslate2 where the contract says so; families without slots,
    beams, and whatever else a base model's own generation config asks for, in transformers' `generate`. In float32 all
    give the same tokens, whichever rows run at once.

    Returns:
        Token ids per row, without decoder start, padding and `</s>` (a row cut at `max_new_tokens` has that many);
        the seconds it took.

    Raises:
        `UserError`: memory does not suffice for a single row, or the engine does not do what the model asks for.
    """
    encoded = tokenizer(prompts)["input_ids"]
    start = time.perf_counter()
    outputs = share_rows(_generate, model, tokenizer, [len(ids) for ids in encoded], [encoded], contract, adapter)
    return outputs, time.perf_counter() - start


def _generate(
    model, tokenizer, numbers: list[int], encoded: list[list[int]], contract: Contract, adapter: bool
) -> list[list[int]]:
    """This process's share: the rows with these numbers."""
    shown = progress(len(encoded), "row", "Adapter" if adapter else "Base model")
    with torch.inference_mode(), contextlib.nullcontext() if adapter else model.disable_adapter(), shown as finished:
        plain = contract.num_beams == 1 and is_plain(model.generation_config)
        if contract.dtype == "float32" and engine_here(contract.engine) != "transformers":
            family = FAMILIES[model.config.model_type]
            if family.converter is None:
                raise UserError(f"{contract.engine} does not decode {family.name}: use `engine: transformers`")
            if not (contract.num_beams == 1 and is_plain(model.generation_config, first=True)):
                raise UserError(f"{contract.engine} decodes greedily only: beams and what else the base model's own "
                                "generation config asks for need `engine: transformers`")  # fmt: skip
            from scoring.decoding import ctranslate

            return ctranslate.greedy(model, adapter, encoded, contract.max_new_tokens, contract.batch_size, finished)
        return _by_transformers(model, tokenizer, numbers, encoded, contract, plain, finished)


def _by_transformers(
    model, tokenizer, numbers: list[int], encoded, contract: Contract, plain: bool, finished
) -> list[list[int]]:
    try:
        if plain and FAMILIES[model.config.model_type].flat:
            return greedy(model, encoded, contract.max_new_tokens, contract.batch_size, finished)
        return in_batches(model, tokenizer, encoded, contract, finished)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        longest = max(range(len(encoded)), key=lambda row: len(encoded[row]))
        raise UserError(
            f"memory does not suffice to answer test row {numbers[longest]:,}, whose prompt has "
            f"{len(encoded[longest]):,} tokens: cut or drop such rows by `length_rules` "
            "(`truncate tokens(prompt) > 512`) and train again"
        ) from None


def is_plain(config: GenerationConfig, beams: bool = False, first: bool = False) -> bool:
    """Whether a model's own generation config changes nothing about greedy decoding; with `beams`, about their search;
    with `first`, nothing but the first token, which may be a language's.

    `generate` takes from it whatever a caller leaves open: penalties, forbidden and forced tokens.
    """
    return isinstance(config.eos_token_id, int) and asks_for(config) <= (
        (OF_BEAMS if beams else set()) | ({"forced_bos_token_id"} if first else set())
    )


def asks_for(config: GenerationConfig) -> set[str]:
    """The keys of a model's own generation config that change what greedy decoding writes."""
    return {
        key
        for key, value in config.to_diff_dict().items()
        if key not in HARMLESS and value not in NEUTRAL.get(key, (None,))
    }


def in_batches(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: list[list[int]],
    contract: Contract,
    finished: Callable[[int], object],
) -> list[list[int]]:
    """transformers' `generate` over batches of prompts of like length, of `PROMPT_TOKENS` at most.

    Where memory does not suffice for a batch, half as many rows run at once.
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
    ends = {config.eos_token_id} if isinstance(config.eos_token_id, int) else set(config.eos_token_id)
    order = sorted(range(len(encoded)), key=lambda row: (-len(encoded[row]), row))
    outputs: list[list[int]] = [[] for _ in encoded]
    size = contract.batch_size
    while order:
        rows = order[: max(1, min(size, PROMPT_TOKENS // len(encoded[order[0]])))]
        batch = tokenizer.pad({"input_ids": [encoded[row] for row in rows]}, return_tensors="pt").to(model.device)
        try:
            generated = model.generate(**batch, generation_config=decoding)
        except RuntimeError as error:
            if not out_of_memory(error) or len(rows) == 1:
                raise
            size = len(rows) // 2
            continue
        # The decoder start token is dropped here, `</s>` and the padding after it below.
        for row, ids in zip(rows, generated[:, 1:].tolist(), strict=True):
            end = next((place for place, token in enumerate(ids) if token in ends), len(ids))
            outputs[row] = ids[:end]
        order = order[len(rows) :]
        finished(len(rows))
    return outputs


def shortfalls(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    outputs: list[list[int]],
    best: list[list[int]],
    contract: Contract,
    adapter: bool,
) -> list[float]:
    """By how much each output of beams falls short of the best: what another device has written, by its rounding alone.

    Beams are ranked by log probability / length ^ length penalty: what counts is by how much the output's rank lies
    below that of `best`, in nats at the output's length. Greedy outputs are read by `scoring.decoding.margins`.

    Parameters:
        outputs, best: token ids per row, as `generate` returns them; `best` is what it has returned here.

    Returns:
        Nats per row, 0 for one at least as likely as the best beam. NaN where the base model's own generation config
        asks for more than likelihood: nothing is known then.
    """
    config = model.generation_config
    if not is_plain(config, beams=True, first=True):
        return [float("nan")] * len(outputs)
    # transformers' own default.
    penalty = 1.0 if config.length_penalty is None else config.length_penalty
    nats = []
    with torch.inference_mode(), contextlib.nullcontext() if adapter else model.disable_adapter():
        # Row by row: the logits of a batch of long outputs take gigabytes.
        for prompt, ids, likeliest in zip(prompts, outputs, best, strict=True):
            if max(ids, default=0) >= model.config.vocab_size:
                nats.append(float("inf"))
                continue
            logits, written = _logits(model, tokenizer, prompt, ids, contract)
            size = len(written) ** penalty
            rank = _log_probability(logits, written) / size
            logits, written = _logits(model, tokenizer, prompt, likeliest, contract)
            nats.append(max(0.0, (_log_probability(logits, written) / len(written) ** penalty - rank) * size))
    return nats


def _log_probability(logits: torch.Tensor, written: torch.Tensor) -> float:
    return (written - logits.logsumexp(1)).sum().item()


def _logits(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, prompt: str, ids: list[int], contract: Contract
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits before each token of an output, `</s>` included where it has one, and those of the tokens themselves."""
    config = model.generation_config
    tokens = [*ids, config.eos_token_id] if len(ids) < contract.max_new_tokens else ids
    start = config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
    past = torch.tensor([[start, *tokens[:-1]]], device=model.device)
    batch = tokenizer(prompt, return_tensors="pt").to(model.device)
    logits = model(**batch, decoder_input_ids=past).logits[0].float()
    written = logits[range(len(tokens)), tokens]
    # A forced first token is nothing that the model could prefer another to.
    chosen = int(config.forced_bos_token_id is not None and tokens[:1] == [config.forced_bos_token_id])
    return logits[chosen:], written[chosen:]


def decode(tokenizer: PreTrainedTokenizerBase, outputs: list[list[int]]) -> list[str]:
    """The outputs as texts, special tokens left out."""
    return [text.strip() for text in tokenizer.batch_decode(outputs, skip_special_tokens=True)]
