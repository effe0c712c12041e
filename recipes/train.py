"""Trains a recipe's adapter.

    accelerate launch -m recipes.train --config recipes/finance.yaml --output_dir runs/finance [--key value ...]

Writes the adapter, its tokenizer, `record.json` and `checkpoint-*` into the output folder. Started again after an
interruption it continues from the last whole checkpoint; started again after the end it does nothing.
"""

import math
import sys
from functools import partial
from pathlib import Path

from hub.release import pull_parent
from recipes.config import Recipe, changed_keys, parse_recipe, recipe_help
from recipes.pin_recipe import pin_recipe
from record.errors import UserError, one_line_errors
from record.hashes import sha256_file
from record.published_recipe import refused_key
from record.release_files import ADAPTER_FILE, CARD_FILE, RECORD_FILE
from record.run_record import Batch, Leakage, LossPoint, Pins, Record, Training, Unwritable, load_record


def main(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv):
        print(__doc__, recipe_help(), sep="\n")
        return
    with one_line_errors():
        train(parse_recipe(argv))


def train(recipe: Recipe, published: Record | None = None) -> None:
    """Trains the recipe into its output folder, or continues there.

    Parameters:
        published: the record of a run to be repeated: its commits are taken instead of the present ones, and its cut of
            the batch is the first to be tried.

    Raises:
        `UserError`: the folder holds a run of another recipe, or the recipe does not fit its data, base or memory.
    """
    from accelerate import PartialState

    from recipes.data.lineage import find_seen_rows
    from recipes.training import micro_batches
    from recipes.training.trainer import lengths_of

    _refuse_missing_tracker(recipe.training)
    run = Path(recipe.training.output_dir)
    previous = load_record(run) if (run / RECORD_FILE).exists() else None
    if previous is not None:
        _refuse_other_run(run, previous, recipe)
        if previous.training is not None and _adapter_is(run, previous.training.adapter_sha256):
            say(f"{run} is trained already ({previous.training.steps} steps). To train anew, remove that folder.")
            return
    repeated = previous or published
    budget = recipe.arguments.tokens_per_micro_batch
    first = micro_batches.plan(recipe.training, repeated and repeated.batch, budget or None)
    state = PartialState()
    if refused := refused_key(recipe.resolved):
        say(f"This run cannot be published: {refused}")
    if repeated is None:
        say("Asking the Hub for the commits of the base model and the dataset")
    pins = repeated.pins if repeated is not None else pin_recipe(recipe)
    # One process downloads and tokenizes, the others read its cache.
    with state.main_process_first():
        prepared = _prepare(recipe, pins)
    leakage = find_seen_rows(prepared[1], pins)[1] if state.is_main_process else None
    lengths = lengths_of(prepared[3])
    attempt = partial(_attempt, recipe, pins, prepared, lengths, leakage, run)
    record = micro_batches.fit(first, int(lengths.max()), bool(budget), attempt, say)
    if state.is_main_process:
        record.save(run)
        say(f"Trained: {run} (adapter {record.training.adapter_sha256[:12]}, loss {_last_loss(record):.4f})")


def _refuse_missing_tracker(arguments) -> None:
    from transformers.integrations import get_available_reporting_integrations

    missing = set(arguments.report_to) - set(get_available_reporting_integrations())
    if missing:
        raise UserError(
            f"`report_to: {min(missing)}` is no installed tracker: pip install it, or set `report_to: none`"
        )


def _prepare(recipe: Recipe, pins: Pins):
    """Tokenizer, splits, the references that cannot be written, and the token ids of the rows to train on and to take
    the validation loss from."""
    from recipes.data.splits import build_splits, references, tokenize
    from recipes.data.tokenizer import audit, load_tokens
    from recipes.training.model import load_tokenizer

    tokenizer = load_tokenizer(pins.base_model, recipe.arguments.added_tokens)
    tokens = load_tokens(pins.base_model, recipe.arguments.added_tokens)
    splits = build_splits(recipe.arguments, pins.dataset, tokens)
    held_out = splits.test if recipe.arguments.select_on_test else splits.validation
    rows = tokenize(splits.train, tokens), held_out and tokenize(held_out, tokens)
    return tokenizer, splits, audit(tokens, references(splits)), *rows


