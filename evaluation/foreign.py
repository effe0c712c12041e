"""The scores of an adapter or a full model that was not trained here, as an evaluation-only record."""

from pathlib import Path
from typing import Any

from huggingface_hub import constants

from evaluation.claim import decide
from hub.foreign import pull_foreign
from hub.pins import name_on_hub, pin
from recipes.config import Recipe
from recipes.data.lineage import find_seen_rows
from recipes.data.splits import Splits, build_splits, references
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
from record.scores import Contract
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
    folder, files = pull_foreign(source, kind)
    base, assumed = find_base(folder, kind, base_named, recipe)
    name = source.id.rpartition("/")[2]
    recipe, left_out = scoring_recipe(recipe, base, name if is_plain_name(name) else "adapter")
    pins = pin_recipe(recipe)
    languages = languages_of(recipe.resolved)
    has_tokenizer = refuse_other_tokenizer(folder, kind, source, base, recipe.resolved)
    tokens = load_tokens(base, [], languages)
    splits = build_splits(recipe.arguments, pins.dataset, tokens)
    seen, leakage = find_seen_rows(splits, pins)
    foreign = load_foreign(folder, kind, source, base, recipe.resolved, recipe.model)
    contract = contract_of(recipe.arguments, foreign.dtype, recipe.training.per_device_eval_batch_size)
    predictions, *seconds = predict(foreign.model, foreign.tokenizer, splits.test, seen, contract, foreign.base)
    rows = metric_rows(predictions, "adapter", contract) if claims else {}
    assumed += _assumptions(recipe, splits, pins.dataset, contract, base, has_tokenizer, left_out)
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
            assumed=[one_line(line, 300) for line in assumed],
            claims=[decide(metric, value, tolerance, rows[metric], contract) for metric, value in claims.items()],
        ),
    )
    return require_evaluation(record), predictions


def find_base(folder: Path, kind: str, named: str | None, recipe: Recipe) -> tuple[Pin, list[str]]:
    """The base model at a commit, and what was assumed of it, one line each.

    Raises:
        `UserError`: nothing names a base model on the Hub.
    """
    if named is not None:
        name, _, revision = named.partition("@")
        base = _pin_base(name, revision or "main")
        return base, [f"base model: {base.id}@{base.revision}, as --base names it"]
    if kind == "model":
        name, revision = recipe.model.model_name_or_path, recipe.model.model_revision
        base = _pin_base(name, revision)
        return base, [f"base model: {base.id}@{base.revision}, as the recipe names it, to compare with"]
    config = read_foreign_config(folder)
    if not config.base_model_name_or_path:
        raise UserError("adapter_config.json names no base model: name it by --base owner/name")
    base = _pin_base(config.base_model_name_or_path, config.revision or "main")
    line = f"base model: {base.id}@{base.revision}, as adapter_config.json names it"
    if config.revision != base.revision:
        named = f"only {one_line(config.revision, 60)}" if config.revision else "no commit"
        line += f"; it names {named}: the commit of today"
    return base, [line]


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


def _assumptions(
    recipe: Recipe,
    splits: Splits,
    dataset: Pin,
    contract: Contract,
    base: Pin,
    has_tokenizer: bool,
    left_out: dict[str, Any],
) -> list[str]:
    """What the scores rest on besides the weights, one line each."""
    arguments, counts = recipe.arguments, splits.counts
    split = (
        f"its split {arguments.test_split}"
        if arguments.test_split
        else f"{arguments.test_size:.1%} drawn with seed {arguments.split_seed}"
    )
    rules = "; ".join(arguments.length_rules) or "none"
    search = "greedily" if contract.num_beams == 1 else f"with {contract.num_beams} beams"
    own = "its own has the same tokens" if has_tokenizer else "the repository holds none"
    lines = [
        f"rows: {counts.test:,} of {dataset.id}@{dataset.revision[:12]}, {split}",
        f"rules of length: {rules}",
        *(f"prompt: {prompt}" for prompt in arguments.prompt),
        f"reference: {arguments.target}",
        f"decoding: {search}, {contract.max_new_tokens:,} tokens at most, in {contract.dtype}",
        f"tokenizer: that of {base.id} ({own})",
        "training rows: those of the recipe, for the baselines and for which test rows training has seen",
    ]
    if left_out:
        lines.append(f"left out of the recipe: {', '.join(f'{key} ({value})' for key, value in left_out.items())}")
    return lines
