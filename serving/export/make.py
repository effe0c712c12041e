"""Exports an adapter for hosts without a GPU, scores it next to the adapter, and publishes it.

    python -m serving.export.make runs/finance --format int8 [--publish] [--force] [--sample 500]
    python -m serving.export.make --adapter owner/name --format merged int8 ct2 ct2-int8

merged: one float32 checkpoint for transformers. int8: its linear layers in 8 bits, for PyTorch. ct2, ct2-int8: for
CTranslate2, in float32 or 8 bits. An export whose first metric (ROUGE-L by default) is shown to be worse than the
adapter's by more than 0.005 (the whole 95 % interval of the paired difference lies below -0.005) is refused without
--force.
"""

import argparse
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from record.command_line import Command, Run, run_command, runs
from record.errors import UserError, one_line_errors
from record.errors import make as make_command
from record.scores import METRIC_NAMES

# The first rows of the test split, a random permutation, are those that are timed one by one.
TIMED = 32


@click.command(
    cls=Command,
    examples=(
        "pubrep export finance --format int8",
        "pubrep export --adapter owner/name --format ct2-int8 --publish",
    ),
)
@click.argument("run", type=Run(), required=False)
@click.option("--adapter", metavar="OWNER/NAME", help="A published adapter, instead of a run.")
@click.option("--revision", default="main", show_default=True, help="The adapter's branch, tag or commit.")
@click.option(
    "--format",
    multiple=True,
    required=True,
    type=click.Choice(["merged", "int8", "ct2", "ct2-int8"]),
    metavar="FORMAT",
    help="May be repeated.",
)
@click.option("--sample", type=int, metavar="ROWS", help="Score so many of the first test rows only.")
@click.option("--force", is_flag=True, help="Keep and publish an export that is shown to be worse.")
@click.option("--publish", is_flag=True, help="Publish each as owner/name-FORMAT.")
@click.option("--user", help="Owner of the exports' repositories (your own name on the Hub unless given).")
@click.option("--private", is_flag=True, help="Make new repositories private.")
@click.option("--overwrite", metavar="COMMIT", help="Replace what somebody else wrote in this newest commit.")
@click.option("--into", type=click.Path(path_type=Path), help="Where a published adapter's go (RUNS/exports).")
def command(**options: Any) -> None:
    """Convert the adapter of RUN for hosts without a GPU, score and publish it.

    \b
    merged         one float32 checkpoint for transformers
    int8           its linear layers in 8 bits, for PyTorch
    ct2, ct2-int8  for CTranslate2, in float32 or 8 bits

    An export whose first metric (ROUGE-L by default) is shown to be worse than the
    adapter's by more than 0.005 (the whole 95 % interval of the paired difference) is refused without
    --force.
    """
    options["into"] = options["into"] or runs() / "exports"
    with one_line_errors():
        export(argparse.Namespace(**options))


def main(argv: list[str]) -> None:
    run_command(command, argv, "python -m serving.export.make")


@dataclass
class Source:
    """A scored adapter: its files and record, where its exports go, and, where it is published, its pin."""

    folder: Path
    record: object
    into: Path
    pin: object = None


def export(arguments: argparse.Namespace) -> None:
    """Makes, scores and, if asked, publishes every format that the command line names.

    Raises:
        `UserError`: the adapter is not scored, or an export lost too much.
    """
    if (arguments.run is None) == (arguments.adapter is None):
        raise UserError("name a scored run's folder, or a published one with --adapter owner/name (one of them)")
    if arguments.sample is not None and arguments.sample < 1:
        raise UserError(f"`--sample` is a number of rows from 1 on, not {arguments.sample}")
    if arguments.run is not None:
        source = from_run(arguments.run)
    else:
        source = from_hub(arguments.adapter, arguments.revision, arguments.into)
    for form in dict.fromkeys(arguments.format):
        result = make(source, form, arguments.sample, arguments.force)
        print(summary(result), flush=True)
        if arguments.publish:
            from serving.export.publish import publish_export

            publish_export(source, form, arguments.user, arguments.private, arguments.overwrite)
        else:
            from serving.export.publish import lay_out

            print(f"Card: {lay_out(source, form, None)}", flush=True)


def from_run(run: Path) -> Source:
    """The adapter of a scored run.

    Raises:
        `UserError`: it is not scored; and as `record.trained_run.trained`.
    """
    from record.trained_run import load_trained_run

    record = load_trained_run(run)
    if record.scores is None:
        raise UserError(f"{run} is not scored yet: run {make_command(f'evaluate-{record.name}')} first")
    return Source(run, record, run / "exports")


