"""Measures this project against its peers, and writes benchmarks/results/MACHINE.json, one file a kind of machine.

    python -m benchmarks [--device cpu|cuda] [--quick] [--only PART ...] [--into FOLDER]

On a CPU the model has FLAN-T5-small's true shape, on a GPU FLAN-T5-large's, with random weights; with --quick it is a
tiny one, measured only so far that every part has run. Lengths are those of real rows where REAL_DATA names a folder
with them, else a miniature's. Nothing is downloaded. --only measures some parts again and leaves the others.
"""

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from record.command_line import Command, run_command

RESULTS = Path(__file__).parent / "results"
PICTURES = Path(__file__).parents[1] / "docs" / "benchmarks"
PARTS = (
    "training", "base", "generation", "prefill", "scoring", "data", "growth", "processes", "exports", "load",
    "profiles", "machine", "bfloat16-base", "bfloat16-large", "loss-curves", "vocabulary", "anchors",
)  # fmt: skip
# What others published of GPUs.
GPU_PARTS = ("anchors",)
# A GPU trains a larger shape than the base model's, exports are for hosts without one, the load is a miniature's.
CPU_PARTS = (
    "base", "prefill", "processes", "exports", "load", "bfloat16-base", "bfloat16-large", "loss-curves", "vocabulary",
)  # fmt: skip
# A CPU with all of AVX-512 multiplies bfloat16 more than so many times as fast as float32, one that works it off in
# halves less: `matmul_flop_per_second` in the results.
HALF = 3
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "rouge-score-rs", "ctranslate2")
# What is also given at the top: ratios above 1 mean that this project is faster.
FLAT = {
    "training": (
        "train_vs_best_stock", "train_vs_stock_bs16", "train_vs_stock_bs8", "padding_share", "memory_vs_stock",
        "gradient_relative_error",
    ),
    "generation": ("score_vs_predict", "score_ct2_vs_predict", "score_equal_rows"),
    "scoring": ("rouge_vs_evaluate",),
    "processes": ("score_two_processes",),
    "bfloat16-base": (
        "bf16_train_vs_fp32_base", "bf16_score_vs_fp32_base", "train_vs_best_stock_bf16", "train_vs_best_stock_fp32",
    ),
    "bfloat16-large": ("bf16_train_vs_fp32_large", "bf16_score_vs_fp32_large", "finance_epoch_hours_large"),
}  # fmt: skip


@click.command(
    cls=Command, examples=("pubrep bench", "pubrep bench --only training --only exports", "pubrep bench --quick")
)
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where models are run."
)
@click.option("--quick", is_flag=True, help="A tiny model, so that every part runs once.")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(PARTS),
    metavar="PART",
    help="Measure this part only; may be repeated.",
)
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    help="Folder of the figures (benchmarks/results; a temporary one with --quick).",
)
def command(device: str, quick: bool, only: tuple[str, ...], into: Path | None) -> None:
    """Measure this project next to its peers, and write benchmarks/results.

    \b
    PART is training, base, generation, prefill, scoring, data, growth, processes,
    exports, load, profiles, machine, bfloat16-base, bfloat16-large,
    loss-curves, vocabulary or anchors.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: no GPU was found: use --device cpu")
    name = cpu_kind() if device == "cpu" else slug(torch.cuda.get_device_name())
    folder = into or (Path(tempfile.gettempdir(), "benchmarks") if quick else RESULTS)
    path = folder / f"{name}.json"
    previous = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    others = CPU_PARTS if device == "cuda" else GPU_PARTS
    path.parent.mkdir(parents=True, exist_ok=True)
    # Each part is kept when it is measured, whatever becomes of the next.
    for part in only or [part for part in PARTS if part not in others]:
        result = run(device, quick, part, previous.get("parts", {}))
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        previous = result
    from benchmarks.plot import draw

    pictures = draw(result, PICTURES if folder == RESULTS else folder, name)
    print("Wrote", *(os.path.relpath(file) for file in (path, *pictures)))


def main(argv: list[str]) -> None:
    run_command(command, argv, "python -m benchmarks")


def cpu_kind() -> str:
    """A CPU's name as a file's, by what it multiplies bfloat16 with: `cpu-amx-bf16`, `cpu-avx512-bf16`, else `cpu`.

    CPUs that work off AVX-512 in two halves gain half as much by it: `cpu-avx512-bf16-half`.
    """
    import torch

    from recipes.training.dtype import bfloat16_gain

    has = torch.cpu.get_capabilities()
    kind = next((f"cpu-{slug(kind)}" for kind in ("amx_bf16", "avx512_bf16") if has.get(kind)), "cpu")
    return f"{kind}-half" if kind == "cpu-avx512-bf16" and bfloat16_gain() < HALF else kind


def slug(name: str) -> str:
    """A GPU's name as a file's: `NVIDIA H200` becomes `nvidia-h200`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def run(device: str, quick: bool, name: str, previous: dict[str, dict]) -> dict:
    """Measures the part `name`, takes the others from `previous`, and puts the chosen figures at the top."""
    import torch

    from recipes.environment import device_name

    parts = dict(previous)
    print(f"Measuring {name}", flush=True)
    start = time.perf_counter()
    parts[name] = attempt(measures(device, quick, parts)[name])
    parts[name] |= {
        "took_seconds": round(time.perf_counter() - start, 1),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {package: version for package in PACKAGES if (version := installed(package))},
    }
    if "missing" in parts[name]:
        print(f"  left out for lack of {parts[name]['missing']}", flush=True)
    return {
        "device": device_name() if device == "cuda" else "CPU",
        "cores": os.cpu_count(),
        "quick": quick,
        **{key: parts.get(part, {}).get(key) for part, keys in FLAT.items() for key in keys},
        "parts": {name: parts[name] for name in PARTS if name in parts},
    }


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def attempt(measure: Callable[[], dict]) -> dict:
    """What a part measures; where a package is missing, which one."""
    try:
        return measure()
    except ModuleNotFoundError as error:
        return {"missing": error.name}


