"""Scores a trained run: base model and adapter on the recipe's test split.

    python -m evaluation.score runs/finance

Adds the scoring contract and the scores to `record.json` and writes `predictions.parquet`. A scored run is not scored
again unless its adapter has changed or its predictions are gone.
"""

import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from recipes.errors import UserError, one_line_errors
from recipes.record import Contract, Forgetting, Outputs, Record, Scores, load_record, sha256_file


def main(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv) or not argv:
        print(__doc__)
        sys.exit(None if argv else 1)
    with one_line_errors():
        record = score(Path(argv[0]))
        print(f"{record.name} on {record.pins.base_model.id}{' (a miniature)' if record.miniature else ''}")
        print(table(record.scores))
        if record.forgetting is not None:
            print(
                f"ROUGE-L on the parent's {record.forgetting.rows:,} test rows moved by "
                f"{record.forgetting.difference['rougeL'].mean:+.4f}"
            )


def score(run: Path) -> Record:
    """Scores the run in the folder `run` and saves its record.

    Raises:
        `UserError`: the run is not trained to its end, or its test rows are not the record's any more.
    """
    from evaluation.predictions import FORGETTING_FILE, PREDICTIONS_FILE

    record = load_record(run)
    if record.training is None:
        raise UserError(f"{run} is not trained to its end: run make train-{record.name} again, it continues")
    if sha256_file(run / "adapter_model.safetensors") != record.training.adapter_sha256:
        raise UserError(f"{run}/adapter_model.safetensors is not the adapter that its record speaks of: train it again")
    if record.scores is not None and (run / PREDICTIONS_FILE).is_file():
        print(f"{run} is scored already. To score anew, remove {run / PREDICTIONS_FILE}.", flush=True)
        return record

    from recipes.config import recipe_from_record
    from recipes.data import build_splits
    from recipes.environment import environment
    from recipes.expectations import block, compare
    from recipes.model import load_tokenizer
    from recipes.pins import pull_parent

    recipe = recipe_from_record(record.name, record.recipe)
    tokenizer = load_tokenizer(record.pins.base_model, recipe.arguments.added_tokens)
    splits = build_splits(recipe.arguments, record.pins.dataset, tokenizer)
    if splits.counts != record.data:
        raise UserError(
            f"the dataset gives other rows now than {run} was trained on: remove that folder and train again"
        )
    # Before anything is generated, so that a Hub out of reach costs nothing.
    parent = record.pins.parent_adapter and pull_parent(record.pins.parent_adapter)
    model, tokenizer, dtype = load_for_scoring(run, record, recipe.model)
    record.contract = contract_of(recipe, dtype)
    predictions, record.scores = predict(model, tokenizer, splits.test, record.contract)
    predictions.save(run)
    if parent is not None:
        forgetting = parent_predictions(model, tokenizer, *parent)
        forgetting.save(run, FORGETTING_FILE)
        record.forgetting = score_forgetting(forgetting, record.contract)
    record.scored_in = environment()
    record.expectations = compare(recipe.arguments.expect, record)
    if record.expectations:
        print(block(record.expectations), flush=True)
    record.save(run)
    return record


def parent_predictions(model, tokenizer, folder: Path, parent: Record):
    """What the adapter writes for its parent's test rows, under the parent's contract, beside what the parent wrote.

    Parameters:
        folder, parent: the parent's files and record.

    Returns:
        `Predictions` whose `base` columns hold the parent's published outputs.
    """
    from evaluation.generate import decode, generate
    from evaluation.predictions import load_predictions

    published = load_predictions(folder)
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


def score_forgetting(predictions, contract: Contract) -> Forgetting:
    """The parent's and the adapter's scores on the parent's test rows, and their paired difference."""
    scores = score_predictions(predictions, contract, 0.0, 0.0)
    return Forgetting(rows=scores.rows, parent=scores.base, adapter=scores.adapter, difference=scores.difference)


def load_for_scoring(run: Path, record: Record, config):
    """The pinned base with the adapter in `run`, on the GPU where there is one, its tokenizer, and the base's dtype."""
    from recipes.model import load_adapter, load_base, load_tokenizer, on_gpu

    base = load_base(record.pins.base_model, config)
    # A quantized base is on the GPU already and cannot be moved.
    if on_gpu() and not (config.load_in_4bit or config.load_in_8bit):
        base.to("cuda")
    tokenizer = load_tokenizer(record.pins.base_model, record.recipe.get("added_tokens", []))
    return load_adapter(base, run), tokenizer, config.dtype