def from_hub(adapter: str, revision: str, into: Path) -> Source:
    """A published adapter at the commit that `revision` is now, every file checked by its hash.

    Raises:
        as `hub.release.pull_parent`.
    """
    from hub.pins import pin
    from hub.release import pull_parent

    pinned = pin("model", adapter, revision)
    published = pull_parent(pinned)
    into /= f"{adapter.replace('/', '--')}@{pinned.revision[:12]}"
    return Source(published.folder, published.record, into, pinned)


def make(source: Source, form: str, sample: int | None = None, force: bool = False):
    """Writes the export into `source.into / form`, scores it, and measures its speed next to the adapter's.

    One that is there already, whole and of the same adapter, is not made again.

    Returns:
        The `Export`, which also lies there.

    Raises:
        `UserError`: its first metric is shown to be worse by more than `LOSS`, and `force` was not given.
    """
    from push.release import tree
    from recipes.base_model import family_of
    from recipes.data.stored_tokenizer import languages_of
    from recipes.environment import describe_environment
    from recipes.training.model import load_tokenizer
    from record.hashes import sha256_file
    from record.predictions import load_predictions
    from serving.export.export_record import Export
    from serving.export.formats import answers, write

    record, folder = source.record, source.into / form
    base = record.pins.base_model
    refuse_format(form, base.id, family_of(base))
    predictions = load_predictions(source.folder)
    if record.pins.file is not None and not any(predictions.prompt):
        raise UserError(
            f"the rows of {source.folder} were not published, and an export is scored on them: only its publisher can "
            "make one, from the run's own folder"
        )
    rows = min(sample or len(predictions.prompt), len(predictions.prompt))
    if (there := _finished(folder, source, form, rows)) is not None:
        print(f"{folder} is made and scored already. To make it again, remove it.", flush=True)
        refuse_loss(there, folder, force)
        return there
    shutil.rmtree(folder, ignore_errors=True)
    print(f"Writing {folder}", flush=True)
    tokenizer = load_tokenizer(base, record.recipe.get("added_tokens", []), languages_of(record.recipe))
    write(form, merged(source, tokenizer), tokenizer, folder)
    files = {path: sha256_file(folder / path) for path in tree(folder)}
    contract = export_contract(record.contract, form)
    subset = predictions.take(range(rows))
    parity = compare(subset, answers(form, folder, tokenizer, subset.prompt, contract), tokenizer, contract,
                     len(predictions.prompt))  # fmt: skip
    speed = time_with_adapter(source, form, tokenizer(subset.prompt[:TIMED])["input_ids"], contract)
    result = Export(
        format=form, adapter=source.pin, adapter_sha256=record.training.adapter_sha256, base_model=base, parity=parity,
        speed=speed["export"], adapter_speed=speed["adapter"], contract=contract, environment=describe_environment(),
        bytes=sum((folder / path).stat().st_size for path in files), files=files,
    )  # fmt: skip
    result.save(folder)
    refuse_loss(result, folder, force)
    return result


def refuse_format(form: str, base: str, family) -> None:
    """Refuses a format that is not made of models of a family (`recipes.families.Family`).

    Raises:
        `UserError`: it is such a one.
    """
    if family.images is not None:
        raise UserError(
            f"{base} is trained here without its part for images, and an export would lack it: load the adapter with "
            "peft and transformers as its card shows"
        )
    if form == "int8" and not family.flat:
        raise UserError(f"`--format int8` is not made of {family.name}: take `--format merged`")
    if form.startswith("ct2") and family.converter is None:
        raise UserError(f"CTranslate2 does not convert {family.name}: take `--format merged`")
    if form.startswith("ct2") and family.language == "first":
        raise UserError(
            f"outputs of {family.name} begin with a token of their language, which `--format {form}` cannot state: "
            "take `--format merged`"
        )


def time_with_adapter(source: Source, form: str, prompts: list[list[int]], contract):
    """The `Speed` of an "export" and of its "adapter" in float32, on the prompts (token ids) one by one, in turn."""
    from hub.release import download
    from serving.export.formats import Contender
    from serving.export.timing import time_rows

    print(f"Timing {len(prompts)} rows one by one, in turn with the adapter in float32", flush=True)
    base = source.record.pins.base_model
    contenders = {
        "adapter": Contender("adapter", source.folder, download(base.id, "config.json", base.revision).parent),
        "export": Contender(form, source.into / form),
    }
    return time_rows(contenders, prompts, contract.max_new_tokens)


