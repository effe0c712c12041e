"""Scores a trained run: base model and adapter on the recipe's test split.

    python -m evaluation.score runs/finance

Adds the scoring contract and the scores to `record.json` and writes `predictions.parquet`. A scored run is not scored
again unless its adapter has changed or its predictions are gone.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recipes.errors import UserError, one_line_errors
from recipes.pins import trained
from recipes.record import Compared, Contract, Forgetting, Outputs, Record, Scores, SqlCounts


def main(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv) or not argv:
        print(__doc__)
        sys.exit(None if argv else 1)
    with one_line_errors():
        record = score(Path(argv[0]))
        print(f"{record.name} on {record.pins.base_model.id}{' (a miniature)' if record.miniature else ''}")
        print(table(record.scores))
        if record.scores.clean is not None:
            print(f"\nOf these, those that no training has seen:\n{table(record.scores.clean)}")
        if record.forgetting is not None:
            print(
                f"ROUGE-L on the parent's {record.forgetting.rows:,} test rows moved by "
                f"{record.forgetting.difference['rougeL'].mean:+.4f}"
            )


def score(run: Path) -> Record:
    """Scores the run in the folder `run` and saves its record.

    Raises:
        `UserError`: as `recipes.pins.trained`, or its test rows are not the record's any more.
    """
    from evaluation.predictions import FORGETTING_FILE, PREDICTIONS_FILE

    record = trained(run)
    if record.scores is not None and (run / PREDICTIONS_FILE).is_file():
        print(f"{run} is scored already. To score anew, remove {run / PREDICTIONS_FILE}.", flush=True)
        return record

    from recipes.chain import look_back
    from recipes.config import recipe_from_record
    from recipes.data import build_splits
    from recipes.environment import environment
    from recipes.expectations import block, compare
    from recipes.pins import pull_parent
    from recipes.tokens import load_tokens

    recipe = recipe_from_record(record.name, record.recipe)
    tokens = load_tokens(record.pins.base_model, recipe.arguments.added_tokens)
    splits = build_splits(recipe.arguments, record.pins.dataset, tokens)
    if splits.counts.where_stated(record.data) != record.data:
        raise UserError(
            f"the dataset gives other rows now than {run} was trained on: remove that folder and train again"
        )
    # Before anything is generated, so that a Hub out of reach costs nothing.
    parent = record.pins.parent_adapter and pull_parent(record.pins.parent_adapter)
    seen, _ = look_back(splits, record.pins)
    model, tokenizer, dtype = load_for_scoring(run, record, recipe.model)
    record.contract = contract_of(recipe.arguments, dtype, recipe.training.per_device_eval_batch_size)
    predictions, *seconds = predict(model, tokenizer, splits.test, seen, record.contract)
    record.scores = score_predictions(predictions, record.contract, *seconds)
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


def parent_predictions(model, tokenizer, folder: Path, parent: Record, rows: Sequence[int] | None = None):
    """What the adapter writes for its parent's test rows, under the parent's contract, beside what the parent wrote.

    Parameters:
        folder, parent: the parent's files and record.
        rows: numbers of the rows to take; all unless given.

    Returns:
        `Predictions` whose `base` columns hold the parent's published outputs.
    """
    from evaluation.generate import decode, generate
    from evaluation.predictions import load_predictions

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
    return load_adapter(base, run, record.pins.base_model), tokenizer, config.dtype


def contract_of(recipe, dtype: str, batch_size: int) -> Contract:
    """The scoring contract that a recipe's `RecipeArguments` ask for on this machine."""
    import sqlite3
    from importlib.metadata import version

    from evaluation.bootstrap import CONFIDENCE, RESAMPLES, SEED
    from evaluation.metrics import SENTENCES

    sql = f"sqlglot {version('sqlglot')}, SQLite {sqlite3.sqlite_version}"
    return Contract(
        engine=_engine(recipe.engine, dtype),
        metric="rouge-score-rs",
        metric_version=version("rouge-score-rs"),
        stemmer=True,
        sentences=SENTENCES,
        sql=None if recipe.sql_schema is None else sql,
        max_new_tokens=recipe.max_new_tokens,
        num_beams=recipe.num_beams,
        dtype=dtype,
        batch_size=batch_size,
        resamples=RESAMPLES,
        confidence=CONFIDENCE,
        seed=SEED,
    )


