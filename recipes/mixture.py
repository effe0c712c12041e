"""Several datasets in one recipe (`datasets`): the recipe of each, and which of its rows are taken.

They are joined by `datasets.concatenate_datasets`. TRL's `DatasetMixtureConfig` knows neither commits nor templates, so
its names are not taken over.
"""

from collections.abc import Sequence
from dataclasses import MISSING, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from record.errors import UserError

if TYPE_CHECKING:
    from record.run_record import Pin

# A `recipes.config.RecipeArguments`, which itself calls these.
Arguments = TypeVar("Arguments", bound=Any)
# The keys that each of `datasets` may have; those above all of them hold where it lacks one.
EACH = ("dataset_name", "dataset_config", "dataset_revision", "dataset_splits", "extract", "prompt", "target",
        "references", "sql_schema")  # fmt: skip
# Keys that speak of the rows of one dataset: above several they would name rows of none.
OF_ONE = ("train_split", "validation_split", "test_split")


def sources(arguments: Arguments) -> list[Arguments]:
    """The recipe of each dataset as if it had no other, in the recipe's order.

    Raises:
        `UserError`: one of them makes no sense by itself.
    """
    if not arguments.datasets:
        return [arguments]
    each = []
    for number, entry in enumerate(arguments.datasets, start=1):
        own = {key: value for key, value in entry.items() if key != "share"}
        try:
            each.append(replace(arguments, datasets=[], **own))
        except UserError as error:
            raise UserError(f"number {number} of `datasets` ({entry.get('dataset_name')}): {error}") from None
    return each


def shares(arguments: Arguments) -> list[float | None]:
    """The share of each dataset's rows that is taken; None for all of them."""
    return [entry.get("share") for entry in arguments.datasets] or [None]


def refuse_contradictions(arguments: Arguments) -> None:
    """Refuses a recipe whose `datasets` contradict each other or the keys above them.

    Raises:
        `UserError`: they do.
    """
    if len(arguments.datasets) == 1:
        raise UserError("`datasets` names one dataset: write its keys above, without `datasets`, or name several")
    for key in OF_ONE:
        if getattr(arguments, key) is not None:
            raise UserError(f"`{key}` names rows of one dataset: move it into `datasets`, to those that have it")
    if arguments.sql_database is not None:
        raise UserError("`sql_database` names files of one dataset: remove it, or `datasets`")
    each = sources(arguments)
    for key in (*OF_ONE, "sql_schema"):
        if len({getattr(source, key) is None for source in each}) > 1:
            raise UserError(f"some of `datasets` have `{key}`, others do not: state it for all of them, or for none")


def refuse_idle_keys(arguments: Arguments) -> None:
    """Refuses a key above `datasets` that each of them overrides.

    Raises:
        `UserError`: there is one.
    """
    for item in fields(arguments):
        default = item.default if item.default_factory is MISSING else item.default_factory()
        stated = item.name in EACH and getattr(arguments, item.name) != default
        if stated and all(item.name in entry for entry in arguments.datasets):
            raise UserError(f"`{item.name}` has no effect: each of `datasets` has its own: remove it above them")


def refuse_same_rows(each: Sequence[Arguments], pins: "Sequence[Pin]") -> None:
    """Refuses a dataset that is named twice for the same rows and the same texts of them.

    Raises:
        `UserError`: there is one.
    """
    seen: dict[str, list[set[str]]] = {}
    for source, pinned in zip(each, pins, strict=True):
        texts = (source.extract, source.prompt, source.target)
        same = repr((pinned.id, pinned.revision, source.dataset_config, source.own_splits(), texts))
        splits, earlier = set(source.dataset_splits), seen.setdefault(same, [])
        for others in earlier:
            if not splits or not others or splits & others:
                raise UserError(
                    f"`datasets` names {pinned.id} twice with the same rows and templates: remove one of them, or name "
                    "other `dataset_splits`"
                )
        earlier.append(splits)
