"""How a training step grows: with the length of rows, with processes, and on paper to many GPUs.

    python -m torch.distributed.run --nproc_per_node 2 -m benchmarks.growth SIZE EFFECTIVE REPEATS

is how `measure` starts its processes; each of them then trains its share of every optimizer step.
"""

import json
import os
import statistics
import subprocess
import sys
from random import Random

import torch

from benchmarks.counting import Row, real_tokens, saved_bytes, step_flop
from benchmarks.shapes import PIECES, make_model, make_rows
from benchmarks.training import our_trainer, stock_trainer, timed

LENGTHS = (32, 64, 128, 256, 512)
# Bytes a second and direction of one GPU. NVLink 4: 900 GB/s both ways together (NVIDIA H100 data sheet).
NVLINK = 450e9
# One 400 Gb/s adapter a GPU (NVIDIA DGX H100 data sheet: eight ConnectX-7 ports of 400 Gb/s).
NETWORK = 50e9
# Where no GPU was measured: an H200's bf16 matrix products, of which the project means to use this share.
H200_FLOP, AIM = 790e12, 0.4


def measure(device: str = "cpu", size: str = "small", repeats: int = 3, lengths: tuple[int, ...] = LENGTHS) -> dict:
    """Growth with length on the device, with processes on the CPU, and the projection."""
    grown = {"length": by_length(device, size, repeats, lengths)}
    if device == "cpu":
        grown["ranks"] = by_ranks(size, repeats)
    return grown


def by_length(device: str, size: str, repeats: int, lengths: tuple[int, ...], rows: int = 1) -> list[dict]:
    """A step of `rows` rows, of as many source as target tokens: seconds (median) and bytes kept for the backward pass.

    Rows of one length need no padding, so the stock trainer is at its best here.
    """
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    models = {name: make_model(size, dtype=dtype).to(device) for name in ("ours", "stock")}

    def train(name: str, step: list[Row]) -> float:
        make = our_trainer if name == "ours" else stock_trainer
        last = (rows, None) if name == "ours" else (rows, rows)
        return timed(make(models[name], step, device, *last))

    points = []
    for length in lengths:
        random = Random(length)
        step = [{name: [*random.choices(PIECES, k=length - 1), 1] for name in ("input_ids", "labels")}] * rows
        line = {"length": length, "tokens": sum(real_tokens(step))}
        for name, model in models.items():
            with saved_bytes(model) as saved:
                train(name, step)
            line[f"{name}_bytes"] = saved.peak
        seconds = {name: [] for name in models}
        for _ in range(repeats):
            for name in models:
                seconds[name].append(train(name, step))
        points.append(line | {f"{name}_seconds": round(statistics.median(v), 4) for name, v in seconds.items()})
    return points


def by_ranks(size: str, repeats: int) -> dict:
    """The same optimizer step by one process and by two, each with one thread."""
    one, two = (train_on(ranks, size, repeats) for ranks in (1, 2))
    speedup = round(two["tokens_per_second"] / one["tokens_per_second"], 2)
    return {"cores": os.cpu_count(), "1": one, "2": two, "speedup_of_two": speedup}


def train_on(ranks: int, size: str, repeats: int, effective: int = 8) -> dict:
    """Trains with `ranks` processes on the CPU, over gloo; returns what `rank_main` prints.

    Raises:
        `RuntimeError`: they failed; the last of what they said.
    """
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks), "-m", __name__]
    done = subprocess.run(
        [sys.executable, *command, size, str(effective), str(repeats)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    if done.returncode:
        raise RuntimeError(f"the measurement with {ranks} processes failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def rank_main(size: str, effective: int, repeats: int) -> None:
    """Trains this process's share of some steps; the first process prints what it measured as JSON."""
    from recipes.environment import leave_together, peak_memory_bytes

    model = make_model(size)
    speed = []
    for number in range(repeats + 1):
        rows = make_rows(effective, seed=number)[1]
        trainer = our_trainer(model, rows, "cpu", effective, None)
        speed.append(sum(real_tokens(rows)) / timed(trainer))
    if os.environ["RANK"] == "0":
        # The first round warms up.
        measured = {
            "tokens_per_second": round(statistics.median(speed[1:]), 1),
            "peak_bytes": peak_memory_bytes(),
            "steps_a_round": trainer.state.global_step,
        }
        print(json.dumps(measured), flush=True)
    leave_together()


def project(
    step_seconds: float,
    gradient_bytes: int,
    gpus: int = 8,
    nodes: int = 8,
    in_node: float = NVLINK,
    between: float = NETWORK,
) -> dict[str, float]:
    """A data-parallel step on `nodes` machines of `gpus` GPUs, on paper.

    Every GPU computes a share as large as the measured one, then the gradients are summed: reduced and gathered inside
    a node, with each GPU's part summed between the nodes in the middle. A ring moves (n − 1)/n of the data twice
    (Patarasuk & Yuan 2009, "Bandwidth optimal all-reduce algorithms"), so

        seconds = step_seconds + 2 · (gpus − 1)/gpus · B / in_node + 2 · (nodes − 1)/nodes · (B/gpus) / between

    with B = `gradient_bytes`. Nothing is overlapped with computing, which is cautious; start-up times of messages,
    uneven shares and reading of data are left out, which is not.

    Parameters:
        step_seconds: of one GPU alone, with its share of rows.
        gradient_bytes: of the trained weights' gradients; the base model is frozen and has none.
        in_node, between: bytes a second and direction of a GPU.

    Returns:
        Seconds of a step, those spent summing, and the efficiency: how much of `gpus · nodes` the speed grows by.
    """
    summing = 2 * (gpus - 1) / gpus * gradient_bytes / in_node
    summing += 2 * (nodes - 1) / nodes * gradient_bytes / gpus / between
    seconds = step_seconds + summing
    return {"step_seconds": seconds, "summing_seconds": summing, "efficiency": step_seconds / seconds}


def projection(tokens_per_second: float | None, size: str = "large", rows_a_gpu: int = 64) -> dict:
    """FLAN-T5's step of `rows_a_gpu` rows of real lengths, on 1 to 8 machines of 8 GPUs.

    Parameters:
        tokens_per_second: measured on one GPU; None: what an H200 does at the share of its rate that is aimed at.
    """
    with torch.device("meta"):
        model = make_model(size)
    rows = make_rows(8_192)[1]
    share = rows_a_gpu / len(rows)
    step_seconds = step_flop(model, rows) * share / (H200_FLOP * AIM)
    if tokens_per_second is not None:
        step_seconds = sum(real_tokens(rows)) * share / tokens_per_second
    # Gradients of the adapter are float32.
    gradient_bytes = sum(4 * weight.numel() for weight in model.parameters() if weight.requires_grad)
    return {
        "model": size,
        "rows_a_gpu": rows_a_gpu,
        "from": "assumed" if tokens_per_second is None else "measured",
        "one_gpu_step_seconds": step_seconds,
        "gradient_bytes": gradient_bytes,
        "in_node_bytes_per_second": NVLINK,
        "between_bytes_per_second": NETWORK,
        "nodes": {str(nodes): project(step_seconds, gradient_bytes, nodes=nodes) for nodes in (1, 2, 4, 8)},
    }


if __name__ == "__main__":
    rank_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
