"""The scores of an adapter or a full model that was not trained here, as an evaluation-only record."""

from pathlib import Path
from typing import Any

from huggingface_hub import constants

from evaluation.claim import decide
from hub.foreign import pull_foreign
from hub.pins import name_on_hub, pin
from recipes.config import Recipe
from recipes.data.lineage import find_seen_rows
from recipes.data.splits import build_splits, references
from recipes.data.stored_tokenizer import languages_of
from recipes.data.tokenizer import audit, load_tokens
from recipes.environment import describe_environment
from recipes.pin_recipe import pin_recipe
from recipes.scoring_recipe import scoring_recipe
from record.errors import UserError, one_line
from record.field_types import is_plain_name
from record.foreign_config import read_foreign_config
from record.predictions import Predictions
from record.run_record import Evaluated, Pin, Record
from record.scored_record import EvaluatedRecord, require_evaluation
from scoring.baselines import score_baselines
from scoring.contract import contract_of
from scoring.decoding.foreign import load_foreign, refuse_other_tokenizer
from scoring.decoding.predict import predict
from scoring.scores import metric_rows, score_predictions


def score_foreign(
    source: Pin, kind: Any, recipe: Recipe, base_named: str | None, claims: dict[str, float], tolerance: float
) -> tuple[EvaluatedRecord, Predictions]:
    """Scores `source` next to its base model on the rows of the recipe, and holds the claims against the scores.

    Parameters:
        kind: `adapter`, or `model` for a full one.
        base_named: `owner/name` or `owner/name@revision` of the base model, instead of what the repository names.
        claims: claimed scores by metric.

    Raises:
        `UserError`: it cannot be scored, and why.
    """
    if recipe.arguments.datasets:
        raise UserError("the recipe joins several datasets, on which nobody else reports: name a recipe of one dataset")
    folder, files = pull_foreign(source, kind)
    base, base_named = find_base(folder, kind, base_named, recipe)
    name = source.id.rpartition("/")[2]
    recipe, left_out = scoring_recipe(recipe, base, name if is_plain_name(name) else "adapter")
    pins = pin_recipe(recipe)
    languages = languages_of(recipe.resolved)
    own_tokenizer = refuse_other_tokenizer(folder, kind, source, base, recipe.resolved)
    tokens = load_tokens(base, [], languages)
    splits = build_splits(recipe.arguments, pins.dataset, tokens)
    seen, leakage = find_seen_rows(splits, pins)
    foreign = load_foreign(folder, kind, source, base, recipe.resolved, recipe.model)
    contract = contract_of(recipe.arguments, foreign.dtype, recipe.training.per_device_eval_batch_size)
    predictions, *seconds = predict(foreign.model, foreign.tokenizer, splits.test, seen, contract, foreign.base)
    rows = metric_rows(predictions, "adapter", contract) if claims else {}
    here = describe_environment()
    record = Record(
        name=recipe.name,
        recipe=recipe.resolved,
        hub=constants.ENDPOINT,
        pins=pins,
        data=splits.counts,
        unwritable=audit(tokens, references(splits)),
        leakage=leakage,
        model=foreign.size(),
        environment=here,
        scored_in=here,
        contract=contract,
        scores=score_predictions(predictions, contract, *seconds),
        baselines=score_baselines(splits, predictions, contract),
        evaluated=Evaluated(
            kind=kind,
            source=source,
            files=files,
            base_named=base_named,
            own_tokenizer=own_tokenizer,
            left_out=left_out,
            claims=[decide(metric, value, tolerance, rows[metric], contract) for metric, value in claims.items()],
        ),
    )
    return require_evaluation(record), predictions


def find_base(folder: Path, kind: str, named: str | None, recipe: Recipe) -> tuple[Pin, Any]:
    """The base model at a commit, and what names it (`record.run_record.Evaluated.base_named`).

    Raises:
        `UserError`: nothing names a base model on the Hub.
    """
    if named is not None:
        name, _, revision = named.partition("@")
        return _pin_base(name, revision or "main"), "option"
    if kind == "model":
        return _pin_base(recipe.model.model_name_or_path, recipe.model.model_revision), "recipe"
    config = read_foreign_config(folder)
    if not config.base_model_name_or_path:
        raise UserError("adapter_config.json names no base model: name it by --base owner/name")
    base = _pin_base(config.base_model_name_or_path, config.revision or "main")
    return base, "commit" if config.revision == base.revision else "name"


def _pin_base(name: str, revision: str) -> Pin:
    """The base model's pin; the oldest models of the Hub go by a name without an owner, too."""
    if "/" not in name and is_plain_name(name):
        name = name_on_hub("model", name)
    if not all(map(is_plain_name, name.split("/"))) or name.count("/") != 1:
        raise UserError(
            f"the base model {one_line(name, 100)!r} is no id on the Hub, but a folder of whoever made the adapter: "
            "name the model by --base owner/name"
        )
    return pin("model", name, revision)
