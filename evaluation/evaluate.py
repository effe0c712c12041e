"""Scores a trained run: base model and adapter on the recipe's test split.

    pubrep evaluate finance

Adds the scoring contract and the scores to `record.json` and writes `predictions.parquet`. A scored run is not scored
again unless its adapter has changed or its predictions are gone.
"""

import sys
from pathlib import Path

import click

from recipes.launch import accelerate_option
from record.command_line import Command, Run, run_command
from record.errors import UserError, make, one_line_errors
from record.predictions import Predictions, load_predictions
from record.release_files import FORGETTING_FILE, PREDICTIONS_FILE
from record.run_record import Record
from record.scored_record import require_scores
from record.scores import BASELINES, METRIC_NAMES, Baseline, BaselineName, Compared, Contract
from record.trained_run import load_trained_run
from scoring.concerns import find_concerns
from scoring.contract import contract_of
from scoring.decoding.predict import load_for_scoring, parent_predictions, predict
from scoring.decoding.processes import dismiss, share_command
from scoring.scores import score_forgetting, score_predictions


@click.command(cls=Command, examples=("pubrep evaluate finance", "pubrep evaluate runs/finance --hub local"))
@click.argument("run", type=Run())
@accelerate_option
@click.option("--intervals", is_flag=True, help="Print the 95 % interval of every score (98 columns).")
def command(run: Path, accelerate: Path | None, intervals: bool) -> None:
    """Score base model and adapter of the trained RUN on its test rows.

    RUN is a run's folder, or the name of its recipe. The scores go into record.json,
    the outputs into predictions.parquet. A scored run is not scored again unless its
    adapter has changed or its predictions are gone.
    """
    if share_command("evaluate", accelerate):
        return
    with one_line_errors():
        print_scores(evaluate(run), load_predictions(run), intervals)
        print(f"\nNext: {make(f'publish-{run.name}')}", flush=True)
        dismiss()


def main(argv: list[str]) -> None:
    run_command(command, argv, "python -m evaluation.evaluate")


def print_scores(record: Record, predictions: Predictions, intervals: bool = False) -> None:
    """Prints the scores of all test rows, of those that no training has seen, and what was forgotten; what answers
    without a model score; and what speaks against the scores."""
    record = require_scores(record)
    print(f"{record.name} on {record.pins.base_model.id}{' (a miniature)' if record.miniature else ''}")
    print(table(record.scores, intervals))
    if record.scores.clean is not None:
        print(f"\nOf these, the rows that are in no training data:\n{table(record.scores.clean, intervals)}")
    for dataset, scores in zip(record.pins.datasets, record.scores.by_dataset, strict=False):
        if scores is not None:
            print(f"\nOf these, the rows of {dataset.id}:\n{table(scores, intervals)}")
    if (own := record.scores.databases) is not None:
        print(f"\nOn the dataset's own databases ({own.files:,} files):\n{table(own, intervals)}")
        agree = " and ".join(
            f"{many:,} of the {who}'s" for who, many in (("base model", own.base_agree), ("adapter", own.adapter_agree))
        )
        print(f"On made rows as on these: {agree} outputs, of {own.both:,}")
    if record.forgetting is not None:
        for metric in record.contract.deciding(record.forgetting.difference)[:1]:
            print(
                f"{METRIC_NAMES[metric]} on the parent's {record.forgetting.rows:,} test rows moved by "
                f"{record.forgetting.difference[metric].text('+')}"
            )
    if record.baselines:
        print(f"\n{baseline_table(record.baselines, record.contract)}")
    if concerns := find_concerns(record, predictions):
        print("\nConcerns:", *concerns, sep="\n- ")


def evaluate(run: Path) -> Record:
    """Scores the run in the folder `run` and saves its record.

    Raises:
        `UserError`: as `record.trained_run.trained`, or its test rows are not the record's any more.
    """
    record = load_trained_run(run)
    if record.scores is not None and (run / PREDICTIONS_FILE).is_file():
        print(f"{run} is scored already. To score it again, remove {run / PREDICTIONS_FILE}.", flush=True)
        return record

    print(f"Scoring {run}: rows and models are loaded first", flush=True)
    from hub.release import pull_parent
    from recipes.config import recipe_from_record
    from recipes.data.lineage import find_seen_rows
    from recipes.data.splits import build_splits, datasets_of
    from recipes.data.stored_tokenizer import languages_of
    from recipes.data.tokenizer import load_tokens
    from recipes.environment import describe_environment
    from recipes.expectations import block, compare
    from scoring.baselines import score_baselines
    from scoring.databases import score_databases

    recipe = recipe_from_record(record.name, dict(record.recipe))
    tokens = load_tokens(record.pins.base_model, recipe.arguments.added_tokens, languages_of(record.recipe))
    splits = build_splits(recipe.arguments, record.pins.datasets, tokens, record.data.rules)
    if splits.counts.where_stated(record.data) != record.data:
        raise UserError(
            f"the dataset gives other rows now than {run} was trained on: remove that folder and train again"
        )
    # Before anything is generated, so that a Hub out of reach costs nothing.
    parent = None if record.pins.parent_adapter is None else pull_parent(record.pins.parent_adapter)
    seen, _ = find_seen_rows(splits, record.pins)
    model, tokenizer, dtype = load_for_scoring(run, record, recipe.model)
    record.contract = contract_of(recipe.arguments, dtype, recipe.training.per_device_eval_batch_size)
    predictions, *seconds = predict(model, tokenizer, splits.test, seen, record.contract)
    record.scores = score_predictions(predictions, record.contract, *seconds, datasets=datasets_of(splits.test))
    record.scores.databases = score_databases(
        recipe.arguments, record.pins.dataset, splits.test, predictions, record.contract
    )
    record.baselines = score_baselines(splits, predictions, record.contract)
    predictions.save(run)
    if parent is not None:
        forgetting = parent_predictions(model, tokenizer, parent.folder, parent.record)
        forgetting.save(run, FORGETTING_FILE)
        record.forgetting = score_forgetting(forgetting, record.contract)
    record.scored_in = describe_environment()
    # The others were printed before training.
    known = {item.name for item in record.expectations}
    record.expectations = compare(recipe.arguments.expect, record)
    if new := [item for item in record.expectations if item.name not in known]:
        print(block(new), flush=True)
    record.save(run)
    return record


def table(scores: Compared, intervals: bool = False) -> str:
    """The scores as a plain-text table of 70 columns at most; with an interval for every one, 98."""
    wide = 24 if intervals else 10
    lines = [f"{scores.rows:,} test rows".ljust(24) + f"{'base':<{wide}}{'adapter':<{wide}}difference"]
    for name in scores.shown():
        cells = [x.text() if intervals else x.figure(x.mean) for x in (scores.base[name], scores.adapter[name])]
        cells.append(scores.difference[name].text("+"))
        lines.append(f"{name:<24}" + "".join(f"{cell:<{wide}}" for cell in cells))
    return "\n".join(lines)


def baseline_table(baselines: dict[BaselineName, Baseline], contract: Contract) -> str:
    """What answers without a model score by the metrics that decide, as a small plain-text table."""
    lines = []
    for metric in contract.deciding(baselines["nearest"].scores):
        lines.append(f"Without a model: {metric}".ljust(42) + "score    adapter - it")
        for name, baseline in baselines.items():
            score, difference = baseline.scores[metric], baseline.difference[metric]
            lines.append(f"{BASELINES[name]:<41} {score.figure(score.mean):<9}{difference.text('+')}")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
