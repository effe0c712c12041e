"""Whether a recipe names the base model and the datasets that its record pins."""

from evaluation.findings import Drift
from hub.pins import same_repository
from record.recipe_datasets import dataset_recipes
from record.run_record import FilePin, Pin, Record


def check_names(record: Record) -> None:
    """Compares the names in the recipe with the record's pins.

    Raises:
        `Drift`: one is another, or there are more or fewer datasets.
    """
    pins, recipe = record.pins, dict(record.recipe)
    names = [one.get("dataset_name") for one in dataset_recipes(recipe)]
    if len(names) != len(pins.datasets):
        raise Drift("lineage", f"the recipe names {len(names)} datasets, the record pins {len(pins.datasets)}")
    named: list[tuple[str, object, Pin]] = [("model_name_or_path", recipe.get("model_name_or_path"), pins.base_model)]
    named += [("dataset_name", name, pinned) for name, pinned in zip(names, pins.datasets, strict=True)]
    for key, name, pinned in named:
        stated = str(name)
        if stated != pinned.dataset_name if isinstance(pinned, FilePin) else not same_repository(stated, pinned):
            raise Drift("lineage", f"the recipe's `{key}` is {stated}, the record pins {pinned.id}")
