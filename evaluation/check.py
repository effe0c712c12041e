"""Scores an adapter or a full model that has no record, and holds a claimed score against it.

    pubrep check owner/name --recipe finance --claim rougeL=0.2899

The last line starts with CONFIRMED, or SCORED without a claim (exit 0), CONTRADICTED (exit 1), UNDECIDED, or UNCHECKED
where it could not be scored (exit 2).
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipes.launch import accelerate_option
from record.command_line import Command, find_recipe
from record.errors import UserError, last_word, one_line_errors, refuse_full

if TYPE_CHECKING:
    from record.predictions import Predictions
    from record.scored_record import EvaluatedRecord

EXIT_CODES = {"CONFIRMED": 0, "SCORED": 0, "CONTRADICTED": 1, "UNDECIDED": 2}
# Half of a point where ROUGE is printed in percent: more than other rounding moves a score of a thousand rows.
TOLERANCE = 0.005


@click.command(
    cls=Command,
    context_settings={"ignore_unknown_options": True},
    examples=(
        "pubrep check owner/name --recipe finance --claim rougeL=0.2285",
        "pubrep check owner/name --recipe my-task.yaml --num_beams 4",
        "pubrep check owner/merged --model --recipe finance --record evaluation",
    ),
)
@click.argument("adapter")
@click.argument("keys", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
@click.option("--revision", default="main", show_default=True, help="Branch, tag or commit to score.")
@click.option("--recipe", metavar="RECIPE", help="Rows, prompt, decoding, metrics: a shipped recipe, or your YAML.")
@click.option("--claim", "claims", multiple=True, metavar="METRIC=SCORE", help="A score that somebody states.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=TOLERANCE,
    show_default=True,
    help="By how much a score may differ from the claimed one.",
)
@accelerate_option
@click.option("--model", "full", is_flag=True, help="It is a full model or a merged export, no adapter.")
@click.option("--base", metavar="OWNER/NAME[@COMMIT]", help="The base model, instead of the one that is named.")
@click.option(
    "--card",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write a section for its card and the Hub's result file.",
)
@click.option(
    "--record",
    "release",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write a release by which others repeat it.",
)
def command(
    adapter: str,
    keys: tuple[str, ...],
    revision: str,
    recipe: str | None,
    claims: tuple[str, ...],
    tolerance: float,
    accelerate: Path | None,
    full: bool,
    base: str | None,
    card: Path | None,
    release: Path | None,
) -> None:
    """Score any PEFT ADAPTER (owner/name) that has no record, and judge a claim.

    Rows, prompt, decoding and metrics are a recipe's, or the keys that you give: every
    key can be overridden by --KEY VALUE. Only safetensors are read, and no code of the
    repository is run.

    The last line starts with CONFIRMED, or SCORED without a claim (exit code 0),
    CONTRADICTED (1), UNDECIDED, or UNCHECKED where it could not be scored (2).
    """
    from hub.retry import waiting_out_limits
    from scoring.decoding.processes import dismiss, share_command

    if stray := next((word for word in keys[:1] if not word.startswith("--")), None):
        raise click.UsageError(f"{stray!r} is not an override: write --KEY VALUE.")
    path = None if recipe is None else find_recipe(recipe)
    if share_command("check", accelerate, f"UNCHECKED {adapter}", 2):
        return
    with one_line_errors(f"UNCHECKED {adapter}", 2, sys.stdout), waiting_out_limits():
        for folder in filter(None, (card, release)):
            refuse_full(folder)
        record, predictions = score(adapter, revision, path, keys, claims, tolerance, full, base)
        if card is not None:
            _write_card(record, card)
        if release is not None:
            write_release(record, predictions, release)
        code = _print_verdict(record)
        last_word(code)
        dismiss()
        sys.exit(code)


def score(
    adapter: str,
    revision: str,
    recipe: Path | None,
    keys: tuple[str, ...],
    claims: tuple[str, ...],
    tolerance: float,
    full: bool,
    base: str | None,
) -> "tuple[EvaluatedRecord, Predictions]":
    """Scores `adapter` at `revision`, and prints the scores and what they rest on; parameters as on the command line.

    Raises:
        `UserError`: it cannot be scored, and why.
    """
    from evaluation.claim import parse_claims
    from evaluation.evaluate import baseline_table, table
    from evaluation.foreign import score_foreign
    from hub.pins import pin
    from model_cards.evaluation import assumptions
    from recipes.scoring_recipe import parse_keys
    from record.errors import one_line
    from record.field_types import is_plain_name
    from scoring.concerns import find_concerns

    source = pin("model", adapter, revision)
    name = source.id.rpartition("/")[2]
    parsed = parse_keys(recipe, list(keys), name if is_plain_name(name) else "adapter")
    claimed = parse_claims(claims, parsed.arguments.metric_families())
    kind = "model" if full else "adapter"
    record, predictions = score_foreign(source, kind, parsed, base, claimed, tolerance)
    print(f"\n{source.id}@{source.revision}{' (a miniature)' if record.miniature else ''}")
    print(f"{table(record.scores)}\n\n{baseline_table(record.baselines, record.contract)}")
    print("\nAssumed:", *assumptions(record), sep="\n- ")
    if concerns := find_concerns(record, predictions):
        print("\nConcerns:", *map(one_line, concerns), sep="\n- ")
    return record, predictions


def _write_card(record: "EvaluatedRecord", folder: Path) -> None:
    from model_cards.evaluation import render_section
    from model_cards.results.eval_results import result_file

    result = folder / ".eval_results" / f"{record.name}.yaml"
    result.parent.mkdir(parents=True)
    (folder / "section.md").write_text(render_section(record), encoding="utf-8")
    result.write_text(result_file(record, datetime.now(UTC).date()), encoding="utf-8")
    name = record.evaluated.source.id
    print(
        f"\nFor a pull request: put {folder / 'section.md'} into the README.md of {name}, and run "
        f"`hf upload {name} {folder / '.eval_results'} .eval_results --create-pr`"
    )


def write_release(record: "EvaluatedRecord", predictions: "Predictions", folder: Path) -> None:
    """Writes the evaluation-only release into `folder`: the record with the hash of each other file.

    Raises:
        `UserError`: nobody else has its rows, or its recipe holds what no published one may.
    """
    from model_cards.evaluation import render_evaluation_card
    from model_cards.fingerprint import renderer
    from recipes.config import recipe_yaml
    from record.hashes import sha256_published
    from record.published_recipe import refused_key
    from record.release_files import CARD_FILE, evaluation_files, recipe_file
    from record.run_record import FilePin

    if isinstance(record.pins.dataset, FilePin):
        raise UserError("its rows are files that only you have: put them on the Hub first, by `pubrep publish-data`")
    if refused := refused_key(record.recipe):
        raise UserError(f"others would not score it again: {refused}")
    folder.mkdir(parents=True, exist_ok=True)
    record.rendered = renderer()
    predictions.save(folder)
    (folder / recipe_file(record.name)).write_text(recipe_yaml(dict(record.recipe)), encoding="utf-8")
    (folder / CARD_FILE).write_text(render_evaluation_card(record), encoding="utf-8")
    record.files = {name: sha256_published(folder / name) for name in sorted(evaluation_files(record.name))}
    record.save(folder)
    print(f"\nThe record: {folder}. Publish it by `hf upload OWNER/NAME {folder}`; others then run "
          "`pubrep reproduce OWNER/NAME`")  # fmt: skip


def _print_verdict(record: "EvaluatedRecord") -> int:
    """Prints a line for each claim, the worst last, and what would have to differ; the exit code."""
    from evaluation.claim import claim_line, look_alikes

    evaluated, scores = record.evaluated, record.scores
    name = f"{evaluated.source.id}@{evaluated.source.revision}"
    if not evaluated.claims:
        leading = record.contract.deciding(scores.adapter)[0]
        print(f"\nSCORED {name} {leading} {scores.adapter[leading].text()} on {scores.rows:,} rows")
        return EXIT_CODES["SCORED"]
    for claim in evaluated.claims:
        if claim.verdict == "CONFIRMED":
            continue
        print(f"\nFor {claim.metric} {claim.value:g} one of what was assumed would have to differ, or the weights.")
        if others := look_alikes(claim, scores, record.baselines):
            print("Within the tolerance of it are other numbers of this check:", *others, sep="\n- ")
    print()
    order = ("CONFIRMED", "UNDECIDED", "CONTRADICTED")
    claims = sorted(evaluated.claims, key=lambda claim: order.index(claim.verdict))
    for claim in claims:
        print(f"{claim.verdict} {name} {claim_line(claim, scores)}", flush=True)
    return EXIT_CODES[claims[-1].verdict]
