"""Checks a published adapter's numbers from the Hub alone.

    python -m evaluation.reproduce owner/name [--revision COMMIT]

Takes everything from the Hub at the commits that the published record pins, checks every hash, rebuilds the test rows,
scores the published predictions again, generates anew with base model and adapter, and compares. The last line starts
with REPRODUCED (exit 0), DRIFTED (exit 1) or UNCHECKED (exit 2).
"""

import argparse
import re
import sys
import traceback
from pathlib import Path

from recipes.batch import out_of_memory
from recipes.errors import UserError, one_line_errors
from recipes.record import ROUGE_NAMES, Interval, Record, Scores

# Floating-point sums may differ in their last bits between machines; a changed number differs in a digit that is shown.
ROUNDING = 1e-9


class Drift(Exception):
    """What was published and what was found differ; the text says where."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="evaluation.reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("adapter", help="the adapter's id on the Hub, owner/name")
    parser.add_argument("--revision", default="main", help="branch, tag or commit to check")
    arguments = parser.parse_args(argv)
    try:
        with one_line_errors(f"UNCHECKED {arguments.adapter}", code=2, file=sys.stdout):
            line = reproduce(arguments.adapter, arguments.revision)
    except Drift as drift:
        print(f"DRIFTED {arguments.adapter}: {drift}", flush=True)
        sys.exit(1)
    except Exception as error:
        # A failure of this program says nothing about the adapter; exit code 1 would.
        traceback.print_exc()
        why = "memory does not suffice for one row" if out_of_memory(error) else f"{type(error).__name__}, see above"
        print(f"UNCHECKED {arguments.adapter} {why}", flush=True)
        sys.exit(2)
    print(f"REPRODUCED {line}", flush=True)


def reproduce(adapter: str, revision: str) -> str:
    """Checks `adapter` at `revision`.

    Returns:
        What was reproduced, and on which evidence.

    Raises:
        `Drift`: files, data, scores or outputs are not the published ones.
        `UserError`, `huggingface_hub.errors.HfHubHTTPError`: it could not be checked.
    """
    from evaluation.predictions import load_predictions
    from evaluation.score import load_for_scoring
    from recipes.pins import pin, pull

    commit = pin("model", adapter, revision).revision
    name = f"{adapter}@{commit}"
    print(f"Pulling {name}", flush=True)
    folder, record, differing = pull(adapter, commit)
    if differing:
        raise Drift(f"not the files that the record names: {', '.join(differing)}")
    if record.scores is None or record.contract is None or record.training is None:
        raise UserError(f"the record of {name} holds no scores")
    _check_lineage(folder, record)
    print(f"  {len(record.files)} files, every hash as recorded", flush=True)
    if record.miniature:
        print(f"  a miniature of {record.pins.base_model.id}: its numbers say nothing about the real model", flush=True)

    recipe, tokenizer, test = _rebuild_test_rows(record)
    predictions = load_predictions(folder)
    if predictions.prompt != test["prompt"][:] or predictions.reference != test["target"][:]:
        raise Drift("the published predictions stand beside other prompts or references than the dataset's")
    print(f"  {len(test):,} test rows rebuilt from {record.pins.dataset.id}, as recorded", flush=True)

    rescored = _rescore(record, predictions)
    _check_card(folder, record)
    print("  published predictions scored again: the numbers of the record and the card", flush=True)
    model, _, dtype = load_for_scoring(folder, record, recipe.model)
    if record.pins.parent_adapter is not None:
        _check_forgetting(folder, record, model, tokenizer, dtype)
    return f"{name} {_generate_and_compare(record, model, tokenizer, dtype, test, predictions, rescored)}"


def _check_lineage(folder: Path, record: Record) -> None:
    import json

    if record.files.get("adapter_model.safetensors") != record.training.adapter_sha256:
        raise Drift("the record lists another adapter_model.safetensors than the one that was trained")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    base = record.pins.base_model
    if (config.get("base_model_name_or_path"), config.get("revision")) != (base.id, base.revision):
        raise Drift(f"adapter_config.json names another base model than the record's {base.id}@{base.revision}")


def _check_card(folder: Path, record: Record) -> None:
    """Holds the card's metadata and its table of scores against the record."""
    from huggingface_hub import ModelCard

    card = ModelCard.load(folder / "README.md")
    scores = record.scores
    stated = {result.metric_name: result.metric_value for result in card.data.eval_results or []}
    if stated != {heading: round(scores.adapter[name].mean, 4) for name, heading in ROUGE_NAMES.items()}:
        raise Drift("the scores in the card's metadata are not the record's")
    for name, heading in ROUGE_NAMES.items():
        row = next((line for line in card.content.splitlines() if line.startswith(f"| {heading} |")), "")
        parts = (scores.base[name], scores.adapter[name], scores.difference[name])
        recorded = [f"{getattr(part, key):.4f}" for part in parts for key in ("mean", "low", "high")]
        if [number.lstrip("+") for number in re.findall(r"[+-]?\d+\.\d+", row)] != recorded:
            raise Drift(f"the card's table states other numbers for {heading} than the record")


def _rebuild_test_rows(record: Record):
    from recipes.config import recipe_from_record
    from recipes.data import build_splits
    from recipes.model import load_tokenizer

    recipe = recipe_from_record(record.name, record.recipe)
    tokenizer = load_tokenizer(record.pins.base_model, recipe.arguments.added_tokens)
    splits = build_splits(recipe.arguments, record.pins.dataset, tokenizer)
    if splits.counts != record.data:
        raise Drift(f"{record.pins.dataset.id}@{record.pins.dataset.revision} gives other rows than the record states")
    return recipe, tokenizer, splits.test


