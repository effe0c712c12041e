"""Where the time goes, before and after: torch.profiler's operators of a training step and of generating."""

import time
from collections.abc import Callable

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile

from benchmarks.generation import SLOTS, predict
from benchmarks.shapes import make_model, make_rows
from benchmarks.training import our_trainer, stock_trainer, timed
from scoring.decoding import slot_decoding

TOP = 15


def measure(device: str, size: str, rows: int, written: int) -> dict:
    """The operators that took the most time by themselves, the stock way and this project's.

    Parameters:
        rows: of one optimizer step (stock: in micro-batches of 8).
        written: rows that are generated (stock: in batches of 16).

    Returns:
        For `training` and `generation`, for `stock` and `ours`: `wall_seconds`, `seconds` of all operators together
        (this project generates in several threads, whose operators add up) and `top`, (operator, seconds, calls).
    """
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    theirs, ours = (make_model(size, dtype=dtype).to(device) for _ in range(2))
    step = make_rows(rows)[1]
    examples = make_rows(written)[1]
    prompts, lengths = [row["input_ids"] for row in examples], [max(1, len(row["labels"]) - 1) for row in examples]
    trained = {
        "stock": lambda: timed(stock_trainer(theirs, step, device, 8, rows)),
        "ours": lambda: timed(our_trainer(ours, step, device, rows, None)),
    }
    result = {"training": {name: operators(way) for name, way in trained.items()}}
    theirs.eval()
    generated = {
        "stock": lambda: predict(theirs, prompts, lengths, 16, device),
        "ours": lambda: slot_decoding.greedy(theirs, prompts, max(lengths), SLOTS[device], lengths=lengths),
    }
    with torch.inference_mode():
        return result | {"generation": {name: operators(way) for name, way in generated.items()}}


def operators(way: Callable[[], object]) -> dict:
    """The operators of one call by the time that each took by itself, on the device where there is one."""
    way()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    # Without it the operators of other threads than this one are left out.
    threads = _ExperimentalConfig(profile_all_threads=True)
    with profile(activities=activities, experimental_config=threads) as profiled:
        start = time.perf_counter()
        way()
        wall_seconds = time.perf_counter() - start
    key = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    events = sorted(profiled.key_averages(), key=lambda event: -getattr(event, key))
    return {
        "wall_seconds": round(wall_seconds, 3),
        "seconds": round(sum(getattr(event, key) for event in events) / 1e6, 3),
        "top": [(event.key, round(getattr(event, key) / 1e6, 3), event.count) for event in events[:TOP]],
    }