def _finished(folder: Path, source: Source, form: str, rows: int):
    from record.hashes import sha256_file
    from serving.export.export_record import EXPORT_FILE, load_export

    if not (folder / EXPORT_FILE).is_file():
        return None
    try:
        previous = load_export(folder)
    except UserError:
        return None
    same = (
        previous.format == form
        and previous.adapter_sha256 == source.record.training.adapter_sha256
        and previous.base_model.revision == source.record.pins.base_model.revision
        and previous.parity.rows == rows
        and all((folder / path).is_file() and sha256_file(folder / path) == one for path, one in previous.files.items())
    )
    return previous if same else None


def merged(source: Source, tokenizer):
    """The base model in float32 with the adapter and the rows of its added tokens merged into it.

    Its generation config names the language that it writes, where the family has tokens of languages.

    A base that was trained on in 4 or 8 bits is taken in float32: what that changes, the scores tell.
    """
    from recipes.base_model import family_of
    from recipes.config import recipe_from_record
    from recipes.data.stored_tokenizer import languages_of
    from recipes.training.model import load_adapter, load_base, set_target_language

    config = recipe_from_record(source.record.name, source.record.recipe).model
    config.dtype, config.load_in_4bit, config.load_in_8bit = "float32", False, False
    base = source.record.pins.base_model
    model = load_base(base, config)
    set_target_language(model, tokenizer, base, languages_of(source.record.recipe))
    tied = model.config.tie_word_embeddings
    whole = load_adapter(model, source.folder, base).merge_and_unload(safe_merge=True)
    if not family_of(base).flat:
        # PEFT 0.21 takes a head that lies deeper in the model for an untied one, and says so in the configuration.
        whole.config.tie_word_embeddings = tied
    return whole


def export_contract(contract, form: str):
    """The adapter's contract, with the engine and the numbers of the export."""
    engine = "transformers"
    if form.startswith("ct2"):
        from importlib.metadata import version

        engine = f"ctranslate2 {version('ctranslate2')}"
    return contract.model_copy(update={"dtype": "int8" if "int8" in form else "float32", "engine": engine})


def compare(predictions, outputs: list[list[int]], tokenizer, contract, of: int):
    """The scores of an export's `outputs` (token ids) next to those of what the adapter wrote, as `Parity`."""
    from scoring.bootstrap import compared
    from scoring.decoding.generate import decode
    from scoring.metrics import rows_of
    from scoring.scores import metric_rows
    from serving.export.export_record import Parity

    adapter = metric_rows(predictions, "adapter", contract)
    texts = decode(tokenizer, outputs)
    ours = rows_of(texts, predictions.reference, predictions.schema, contract, predictions.references)
    scores = compared(adapter, ours, contract)
    same = [mine == theirs for mine, theirs in zip(outputs, predictions.adapter_tokens, strict=True)]
    return Parity(rows=len(outputs), of=of, equal=sum(same) / len(same), adapter=scores["base"],
                  export=scores["adapter"], difference=scores["difference"])  # fmt: skip


def refuse_loss(result, folder: Path, force: bool) -> None:
    """Refuses an export that is shown to be worse.

    Raises:
        `UserError`: it is, and `force` was not given.
    """
    from serving.export.export_record import LOSS

    if result.verdict == "lost" and not force:
        moved = result.parity.difference[result.leading]
        raise UserError(
            f"{folder}: {METRIC_NAMES[result.leading]} moved by {moved.mean:+.4f} [{moved.low:+.4f}, "
            f"{moved.high:+.4f}], a loss of more than {LOSS}: take another format, or add FORCE=1 (--force)"
        )


def summary(result) -> str:
    """The export's figures in three lines."""
    parity, speed, adapter = result.parity, result.speed, result.adapter_speed
    moved = parity.difference[result.leading]
    faster = speed.tokens_per_second / adapter.tokens_per_second
    return (
        f"{result.format}: {METRIC_NAMES[result.leading]} {parity.export[result.leading].mean:.4f}, "
        f"{moved.mean:+.4f} [{moved.low:+.4f}, "
        f"{moved.high:+.4f}] of the adapter's, {100 * parity.equal:.1f} % of {parity.rows:,} outputs equal\n"
        f"  {speed.tokens_per_second:,.1f} tokens/s at batch 1, {faster:.2f} times the adapter's; "
        f"a row in {speed.p50:.3f} s (p50), {speed.p95:.3f} s (p95)\n"
        f"  {result.bytes:,} bytes on disk; {speed.peak_bytes / 1e6:,.0f} MB of memory at most, the adapter "
        f"{adapter.peak_bytes / 1e6:,.0f} MB"
    )


if __name__ == "__main__":
    # What the libraries say of themselves while they load is nothing to act on.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    main(sys.argv[1:])
