"""Times the exports for CPU hosts next to the adapter in float32, on FLAN-T5 of a true shape with random weights.

Where the CPU multiplies bfloat16 at once, adapter and merged checkpoint run in it, too.

    python -m benchmarks.export [--size base] [--rows 3] [--tokens 48] [--rounds 3]

A row at a time, every way in a process of its own and in turn with the others. Random weights have no `</s>` to wait
for: each row writes the same number of tokens.
"""

import argparse
import copy
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.shapes import make_model, make_rows
from serving.export.formats import CT2, FORMATS, Contender, write
from serving.export.timing import time_rows

# What PyTorch, oneDNN, MKL and CTranslate2 read to use no more than AVX2.
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "CT2_FORCE_CPU_ISA": "AVX2",
}  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.export", description=__doc__.partition("\n")[0])
    parser.add_argument("--size", default="base")
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    print(json.dumps(measure(**vars(parser.parse_args(argv))), indent=1))


def measure(size: str, rows: int, tokens: int, rounds: int) -> dict:
    """Speed, memory and size of every way; of CTranslate2's where it is installed.

    Returns:
        `vnni`: whether the CPU multiplies 8-bit integers at once; `capability`: what PyTorch uses of it.
        By way its `serving.export.timing.Speed` with `bytes` on disk; `tokens_per_second_ratio` and `model_bytes_ratio`
        to the adapter's.
    """
    source, examples = make_rows(rows)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        ways = _written(root, size)
        speeds = time_rows(ways, [row["input_ids"] for row in examples], tokens, tokens, rounds)
        sizes = {
            name: sum(path.stat().st_size for path in way.folder.rglob("*") if path.is_file())
            for name, way in ways.items()
        }
    first = speeds["adapter"]
    return {
        "lengths": source,
        "size": size,
        "vnni": any(torch.cpu.get_capabilities().get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8")),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "tokens": tokens,
        "ways": {name: speed.model_dump() | {"bytes": sizes[name]} for name, speed in speeds.items()},
        "tokens_per_second_ratio": {
            name: round(speed.tokens_per_second / first.tokens_per_second, 2) for name, speed in speeds.items()
        },
        "model_bytes_ratio": {
            name: round(speed.model_bytes / max(1, first.model_bytes), 3) for name, speed in speeds.items()
        },
    }


def measure_both(size: str, rows: int, tokens: int, rounds: int) -> dict:
    """As `measure`, and on a CPU with VNNI once more (`without_vnni`) with the libraries kept to AVX2.

    Raises:
        `RuntimeError`: the second measurement failed; the last of what it said.
    """
    result = measure(size, rows, tokens, rounds)
    if not result["vnni"]:
        return result
    options = {"--size": size, "--rows": rows, "--tokens": tokens, "--rounds": rounds}
    words = [str(word) for option in options.items() for word in option]
    command = [sys.executable, "-m", "benchmarks.export", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | AVX2)
    if done.returncode:
        raise RuntimeError(f"the measurement without VNNI failed:\n{done.stderr[-2000:]}")
    return result | {"without_vnni": json.loads(done.stdout[done.stdout.index("{") :])}


def _written(root: Path, size: str) -> dict[str, Contender]:
    """Every way by name, its files below `root`. The models are gone when it returns."""
    adapter = make_model(size).eval()
    adapter.save_pretrained(root / "adapter")
    forms = [form for form in FORMATS if form not in CT2 or importlib.util.find_spec("ctranslate2")]
    for form in forms:
        # Some conversions were seen to change the weights.
        write(form, copy.deepcopy(adapter).merge_and_unload(), None, root / form)
    # `unload` gives the base model back as it was.
    write("merged", adapter.unload(), None, root / "base")
    ways = {"adapter": Contender("adapter", root / "adapter", root / "base")}
    ways |= {form: Contender(form, root / form) for form in forms}
    if not _multiplies_bfloat16():
        return ways
    return ways | {f"{name}, bfloat16": replace(ways[name], dtype=torch.bfloat16) for name in ("adapter", "merged")}


def _multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for it, and PyTorch is not kept to AVX2."""
    has = torch.cpu.get_capabilities()
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and bool(has.get("avx512_bf16") or has.get("amx_bf16"))


if __name__ == "__main__":
    main()