def _engine(asked: str, dtype: str) -> str:
    from evaluation.engines import engine_here

    if asked != "transformers" and dtype != "float32":
        raise UserError(f"`engine: {asked}` computes in float32: set `dtype: float32`, or leave `engine` out")
    here = engine_here(asked)
    if not here.startswith(asked):
        raise UserError(f"`engine: {asked}` is an extra: pip install -r requirements-{asked}.txt")
    return here


def predict(model, tokenizer, test, seen: list[str], contract: Contract):
    """Generates with both models for all rows of `test` (columns `prompt`, `target`, `schema`).

    Parameters:
        seen: per row what `recipes.chain.look_back` found.

    Returns:
        The `Predictions`, and the seconds that the base model and the adapter took.
    """
    from evaluation.generate import decode, generate
    from evaluation.predictions import Predictions

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
    )
    return predictions, base_seconds, adapter_seconds


def score_predictions(predictions, contract: Contract, base_seconds: float, adapter_seconds: float) -> Scores:
    """Scores of published or fresh predictions under a contract; needs no model."""
    rows = {who: metric_rows(predictions, who, contract) for who in ("base", "adapter")}
    clean = [row for row, seen in enumerate(predictions.seen) if not seen]
    return Scores(
        **_compared(rows, range(len(predictions.reference)), contract),
        base_outputs=_outputs(predictions.base, predictions.base_tokens, contract, base_seconds),
        adapter_outputs=_outputs(predictions.adapter, predictions.adapter_tokens, contract, adapter_seconds),
        sql=_sql_counts(predictions, contract) if contract.sql else None,
        seen={kind: predictions.seen.count(kind) for kind in ("exact", "near")},
        clean=Compared(**_compared(rows, clean, contract)) if 0 < len(clean) < len(predictions.seen) else None,
    )


def _sql_counts(predictions, contract: Contract) -> SqlCounts:
    from evaluation.metrics import sql_of

    base, adapter = (
        sql_of(texts, predictions.reference, predictions.schema, contract)
        for texts in (predictions.base, predictions.adapter)
    )
    return SqlCounts(
        not_executable=base.executable.count(False),
        base_empty=sum(base.empty_match),
        adapter_empty=sum(adapter.empty_match),
    )


def metric_rows(predictions, who: str, contract: Contract) -> dict[str, list[float]]:
    """Every metric of the contract, row by row, of what `who` ("base" or "adapter") wrote."""
    from evaluation.metrics import rows_of

    return rows_of(getattr(predictions, who), predictions.reference, predictions.schema, contract)


def _compared(rows: dict[str, dict[str, list[float]]], chosen: Sequence[int], contract: Contract) -> dict[str, Any]:
    from evaluation.bootstrap import intervals

    base, adapter = (
        {name: [scores[row] for row in chosen] for name, scores in rows[who].items()} for who in ("base", "adapter")
    )
    difference = {name: [a - b for a, b in zip(adapter[name], base[name], strict=True)] for name in base}
    named = {"base": base, "adapter": adapter, "difference": difference}
    return {"rows": len(chosen)} | {
        name: intervals(per_row, contract.resamples, contract.confidence, contract.seed)
        for name, per_row in named.items()
    }


def _outputs(texts: list[str], tokens: list[list[int]], contract: Contract, seconds: float) -> Outputs:
    return Outputs(
        mean_tokens=sum(map(len, tokens)) / len(tokens),
        cut=sum(len(ids) >= contract.max_new_tokens for ids in tokens),
        empty=sum(not text for text in texts),
        seconds=seconds,
    )


def table(scores: Compared) -> str:
    """The scores as a small plain-text table."""
    lines = [f"{scores.rows:,} test rows".ljust(22) + "base model              adapter                 difference"]
    for name in scores.shown():
        cells = [
            f"{x.mean:.4f} [{x.low:.4f}, {x.high:.4f}]"
            for x in (scores.base[name], scores.adapter[name], scores.difference[name])
        ]
        lines.append(f"{name:<21} " + " ".join(f"{cell:<23}" for cell in cells).rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
