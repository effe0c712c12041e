"""`pubrep plan`: what a recipe needs and how long it takes, before its base model is downloaded."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from record.command_line import Command, find_recipe, runs
from record.errors import UserError, explanation, one_line_errors

if TYPE_CHECKING:
    from recipes.config import Recipe
    from recipes.train import Prepared
    from recipes.training.forecast import Work
    from record.run_record import Pin, Pins

# The next smaller model of a line, by how the Hub names them.
SMALLER = {"xxl": "xl", "xl": "large", "large": "base", "base": "small"}
# Rows of a check that is told next to the whole one.
SAMPLE = 200


@click.command(
    cls=Command,
    context_settings={"ignore_unknown_options": True},
    examples=(
        "pubrep plan finance",
        "pubrep plan my-task.yaml --num_train_epochs 1",
        "pubrep plan finance --hub local",
    ),
)
@click.argument("recipe")
@click.argument("keys", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
@click.option("--output_dir", type=click.Path(path_type=Path), help="Folder of the run (RUNS/RECIPE unless given).")
def plan(recipe: str, keys: tuple[str, ...], output_dir: Path | None) -> None:
    """Say what RECIPE needs: access, disk, memory, and hours on this machine.

    Nothing is trained, and the base model is not downloaded: its shape is measured
    with random weights for some seconds. The rows are downloaded and counted. What
    cannot be reached or does not fit ends with one line and exit code 1.
    """
    path = find_recipe(recipe)
    if stray := next((word for word in keys[:1] if not word.startswith("--")), None):
        raise click.UsageError(f"{stray!r} is not an override: write --KEY VALUE.")
    print(f"Planning {path.stem}: PyTorch is loaded first, some seconds", flush=True)
    # As `train` is launched, so that the rate is its rate.
    if not shutil.which("nvidia-smi"):
        import psutil

        os.environ["ACCELERATE_USE_CPU"] = "true"
        os.environ.setdefault("OMP_NUM_THREADS", str(psutil.cpu_count(logical=False) or 1))
    with one_line_errors(), tempfile.TemporaryDirectory() as folder:
        from recipes.config import parse_recipe

        # The trainer makes its folder.
        parsed = parse_recipe(["--config", str(path), "--output_dir", folder, *keys])
        _plan(parsed, output_dir or runs() / path.stem)


def _plan(recipe: "Recipe", run: Path) -> None:
    from recipes import train
    from recipes.training import micro_batches
    from recipes.training.random_base import base_shape, fill
    from record.errors import refuse_unwritable

    if recipe.arguments.datasets:
        raise UserError("a plan is made of a recipe with one dataset: train this one with `max_steps: 1` to try it")
    refuse_unwritable(run)
    pins = _reach_all(recipe)
    missing = _downloads(recipe, pins)
    shape = base_shape(pins.base_model, recipe.model)
    _refuse_large(shape.get_memory_footprint(), pins.base_model, str(shape.dtype))
    prepared = train.prepare(recipe, pins, rules=2)
    batch = micro_batches.plan(recipe.training, None, recipe.arguments.tokens_per_micro_batch or None)
    train.set_arguments(recipe, prepared, batch)
    model = train.put_adapter(fill(shape), recipe, pins, prepared.tokenizer)
    trainer = train.make_trainer(recipe, prepared, model, batch)
    _tell(recipe, pins, prepared, trainer, run, missing)


def _reach_all(recipe: "Recipe") -> "Pins":
    """The commits of all that the recipe names; ends the process with a line for each that cannot be reached."""
    from huggingface_hub import constants

    from hub.reach import reach
    from push.account import refuse_unwritable_account
    from recipes.data.local_files import is_local
    from recipes.pin_recipe import parent_id, pin_recipe

    arguments, config = recipe.arguments, recipe.model
    asked: dict[str, Callable[[], Any]] = {
        f"Base model: {config.model_name_or_path}": lambda: reach(
            "model", config.model_name_or_path, config.model_revision
        )
    }
    if not is_local(arguments.dataset_name):
        asked[f"Dataset:    {arguments.dataset_name}"] = lambda: reach(
            "dataset", arguments.dataset_name, arguments.dataset_revision
        )
    if arguments.parent_adapter is not None:
        asked[f"Continues:  {arguments.parent_adapter}"] = lambda: reach("model", *parent_id(arguments.parent_adapter))
    found: dict[str, Any] = {}
    problems = []
    for what, ask in asked.items():
        answer, problem = _answer(ask)
        if problem is None:
            found[what[:4]] = answer
            how = (
                "as cached; offline, so not asked whether that is still so" if constants.HF_HUB_OFFLINE else "readable"
            )
            print(f"{what}@{answer.revision[:12]}: {how}", flush=True)
        else:
            problems.append(f"{' '.join(what.split())}: {problem}")
    if constants.HF_HUB_OFFLINE:
        print("Account:    not asked: offline", flush=True)
    else:
        answer, problem = _answer(lambda: refuse_unwritable_account(arguments.adapter_name))
        print(f"Account:    {answer or f'cannot be published to: {problem}'}", flush=True)
    if problems:
        print(*(f"error: {line}" for line in problems), sep="\n", file=sys.stderr, flush=True)
        sys.exit(1)
    return _cached_pins(recipe, found) if constants.HF_HUB_OFFLINE else pin_recipe(recipe)


def _answer(ask: Callable[[], Any]) -> tuple[Any, str | None]:
    """What was answered, or the line that says why not."""
    try:
        return ask(), None
    except Exception as error:
        if (line := explanation(error)) is None:
            raise
        return None, line


def _cached_pins(recipe: "Recipe", found: dict[str, "Pin"]) -> "Pins":
    from hub.release import pull_parent
    from recipes.data.local_files import pin_files
    from record.run_record import Pins

    parent = found.get("Cont")
    base = found["Base"] if parent is None else pull_parent(parent).record.pins.base_model
    dataset = found.get("Data") or pin_files(recipe.arguments.dataset_name)
    return Pins(base_model=base, dataset=dataset, parent_adapter=parent)


def _downloads(recipe: "Recipe", pins: "Pins") -> int:
    """Bytes that are still to be downloaded of the base model, told with those of the dataset.

    Raises:
        `UserError`: they do not fit on the disk.
    """
    from huggingface_hub import constants

    from hub.reach import missing_bytes
    from recipes.data.dataset_files import files_of
    from recipes.environment import refuse_full_disk
    from recipes.summary import size
    from record.run_record import FilePin

    base, rows = missing_bytes(pins.base_model), 0
    if not isinstance(pins.dataset, FilePin):
        rows = missing_bytes(pins.dataset, files_of(pins.dataset, recipe.arguments.dataset_config))
    if constants.HF_HUB_OFFLINE:
        print("Downloads:  not asked: offline", flush=True)
    else:
        print(f"Downloads:  {size(base)} of weights, {size(rows)} of rows; what is cached is not counted", flush=True)
    # Rows are kept twice: as they came, and as datasets prepares them.
    cure = "set HF_HOME to a folder on another disk"
    refuse_full_disk(base + 2 * rows, Path(constants.HF_HUB_CACHE), cure)
    return base


def _refuse_large(weights: int, base: "Pin", dtype: str) -> None:
    from recipes.environment import free_memory
    from recipes.summary import size

    if weights > (free := free_memory()):
        raise UserError(
            f"memory does not suffice for {base.id}: its weights alone take {size(weights)} in "
            f"{dtype.removeprefix('torch.')}, {size(free)} are free: take a smaller base model or another machine"
        )


def _tell(recipe: "Recipe", pins: "Pins", prepared: "Prepared", trainer: Any, run: Path, missing: int) -> None:
    from huggingface_hub import constants

    from recipes.environment import device_name, free_disk, free_memory, refuse_full_disk
    from recipes.summary import duration, longest_row, say, size
    from recipes.training import forecast

    counts, work = prepared.splits.counts, forecast.count_work(trainer)
    number = int(prepared.lengths.argmax())
    memory = forecast.memory_of(trainer, trainer.train_dataset[number])
    sources, targets = forecast.lengths(trainer.train_dataset).sum(axis=0)
    say(f"Rows:       {counts.train:,} train, {counts.validation:,} validation, {counts.test:,} test")
    say(f"            {sources:,} + {targets:,} tokens an epoch (source + target)")
    say(f"Work:       {work.tokens:,} tokens in {work.steps:,} steps: {work.flop / 1e12:,.1f} TFLOP")
    disk = forecast.disk_of(trainer, work)
    same = _there(run).stat().st_dev == _there(Path(constants.HF_HUB_CACHE)).stat().st_dev
    say(f"Disk:       {size(disk)} for the run, {size(free_disk(run))} free")
    refuse_full_disk(disk + (missing if same else 0), run, forecast.SMALLER_RUN)
    # The model itself is in memory already.
    on_cpu = trainer.args.device.type == "cpu"
    free = free_memory() if on_cpu else _free_on_gpu(trainer.args.device)
    say(
        f"Memory:     {size(memory.least)}: weights {size(memory.weights)}, gradients {size(memory.gradients)}, "
        f"optimizer {size(memory.optimizer)},"
    )
    say(f"            the longest row ({prepared.lengths[number]:,} tokens) {size(memory.row)}; "
        f"{size(free + memory.weights)} free")  # fmt: skip
    if memory.least - memory.weights > free:
        raise UserError(
            f"memory does not suffice for {longest_row(prepared.splits.train, prepared.lengths)} alone: "
            f"{size(memory.least)} are needed, {size(free + memory.weights)} are free: drop such rows by "
            "`length_rules`, set `activation_checkpointing: true`, or take a smaller base model"
        )
    rates = forecast.measure_rates(trainer, work)
    assert rates is not None, "one process trains a whole model"
    tokens = work.tokens / (work.flop / rates.training)
    say(f"Rate:       {rates.training / 1e9:,.1f} GFLOP/s, {tokens:,.0f} tokens a second, in {recipe.model.dtype}")
    say(f"            measured on {device_name()}, with random weights")
    seconds = forecast.seconds_of(work, rates)
    say(f"Training:   {duration(seconds)}")
    scoring = _tell_scoring(recipe, prepared, trainer.model)
    if shorter := list(_shorter(recipe, pins, prepared, trainer, work, seconds)):
        say("Shorter:    " + "\n            ".join(shorter))
    if counts.test > 2 * SAMPLE:
        say(f"A check:    {duration(scoring)}; with SAMPLE={SAMPLE} {duration(scoring * SAMPLE / counts.test)}")


def _there(place: Path) -> Path:
    return next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())


def _free_on_gpu(device: Any) -> int:
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


def _tell_scoring(recipe: "Recipe", prepared: "Prepared", model: Any) -> float:
    """Seconds that scoring both models takes, told."""
    from recipes.data.splits import tokenize
    from recipes.summary import duration, say
    from recipes.training.forecast import lengths
    from scoring.decoding.forecast import seconds_to_decode

    rows = tokenize(prepared.splits.test, prepared.splits.tokenizer)
    arguments, batch = recipe.arguments, recipe.training.per_device_eval_batch_size
    likely, most = seconds_to_decode(
        model, rows["input_ids"][:], lengths(rows)[:, 1], arguments.max_new_tokens, arguments.num_beams, batch
    )
    say(f"Scoring:    {duration(2 * likely)} for both models where answers are as long as the references,")
    say(f"            {duration(2 * most)} where all run to {arguments.max_new_tokens:,} tokens")
    return 2 * likely


def _shorter(
    recipe: "Recipe", pins: "Pins", prepared: "Prepared", trainer: Any, work: "Work", seconds: float
) -> Iterator[str]:
    """What makes the training shorter, each with the time that it would take: computed or measured, not guessed."""
    from recipes.summary import duration
    from recipes.training import forecast
    from recipes.training.flop import row_flop

    epochs = recipe.training.num_train_epochs
    if epochs > 1 and recipe.training.max_steps <= 0:
        fewer = max(1, int(epochs / 2))
        yield f"--num_train_epochs {fewer}: {duration(seconds * fewer / epochs)}"
    counts = forecast.lengths(trainer.train_dataset)
    if (small := _smaller_base(recipe, pins, prepared)) is not None:
        name, model = small
        part = row_flop(model, counts).sum() / row_flop(trainer.model, counts).sum()
        # Of miniatures the smaller one saves next to nothing.
        if part < 0.9:
            yield f"--model_name_or_path {name}: {duration(part * seconds)} at the same FLOP/s"
    if (gain := _bfloat16_seconds(recipe, pins, prepared, trainer, work)) is not None and gain < seconds:
        yield f"--dtype bfloat16: {duration(gain)}, measured"


def _smaller_base(recipe: "Recipe", pins: "Pins", prepared: "Prepared") -> tuple[str, Any] | None:
    """The next smaller model of the base's line, its shape with the recipe's adapter; None where there is none."""
    from huggingface_hub import constants

    from hub.reach import reach
    from recipes.train import put_adapter
    from recipes.training.random_base import base_shape

    line, _, name = pins.base_model.id.rpartition("-")
    if name not in SMALLER or pins.parent_adapter is not None or constants.HF_HUB_OFFLINE:
        return None
    with suppress(Exception):
        smaller = reach("model", f"{line}-{SMALLER[name]}", "main")
        theirs = pins.model_copy(update={"base_model": smaller})
        return smaller.id, put_adapter(base_shape(smaller, recipe.model), recipe, theirs, prepared.tokenizer)
    return None


def _bfloat16_seconds(recipe: "Recipe", pins: "Pins", prepared: "Prepared", trainer: Any, work: "Work") -> float | None:
    """Seconds of training in bfloat16, measured; None where that is computed in already, or gains nothing here."""
    import copy

    from recipes.train import make_trainer, put_adapter
    from recipes.training import forecast
    from recipes.training.dtype import why_float32
    from recipes.training.random_base import base_shape, fill
    from record.run_record import Batch

    if recipe.resolved.get("dtype") == "bfloat16" or recipe.model.dtype == "bfloat16" or why_float32(pins.base_model):
        return None
    other = copy.copy(recipe)
    other.model = copy.copy(recipe.model)
    other.model.dtype = "bfloat16"
    model = put_adapter(fill(base_shape(pins.base_model, other.model)), other, pins, prepared.tokenizer)
    rows = recipe.training.per_device_train_batch_size
    batch = Batch(per_device=rows, accumulation=1, processes=1, tokens=trainer.tokens)
    rates = forecast.measure_rates(make_trainer(other, prepared, model, batch), work)
    return None if rates is None else forecast.seconds_of(work, rates)