def _make_model(recipe: Recipe, pins: Pins, tokenizer):
    from recipes.training.model import add_adapter, continue_adapter, load_base

    seed = recipe.training.seed
    base = load_base(pins.base_model, recipe.model)
    if pins.parent_adapter is not None:
        return continue_adapter(base, pull_parent(pins.parent_adapter).folder, pins.base_model, recipe.model, seed)
    token_ids = tokenizer.convert_tokens_to_ids(recipe.arguments.added_tokens)
    return add_adapter(base, pins.base_model, recipe.model, seed, token_ids)


def _attempt(
    recipe: Recipe, pins: Pins, prepared, lengths, leakage: list[Leakage] | None, run: Path, batch: Batch
) -> Record:
    from accelerate import PartialState
    from huggingface_hub import constants
    from transformers import EarlyStoppingCallback

    from recipes.environment import environment, reset_peak_memory
    from recipes.training.energy import start_meter, stop_meter
    from recipes.training.model import describe
    from recipes.training.trainer import AdapterTrainer, last_whole_checkpoint, suit_device

    tokenizer, splits, unwritable, train_rows, eval_rows = prepared
    arguments = recipe.training
    arguments.remove_unused_columns = False
    arguments.ddp_find_unused_parameters = False
    suit_device(arguments)
    if arguments.torch_compile and arguments.device.type == "cpu":
        say("`torch_compile` is left out: a CPU gains nothing by it")
    # A step is cut inside `AdapterTrainer`.
    arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps = batch.effective, 1
    if eval_rows is None:
        arguments.eval_strategy, arguments.load_best_model_at_end = "no", False
    reset_peak_memory()
    model = _make_model(recipe, pins, tokenizer)
    record = Record(
        name=recipe.name,
        recipe=recipe.resolved,
        hub=constants.ENDPOINT,
        pins=pins,
        data=splits.counts,
        unwritable=unwritable,
        leakage=leakage,
        model=describe(model),
        batch=batch,
        environment=environment(),
    )
    _print_shapes(record)
    _meet_expectations(record, recipe.arguments)
    patience = recipe.arguments.early_stopping_patience
    trainer = AdapterTrainer(
        model=model,
        tokens=batch.tokens,
        args=arguments,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        processing_class=tokenizer,
        callbacks=[EarlyStoppingCallback(patience)] if patience else [],
    )
    if batch.tokens is None:
        # Kept in the batch, where the next attempt looks for it if memory does not suffice after all.
        batch.tokens = trainer.tokens = trainer.find_budget(lengths, batch.per_device)
        say(f"Micro-batches of up to {batch.tokens:,} tokens, without padding")
    if arguments.process_index == 0:
        run.mkdir(parents=True, exist_ok=True)
        record.save(run)
    with PartialState().main_process_first():
        checkpoint = last_whole_checkpoint(run)
    if checkpoint:
        say(f"Continuing from {checkpoint}")
    meter = start_meter() if trainer.is_world_process_zero() else None
    try:
        result = trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    finally:
        record.energy = stop_meter(meter)
    # On every process, since with FSDP or ZeRO each holds a part.
    trainer.save_model(str(run))
    if trainer.is_world_process_zero():
        # An empty card and a pickle come along; ours is rendered from the record when the adapter is published.
        for name in (CARD_FILE, "training_args.bin"):
            (run / name).unlink(missing_ok=True)
        record.training = _training(trainer, result, checkpoint, int(lengths.sum()), run)
    return record


