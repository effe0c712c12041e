"""What a reproduction looks at besides new outputs: files, lineage, test rows, leakage, numbers, and the card.

Every check returns what it found, in one line, or raises `Drift`. None needs torch.
"""

import json
from pathlib import Path
from typing import Any

from evaluation.predictions import FORGETTING_FILE, Predictions, load_predictions
from evaluation.verdict import Drift
from recipes.pins import ADAPTER_FILE
from recipes.record import Record, Section

# Floating-point sums may differ in their last bits between machines; a changed number differs in a digit that is shown.
ROUNDING = 1e-9


def check_lineage(folder: Path, record: Record) -> str:
    """Holds the adapter's own configuration, its recipe and its chain against the record's pins."""
    from recipes.config import recipe_yaml

    if record.files.get(ADAPTER_FILE) != record.training.adapter_sha256:
        raise Drift("lineage", f"the record lists another {ADAPTER_FILE} than the one that was trained")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    base = record.pins.base_model
    if (config.get("base_model_name_or_path"), config.get("revision")) != (base.id, base.revision):
        raise Drift(
            "lineage", f"adapter_config.json names another base model than the record's {base.id}@{base.revision}"
        )
    named = {
        "model_name_or_path": base.id,
        "dataset_name": record.pins.dataset.id,
    }
    for key, pinned in named.items():
        if record.recipe.get(key) != pinned:
            raise Drift("lineage", f"the recipe's `{key}` is {record.recipe.get(key)}, the record pins {pinned}")
    if (record.recipe.get("parent_adapter") is None) != (record.pins.parent_adapter is None):
        raise Drift("lineage", "the recipe and the record's pins differ in whether a parent adapter was continued")
    if (folder / f"{record.name}.yaml").read_text(encoding="utf-8") != recipe_yaml(record.recipe):
        raise Drift("lineage", f"{record.name}.yaml is not the recipe that the record holds")
    return f"trained on {base.id}@{base.revision[:12]}, as the adapter and its recipe say"


def rebuild_splits(record: Record):
    """The recipe's splits from the pinned dataset.

    Raises:
        `Drift`: they are not those that the record counts and hashes.
    """
    from recipes.config import arguments_from_record
    from recipes.data import build_splits
    from recipes.tokens import load_tokens

    recipe = arguments_from_record(record.recipe)
    dataset = record.pins.dataset
    splits = build_splits(recipe, dataset, load_tokens(record.pins.base_model, recipe.added_tokens))
    where, found, stated = first_difference(splits.counts, record.data) or (None, None, None)
    if where is not None:
        raise Drift(
            "data",
            f"{dataset.id}@{dataset.revision} gives other rows than the record states ({where}: {found}, not {stated})",
        )
    return splits


def check_rows(record: Record, predictions: Predictions, test) -> str:
    """Holds the prompts, references and tables beside the published predictions against the test rows."""
    for name, published, column in (
        ("prompts", predictions.prompt, "prompt"),
        ("references", predictions.reference, "target"),
        ("tables", predictions.schema, "schema"),
    ):
        if published != (rebuilt := test[column][:]):
            if len(published) != len(rebuilt):
                raise Drift(
                    "data", f"there are predictions for {len(published):,} rows, but {len(rebuilt):,} test rows"
                )
            row = next(row for row, pair in enumerate(zip(published, rebuilt, strict=True)) if pair[0] != pair[1])
            raise Drift("data", f"the published predictions stand beside other {name} than the dataset's (row {row})")
    return f"{len(test):,} test rows rebuilt from {record.pins.dataset.id}, as recorded"


def check_leakage(record: Record, predictions: Predictions, splits) -> str:
    """Compares the test inputs with the chain's training inputs again."""
    from recipes.chain import look_back

    seen, leakage = look_back(splits, record.pins)
    if leakage != record.leakage:
        raise Drift("leakage", "the test rows stand among the training rows otherwise than the record states")
    if seen != predictions.seen:
        row = next(row for row, pair in enumerate(zip(seen, predictions.seen, strict=True)) if pair[0] != pair[1])
        raise Drift(
            "leakage", f"row {row} is published as {predictions.seen[row] or 'clean'}: it is {seen[row] or 'clean'}"
        )
    many = sum(map(bool, seen))
    return f"{many:,} of {len(seen):,} test inputs stand in the chain's training rows, as recorded"


def check_scores(folder: Path, record: Record, predictions: Predictions) -> str:
    """Scores the published predictions again, those of the parent's test rows too."""
    from evaluation.score import contract_of, score_forgetting, score_predictions
    from recipes.config import arguments_from_record

    stated = record.contract
    ours = contract_of(arguments_from_record(record.recipe), stated.dtype, stated.batch_size)
    versions = {"metric_version": stated.metric_version, "sql": stated.sql}
    if (ours.sql is None) != (stated.sql is None) or ours.model_copy(update=versions) != stated:
        where, here, there = first_difference(ours, stated)
        raise Drift("scoring", f"the scoring contract is not the recipe's: {where} is {there}, not {here}")
    published = record.scores
    seconds = published.base_outputs.seconds, published.adapter_outputs.seconds
    _same_numbers(
        score_predictions(predictions, stated, *seconds), published, "the published predictions", ours, stated
    )
    if (record.forgetting is None) != (record.pins.parent_adapter is None):
        raise Drift("scoring", "an adapter that continues another, and no other, states what was forgotten")
    if record.forgetting is not None:
        again = score_forgetting(load_predictions(folder, FORGETTING_FILE), stated)
        _same_numbers(again, record.forgetting, FORGETTING_FILE, ours, stated)
    return "published predictions scored again: the numbers of the record, to the last digit"


def _same_numbers(again: Section, stated: Section, what: str, ours, contract) -> None:
    difference = first_difference(again, stated)
    if difference is not None:
        where, found, there = difference
        versions = [f"{c.metric} {c.metric_version}" + (f", {c.sql}" if c.sql else "") for c in (ours, contract)]
        under = f" (scored with {versions[0]}, there with {versions[1]})" if versions[0] != versions[1] else ""
        raise Drift("scoring", f"{what} give {where} {_shown(found)}, the record states {_shown(there)}{under}")


def check_card(adapter: str, folder: Path, record: Record, predictions: Predictions) -> str:
    """Renders card and plots anew and compares them with the published ones."""
    from model_cards.check import find_difference, same_renderer

    difference = find_difference(adapter, folder, record, predictions)
    if difference is not None:
        raise Drift("card", difference)
    if same_renderer(record):
        return "card and plots rendered again: the same, but for what people wrote"
    return "the card's scores are the record's; the rest was rendered by another version and was not compared"


def first_difference(one: Any, other: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """The first place where two sections, or plain values, differ by more than rounding: its name and both values."""
    if isinstance(one, Section) and isinstance(other, Section):
        one, other = one.model_dump(), other.model_dump()
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            place = f"{where}.{key}".lstrip(".")
            found = first_difference(one.get(key), other.get(key), place)
            if found is not None:
                return found
        return None
    if isinstance(one, float) and isinstance(other, int | float):
        return None if abs(one - other) <= ROUNDING else (where, one, other)
    return None if one == other else (where, one, other)


def _shown(value: Any) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)
