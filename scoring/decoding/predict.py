"""What base model and adapter write for the test rows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from record.run_record import Record
from record.scores import Contract


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
    from recipes.base_model import family_of
    from recipes.data.stored_tokenizer import languages_of
    from recipes.training.model import load_adapter, load_base, load_tokenizer, on_gpu

    base = load_base(record.pins.base_model, config)
    # A quantized base is on the GPU already and cannot be moved.
    if on_gpu() and not (config.load_in_4bit or config.load_in_8bit):
        base.to("cuda")
    languages = languages_of(record.recipe)
    tokenizer = load_tokenizer(record.pins.base_model, record.recipe.get("added_tokens", []), languages)
    if languages is not None:
        target = tokenizer.convert_tokens_to_ids(languages[1])
        if family_of(record.pins.base_model).language == "last":
            base.generation_config.decoder_start_token_id = target
        else:
            base.generation_config.forced_bos_token_id = target
    return load_adapter(base, run, record.pins.base_model), tokenizer, config.dtype


def predict(model, tokenizer, test, seen: list[str], contract: Contract):
    """Generates with both models for all rows of `test` (columns `prompt`, `target`, `schema`).

    Parameters:
        seen: per row what `recipes.data.lineage.find_seen_rows` found.

    Returns:
        The `Predictions`, and the seconds that the base model and the adapter took.
    """
    from recipes.data.splits import equals_of
    from record.predictions import Predictions
    from scoring.decoding.generate import decode, generate

    prompts = test["prompt"][:]
    base_tokens, base_seconds = generate(model, tokenizer, prompts, contract, adapter=False)
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
