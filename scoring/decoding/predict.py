"""What base model and adapter write for the test rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from record.run_record import Pin, Record
from record.scores import Contract
from scoring.decoding import processes


def parent_predictions(model, tokenizer, folder: Path, parent: Record, rows: Sequence[int] | None = None):
    """What the adapter writes for its parent's test rows, under the parent's contract, next to what the parent wrote.

    Parameters:
        folder, parent: the parent's files and record.
        rows: numbers of the rows to take; all unless given.

    Returns:
        `Predictions` whose `base` columns hold the parent's published outputs.
    """
    from record.predictions import load_predictions
    from scoring.decoding.generate import decode, generate

    published = load_predictions(folder)
    if rows is not None:
        published = published.take(rows)
    contract = parent.contract.model_copy(update={"dtype": str(model.dtype).removeprefix("torch.")})
    print(f"The parent's {len(published.prompt):,} test rows again", flush=True)
    tokens, _ = generate(model, tokenizer, published.prompt, contract, adapter=True)
    return replace(
        published,
        base=published.adapter,
        base_tokens=published.adapter_tokens,
        adapter=decode(tokenizer, tokens),
        adapter_tokens=tokens,
    )


def load_for_scoring(run: Path, record: Record, config):
    """The pinned base with the adapter in `run`, on the GPU where there is one, its tokenizer, and the base's dtype."""
    from recipes.training.dtype import keep_float32

    keep_float32(config, record, scored=True)
    loaded = []
    processes.gather_from_all(_load, run, processes.adapter_files(run), record, config, loaded)
    return *loaded, config.dtype


def _load(run: Path, files: dict[str, bytes], record: Record, config, loaded: list) -> None:
    """Loads on each process, which keeps what is `loaded`: nothing of it can be sent."""
    from recipes.training.model import load_adapter

    base, tokenizer = load_model(record.pins.base_model, record.recipe, config)
    with processes.adapter_folder(run, files) as folder:
        model = load_adapter(base, folder, record.pins.base_model)
    processes.enroll(model, tokenizer)
    loaded += [model, tokenizer]


def load_model(pinned: Pin, recipe: Mapping[str, Any], config, tokenizer_of: Pin | None = None):
    """A pinned model as it is, on the GPU where there is one, and a tokenizer with the recipe's tokens and languages.

    Parameters:
        recipe: its resolved keys.
        tokenizer_of: the model whose tokenizer is taken, if that is another.
    """
    from recipes.data.stored_tokenizer import languages_of
    from recipes.training.dtype import on_gpu
    from recipes.training.model import load_base, load_tokenizer, set_target_language

    base = load_base(pinned, config)
    # A quantized base is on the GPU already and cannot be moved.
    if on_gpu() and not (config.load_in_4bit or config.load_in_8bit):
        base.to("cuda")
    languages = languages_of(recipe)
    tokenizer = load_tokenizer(tokenizer_of or pinned, recipe.get("added_tokens", []), languages)
    set_target_language(base, tokenizer, pinned, languages)
    return base.eval(), tokenizer


def predict(model, tokenizer, test, seen: list[str], contract: Contract, base=None):
    """Generates with both models for all rows of `test` (columns `prompt`, `target`, `schema`).

    Parameters:
        seen: per row what `recipes.data.lineage.find_seen_rows` found.
        base: the base model, where `model` is no adapter on it but a full model of its own.

    Returns:
        The `Predictions`, and the seconds that the base model and the adapter took.
    """
    from recipes.data.splits import equals_of
    from record.predictions import Predictions
    from scoring.decoding.generate import decode, generate

    prompts = test["prompt"][:]
    base_tokens, base_seconds = generate(base or model, tokenizer, prompts, contract, adapter=base is not None)
    adapter_tokens, adapter_seconds = generate(model, tokenizer, prompts, contract, adapter=True)
    predictions = Predictions(
        prompt=prompts,
        reference=test["target"][:],
        schema=test["schema"][:],
        seen=seen,
        base=decode(tokenizer, base_tokens),
        adapter=decode(tokenizer, adapter_tokens),
        base_tokens=base_tokens,
        adapter_tokens=adapter_tokens,
        references=equals_of(test),
    )
    return predictions, base_seconds, adapter_seconds
