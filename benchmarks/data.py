"""How time and memory of preparing a dataset grow with its rows.

    python -m benchmarks.data [--sizes 1000 10000 100000] [--into benchmarks/data.json]

Each size runs in a process of its own, so that its peak of memory is known, against a local Hub that serves generated
rows in finance-alpaca's columns: first with empty caches, then again.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

SIZES = (1_000, 10_000, 100_000)
STAGES = ("load the libraries", "splits and token ids", "one epoch's ids", "audit", "leakage")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.data", description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--into", type=Path)
    parser.add_argument("--prepare", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.prepare:
        print(json.dumps(prepare(arguments.prepare)))
        return
    text = json.dumps(measure(arguments.sizes), indent=1)
    if arguments.into:
        arguments.into.write_text(text + "\n", encoding="utf-8")
    print(text)


def measure(sizes: tuple[int, ...] = SIZES) -> dict:
    """Seconds by stage and peak memory by size, and the bytes that a row adds."""
    from local_hub.miniatures import Repository, repositories
    from local_hub.testing import running

    measured = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        base = next(repository for repository in repositories() if repository.id == "google/flan-t5-large")
        datasets = [
            Repository("dataset", f"local-user/rows-{rows}", {"rows.jsonl": b"\n".join(lines(rows))}) for rows in sizes
        ]
        with running(root / "hub", [base, *datasets]) as hub:
            for rows in sizes:
                environ = hub.env(root / f"home-{rows}") | {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
                first, again = (_run(environ, f"local-user/rows-{rows}") for _ in range(2))
                measured.append({"rows": rows, "first": first, "again": again})
    return {"cores": os.cpu_count(), "sizes": measured, "bytes_a_row": bytes_a_row(measured)}


def bytes_a_row(measured: list[dict]) -> dict[str, int]:
    """By how much the peak of memory grows with a row, between the last two sizes."""
    if len(measured) < 2:
        return {}
    small, large = measured[-2:]
    rows = large["rows"] - small["rows"]
    return {
        which: round((large[which]["peak_bytes"] - small[which]["peak_bytes"]) / rows) for which in ("first", "again")
    }


def lines(rows: int):
    """Rows in finance-alpaca's columns, one JSON object a line; each question has words of its own."""
    from local_hub.miniatures.finance import row

    rng = Random(1)
    pool = [row(rng) for _ in range(1_000)]
    for number in range(rows):
        text = pool[number % len(pool)]
        # Ten words of 50,000 keep questions apart: among real ones few are nearly alike.
        words = " ".join(f"w{rng.randrange(50_000)}" for _ in range(10))
        yield json.dumps(text | {"instruction": f"{text['instruction']} {words}"}).encode()


def _run(environ: dict[str, str], dataset: str) -> dict:
    command = [sys.executable, "-m", "benchmarks.data", "--prepare", dataset]
    answer = subprocess.run(command, env=environ, capture_output=True, text=True)
    if answer.returncode:
        raise SystemExit(f"{dataset} ended with {answer.returncode}: {answer.stdout[-2000:]}{answer.stderr[-2000:]}")
    return json.loads(answer.stdout.splitlines()[-1])


def prepare(dataset_id: str) -> dict:
    """All that a run does to its data, with one pass over the token ids as an epoch makes; seconds and peak memory."""
    clock = [time.perf_counter()]

    from hub.pins import pin
    from recipes.config import parse_recipe
    from recipes.data.lineage import find_seen_rows
    from recipes.data.splits import build_splits, references, tokenize
    from recipes.data.tokenizer import audit, load_tokens
    from record.run_record import Pins

    # The parser of recipes loads TRL and transformers.
    recipe = parse_recipe(["--config", "recipes/finance.yaml"]).arguments
    clock.append(time.perf_counter())
    dataset = pin("dataset", dataset_id, "main")
    base = pin("model", "google/flan-t5-large", "main")
    tokens = load_tokens(base, [])
    splits = build_splits(recipe, dataset, tokens)
    rows = tokenize(splits.train, tokens)
    clock.append(time.perf_counter())
    token_count = sum(len(ids) for batch in rows.iter(1_000) for ids in batch["input_ids"])
    clock.append(time.perf_counter())
    audit(tokens, references(splits))
    clock.append(time.perf_counter())
    before_leakage = peak_bytes()
    find_seen_rows(splits, Pins(base_model=base, dataset=dataset))
    clock.append(time.perf_counter())
    peak = peak_bytes()
    test, training = splits.test["input"][:], splits.train["input"][:]
    return {
        "compare_seconds": {f"rules {rules}": _compare_seconds(test, training, rules) for rules in (1, 2)},
        "seconds": {
            name: round(end - start, 2) for name, start, end in zip(STAGES, clock[:-1], clock[1:], strict=True)
        },
        "tokens": token_count,
        "peak_before_leakage_bytes": before_leakage,
        "peak_bytes": peak,
    }


def _compare_seconds(test: list[str], training: list[str], rules: int) -> float:
    """Seconds of the processor, the best of three."""
    from recipes.data.leakage import compare

    measured = []
    for _ in range(3):
        start = time.process_time()
        compare(test, training, rules)
        measured.append(time.process_time() - start)
    return round(min(measured), 2)


def peak_bytes() -> int:
    """The most memory of its own (without mapped files) that this process has had so far; Linux alone tells it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak, mapped = (int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024 for name in ("VmHWM", "RssFile"))
    return peak - mapped


if __name__ == "__main__":
    main(sys.argv[1:])
