"""Checks a published adapter's numbers from the Hub alone.

    python -m evaluation.reproduce owner/name [--revision COMMIT] [--level LEVEL] [--sample ROWS]

Takes everything from the Hub at the commits that the published record pins; `command` says what each level checks.
"""

import contextlib
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from evaluation.findings import Drift, Findings, Undecided, note
from evaluation.signed_by import signed_by_options
from hub.identity import ExpectedIdentity
from recipes.launch import accelerate_option
from record.command_line import Command, run_command
from record.errors import UserError, explanation, last_word, one_line
from record.release_files import ADAPTER_FILE, PREDICTIONS_FILE
from record.run_record import FilePin
from record.scored_record import EvaluatedRecord, ScoredRecord
from record.signs_of_life import waiting_for
from record.verdict import Check, Level, Verdict

if TYPE_CHECKING:
    from datasets import Dataset

    from record.predictions import Predictions

EXIT_CODES = {"REPRODUCED": 0, "DRIFTED": 1, "UNCHECKED": 2}


@click.command(
    cls=Command,
    examples=(
        "pubrep reproduce owner/name",
        "pubrep reproduce owner/name --level score",
        "pubrep reproduce owner/name --sample 500 --report page.html",
        "pubrep reproduce owner/name --data rows.csv",
    ),
)
@click.argument("adapter")
@click.option("--revision", default="main", show_default=True, help="Branch, tag or commit to check.")
@click.option(
    "--level", type=click.Choice(get_args(Level)), default="generate", show_default=True, help="How much is done again."
)
@accelerate_option
@click.option("--sample", type=int, metavar="ROWS", help="Generate for so many rows only, drawn by the commit.")
@signed_by_options
@click.option(
    "--report", type=click.Path(path_type=Path), metavar="FILE", help="Write a page (HTML) with the rows that differ."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The file or folder of rows, where the publisher kept them to himself.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if REPRODUCED, but with concerns.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON, and the rest to standard error.")
def command(
    adapter: str,
    revision: str,
    level: Level,
    accelerate: Path | None,
    sample: int | None,
    signed_by: Path | ExpectedIdentity | None,
    report: Path | None,
    data: Path | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Check the numbers of the published ADAPTER (owner/name) from the Hub alone.

    Every level checks all hashes, rebuilds the test rows, looks for them among the
    training rows, scores the published outputs again and renders the card again.

    \b
    score     no more than that: no model, no GPU, no torch
    prefill   then base model and adapter read the published outputs: is every
              token the likeliest, or a near-tie?
    generate  or generates again with base model and adapter, and compares
    train     then trains a new adapter from the record alone, and compares

    The last line starts with REPRODUCED (exit code 0), DRIFTED (1) or UNCHECKED
    (2). It ends with the number of concerns: what speaks against the published
    numbers, though they are what was published. With HF_HUB_OFFLINE=1 it works from
    the cache alone.
    """
    from hub.retry import waiting_out_limits
    from scoring.decoding.processes import dismiss, share_command

    if accelerate is not None and level == "score":
        raise click.UsageError("--accelerate shares out a model's work, and level score runs none: leave it out.")
    if share_command("retrain" if level == "train" else "reproduce", accelerate, f"UNCHECKED {adapter}", 2):
        return
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout), waiting_out_limits():
        verdict, findings = reproduce(adapter, revision, level, sample, signed_by, data)
        if report:
            from evaluation.verdict_page import render_report

            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_text(render_report(verdict, findings), encoding="utf-8")
            print(f"Report: {report}", flush=True)
    print(verdict.model_dump_json(indent=1) if as_json else verdict.line, flush=True)
    last_word(code := EXIT_CODES[verdict.verdict] or int(strict and bool(verdict.concerns)))
    if verdict.verdict != "UNCHECKED":
        dismiss()
    sys.exit(code)


def _at_level_train(**options: Any) -> None:
    assert command.callback is not None
    command.callback(level="train", **options)


retrain = Command(
    "retrain",
    params=[option for option in command.params if option.name != "level"],
    callback=_at_level_train,
    help="Train the published ADAPTER again from its record alone, and compare (as `reproduce --level train`).",
    examples=("pubrep retrain owner/name",),
)


def main(argv: list[str]) -> None:
    try:
        run_command(command, argv, "python -m evaluation.reproduce")
    except SystemExit as end:
        if end.code:
            raise


def reproduce(
    adapter: str,
    revision: str = "main",
    level: Level = "generate",
    sample: int | None = None,
    signed_by: Path | ExpectedIdentity | None = None,
    data: Path | None = None,
) -> tuple[Verdict, Findings]:
    """Checks `adapter` at `revision`; never raises.

    Parameters:
        sample: generates for so many test rows only; all unless given.
        signed_by: public key or identity that must have signed the release; no signature is looked at unless given.
        data: the file of rows, or the folder, of a release that pins its rows by their sha256 alone.

    Returns:
        The verdict, and the findings that it rests on.
    """
    date, findings = datetime.now(UTC).isoformat(timespec="seconds"), Findings(sample=sample)
    failure: Drift | Undecided | str | None = None
    try:
        if sample is not None and sample < 1:
            raise UserError(f"a sample is one row or more, not {sample}")
        _check(findings, adapter, revision, level, signed_by, data)
    except (Drift, Undecided) as end:
        failure = end
    except BaseException as error:
        # A panic in a Rust library is no `Exception`; Ctrl-C is none either.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        # A failure of this program says nothing about the adapter, as DRIFTED would.
        failure = explanation(error) or _bug(error)
    return _verdict(adapter, level, date, findings, failure), findings


def _verdict(
    adapter: str, level: Level, date: str, findings: Findings, failure: Drift | Undecided | str | None
) -> Verdict:
    """The verdict on the findings: DRIFTED after a `Drift`, UNCHECKED where undecided or after a failure (a text)."""
    verdict: Literal["REPRODUCED", "DRIFTED", "UNCHECKED"] = "REPRODUCED"
    reason, evidence, moved, checks = findings.reason, findings.evidence, None, findings.checks
    if isinstance(failure, Drift):
        verdict, reason, moved = "DRIFTED", one_line(str(failure)), failure.part
        evidence = failure.evidence or evidence
        checks = [*checks, Check(part=moved, outcome="failed", detail=reason)]
    elif isinstance(failure, Undecided):
        verdict, reason, evidence = "UNCHECKED", one_line(str(failure)), "statistics"
        checks = [*checks, Check(part="generation", outcome="not checked", detail=reason)]
    elif failure is not None:
        verdict, reason = "UNCHECKED", failure
    return Verdict(
        verdict=verdict,
        reason=reason,
        adapter=findings.adapter or adapter,
        revision=findings.revision,
        level=level,
        sample=findings.sample,
        unchecked=findings.unchecked,
        evidence=evidence,
        moved=moved,
        rows=findings.differing,
        checks=checks,
        changes=findings.changes,
        miniature=findings.record is not None and findings.record.miniature,
        test_rows=None if findings.record is None else findings.record.data.test,
        concerns=[one_line(concern, 300) for concern in findings.concerns],
        environment=findings.environment,
        date=date,
        adapter_sha256=findings.hashes.get(ADAPTER_FILE),
        predictions_sha256=findings.hashes.get(PREDICTIONS_FILE),
    )


def _bug(error: BaseException) -> str:
    # Where no model was loaded, torch may not even be installed.
    if "torch" in sys.modules:
        from recipes.training.micro_batches import out_of_memory

        if out_of_memory(error):
            return "memory does not suffice for one row"
    traceback.print_exc()
    return f"{type(error).__name__}, see above"


def _check(
    findings: Findings,
    adapter: str,
    revision: str,
    level: Level,
    signed_by: Path | ExpectedIdentity | None,
    data: Path | None,
) -> None:
    """Makes every check of the level, in order, and notes in `findings` what each gives.

    Raises:
        `Drift`: what was published and what a check gives differ.
        `UserError`: the rest of the checks needs rows that are not given.
    """
    from evaluation import checks, evaluated_checks, numbers, own_rows
    from evaluation.pulled import pull_release
    from hub.pins import locate, note_commit
    from hub.release import refuse_large_weights
    from hub.withdrawals import find_withdrawal
    from model_cards.card_check import name_on_card
    from recipes.data.stored_tokenizer import languages_of
    from recipes.data.tokenizer import load_tokens
    from scoring.concerns import find_concerns

    adapter, commit = findings.adapter, findings.revision = locate(adapter, revision)
    if (reason := find_withdrawal(adapter, commit)) is not None:
        findings.concerns = [f"its publisher has withdrawn it: {reason}"]
        print(f"Concern: {one_line(findings.concerns[0])}", flush=True)
    folder, record = pull_release(findings, adapter, commit, signed_by)
    note_commit(adapter, revision, commit)
    findings.record = record
    own_rows.refuse_other_rows(record, data)
    if isinstance(record, EvaluatedRecord):
        evaluated_checks.check_evaluation(findings, folder, record, level)
        return
    note(findings, "lineage", checks.check_lineage(folder, record))
    languages = languages_of(record.recipe)
    tokens = load_tokens(record.pins.base_model, record.recipe.get("added_tokens", []), languages)
    note(findings, "lineage", checks.check_adapter(folder, record, tokens))
    if isinstance(record.pins.dataset, FilePin) and data is None:
        note(findings, "data", own_rows.check_without_rows(folder, record, tokens))
        findings.checks += [
            Check(part=part, outcome="not checked", detail=f"{what}: without the rows")
            for part, what in own_rows.NEEDS_ROWS.items()
        ]
        raise UserError(own_rows.how_to_check(record))
    splits, predictions = numbers.check_numbers(findings, folder, record, tokens, data)
    waiting_for("Rendering the card again")
    named = name_on_card(folder) or adapter
    rest, card = checks.check_card(named, folder, record, predictions)
    note(findings, "card", card)
    if level == "score":
        numbers.decide_by_numbers(findings, record)
    else:
        refuse_large_weights(record.pins.base_model, record.model.total)
        run = _retrain(findings, adapter, commit, record, data) if level == "train" else folder
        _run_models(findings, level, run, commit, folder, record, predictions, splits.test)
    if rest is not None:
        findings.unchecked = rest.part
        findings.reason += f"; {card}"
    if named != adapter:
        findings.reason += f"; {checks.explain_name(named, adapter)}"
    concerns = find_concerns(record, predictions) + checks.other_statements(folder, record)
    for concern in concerns:
        print(f"Concern: {one_line(concern)}", flush=True)
    findings.concerns += concerns


def _retrain(findings: Findings, adapter: str, commit: str, record: ScoredRecord, data: Path | None) -> Path:
    from evaluation.retrain import retrain

    run, detail = retrain(adapter, commit, record, data)
    note(findings, "training", detail)
    return run


def _run_models(
    findings: Findings,
    level: Level,
    run: Path,
    commit: str,
    folder: Path,
    record: ScoredRecord,
    published: "Predictions",
    test: "Dataset",
) -> None:
    """Runs base model and adapter in the folder `run`: on the test rows, then on its parent's.

    Parameters:
        level: `prefill` has them read the published outputs; the others, write again.
        commit, folder, record, published: the release that is checked, its files, its record and its predictions.
    """
    print(
        f"Loading base model and adapter, to {'read' if level == 'prefill' else 'write'} the outputs again", flush=True
    )
    from evaluation import loaded as models
    from evaluation import margins, regenerate

    if level == "prefill":
        margins.refuse_beams(record.contract)
    loaded = models.load(run, record)
    models.check_sizes(record, loaded)
    regenerate.compare(findings, loaded, record, published, test, level)
    if (parent := record.pins.parent_adapter) is not None:
        check = margins.check_parent_rows if level == "prefill" else regenerate.regenerate_parent_rows
        note(findings, "generation", check(loaded, parent, folder, findings.sample, commit))


if __name__ == "__main__":
    main(sys.argv[1:])
