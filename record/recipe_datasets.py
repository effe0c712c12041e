"""What a recipe says of each of its datasets: the keys of one of `datasets`, else those above all of them; its rows."""

from collections.abc import Mapping
from typing import Any

from record.field_types import Count, PlainName, RepoId, Section


def dataset_recipes(recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The keys of a recipe as each of its datasets has them, in the recipe's order; of one dataset the recipe itself.

    Without `datasets`, and without `share`, which no recipe of one dataset has.
    """
    if not recipe.get("datasets"):
        return [dict(recipe)]
    above = {key: value for key, value in recipe.items() if key != "datasets"}
    return [above | {key: value for key, value in entry.items() if key != "share"} for entry in recipe["datasets"]]


def templates_of(recipe: Mapping[str, Any], key: str) -> list[str]:
    """The templates that a recipe has under `key`, those of all its datasets, each once."""
    values = [one.get(key) or [] for one in dataset_recipes(recipe)]
    return list(dict.fromkeys(text for value in values for text in ([value] if isinstance(value, str) else value)))


class DatasetRows(Section):
    """Rows of one of several datasets: as it has them, as its share takes them, and those of each split."""

    dataset: RepoId | PlainName
    rows: Count
    loaded: Count
    train: Count
    validation: Count
    test: Count