def _rescore(record: Record, predictions) -> Scores:
    from evaluation.score import score_predictions

    published = record.scores
    rescored = score_predictions(
        predictions, record.contract, published.base_outputs.seconds, published.adapter_outputs.seconds
    )
    for who in ("base", "adapter", "difference"):
        for metric, interval in getattr(rescored, who).items():
            stated = getattr(published, who).get(metric)
            if stated is None or not _same(stated, interval):
                raise Drift(
                    f"the published predictions score {metric} {interval.mean:.6f} ({who}), "
                    f"the record states {stated.mean if stated else float('nan'):.6f}"
                )
    if (rescored.rows, rescored.base_outputs, rescored.adapter_outputs) != (
        published.rows,
        published.base_outputs,
        published.adapter_outputs,
    ):
        raise Drift("the published predictions have other counts or lengths than the record states")
    return rescored


def _same(one: Interval, other: Interval) -> bool:
    return all(abs(getattr(one, key) - getattr(other, key)) <= ROUNDING for key in ("mean", "low", "high"))


def _check_forgetting(folder, record: Record, model, tokenizer, dtype: str) -> None:
    from evaluation.predictions import FORGETTING_FILE, load_predictions
    from evaluation.score import parent_predictions, score_forgetting
    from recipes.pins import pull_parent

    published = load_predictions(folder, FORGETTING_FILE)
    rescored = score_forgetting(published, record.contract)
    stated = record.forgetting
    if (
        stated is None
        or rescored.rows != stated.rows
        or not all(
            _same(getattr(rescored, who)[metric], getattr(stated, who)[metric])
            for who in ("parent", "adapter", "difference")
            for metric in rescored.parent
        )
    ):
        raise Drift(f"{FORGETTING_FILE} scores otherwise than the record states")
    fresh = parent_predictions(model, tokenizer, *pull_parent(record.pins.parent_adapter))
    if (published.prompt, published.reference, published.base) != (fresh.prompt, fresh.reference, fresh.base):
        raise Drift(f"{FORGETTING_FILE} holds other rows than {record.pins.parent_adapter.id} published")
    rows = [
        row
        for row, pair in enumerate(zip(published.adapter_tokens, fresh.adapter_tokens, strict=True))
        if pair[0] != pair[1]
    ]
    if rows and _same_stack(record, dtype):
        raise Drift(f"on the same device and versions {len(rows)} outputs for the parent's test rows differ")
    print("  forgetting on the parent's test rows, as recorded", flush=True)


def _generate_and_compare(record: Record, model, tokenizer, dtype: str, test, published, rescored: Scores) -> str:
    from evaluation.bootstrap import equivalent
    from evaluation.score import interval_of, predict, rows_of

    contract = record.contract.model_copy(update={"dtype": dtype})
    fresh, scores = predict(model, tokenizer, test, contract)
    _print_table(rescored, scores)

    rows, differing, changes = len(test), {}, []
    for who in ("base", "adapter"):
        pairs = zip(getattr(published, f"{who}_tokens"), getattr(fresh, f"{who}_tokens"), strict=True)
        differing[who] = [row for row, (old, new) in enumerate(pairs) if old != new]
        was = rows_of(getattr(published, who), published.reference, contract)
        now = rows_of(getattr(fresh, who), published.reference, contract)
        change = interval_of({m: [b - a for a, b in zip(was[m], now[m], strict=True)] for m in was}, contract)
        changes += [(who, metric, interval) for metric, interval in change.items()]
    if not any(differing.values()):
        return f"ROUGE-L {scores.adapter['rougeL'].mean:.4f}: all {2 * rows:,} outputs are equal token for token"
    told = ", ".join(
        f"{len(found)} of {rows:,} {who} outputs differ (rows {', '.join(map(str, found[:5]))} …)"
        for who, found in differing.items()
        if found
    )
    if _same_stack(record, dtype):
        raise Drift(f"on the same device and versions {told}")
    for who, metric, interval in changes:
        if not equivalent(interval):
            moved = f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
            raise Drift(f"{metric} of the {who} moved by {moved}; {told}")
    return f"ROUGE-L {scores.adapter['rougeL'].mean:.4f}: no score moved on another device or version; {told}"


def _same_stack(record: Record, dtype: str) -> bool:
    from recipes.environment import environment
    from recipes.model import on_gpu

    here, there = environment(), record.scored_in
    names = ("torch", "transformers", "peft", "tokenizers", "bitsandbytes")
    return (
        there is not None
        and dtype == record.contract.dtype
        and here.device == there.device
        and (on_gpu() or here.threads == there.threads)
        and all(here.packages[name] == there.packages.get(name) for name in names)
    )


def _print_table(published: Scores, now: Scores) -> None:
    print(f"\n{'':<12}{'base: published':>17}{'now':>10}{'adapter: published':>22}{'now':>10}")
    for name in published.base:
        cells = (published.base[name], now.base[name], published.adapter[name], now.adapter[name])
        widths = (17, 10, 22, 10)
        print(f"{name:<12}" + "".join(f"{cell.mean:>{width}.4f}" for cell, width in zip(cells, widths, strict=True)))
    print(flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
