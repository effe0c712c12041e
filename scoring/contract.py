"""The scoring contract that a recipe asks for on this machine; needs no model."""

from record.errors import UserError
from record.scores import Contract


def contract_of(recipe, dtype: str, batch_size: int) -> Contract:
    """The scoring contract that a recipe's `RecipeArguments` ask for on this machine."""
    import sqlite3
    from importlib.metadata import version

    from scoring.bootstrap import CONFIDENCE, RESAMPLES, SEED
    from scoring.corpus import signature
    from scoring.metrics.rouge import SENTENCES

    named, several = recipe.metric_families(), bool(recipe.templates("references"))
    sql = f"sqlglot {version('sqlglot')}, SQLite {sqlite3.sqlite_version}"
    return Contract(
        engine=_engine(recipe.engine, dtype),
        metrics=recipe.metrics,
        metric="rouge-score-rs",
        metric_version=version("rouge-score-rs"),
        rouge_tokenizer=recipe.rouge_tokenizer,
        stemmer=recipe.rouge_tokenizer == "words",
        sentences=SENTENCES[recipe.rouge_tokenizer],
        sql=sql if "sql" in named else None,
        sql_rules=2 if "sql" in named else 1,
        signatures={family: line for family in named if (line := signature(family, several))},
        without_rows="absent",
        references="several" if several else "one",
        max_new_tokens=recipe.max_new_tokens,
        num_beams=recipe.num_beams,
        dtype=dtype,
        batch_size=batch_size,
        resamples=RESAMPLES,
        confidence=CONFIDENCE,
        seed=SEED,
    )


def _engine(name: str, dtype: str) -> str:
    from scoring.engines import engine_here

    if name != "transformers" and dtype != "float32":
        raise UserError(f"`engine: {name}` computes in float32: set `dtype: float32`, or leave `engine` out")
    here = engine_here(name)
    if not here.startswith(name):
        raise UserError(f"`engine: {name}` is an extra: pip install -r requirements-{name}.txt")
    return here
