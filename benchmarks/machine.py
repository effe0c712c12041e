"""What only a GPU's measurement tells: the share of its own rate that is used, and a whole job's time."""

import time

import torch
from accelerate.utils.memory import clear_device_cache

from benchmarks.counting import real_tokens, step_flop
from benchmarks.shapes import make_model, make_rows
from benchmarks.training import OURS, our_trainer, synchronize, timed
from recipes.training.micro_batches import out_of_memory

# The finance recipe on the real data: rows to train on and to score, epochs (recipes/finance.yaml).
TRAIN_ROWS, TEST_ROWS, EPOCHS = 43_441, 4_827, 2
GIB = 2**30


def matmul_rate(device: str, dtype: torch.dtype, repeats: int = 20) -> float:
    """FLOP a second of this machine's own square matrix product, the best of `repeats`."""
    side = 8_192 if device == "cuda" else 1_024
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        left @ right
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def whole_job(training: dict, generation: dict | None, rate: float) -> dict:
    """Useful FLOP over the machine's rate, and seconds of an epoch and of the job, each extrapolated from a rate.

    Parameters:
        training: what `benchmarks.training.measure` found.
        generation: what `benchmarks.generation.measure` found, with `rows_per_second`; None where it was not measured.
        rate: what `matmul_rate` found.
    """
    with torch.device("meta"):
        model = make_model(training["size"])
    rows = make_rows(8_192)[1]
    tokens = sum(real_tokens(rows))
    flop_a_token = step_flop(model, rows) / tokens
    speed = {
        who: training["contenders"][name]["tokens_per_second"]
        for who, name in (("ours", OURS), ("stock", training["best_stock"]))
    }
    job = {
        "size": training["size"],
        "matmul_flop_per_second": rate,
        "flop_per_token": flop_a_token,
        "extrapolated": f"epoch and job from the measured rates, to {TRAIN_ROWS:,} rows and {TEST_ROWS:,} to score",
    }
    for who, tokens_per_second in speed.items():
        epoch = TRAIN_ROWS * tokens / len(rows) / tokens_per_second
        job |= {
            f"{who}_flop_share": tokens_per_second * flop_a_token / rate,
            f"{who}_epoch_seconds": epoch,
        }
    if generation and "rows_per_second" in generation:
        # Base model and adapter each answer every test row.
        scoring = 2 * TEST_ROWS / generation["rows_per_second"]
        job |= {"score_seconds": scoring, "job_seconds": EPOCHS * job["ours_epoch_seconds"] + scoring}
    return job


def small_card(size: str, gib: int = 12, effective: int = 64) -> dict:
    """The most memory that a step of the longest rows takes where PyTorch may use no more than a card of `gib` GiB has.

    About 0.6 GiB of a card belong to CUDA's own context, which PyTorch does not count; they are left free.
    """
    total = torch.cuda.get_device_properties(0).total_memory
    rows = sorted(make_rows(8_192)[1], key=lambda row: len(row["input_ids"]) + len(row["labels"]))[-effective:]
    clear_device_cache(garbage_collection=True)
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (gib - 0.6) * GIB / total))
    try:
        timed(our_trainer(make_model(size, dtype=torch.bfloat16).cuda(), rows, "cuda", effective, None))
        fits = True
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        fits = False
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return {"card_gib": gib, "fits": fits, "peak_bytes": torch.cuda.max_memory_allocated()}