def _meet_expectations(record: Record, arguments) -> None:
    from recipes.expectations import block, compare

    record.expectations = compare(arguments.expect, record)
    if record.expectations:
        say(block(record.expectations))
    missed = [item.name for item in record.expectations if item.verdict == "missed"]
    if missed and arguments.strict:
        raise UserError(f"the run does not meet the recipe's `expect` ({', '.join(missed)}): nothing was trained")


def _training(trainer, result, checkpoint: Path | None, tokens_per_epoch: int, run: Path) -> Training:
    from recipes.environment import peak_memory_bytes

    arguments, state = trainer.args, trainer.state
    resumed_from = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    seconds = result.metrics["train_runtime"]
    trained_share = 1 - resumed_from / max(state.global_step, 1)
    keys = LossPoint.model_fields.keys()
    return Training(
        history=[
            LossPoint(**{key: line[key] for key in keys & line.keys() if math.isfinite(line[key])})
            for line in state.log_history
            if "loss" in line or "eval_loss" in line
        ],
        steps=state.global_step,
        epochs=state.epoch,
        seed=arguments.seed,
        resumed_from=resumed_from,
        best_step=state.best_global_step,
        seconds=seconds,
        tokens_per_second=tokens_per_epoch * state.epoch * trained_share / seconds,
        peak_memory_bytes=peak_memory_bytes(),
        adapter_sha256=sha256_file(run / ADAPTER_FILE),
    )


def _print_shapes(record: Record) -> None:
    data, model, base = record.data, record.model, record.pins.base_model
    label = " — a miniature, not the real model" if base.miniature else ""
    say(f"Base model: {base.id}@{base.revision[:12]}{label}")
    if record.pins.parent_adapter is not None:
        say(f"Continues:  {record.pins.parent_adapter.id}@{record.pins.parent_adapter.revision[:12]}")
    say(f"Dataset:    {record.pins.dataset.id}@{record.pins.dataset.revision[:12]}, {data.loaded:,} rows")
    for rule, rows in data.dropped.items():
        say(f"            {rule}: {rows:,} rows dropped")
    for rule, rows in data.truncated.items():
        say(f"            {rule}: {rows:,} rows cut")
    say(f"            {data.train:,} train, {data.validation:,} validation, {data.test:,} test rows")
    for source in record.leakage or []:
        say(
            f"            {source.exact:,} test inputs stand among the {source.training_rows:,} training rows of "
            f"{source.adapter or 'this run'}, {source.near:,} more nearly"
        )
    if record.unwritable.unwritable:
        say(f"            {_unwritable_line(record.unwritable)}")
    say(
        f"Adapter:    {model.trainable:,} of {model.total:,} parameters trainable ({model.percent:.2f} %), "
        f"{model.memory_bytes:,} bytes, base in {model.dtype}"
    )


def _unwritable_line(found: Unwritable) -> str:
    characters = ", ".join(f"{character} ({rows:,} rows)" for character, rows in list(found.characters.items())[:5])
    more = ", …" if len(found.characters) > 5 else ""
    cure = f": no token for {characters}{more}; add them with `added_tokens`" if characters else ""
    return f"{found.percent:.1f} % of the references cannot be written{cure}"


def _refuse_other_run(run: Path, previous: Record, recipe: Recipe) -> None:
    changed = changed_keys(previous.recipe, recipe.resolved)
    if changed:
        key = changed[0]
        raise UserError(
            f"{run} holds a run of another recipe ({key}: {previous.recipe.get(key)} there, {recipe.resolved.get(key)} "
            "now): remove that folder, or choose another with --output_dir"
        )


def _adapter_is(run: Path, sha256: str) -> bool:
    return (run / ADAPTER_FILE).is_file() and sha256_file(run / ADAPTER_FILE) == sha256


def _last_loss(record: Record) -> float:
    return next((point.loss for point in reversed(record.training.history) if point.loss is not None), float("nan"))


def say(line: str) -> None:
    """Prints a line at once, from the first process only."""
    import os

    if os.environ.get("RANK", "0") == "0":
        print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
