"""Whether training in bfloat16 learns what float32 does: loss curves next to three seeds, and scores row by row.

    python -m benchmarks.loss_curves [--steps 24] [--rows 16]

On a model of FLAN-T5-small's shape that was trained from nothing for some minutes, LoRA on every layer below the head,
and real rows where `REAL_DATA` names a folder with them; its score is each held-out row's loss. And on the finance
miniature as a user trains and scores it, told to take a model that narrow in bfloat16.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PrinterCallback, T5ForConditionalGeneration

from benchmarks.counting import Row
from benchmarks.prefill_models import Rows, train_base
from benchmarks.shapes import finance_rows
from benchmarks.training import OurTrainer, training_arguments
from recipes.training.trainer import collate, suit_device
from record.predictions import load_predictions
from record.run_record import load_record
from scoring.bootstrap import CONFIDENCE, RESAMPLES, SEED, compared, intervals
from scoring.scores import metric_rows

SEEDS = (1, 2, 3)
RUNS = [*(("float32", seed) for seed in SEEDS), ("bfloat16", 1)]
LAYERS = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")
DROPOUT = 0.1
# What `recipes.training.dtype` finds too narrow, or too slow on the CPU at hand, is computed in bfloat16 all the same.
FORCED = """import sys
from recipes.training import dtype
dtype.NARROW, dtype.bfloat16_gain = 1, lambda: dtype.FASTER
from {module} import main
main(sys.argv[1:])"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.loss_curves", description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rows", type=int, default=16)
    print(json.dumps(measure(**vars(parser.parse_args(argv))), indent=1))


def measure(steps: int, rows: int, size: str = "small", held_out: int = 256, before: int = 300) -> dict:
    """Both comparisons: `shape` and `miniature`.

    Parameters:
        rows: of an optimizer step.
        held_out: rows to score.
        before: steps that the base is trained for from nothing.
    """
    source, pool = finance_rows()
    taken = Random(0).sample(pool, min(len(pool), steps * rows + held_out))
    test, train = taken[:held_out], taken[held_out:]
    curves, losses = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        print(f"  the base, {before} steps from nothing", flush=True)
        train_base(Rows(), size, before).save_pretrained(folder)
        for dtype, seed in RUNS:
            print(f"  {dtype}, seed {seed}", flush=True)
            model = _with_adapter(folder, getattr(torch, dtype))
            curves[dtype, seed], losses[dtype, seed] = _train(model, train, rows, seed, test)
    differences = [a - b for a, b in zip(losses["bfloat16", 1], losses["float32", 1], strict=True)]
    seeds = [float(np.mean(losses["float32", seed])) for seed in SEEDS]
    interval = intervals({"loss": differences}, RESAMPLES, CONFIDENCE, SEED)["loss"]
    shape = {
        "rows_from": source,
        "size": size,
        "steps_of_the_base": before,
        "rows_a_step": rows,
        "scored_rows": len(test),
        **spread_of([curves["float32", seed] for seed in SEEDS], curves["bfloat16", 1]),
        "score": "loss",
        "score_of_seeds": [round(mean, 4) for mean in seeds],
        "difference": interval.model_dump(),
    }
    return {"shape": shape, "miniature": _miniature(steps)}


def spread_of(seeds: list[list[float]], bfloat16: list[float]) -> dict:
    """How far the curve in bfloat16 lies from that of the first seed in float32, next to how far the seeds lie apart.

    Parameters:
        seeds: the losses of each step in float32, by seed.

    Returns:
        Means and the largest over the steps; `outside`, the steps where it lies outside of all seeds by more than they
        lie apart.
    """
    spreads = [max(step) - min(step) for step in zip(*seeds, strict=True)]
    away = [abs(a - b) for a, b in zip(bfloat16, seeds[0], strict=True)]
    beyond = [
        max(min(step) - loss, loss - max(step), 0.0) > spread
        for step, loss, spread in zip(zip(*seeds, strict=True), bfloat16, spreads, strict=True)
    ]
    return {
        "steps": len(bfloat16),
        "first_loss": round(seeds[0][0], 4),
        "last_loss": round(seeds[0][-1], 4),
        "last_loss_bfloat16": round(bfloat16[-1], 4),
        "mean_spread": round(statistics.mean(spreads), 5),
        "mean_distance": round(statistics.mean(away), 5),
        "largest_distance": round(max(away), 5),
        "outside": sum(beyond),
    }


