"""By how much each written token falls short of the likeliest: the models read outputs, and write nothing."""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
)

from recipes.families import FAMILIES
from recipes.training.micro_batches import out_of_memory
from record.errors import UserError
from record.progress import progress
from record.scores import Contract
from scoring.decoding.generate import asks_for
from scoring.decoding.processes import share_rows
from scoring.decoding.rounding import Elsewhere, rounded
from scoring.decoding.slot_decoding import likeliest
from scoring.decoding.t5_reading import read
from scoring.decoding.t5_weights import Weights, weights_of

# Prompt tokens, padding included, that are read at once; and logits, of which a token has one for each of the
# vocabulary: 128 MiB in float32.
PROMPT_TOKENS, LOGITS = 4096, 2**25
# Tokens whose logits a CPU looks at while they are still in its cache.
LOGIT_ROWS = 128
# Padded prompts meet in a batch where their lengths differ by no more than this, so that outputs of like length can.
LIKE = 16
# What a model's own generation config may ask of greedy decoding: rules that depend on the output's past alone.
RULES = {"forced_bos_token_id", "forced_eos_token_id", "no_repeat_ngram_size", "min_length", "bad_words_ids"}


class Margins(NamedTuple):
    """What a model thinks of an output's tokens, one number a token; where the output has ended, of its `</s>`, too.

    Parameters:
        short: the largest logit − that of the token, in nats; 0 for the likeliest token, infinite for one that is none
            of the model's or that its rules forbid.
        gaps: the largest logit − the second largest, in nats: small where a near-tie was to be decided.
    """

    short: np.ndarray
    gaps: np.ndarray

    @property
    def lead(self) -> np.ndarray:
        """The token's logit − the largest of the others."""
        return np.where(self.short > 0, -self.short, self.gaps)


def read_margins(
    model: PeftModel,
    prompts: list[list[int]],
    outputs: list[list[int]],
    contract: Contract,
    adapter: bool,
    elsewhere: Elsewhere | None = None,
) -> list[Margins]:
    """The margins of the tokens of every output, each after the output's own past.

    Greedy decoding takes the likeliest token, so where the outputs were written none falls short, but for rounding:
    reading takes all tokens of an output at once, in products of other shapes than writing.

    Parameters:
        prompts: token ids per row.
        outputs: the same, as `generate` returns them; not of beams (see `why_not_greedy`).
        elsewhere: read as the model would there (see `rounded`); else plainly.

    Raises:
        `UserError`: memory does not suffice for a single row.
    """
    lengths = [len(prompt) + len(ids) for prompt, ids in zip(prompts, outputs, strict=True)]
    return share_rows(_read_rows, model, None, lengths, [prompts, outputs], contract, adapter, elsewhere)


