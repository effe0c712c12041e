"""Times ROUGE with its intervals, and a reproduction at LEVEL=score.

    python -m benchmarks.scoring [--rows 5000] [--repeats 5]

ROUGE runs side by side with the way of `evaluate`'s own rouge metric (rouge_score row by row, then its bootstrap
aggregator of 1,000 resamples), interleaved, on the same texts: those of Google's test pairs that REAL_DATA holds, or
sentences of the miniatures. LEVEL=score runs as a stranger's process against a local Hub, on ten times as many rows.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

METRICS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.scoring", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=5)
    print(json.dumps(measure(**vars(parser.parse_args(argv))), indent=1))


def measure(rows: int, repeats: int) -> dict:
    """Both measurements; `rouge_vs_evaluate` is how many times as fast ROUGE with its intervals is."""
    rouge = time_rouge(rows, repeats)
    return {
        "rows": rows,
        "repeats": repeats,
        "cores": os.cpu_count(),
        "rouge_vs_evaluate": rouge["ratio"],
        "rouge": rouge,
        "level_score": time_level_score(rows, repeats),
    }


def pairs(rows: int) -> tuple[str, list[str], list[str]]:
    """Where texts come from, `rows` predictions and as many references."""
    if "REAL_DATA" in os.environ:
        folder = Path(os.environ["REAL_DATA"], "rouge")
        references, predictions = (
            (folder / name).read_text(encoding="utf-8").splitlines()
            for name in ("target_large.txt", "prediction_large.txt")
        )
        source = "Google's 1,000 pairs, repeated with rotated predictions"
    else:
        from local_hub.miniatures.finance import rows as finance_rows

        references = [row["output"] for row in finance_rows()]
        predictions = references[1:] + references[:1]
        source = "answers of the finance miniature, each next to the following one"
    places = [divmod(number, len(references)) for number in range(rows)]
    # A rotated prediction makes another pair, so that nothing is scored twice.
    return (
        source,
        [predictions[(at + turn) % len(references)] for turn, at in places],
        [references[at] for _, at in places],
    )


def time_rouge(rows: int, repeats: int) -> dict:
    """Seconds of both ways, medians, and their ratio."""
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.scoring import BootstrapAggregator

    from scoring.bootstrap import CONFIDENCE, RESAMPLES, SEED, draws, intervals
    from scoring.metrics.rouge import rouge_rows

    source, predictions, references = pairs(rows)

    def theirs():
        scorer, aggregator = RougeScorer(METRICS, use_stemmer=True), BootstrapAggregator()
        for reference, prediction in zip(references, predictions, strict=True):
            aggregator.add_scores(scorer.score(reference, prediction))
        return aggregator.aggregate()

    def ours():
        # A run draws once for both models and their difference; here every repeat draws.
        draws.cache_clear()
        return intervals(rouge_rows(predictions, references, stemmer=True), RESAMPLES, CONFIDENCE, SEED)

    ours()
    seconds = {"theirs": [], "ours": []}
    for _ in range(repeats):
        for name, way in (("theirs", theirs), ("ours", ours)):
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {"texts": source, **comparison(seconds)}


def comparison(seconds: dict[str, list[float]]) -> dict:
    """Medians and ranges, and the ratio of the medians."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        **{f"{name}_seconds": round(median, 4) for name, median in medians.items()},
        **{f"{name}_range": [round(min(v), 4), round(max(v), 4)] for name, v in seconds.items()},
        "ratio": round(medians["theirs"] / medians["ours"], 1),
    }


def time_level_score(rows: int, repeats: int) -> dict:
    """Seconds of `python -m evaluation.reproduce --level score` on a warm cache, and of the first, which downloads."""
    from local_hub.miniatures import repositories
    from local_hub.testing import running

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        with running(root / "hub", [*repositories(), big_dataset(10 * rows)]) as hub:
            environ = hub.env(root / "home", hub.token("local-user")) | {"OMP_NUM_THREADS": "1"}
            recipe = [
                "--config", "recipes/finance.yaml", "--output_dir", str(root / "finance"), "--dataset_name",
                "local-user/many-questions", "--length_rules", "drop characters(output) >= 512", "--max_steps", "2",
                "--max_new_tokens", "12", "--per_device_eval_batch_size", "64", "--eval_strategy", "no",
                "--save_strategy", "no", "--load_best_model_at_end", "false", "--validation_size", "0",
                "--adapter_name", "many",
            ]  # fmt: skip
            run(environ, "recipes.train", *recipe)
            run(environ, "evaluation.evaluate", str(root / "finance"))
            run(environ, "push.publish", str(root / "finance"))
            stranger = hub.env(root / "stranger") | {"OMP_NUM_THREADS": "1"}
            seconds = []
            for _ in range(repeats + 1):
                start = time.perf_counter()
                answer = run(stranger, "evaluation.reproduce", "local-user/many", "--level", "score", "--json")
                seconds.append(time.perf_counter() - start)
                verdict = json.loads(answer)
                assert verdict["verdict"] == "REPRODUCED", verdict
    return {
        "dataset_rows": 10 * rows,
        "first_seconds": round(seconds[0], 2),
        "again_seconds": round(statistics.median(seconds[1:]), 2),
        "again_range": [round(min(seconds[1:]), 2), round(max(seconds[1:]), 2)],
    }


def big_dataset(rows: int):
    """A dataset in finance-alpaca's layout, with `rows` generated questions."""
    from local_hub.miniatures import Repository
    from local_hub.miniatures.finance import row

    rng = Random(1)
    questions = [row(rng) for _ in range(rows)]
    return Repository("dataset", "local-user/many-questions", {"rows.json": json.dumps(questions).encode()})


def run(environ: dict[str, str], *words: str) -> str:
    answer = subprocess.run([sys.executable, "-m", *words], env=environ, capture_output=True, text=True)
    if answer.returncode:
        raise SystemExit(answer.stdout[-2000:] + answer.stderr[-2000:])
    return answer.stdout


if __name__ == "__main__":
    main(sys.argv[1:])
