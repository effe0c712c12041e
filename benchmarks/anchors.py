"""A GPU in the field's terms: writing as TensorRT-LLM was timed, training next to stock SDPA and FlexAttention.

TensorRT-LLM's figures are its own, on an H100 of 80 GB: bfloat16, greedy, without an adapter, prompts of 260 to 440
tokens, at most 128 new ones. Here every row writes all 128, in slots as many as its batch had rows.
"""

import statistics
import time
from contextlib import nullcontext
from random import Random
from unittest.mock import patch

import torch
from peft import PeftModel

from benchmarks.counting import real_tokens, step_flop
from benchmarks.machine import matmul_rate
from benchmarks.shapes import PIECES, make_model, make_rows
from benchmarks.training import Contender, our_trainer, race, random_windows, stock_training, timed
from scoring.decoding import launches, slot_decoding

# Tokens a second of FLAN-T5-XL by batch size, with TensorRT-LLM on an H100.
TENSORRT_LLM = {32: 3_312, 64: 4_184, 128: 4_768}
SHORTEST, LONGEST = 260, 440
NEVER = 2**60
POOL = 1_024

# What takes turns: whether the adapter is on, and whether graphs may be used.
WAYS = {"adapter": (True, True), "base": (False, True), "base, kernel by kernel": (False, False)}


def measure(
    device: str, repeats: int, written_by: str, trained: str, batches: tuple[int, ...], tokens: int, rows: int
) -> dict:
    """What both took, medians of interleaved rounds.

    Parameters:
        written_by, trained: the sizes of the models.
        batches: rows in work at once; a round writes twice as many.
        tokens: written by each row.
        rows: of an optimizer step; stock takes them in micro-batches of a quarter.
    """
    return {
        "size": written_by,
        "new_tokens": tokens,
        "prompt_tokens": [SHORTEST, LONGEST],
        "rounds": repeats,
        "writing": write(device, repeats, written_by, batches, tokens),
        "trained_size": trained,
        "rows_a_step": rows,
        **train(device, repeats, trained, rows),
    }


def write(device: str, repeats: int, size: str, batches: tuple[int, ...], tokens: int) -> dict[int, dict]:
    """New tokens a second of every way by batch size, next to TensorRT-LLM's where it was timed with that."""
    model = make_model(size, dtype=torch.bfloat16).to(device).eval()
    random = Random(0)
    found = {}
    for batch in batches:
        lengths = [random.randint(SHORTEST, LONGEST) for _ in range(2 * batch)]
        prompts = [[*random.choices(PIECES, k=length - 1), 1] for length in lengths]
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(repeats + 1):
            for way, (adapter, graphs) in WAYS.items():
                took = _seconds(model, prompts, batch, tokens, adapter, graphs)
                if number:
                    rates[way].append(len(prompts) * tokens / took)
        medians = {way: statistics.median(values) for way, values in rates.items()}
        theirs = TENSORRT_LLM.get(batch) if size == "xl" else None
        found[batch] = {
            "tokens_per_second": {way: round(rate, 1) for way, rate in medians.items()},
            "ranges": {way: [round(min(values), 1), round(max(values), 1)] for way, values in rates.items()},
            "tensorrt_llm": theirs,
            "base_vs_tensorrt_llm": theirs and round(medians["base"] / theirs, 2),
        }
    return found


def _seconds(model: PeftModel, prompts: list[list[int]], slots: int, tokens: int, adapter: bool, graphs: bool) -> float:
    begun = time.perf_counter()
    with (
        torch.inference_mode(),
        nullcontext() if adapter else model.disable_adapter(),
        nullcontext() if graphs else patch.object(launches, "TIMED", NEVER),
    ):
        slot_decoding.greedy(model, prompts, tokens, slots, lengths=[tokens] * len(prompts))
    return time.perf_counter() - begun


def train(device: str, repeats: int, size: str, rows: int) -> dict:
    """Tokens a second of training and their FLOP's share of this device's own matrix products, by contender.

    FlexAttention has no dropout, so its model trains without any, which is less work.
    """
    pool = make_rows(POOL)[1]
    batch = rows // 4

    def stock(dropout: float, attention: str) -> Contender:
        model = make_model(size, dropout, torch.bfloat16).to(device)
        model.get_base_model().set_attn_implementation(attention)
        return Contender(random_windows(pool, rows), stock_training(model, device, batch, rows), model)

    ours = make_model(size, dtype=torch.bfloat16).to(device)
    contenders = {
        "ours": Contender(
            random_windows(pool, rows), lambda part: timed(our_trainer(ours, part, device, rows, None)), ours
        ),
        f"Seq2SeqTrainer, SDPA, batch {batch}": stock(0.1, "sdpa"),
    }
    name, flexible = f"Seq2SeqTrainer, FlexAttention without dropout, batch {batch}", stock(0.0, "flex_attention")
    refused = {}
    try:
        flexible.train(flexible.rows(0))
        contenders[name] = flexible
    except RuntimeError as error:
        # It is compiled for the device, which may not be possible; the figures then say why. No other may fail.
        refused[name] = str(error).strip().partition("\n")[0]
    seconds, _ = race(device, contenders, repeats)
    with torch.device("meta"):
        flop = step_flop(make_model(size), pool) / sum(real_tokens(pool))
    rate = matmul_rate(device, torch.bfloat16)
    speed = {
        name: statistics.median(
            sum(real_tokens(contenders[name].rows(number))) / took for number, took in enumerate(values)
        )
        for name, values in seconds.items()
    }
    return {
        "matmul_flop_per_second": rate,
        "training": {
            name: {"tokens_per_second": round(tokens, 1), "flop_share": round(tokens * flop / rate, 4)}
            for name, tokens in speed.items()
        },
        "not_trained": refused,
    }
