"""Trains a recipe's adapter.

    accelerate launch -m recipes.train --config recipes/finance.yaml --output_dir runs/finance [--key value ...]

Writes the adapter, its tokenizer, `record.json` and `checkpoint-*` into the output folder. Started again after an
interruption it continues from the last whole checkpoint; started again after the end it does nothing.
"""

import sys
from pathlib import Path

from recipes.config import Recipe, changed_keys, parse_recipe, recipe_help
from recipes.errors import UserError, one_line_errors
from recipes.record import RECORD_FILE, LossPoint, Pins, Record, Training, load_record, sha256_file

ADAPTER_FILE = "adapter_model.safetensors"


def main(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv):
        print(__doc__, recipe_help(), sep="\n")
        return
    with one_line_errors():
        train(parse_recipe(argv))


def train(recipe: Recipe) -> None:
    """Trains the recipe into its output folder, or continues there.

    Raises:
        `UserError`: the folder holds a run of another recipe, or the recipe does not fit its data or base model.
    """
    from accelerate import PartialState

    run = Path(recipe.training.output_dir)
    previous = load_record(run) if (run / RECORD_FILE).exists() else None
    if previous is not None:
        _refuse_other_run(run, previous, recipe)
        if previous.training is not None and _adapter_is(run, previous.training.adapter_sha256):
            say(f"{run} is trained already ({previous.training.steps} steps). To train anew, remove that folder.")
            return
    # One process downloads and tokenizes, the others read its cache.
    state = PartialState()
    pins = previous.pins if previous is not None else _pin(recipe)
    with state.main_process_first():
        tokenizer, splits, train_rows, eval_rows = _prepare(recipe, pins)
    record = _build(recipe, pins, tokenizer, splits, train_rows, eval_rows, run)
    if state.is_main_process:
        record.save(run)
        say(f"Trained: {run} (adapter {record.training.adapter_sha256[:12]}, loss {_last_loss(record):.4f})")


def _pin(recipe: Recipe) -> Pins:
    from recipes.pins import pin

    say("Asking the Hub for the commits of the base model and the dataset")
    return Pins(
        base_model=pin("model", recipe.model.model_name_or_path, recipe.model.model_revision),
        dataset=pin("dataset", recipe.arguments.dataset_name, recipe.arguments.dataset_revision),
    )


def _prepare(recipe, pins):
    from recipes.data import build_splits, tokenize
    from recipes.model import load_tokenizer

    tokenizer = load_tokenizer(pins.base_model)
    splits = build_splits(recipe.arguments, pins.dataset, tokenizer)
    train_rows = tokenize(splits.train, tokenizer)
    eval_rows = tokenize(splits.validation, tokenizer) if splits.validation is not None else None
    return tokenizer, splits, train_rows, eval_rows


def _build(recipe, pins, tokenizer, splits, train_rows, eval_rows, run: Path) -> Record:
    from huggingface_hub import constants
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer

    from recipes.environment import environment
    from recipes.model import add_adapter, describe, load_base
    from recipes.training import last_whole_checkpoint, token_mean_loss

    arguments = recipe.training
    arguments.remove_unused_columns = False
    arguments.dataloader_pin_memory = arguments.device.type == "cuda"
    if eval_rows is None:
        arguments.eval_strategy, arguments.load_best_model_at_end = "no", False
    model = add_adapter(load_base(pins.base_model, recipe.model), pins.base_model, recipe.model, arguments.seed)
    record = Record(
        name=recipe.name,
        recipe=recipe.resolved,
        hub=constants.ENDPOINT,
        pins=pins,
        data=splits.counts,
        model=describe(model),
        environment=environment(),
    )
    _print_shapes(record)
    if arguments.process_index == 0:
        run.mkdir(parents=True, exist_ok=True)
        record.save(run)
    trainer = Seq2SeqTrainer(
        model=model,
        args=arguments,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        compute_loss_func=token_mean_loss,
    )
    checkpoint = last_whole_checkpoint(run)
    if checkpoint:
        say(f"Continuing from {checkpoint}")
    result = trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    if trainer.is_world_process_zero():
        model.save_pretrained(run, save_embedding_layers=False)
        tokenizer.save_pretrained(run)
        # PEFT writes an empty card beside the adapter; ours is rendered from the record when it is published.
        (run / "README.md").unlink(missing_ok=True)
        tokens = sum(len(row["input_ids"]) + len(row["labels"]) for row in train_rows)
        record.training = _training(trainer, result, checkpoint, tokens, run)
    return record


def _training(trainer, result, checkpoint: Path | None, tokens_per_epoch: int, run: Path) -> Training:
    from recipes.environment import peak_memory_bytes

    arguments, state = trainer.args, trainer.state
    resumed_from = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    seconds = result.metrics["train_runtime"]
    trained_share = 1 - resumed_from / max(state.global_step, 1)
    keys = LossPoint.model_fields.keys()
    return Training(
        history=[
            LossPoint(**{key: line[key] for key in keys & line.keys()})
            for line in state.log_history
            if "loss" in line or "eval_loss" in line
        ],
        steps=state.global_step,
        epochs=state.epoch,
        effective_batch=arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size,
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
    say(f"Dataset:    {record.pins.dataset.id}@{record.pins.dataset.revision[:12]}, {data.loaded:,} rows")
    for rule, rows in data.dropped.items():
        say(f"            {rule}: {rows:,} rows dropped")
    for rule, rows in data.truncated.items():
        say(f"            {rule}: {rows:,} rows cut")
    say(f"            {data.train:,} train, {data.validation:,} validation, {data.test:,} test rows")
    say(
        f"Adapter:    {model.trainable:,} of {model.total:,} parameters trainable ({model.percent:.2f} %), "
        f"{model.memory_bytes:,} bytes, base in {model.dtype}"
    )


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