def contract_of(recipe, dtype: str) -> Contract:
    """The scoring contract that a recipe asks for on this machine."""
    from importlib.metadata import version

    from evaluation.bootstrap import CONFIDENCE, RESAMPLES, SEED
    from evaluation.rouge import SENTENCES

    return Contract(
        metric="rouge_score",
        metric_version=version("rouge-score"),
        stemmer=True,
        sentences=SENTENCES,
        max_new_tokens=recipe.arguments.max_new_tokens,
        num_beams=recipe.arguments.num_beams,
        dtype=dtype,
        batch_size=recipe.training.per_device_eval_batch_size,
        resamples=RESAMPLES,
        confidence=CONFIDENCE,
        seed=SEED,
    )


def predict(model, tokenizer, test, contract: Contract):
    """Generates with both models for all rows of `test` (columns `prompt`, `target`) and scores what they wrote.

    Returns:
        The `Predictions` and their `Scores`.
    """
    from evaluation.generate import decode, generate
    from evaluation.predictions import Predictions

    prompts, references = test["prompt"][:], test["target"][:]
    base_tokens, base_seconds = generate(model, tokenizer, prompts, contract, adapter=False)
    adapter_tokens, adapter_seconds = generate(model, tokenizer, prompts, contract, adapter=True)
    predictions = Predictions(
        prompt=prompts,
        reference=references,
        base=decode(tokenizer, base_tokens),
        adapter=decode(tokenizer, adapter_tokens),
        base_tokens=base_tokens,
        adapter_tokens=adapter_tokens,
    )
    return predictions, score_predictions(predictions, contract, base_seconds, adapter_seconds)


def rows_of(predictions: list[str], references: list[str], contract: Contract) -> dict[str, list[float]]:
    """ROUGE F-measures per metric, row by row, under the contract; the same texts are scored once."""
    return _rouge_rows(tuple(predictions), tuple(references), contract.stemmer)


@lru_cache(maxsize=8)
def _rouge_rows(predictions: tuple[str, ...], references: tuple[str, ...], stemmer: bool) -> dict[str, list[float]]:
    from evaluation.rouge import Rouge

    metric = Rouge(keep_in_memory=True)
    return metric.compute(predictions=list(predictions), references=list(references), use_stemmer=stemmer)


def score_predictions(predictions, contract: Contract, base_seconds: float, adapter_seconds: float) -> Scores:
    """Scores of published or fresh predictions under a contract; needs no model."""
    base = rows_of(predictions.base, predictions.reference, contract)
    adapter = rows_of(predictions.adapter, predictions.reference, contract)
    difference = {name: [a - b for a, b in zip(adapter[name], base[name], strict=True)] for name in base}
    return Scores(
        rows=len(predictions.reference),
        base=interval_of(base, contract),
        adapter=interval_of(adapter, contract),
        difference=interval_of(difference, contract),
        base_outputs=outputs_of(predictions.base, predictions.base_tokens, contract, base_seconds),
        adapter_outputs=outputs_of(predictions.adapter, predictions.adapter_tokens, contract, adapter_seconds),
    )


def interval_of(per_row: dict[str, list[float]], contract: Contract):
    """Means with the contract's bootstrap intervals."""
    from evaluation.bootstrap import intervals

    return intervals(per_row, contract.resamples, contract.confidence, contract.seed)


def outputs_of(texts: list[str], tokens: list[list[int]], contract: Contract, seconds: float) -> Outputs:
    """Length, truncation and emptiness of what a model wrote."""
    return Outputs(
        mean_tokens=sum(map(len, tokens)) / len(tokens),
        cut=sum(len(ids) >= contract.max_new_tokens for ids in tokens),
        empty=sum(not text for text in texts),
        seconds=seconds,
    )


def table(scores: Scores) -> str:
    """The scores as a small plain-text table."""
    lines = [f"{scores.rows:,} test rows   base model              adapter                 difference"]
    for name in scores.base:
        cells = [
            f"{x.mean:.4f} [{x.low:.4f}, {x.high:.4f}]"
            for x in (scores.base[name], scores.adapter[name], scores.difference[name])
        ]
        lines.append(f"{name:<15} " + " ".join(f"{cell:<23}" for cell in cells).rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