# A table of the parts: each is a few lines, imported when it is measured.
def measures(device: str, quick: bool, parts: dict[str, dict]) -> dict[str, Callable[[], dict]]:
    """The parts by name, at the size of the device; `machine` follows from what is in `parts` by then."""
    cuda = device == "cuda"
    size = "tiny" if quick else "large" if cuda else "small"
    repeats = 2 if quick else 5

    def training() -> dict:
        from benchmarks.training import measure

        if quick:
            return measure(device, size, repeats, effective=8, batches=(4, 8), grouped=(4,), pool=256)
        if cuda:
            return measure(device, size, repeats, steps=4, effective=64, batches=(8, 16, 32, 64), grouped=(8, 16, 32))
        return measure(device, size, repeats, batches=(2, 4, 8, 16), grouped=(8,))

    def base() -> dict:
        from benchmarks.training import measure

        if quick:
            return measure(device, size, repeats, effective=8, batches=(4,), grouped=(), pool=64)
        return measure(device, "base", repeats, batches=(4, 8), grouped=())

    def generation() -> dict:
        from benchmarks.generation import measure

        return measure(device, 16 if quick else 1_000, repeats, size)

    def prefill() -> dict:
        from benchmarks.prefill import measure

        return measure("tiny", 8, 1) if quick else measure("small", 100, repeats)

    def scoring() -> dict:
        from benchmarks.scoring import measure

        return measure(50 if quick else 5_000, repeats)

    def data() -> dict:
        from benchmarks.data import measure

        return measure((100, 200) if quick else (1_000, 10_000, 50_000))

    def growth() -> dict:
        from benchmarks.growth import measure, projection

        speed = parts.get("training", {}).get("contenders", {}).get("ours", {}).get("tokens_per_second")
        grown = measure(device, size, repeats, (8, 16)) if quick else measure(device, size, 2)
        return grown | {"projection": projection(speed if cuda else None)}

    def processes() -> dict:
        from benchmarks.processes import measure

        return measure("tiny", 16, 1) if quick else measure("small", 1_000, repeats)

    def exports() -> dict:
        from benchmarks.export import measure, measure_both

        return measure("tiny", 1, 4, 1) if quick else measure_both("base", 3, 24, repeats)

    def load() -> dict:
        from benchmarks.load import measure_miniature

        return measure_miniature(4, 8, "tiny") if quick else measure_miniature()

    def profiles() -> dict:
        from benchmarks.profiles import measure

        return measure(device, size, 8 if quick else 32, 16 if quick else 64 if cuda else 16)

    def machine() -> dict:
        import torch

        from benchmarks.machine import matmul_rate, small_card, whole_job

        if "contenders" not in parts.get("training", {}):
            return {"missing": "the training's figures"}
        rate = matmul_rate(device, torch.bfloat16 if cuda else torch.float32)
        job = whole_job(parts["training"], parts.get("generation"), rate)
        return job | ({"small_card": small_card(size)} if cuda else {})

    def bfloat16_base() -> dict:
        from benchmarks.bfloat16 import measure

        if quick:
            return measure("tiny", repeats, rows=8, batches=(4,), epoch_rows=0, scored=4)
        return measure("base", repeats, rows=24, batches=(4, 8))

    def bfloat16_large() -> dict:
        from benchmarks.bfloat16 import measure

        if quick:
            return measure("tiny", repeats, rows=8, epoch_rows=64, scored=4)
        return measure("large", repeats, epoch_rows=256)

    def loss_curves() -> dict:
        from benchmarks.loss_curves import measure

        return measure(4, 8, "tiny", 16, 4) if quick else measure(24, 16)

    def vocabulary() -> dict:
        from benchmarks.vocabulary import measure

        return measure(1, ("tiny",)) if quick else measure(repeats)

    def anchors() -> dict:
        from benchmarks.anchors import measure

        if quick:
            return measure(device, repeats, "tiny", "tiny", (2, 4), 24, 8)
        return measure(device, repeats, "xl", "large", (32, 64, 128), 128, 64)

    return {
        "loss-curves": loss_curves, "bfloat16-base": bfloat16_base, "bfloat16-large": bfloat16_large,
        "training": training, "base": base, "generation": generation, "prefill": prefill, "scoring": scoring,
        "data": data, "growth": growth, "processes": processes, "exports": exports, "load": load, "profiles": profiles,
        "machine": machine, "vocabulary": vocabulary, "anchors": anchors,
    }  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
