"""Writes what a run or a release scores in formats that others read.

    pubrep export-results owner/name --format every-eval-ever --into folder
    pubrep export-results finance --format lm-eval --into folder

Nothing is scored anew but rows: the numbers are the record's.
"""

from datetime import UTC, datetime
from pathlib import Path

import click

from record.command_line import Command, RunOrId
from record.errors import one_line_errors, refuse_full

FORMATS = ("eval-results", "every-eval-ever", "lm-eval", "aibom")


@click.command(
    cls=Command,
    examples=(
        "pubrep export-results owner/name --format every-eval-ever --into results",
        "pubrep export-results finance --format lm-eval --into results",
    ),
)
@click.argument("adapter", type=RunOrId(), metavar="RUN_OR_ID")
@click.option("--format", "form", type=click.Choice(FORMATS), required=True, metavar="FORMAT", help="See above.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="FOLDER",
    help="A new folder for the files.",
)
@click.option("--revision", default="main", show_default=True, help="Branch, tag or commit of a published one.")
def command(adapter: str, form: str, into: Path, revision: str) -> None:
    """Write the scores of a run or a release in a format that others read.

    \b
    eval-results     the Hub's .eval_results/*.yaml, for the adapter's repository
    every-eval-ever  Every Eval Ever's JSON, and a JSONL of rows
    lm-eval          lm-evaluation-harness's results JSON, and a JSONL of rows
    aibom            a CycloneDX ML-BOM: model, base model, data and libraries

    RUN_OR_ID is a run's folder, the name of its recipe, or an id on the Hub, also of
    an evaluation-only release. Where the rows are files that only their publisher
    has, nothing is written that speaks of a single row.
    """
    with one_line_errors():
        refuse_full(into)
        written, without_rows = export(adapter, revision, form, into)
        print(*written, sep="\n")
        if without_rows:
            print("The rows are not on the Hub: no file of rows is written")


def export(adapter: str, revision: str, form: str, into: Path) -> tuple[list[Path], bool]:
    """Writes the files of one format into `into`; which, and whether rows that belong there are kept back.

    Raises:
        as `model_cards.results.source.read`; `UserError`: the format does not take such results.
    """
    from hub.retry import waiting_out_limits
    from model_cards.results import aibom, eval_results, every_eval_ever, lm_eval
    from model_cards.results.source import read

    with waiting_out_limits():
        results = read(adapter, revision)
    now = datetime.now(UTC)
    if form == "eval-results":
        return eval_results.write(results, into), False
    if form == "aibom":
        return aibom.write(results, into, now), False
    write = every_eval_ever.write if form == "every-eval-ever" else lm_eval.write
    return write(results, into, now), results.predictions is None
