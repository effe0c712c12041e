"""Races bfloat16 against float32 on a CPU: training, next to stock in both, and scoring; hours of a finance epoch.

A stock trainer computes in what its user tells it: both types take part, on the same machine in the same run.
"""

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.counting import Row, real_tokens, step_flop
from benchmarks.generation import SLOTS
from benchmarks.machine import TRAIN_ROWS, matmul_rate
from benchmarks.shapes import make_model, make_rows
from benchmarks.training import our_trainer, random_windows, stock, stock_training, timed
from scoring.decoding import slot_decoding

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# As the figures' names have them.
SHORT = {"fp32": "float32", "bf16": "bfloat16"}
# Rows that an epoch's tokens and FLOP are taken from.
POOL = 8_192
# An optimizer step of recipes/finance.yaml.
EFFECTIVE = 64

# What a contender does in a round of a number: how many tokens, in how many seconds.
Round = Callable[[int], tuple[int, float]]


def measure(
    size: str, repeats: int, rows: int = 32, batches: tuple[int, ...] = (), epoch_rows: int = 0, scored: int = 128
) -> dict:
    """Tokens a second of every contender, medians of interleaved rounds, and ratios, medians of the rounds' own.

    Parameters:
        rows: of each round of training, one optimizer step.
        batches: rows of the stock trainer's micro-batches; none leaves it out.
        epoch_rows: where given, of each round of this project's training in bfloat16, in steps of the finance recipe.
        scored: rows of each round of scoring; more than slots, so that rows enter where others leave, as in a run.
    """
    source, pool = make_rows(POOL)
    training = _race(_training(size, pool, rows, batches, epoch_rows), repeats)
    scoring = _race(_scoring(size, pool[:scored]), repeats)
    speed = {name: statistics.median(rates) for name, rates in training.items()}
    stocks = {
        short: max((stock_name(batch, name) for batch in batches), key=speed.__getitem__)
        for short, name in SHORT.items()
        if batches
    }
    rate = {name: matmul_rate("cpu", dtype) for name, dtype in DTYPES.items()}
    with torch.device("meta"):
        flop = step_flop(make_model(size), pool) / sum(real_tokens(pool))
    result = {
        "lengths_from": source,
        "size": size,
        "rounds": repeats,
        "rows_a_step": rows,
        "scored_rows": scored,
        "training": _figures(training),
        "scoring": _figures(scoring),
        f"bf16_train_vs_fp32_{size}": ratio(training, "float32"),
        f"bf16_score_vs_fp32_{size}": ratio(scoring, "float32"),
        **{f"train_vs_best_stock_{short}": ratio(training, best) for short, best in stocks.items()},
        "matmul_flop_per_second": rate,
        "flop_share_of_bfloat16": {name: round(speed[name] * flop / rate["bfloat16"], 4) for name in speed},
    }
    if epoch_rows:
        tokens = TRAIN_ROWS * sum(real_tokens(pool)) / POOL
        result |= {
            "epoch_rows_measured": repeats * epoch_rows,
            f"finance_epoch_hours_{size}": round(tokens / speed["bfloat16"] / 3_600, 2),
        }
    return result


def stock_name(batch: int, dtype: str) -> str:
    return f"{stock(batch)}, {dtype}"


def _training(size: str, pool: list[Row], rows: int, batches: tuple[int, ...], epoch_rows: int) -> dict[str, Round]:
    contenders = {}
    for name, dtype in DTYPES.items():
        ours = make_model(size, dtype=dtype)
        count, effective = (epoch_rows, EFFECTIVE) if epoch_rows and name == "bfloat16" else (rows, rows)
        contenders[name] = _trained(
            random_windows(pool, count),
            lambda part, ours=ours, effective=effective: timed(our_trainer(ours, part, "cpu", effective, None)),
        )
        theirs = make_model(size, dtype=dtype) if batches else None
        for batch in batches:
            train = stock_training(theirs, "cpu", batch, rows)
            contenders[stock_name(batch, name)] = _trained(random_windows(pool, rows), train)
    return contenders


def _trained(window: Callable[[int], list[Row]], train: Callable[[list[Row]], float]) -> Round:
    def one(number: int) -> tuple[int, float]:
        part = window(number)
        return sum(real_tokens(part)), train(part)

    return one


def _scoring(size: str, rows: list[Row]) -> dict[str, Round]:
    """Greedy decoding as a run is scored; every row writes as many tokens as its reference has."""
    prompts, lengths = [row["input_ids"] for row in rows], [max(1, len(row["labels"]) - 1) for row in rows]

    def generate(model) -> tuple[int, float]:
        start = time.perf_counter()
        with torch.inference_mode():
            slot_decoding.greedy(model, prompts, max(lengths), SLOTS["cpu"], lengths=lengths)
        return sum(lengths), time.perf_counter() - start

    models = {name: make_model(size, dtype=dtype).eval() for name, dtype in DTYPES.items()}
    return {name: lambda number, model=model: generate(model) for name, model in models.items()}


def _race(contenders: dict[str, Round], repeats: int) -> dict[str, list[float]]:
    """Tokens a second of every contender's rounds, interleaved; a first round of each is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(repeats + 1):
        print(f"  round {number} of {repeats}", flush=True)
        for name, contender in contenders.items():
            tokens, seconds = contender(number)
            if number:
                rates[name].append(tokens / seconds)
    return rates


def _figures(rates: dict[str, list[float]]) -> dict[str, dict]:
    return {
        name: {
            "tokens_per_second": round(statistics.median(values), 1),
            "tokens_per_second_range": [round(min(values), 1), round(max(values), 1)],
            "bfloat16_is_faster": ratio(rates, name),
        }
        for name, values in rates.items()
    }


def ratio(rates: dict[str, list[float]], other: str) -> float:
    """How many times as fast this project is in bfloat16: the median of the rounds' own ratios."""
    return round(statistics.median(a / b for a, b in zip(rates["bfloat16"], rates[other], strict=True)), 2)
