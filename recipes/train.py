"""Trains a recipe's adapter.

    accelerate launch -m recipes.train --config recipes/finance.yaml --output_dir runs/finance [--key value ...]

Writes the adapter, its tokenizer, `record.json` and `checkpoint-*` into the output folder. Started again after an
interruption it continues from the last whole checkpoint; started again after the end it does nothing.
"""

import math
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hub.release import pull_parent
from recipes.config import Recipe, changed_keys, parse_recipe, recipe_help
from recipes.expectations import block, compare
from recipes.pin_recipe import pin_recipe
from recipes.summary import forecast_line, length_remarks, longest_row, say, say_shapes, validation_loss
from record.errors import UserError, last_word, make, one_line_errors, refuse_unwritable
from record.hashes import sha256_file
from record.published_recipe import refused_key
from record.release_files import ADAPTER_FILE, CARD_FILE, RECORD_FILE
from record.run_record import Batch, Leakage, LossPoint, Pins, Record, Training, Unwritable, load_record
from record.signs_of_life import LOADING, signs_of_life, waiting_for


def main(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv):
        print(__doc__, recipe_help(), sep="\n")
        return
    from recipes.environment import leave_together

    # `pubrep train` starts with both switched off, for the launch in between.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with signs_of_life(LOADING), one_line_errors():
        train(parse_recipe(argv))
        leave_together()


def train(recipe: Recipe, published: Record | None = None) -> None:
    """Trains the recipe into its output folder, or continues there.

    Parameters:
        published: the record of a run to be repeated: its commits are taken instead of the present ones, and its cut of
            the batch is the first to be tried.

    Raises:
        `UserError`: the folder holds a run of another recipe, or the recipe does not fit its data, base or memory.
    """
    from recipes.environment import reset_peak_memory
    from recipes.training import micro_batches
    from recipes.training.dtype import keep_float32
    from recipes.training.model import load_base, refuse_targets

    _refuse_missing_tracker(recipe.training)
    run = Path(recipe.training.output_dir)
    refuse_unwritable(run)
    previous = load_record(run) if (run / RECORD_FILE).exists() else None
    if previous is not None:
        if {"dataset_name", "datasets", "model_name_or_path", "parent_adapter"} & set(
            changed_keys(previous.recipe, recipe.resolved)
        ):
            # The record has the Hub's own names, the recipe may have others for the same repositories.
            _pin(recipe)
        _refuse_other_run(run, previous, recipe)
        if _is_trained(run, previous):
            say(f"{run} is trained already ({previous.training.steps} steps). To train again, remove that folder.")
            return
    earlier = previous or published
    if earlier is not None:
        keep_float32(recipe.model, earlier, scored=False)
    budget = recipe.arguments.tokens_per_micro_batch
    first = micro_batches.plan(recipe.training, earlier and earlier.batch, budget or None)
    if not recipe.training.learning_rate:
        say("Training will change nothing: `learning_rate` is 0")
    pins = earlier.pins if earlier is not None else _pin(recipe)
    if published is None and (file := pins.file) is not None:
        keep = "name that in `datasets`" if pins.more_datasets else "keep them with `pubrep publish --keep-rows`"
        say(
            f"Rows of {file.id if pins.more_datasets else recipe.arguments.dataset_name}: to publish the run, put them "
            f"on the Hub by `pubrep publish-data`, {'and' if pins.more_datasets else 'or'} {keep}"
        )
    elif refusal := refused_key(recipe.resolved):
        say(f"This run cannot be published: {refusal}")
    rules = 2 if earlier is None else earlier.data.rules
    if rules == 1:
        # A recipe of then could state both; its run was trained without them.
        recipe.training.label_smoothing_factor, recipe.training.neftune_noise_alpha = 0.0, None
    prepared = prepare(recipe, pins, rules)

    def attempt(batch: Batch) -> Record:
        set_arguments(recipe, prepared, batch)
        reset_peak_memory()
        model = put_adapter(load_base(pins.base_model, recipe.model), recipe, pins, prepared.tokenizer)
        if published is None and pins.parent_adapter is None:
            refuse_targets(model)
        record = open_record(recipe, pins, prepared, model, batch)
        return fit(make_trainer(recipe, prepared, model, batch), record, prepared, run)

    longest, row = int(prepared.lengths.max()), longest_row(prepared.splits.train, prepared.lengths)
    finish(micro_batches.fit_memory(first, longest, row, bool(budget), attempt, say), run)


@dataclass
class Prepared:
    """What a run trains on, the same for every cut of its batch.

    Parameters:
        unwritable: the references that the tokenizer cannot write.
        train_rows, eval_rows: token ids of the rows to train on, and of those that the validation loss is taken from;
            None where there are none.
        lengths: source and target tokens of each row to train on, shape (rows,).
        leakage: test rows among the training rows; None on all processes but the first.
        remarks: what speaks against the data, one line each.
    """

    tokenizer: Any
    splits: Any
    unwritable: Unwritable
    train_rows: Any
    eval_rows: Any
    lengths: Any
    leakage: list[Leakage] | None
    remarks: list[str]