def _with_adapter(base: str, dtype: torch.dtype) -> PeftModel:
    model = T5ForConditionalGeneration.from_pretrained(base, dropout_rate=DROPOUT).to(dtype)
    torch.manual_seed(0)
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=32, lora_alpha=32, lora_dropout=DROPOUT, target_modules=[*LAYERS])
    return get_peft_model(model, lora, autocast_adapter_dtype=True)


def _train(
    model: PeftModel, rows: list[Row], effective: int, seed: int, test: list[Row]
) -> tuple[list[float], list[float]]:
    """The loss of every step, and after them each test row's mean over its target tokens."""
    order = list(rows)
    Random(seed).shuffle(order)
    arguments = training_arguments("cpu", effective, 1, seed=seed)
    suit_device(arguments)
    trainer = OurTrainer(model=model, args=arguments, train_dataset=order)
    trainer.args.logging_strategy, trainer.args.logging_steps = "steps", 1
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    model.eval()
    batch = collate(test, model.get_base_model().config, packed=False)
    with torch.no_grad():
        sums = torch.cat([model(**part) for part, _ in batch["micro_batches"]]).double()
    # One micro-batch, whose rows stand as they were given.
    return [line["loss"] for line in trainer.state.log_history if "loss" in line], (sums[:, 0] / sums[:, 1]).tolist()


def _miniature(steps: int) -> dict:
    """Trains the shipped recipe on the local Hub's miniature, and scores what float32 and bfloat16 made of one seed."""
    from local_hub.miniatures import repositories
    from local_hub.testing import running

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        with running(root / "hub", repositories()) as hub:
            environ = hub.env(root / "home")
            runs = {("float32", seed): root / f"float32-{seed}" for seed in SEEDS} | {
                ("bfloat16", 1): root / "bfloat16"
            }
            for (dtype, seed), run in runs.items():
                print(f"  the miniature in {dtype}, seed {seed}", flush=True)
                _run(environ, "recipes.train", "--config", "recipes/finance.yaml", "--output_dir", str(run), "--dtype",
                     dtype, "--seed", str(seed), "--max_steps", str(steps), "--logging_steps", "1", "--eval_strategy",
                     "no", "--save_strategy", "no", "--load_best_model_at_end", "false")  # fmt: skip
            records = {key: load_record(run) for key, run in runs.items()}
            assert records["bfloat16", 1].model.dtype == "bfloat16"
            curves = {key: [p.loss for p in r.training.history if p.loss is not None] for key, r in records.items()}
            scores = {}
            for key in (("float32", 1), ("bfloat16", 1)):
                _run(environ, "evaluation.evaluate", str(runs[key]))
                contract = load_record(runs[key]).contract
                scores[key] = metric_rows(load_predictions(runs[key]), "adapter", contract)
            comparison = compared(*scores.values(), contract)
    return {
        "rows_from": "the finance miniature",
        "rows_a_step": 64,
        "scored_rows": len(scores["float32", 1]["rougeL"]),
        **spread_of([curves["float32", seed] for seed in SEEDS], curves["bfloat16", 1]),
        "score": "ROUGE-L",
        "score_of_float32": round(comparison["base"]["rougeL"].mean, 4),
        "difference": comparison["difference"]["rougeL"].model_dump(),
    }


def _run(environ: dict[str, str], module: str, *words: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", FORCED.format(module=module), *words], env=environ, capture_output=True, text=True
    )
    if answer.returncode:
        raise RuntimeError(f"{module} failed:\n{answer.stdout[-2000:]}{answer.stderr[-2000:]}")


if __name__ == "__main__":
    main()