def _read_rows(
    model,
    _,
    numbers: list[int],
    prompts: list[list[int]],
    outputs: list[list[int]],
    contract: Contract,
    adapter: bool,
    elsewhere: Elsewhere | None,
) -> list[Margins]:
    """This process's share: the rows with these numbers."""
    ends = ends_of(model)
    written = [[*ids, ends[0]] if len(ids) < contract.max_new_tokens else ids for ids in outputs]
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    margins = [Margins(np.array([np.inf]), np.array([np.inf])) for _ in written]
    flat = FAMILIES[model.config.model_type].flat and elsewhere is None
    order = [row for row, ids in enumerate(written) if max(ids) < vocabulary]
    order.sort(key=lambda row: (0 if flat else -(len(prompts[row]) // LIKE), -len(written[row]), row))
    size = max(1, LOGITS // vocabulary)
    shown = progress(len(order), "row", "Adapter" if adapter else "Base model")
    without = contextlib.nullcontext() if adapter else model.disable_adapter()
    there = rounded(model, elsewhere) if elsewhere else contextlib.nullcontext()
    with torch.inference_mode(), without, there, shown as finished:
        weights = weights_of(model) if flat else None
        while order:
            rows = _batch(order, prompts, written, size)
            try:
                pairs = [(prompts[row], written[row]) for row in rows]
                parts = _read(model, weights, *zip(*pairs, strict=True), ends, contract)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if len(rows) == 1:
                    raise UserError(
                        f"memory does not suffice to read the output of test row {numbers[rows[0]]:,}, which has "
                        f"{len(written[rows[0]]):,} tokens: read it on a machine with more"
                    ) from None
                size = sum(len(written[row]) for row in rows) // 2
                continue
            for row, part in zip(rows, parts, strict=True):
                margins[row] = part
            order = order[len(rows) :]
            finished(len(rows))
    return margins


def why_not_greedy(model: PeftModel, contract: Contract) -> str | None:
    """Why outputs are not the likeliest tokens, each after its own past, in a few words; None where they are."""
    if contract.num_beams > 1:
        return f"outputs of {contract.num_beams} beams are not the likeliest token after token"
    others = sorted(asks_for(model.generation_config) - RULES)
    return f"the base model's own generation config asks for {', '.join(others)}" if others else None


def ends_of(model: PeftModel) -> list[int]:
    """The tokens that end an output."""
    ids = model.generation_config.eos_token_id
    return [ids] if isinstance(ids, int) else list(ids)


def _batch(order: list[int], prompts: list[list[int]], written: list[list[int]], size: int) -> list[int]:
    """The first rows, as many as `PROMPT_TOKENS` and `size` written tokens allow, padding included; at least one."""
    longest, tokens, rows = 0, 0, []
    for row in order:
        longest, tokens = max(longest, len(prompts[row])), tokens + len(written[row])
        if rows and (longest * (len(rows) + 1) > PROMPT_TOKENS or tokens > size):
            break
        rows.append(row)
    return rows


def _read(
    model: PeftModel,
    weights: Weights | None,
    prompts: Sequence[list[int]],
    written: Sequence[list[int]],
    ends: list[int],
    contract: Contract,
) -> list[Margins]:
    config, device = model.generation_config, model.device
    start = config.bos_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
    past = [[start, *ids[:-1]] for ids in written]
    rules = _rules(config, ends, contract, device)
    if weights is not None:
        parts = (weights.head(rows).float() for rows in read(weights, prompts, past).split(LOGIT_ROWS))
    else:
        parts = iter(read_padded(model, prompts, past).split(LOGIT_ROWS))
    if rules:
        ids, real = _padded(past, config, device)
        parts = iter([_follow(rules, torch.cat(list(parts)), ids, real)])
    tokens = torch.tensor([token for ids in written for token in ids], device=device)
    numbers, at = [], 0
    for logits in parts:
        numbers.append(_compare(logits, tokens[at : at + len(logits)], ends))
        at += len(logits)
    found = torch.cat(numbers, 1).double().cpu().numpy()
    return [Margins(*part) for part in np.split(found, np.cumsum([len(ids) for ids in written])[:-1], axis=1)]


def _compare(logits: Tensor, tokens: Tensor, ends: list[int]) -> Tensor:
    """By how much the largest logits exceed those of the tokens, and the second largest: (2, tokens)."""
    of_tokens = logits.gather(1, tokens[:, None])[:, 0]
    if len(ends) > 1:
        # Which of them ended an output is not kept.
        ended = torch.isin(tokens, torch.tensor(ends, device=tokens.device))
        of_tokens = torch.where(ended, logits[:, ends].amax(1), of_tokens)
    first = likeliest(logits)[:, None]
    largest = logits.gather(1, first)[:, 0]
    second = logits.scatter_(1, first, -torch.inf).amax(1)
    return torch.stack([largest - of_tokens, largest - second])


def read_padded(model: PeftModel, prompts: Sequence[list[int]], past: Sequence[list[int]]) -> Tensor:
    """The logits of the tokens after each of `past`, (tokens, vocabulary)."""
    config, device = model.generation_config, model.device
    source, seen = _padded(prompts, config, device)
    before, real = _padded(past, config, device)
    with _real_tokens_only(model, real):
        return (
            model(input_ids=source, attention_mask=seen.long(), decoder_input_ids=before, use_cache=False)
            .logits[0]
            .float()
        )


def _padded(rows: Sequence[list[int]], config, device) -> tuple[Tensor, Tensor]:
    """Rows of token ids side by side, and which places hold one, (rows, places) each."""
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=config.pad_token_id or 0)
    real = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    return ids.to(device), real.to(device)


@contextlib.contextmanager
def _real_tokens_only(model: PeftModel, real: Tensor):
    """In the block the head sees no padding: it has the most of a small model's work, and its output is the largest.

    Parameters:
        real: (rows, places), which of the decoder's places hold a token; their logits come as (1, tokens, vocabulary).
    """
    head = model.get_base_model().get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][real][None], *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()


def _rules(config, ends: list[int], contract: Contract, device) -> LogitsProcessorList:
    """What transformers' `generate` makes of `RULES`."""
    rules: list[LogitsProcessor] = []
    if config.no_repeat_ngram_size:
        rules.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    if config.bad_words_ids:
        rules.append(NoBadWordsLogitsProcessor(config.bad_words_ids, ends))
    if config.min_length:
        rules.append(MinLengthLogitsProcessor(config.min_length, ends, device=str(device)))
    if config.forced_bos_token_id is not None:
        rules.append(ForcedBOSTokenLogitsProcessor(config.forced_bos_token_id))
    if config.forced_eos_token_id is not None:
        last = contract.max_new_tokens + 1
        rules.append(ForcedEOSTokenLogitsProcessor(last, config.forced_eos_token_id, device=str(device)))
    return LogitsProcessorList(rules)


def _follow(rules: LogitsProcessorList, logits: Tensor, past: Tensor, real: Tensor) -> Tensor:
    """The logits of the real tokens, (tokens, vocabulary), after the rules: these look at one place of all rows."""
    numbers = real.flatten().cumsum(0).view(real.shape) - 1
    for place in range(past.shape[1]):
        rows = real[:, place]
        one = numbers[rows, place]
        logits[one] = rules(past[rows, : place + 1], logits[one])
    return logits