def prepare(recipe: Recipe, pins: Pins, rules: Literal[1, 2]) -> Prepared:
    """Loads, splits and tokenizes the dataset."""
    from accelerate import PartialState

    from recipes.base_model import refuse_for_family, refuse_too_long
    from recipes.data.letters import rouge_remark
    from recipes.data.lineage import find_seen_rows
    from recipes.data.splits import build_splits, references, tokenize
    from recipes.data.stored_tokenizer import languages_of
    from recipes.data.tokenizer import audit, load_tokens
    from recipes.training.model import load_tokenizer, trained_length
    from recipes.training.trainer import lengths_of

    waiting_for("Reading and tokenizing the rows")
    state = PartialState()
    # One process downloads and tokenizes, the others read its cache.
    with state.main_process_first():
        refuse_for_family(recipe, pins.base_model)
        languages = languages_of(vars(recipe.arguments))
        tokenizer = load_tokenizer(pins.base_model, recipe.arguments.added_tokens, languages)
        tokens = load_tokens(pins.base_model, recipe.arguments.added_tokens, languages)
        splits = build_splits(recipe.arguments, pins.datasets, tokens, rules)
        held_out = splits.test if recipe.arguments.select_on_test else splits.validation
        train_rows, eval_rows = tokenize(splits.train, tokens), held_out and tokenize(held_out, tokens)
        refuse_too_long(pins.base_model, splits.counts.lengths, tokenize(splits.test, tokens))
        unwritable = audit(tokens, references(splits))
    leakage = find_seen_rows(splits, pins)[1] if state.is_main_process else None
    remarks = length_remarks(train_rows, trained_length(pins.base_model, tokenizer), pins.base_model.id)
    rouge = "rouge" in recipe.arguments.metric_families()
    if rouge and (remark := rouge_remark(references(splits), recipe.arguments.rouge_tokenizer)):
        remarks.append(remark)
    lengths = lengths_of(train_rows)
    return Prepared(tokenizer, splits, unwritable, train_rows, eval_rows, lengths, leakage, remarks)


def set_arguments(recipe: Recipe, prepared: Prepared, batch: Batch) -> None:
    """Has the trainer's arguments mean a step of the effective batch, on this device and for these rows."""
    from recipes.training.trainer import suit_device

    arguments = recipe.training
    arguments.remove_unused_columns = False
    arguments.ddp_find_unused_parameters = False
    suit_device(arguments)
    if arguments.torch_compile and arguments.device.type == "cpu":
        say("`torch_compile` is left out: a CPU gains nothing by it")
    # A step is cut inside `AdapterTrainer`.
    arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps = batch.effective, 1
    # A continued run counts on where it was cut off, as `early_stopping_patience` of an uninterrupted one does.
    arguments.restore_callback_states_from_checkpoint = True
    if prepared.eval_rows is None:
        arguments.eval_strategy, arguments.load_best_model_at_end = "no", False


def put_adapter(base, recipe: Recipe, pins: Pins, tokenizer):
    """The base model with the adapter that is trained on it: a new one, or the parent's."""
    from recipes.training.model import add_adapter, continue_adapter

    seed = recipe.training.seed
    if pins.parent_adapter is not None:
        return continue_adapter(base, pull_parent(pins.parent_adapter).folder, pins.base_model, recipe.model, seed)
    token_ids = tokenizer.convert_tokens_to_ids(recipe.arguments.added_tokens)
    return add_adapter(base, pins.base_model, recipe.model, seed, token_ids)


def open_record(recipe: Recipe, pins: Pins, prepared: Prepared, model, batch: Batch) -> Record:
    """The record of a run that is about to be trained, printed, and compared with what the recipe expects.

    Raises:
        `UserError`: the recipe is strict and the run does not meet its `expect`.
    """
    from huggingface_hub import constants

    from recipes.base_model import base_kind
    from recipes.environment import describe_environment
    from recipes.training.dtype import why_float32
    from recipes.training.model import size_of

    record = Record(
        name=recipe.name,
        recipe=recipe.resolved,
        hub=constants.ENDPOINT,
        pins=pins,
        data=prepared.splits.counts,
        unwritable=prepared.unwritable,
        leakage=prepared.leakage,
        model=size_of(model, base_kind(pins.base_model)),
        batch=batch,
        environment=describe_environment(),
    )
    say_shapes(record)
    if recipe.resolved.get("dtype") == "bfloat16" != recipe.model.dtype and (reason := why_float32(pins.base_model)):
        say(f"            in float32, not in bfloat16: {reason}")
    for remark in prepared.remarks:
        say(f"            {remark}")
    record.expectations = compare(recipe.arguments.expect, record)
    if record.expectations:
        say(block(record.expectations))
    misses = [item.name for item in record.expectations if item.verdict == "missed"]
    if misses and recipe.arguments.strict:
        raise UserError(f"the run does not meet the recipe's `expect` ({', '.join(misses)}): nothing was trained")
    return record


