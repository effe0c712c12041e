"""Scores the same rows on one process and on two, each with one thread.

    python -m torch.distributed.run --standalone --nproc_per_node 2 -m benchmarks.processes SIZE ROWS REPEATS

is how `measure` starts the two; in every round the first scores all rows alone, while the other waits, then both do.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import torch

from benchmarks.shapes import make_model, make_rows
from scoring.decoding import processes
from scoring.decoding.slot_decoding import greedy

# Rows in work at once, as benchmarks.generation has them on a CPU.
SLOTS = 64


def measure(size: str, rows: int, repeats: int) -> dict:
    """How many times as fast two processes score (`score_two_processes`), and the seconds that it comes from.

    Raises:
        `RuntimeError`: they failed; the last of what they said.
    """
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", __name__]
    done = subprocess.run(
        [sys.executable, *command, size, str(rows), str(repeats)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    if done.returncode:
        raise RuntimeError(f"the measurement with two processes failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def race(size: str, rows: int, repeats: int) -> dict:
    """What the first process measures, the other one waiting for its jobs."""
    loaded: list = []
    processes.gather_from_all(load, size, loaded)
    (model,) = loaded
    source, examples = make_rows(rows)
    prompts = [row["input_ids"] for row in examples]
    lengths = [max(1, len(row["labels"]) - 1) for row in examples]

    def alone() -> list[list[int]]:
        return write(model, None, range(rows), prompts, lengths)

    def both() -> list[list[int]]:
        return processes.share_rows(write, model, None, [len(ids) for ids in prompts], [prompts, lengths])

    seconds, busy, outputs = {"one": [], "two": []}, {"one": [], "two": []}, []
    for _ in range(repeats + 1):
        for name, way in (("one", alone), ("two", both)):
            before, start = processes.gather_from_all(time.process_time), time.perf_counter()
            outputs.append(way())
            seconds[name].append(time.perf_counter() - start)
            after = processes.gather_from_all(time.process_time)
            busy[name].append(max(b - a for a, b in zip(before, after, strict=True)))
    # The first round warms up.
    ratios, of_cpu = (
        [one / two for one, two in zip(took["one"][1:], took["two"][1:], strict=True)] for took in (seconds, busy)
    )
    return {
        "lengths": source,
        "size": size,
        "rows": rows,
        "rounds": repeats,
        "cores": os.cpu_count(),
        "score_two_processes": round(statistics.median(ratios), 2),
        "range": [round(min(ratios), 2), round(max(ratios), 2)],
        # Of the busier process: what a machine gives that has nothing else to do.
        "by_cpu_time": round(statistics.median(of_cpu), 2),
        "range_by_cpu_time": [round(min(of_cpu), 2), round(max(of_cpu), 2)],
        "equal_rows": sum(len({*map(tuple, answers)}) == 1 for answers in zip(*outputs, strict=True)) / rows,
        "seconds": {name: round(statistics.median(took[1:]), 2) for name, took in seconds.items()},
    }


def load(size: str, loaded: list) -> None:
    """Makes the model on each process, which keeps what is `loaded`."""
    model = make_model(size).eval()
    processes.enroll(model, None)
    loaded.append(model)


def write(model, _, numbers, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    """So many tokens for every prompt."""
    with torch.inference_mode():
        return greedy(model, prompts, 512, SLOTS, lengths=lengths)


if __name__ == "__main__":
    if not processes.follow_first():
        print(json.dumps(race(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))), flush=True)
        processes.dismiss()