def make_trainer(recipe: Recipe, prepared: Prepared, model, batch: Batch):
    """The trainer of these rows; `batch` then has the token budget that memory allows."""
    from transformers import EarlyStoppingCallback
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    from recipes.training.preemption import StopOnSigterm
    from recipes.training.step_lines import StepLines
    from recipes.training.trainer import AdapterTrainer

    patience = recipe.arguments.early_stopping_patience
    trainer = AdapterTrainer(
        model=model,
        tokens=batch.tokens,
        args=recipe.training,
        train_dataset=prepared.train_rows,
        eval_dataset=prepared.eval_rows,
        processing_class=prepared.tokenizer,
        callbacks=[
            StepLines(int(prepared.lengths.sum())),
            *([EarlyStoppingCallback(patience)] if patience else []),
        ],
    )
    trainer.add_callback(StopOnSigterm(trainer.accelerator))
    for theirs in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(theirs)
    if batch.tokens is None:
        # Kept in the batch, where the next attempt looks for it if memory does not suffice after all.
        batch.tokens = trainer.tokens = trainer.find_budget(prepared.lengths, batch.per_device)
        say(f"Micro-batches of up to {batch.tokens:,} tokens")
    return trainer


def fit(trainer, record: Record, prepared: Prepared, run: Path) -> Record:
    """Trains, from the last whole checkpoint on if there is one, and saves the adapter.

    Returns:
        The record; with what training gave on the first process.
    """
    from accelerate import PartialState

    from recipes.environment import leave_together
    from recipes.training.energy import start_meter, stop_meter
    from recipes.training.forecast import judge_forecast, make_forecast
    from recipes.training.preemption import StopOnSigterm
    from recipes.training.trainer import last_whole_checkpoint

    if trainer.args.process_index == 0:
        run.mkdir(parents=True, exist_ok=True)
        record.save(run)
    with PartialState().main_process_first():
        checkpoint = last_whole_checkpoint(run)
    if checkpoint:
        say(f"Continuing from {checkpoint}")
    record.forecast = make_forecast(trainer, _steps_done(checkpoint), run)
    meter = start_meter() if trainer.is_world_process_zero() else None
    try:
        result = trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    finally:
        record.energy = stop_meter(meter)
    if trainer.state.global_step < trainer.state.max_steps and trainer.pop_callback(StopOnSigterm).stopped:
        say(f"Stopped by SIGTERM after step {trainer.state.global_step:,}: run the same command again to go on")
        last_word(0)  # A launcher that was sent SIGTERM, too, has no other exit code to go by.
        leave_together()
        sys.exit(0)
    # On every process, since with FSDP each would hold a part.
    trainer.save_model(str(run))
    if trainer.is_world_process_zero():
        record.training = _training(trainer, result, checkpoint, int(prepared.lengths.sum()), run)
        judge_forecast(record, trainer.state.max_steps)
    return record


def finish(record: Record, run: Path) -> None:
    """Saves the record of the trained run, on the first process."""
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    # An empty card and a pickle come along; ours is rendered from the record when the adapter is published.
    for name in (CARD_FILE, "training_args.bin"):
        (run / name).unlink(missing_ok=True)
    record.save(run)
    say(f"Trained: {run} (adapter {record.training.adapter_sha256[:12]}{validation_loss(record)})")
    if line := forecast_line(record.forecast, record.training.seconds):
        say(line)
    say(f"Next: {make(f'evaluate-{run.name}')}")


def _steps_done(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _training(trainer, result, checkpoint: Path | None, tokens_per_epoch: int, run: Path) -> Training:
    from recipes.environment import peak_memory_bytes

    arguments, state = trainer.args, trainer.state
    resumed_from = _steps_done(checkpoint)
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


def _refuse_missing_tracker(arguments) -> None:
    from transformers.integrations import get_available_reporting_integrations

    missing = set(arguments.report_to) - set(get_available_reporting_integrations())
    if missing:
        raise UserError(
            f"`report_to: {min(missing)}` is not an installed tracker: pip install it, or set `report_to: none`"
        )


def _refuse_other_run(run: Path, previous: Record, recipe: Recipe) -> None:
    keys = changed_keys(previous.recipe, recipe.resolved)
    if keys:
        key = keys[0]
        raise UserError(
            f"{run} holds a run of another recipe ({key}: {previous.recipe.get(key)} there, {recipe.resolved.get(key)} "
            "now): remove that folder, or choose another with --output_dir"
        )


def _is_trained(run: Path, record: Record) -> bool:
    adapter = run / ADAPTER_FILE
    return record.training is not None and adapter.is_file() and sha256_file(adapter) == record.training.adapter_sha256


def _pin(recipe: Recipe) -> Pins:
    say("Asking the Hub for the commits of the base model and the dataset")
    return pin_recipe(recipe)


if __name__ == "__main__":
    main(sys.argv[1:])
