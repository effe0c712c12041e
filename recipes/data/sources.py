"""The rows of each dataset of a recipe, loaded, extracted, and filled into its own templates."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from datasets import Dataset, Features, Value, concatenate_datasets

from recipes.config import RecipeArguments
from recipes.data.batches import map_batches
from recipes.data.columns import MADE, fill, read_groups
from recipes.data.dataset_files import load_rows
from recipes.data.fields import check_text, reference_fields, used_fields
from recipes.data.local_files import load_files
from recipes.data.own_splits import read_own_splits
from recipes.mixture import shares, sources
from record.errors import UserError
from record.run_record import FilePin, Pin

# The columns that say which of its own splits of a dataset a row is from, and which of several datasets.
ORIGIN, DATASET = "which of the named splits", "which of the datasets"


class Filled(NamedTuple):
    """A dataset's rows with the columns `recipes.data.columns.MADE`, and those that length rules measure.

    `there` counts the rows of the splits that the recipe names, `loaded` those that the dataset's share takes of them,
    `test` those of them in its own test split. `unmatched` counts by column those that `extract` does not match.
    """

    rows: Dataset
    there: int
    loaded: int
    test: int
    unmatched: dict[str, int]


def fill_sources(recipe: RecipeArguments, pins: Sequence[Pin], rules: int) -> list[Filled]:
    """The rows of each dataset of the recipe, in its order.

    Parameters:
        rules: as in `recipes.data.splits.build_splits`.

    Raises:
        `UserError`: a split or column does not exist, a dataset has fewer rows than its share asks for, or there are
            more or fewer pins than datasets.
    """
    each = sources(recipe)
    if len(each) != len(pins):
        raise UserError(f"the recipe names {len(each)} datasets, the record pins {len(pins)}")
    filled = [_fill(*one, rules) for one in zip(each, shares(recipe), pins, strict=True)]
    for source, pinned in zip(filled, pins, strict=True):
        if not len(source.rows):
            raise UserError(f"no row of {pinned.id} is left: `extract` matches none of {source.loaded:,}, correct it")
    return filled


def join(filled: Sequence[Filled], recipe: RecipeArguments) -> Dataset:
    """The rows of all datasets, one after another; of several with the number of its dataset, from 0 on, in each."""
    if len(filled) == 1:
        return filled[0].rows
    measured = [text for rule in recipe.parsed_rules() for text in rule.texts]
    origin = [ORIGIN] if ORIGIN in filled[0].rows.column_names else []
    columns = list(dict.fromkeys([*MADE, *measured, *origin]))
    numbers = np.repeat(np.arange(len(filled), dtype=np.int8), [len(source.rows) for source in filled])
    return concatenate_datasets([source.rows.select_columns(columns) for source in filled]).add_column(DATASET, numbers)


def taken_rows(share: float | None, rows: int, dataset_id: str, seed: int) -> list[int] | None:
    """Which rows of a dataset its share takes, in their order; None for all.

    They are the first of `numpy.random.default_rng(seed).permutation(rows)`.

    Parameters:
        share: below 1 a fraction of the rows, rounded up to a whole row; from 1 on their number.

    Raises:
        `UserError`: the dataset has fewer.
    """
    if share is None:
        return None
    many = math.ceil(share * rows) if share < 1 else int(share)
    if many > rows:
        raise UserError(f"`share: {share}` asks for {many:,} rows of {dataset_id}, which has {rows:,}: ask for fewer")
    return sorted(np.random.default_rng(seed).permutation(rows)[:many].tolist())


def sum_counts(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    """Counts by name, added up."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def _fill(recipe: RecipeArguments, share: float | None, dataset: Pin, rules: int) -> Filled:
    """The rows of one dataset by the recipe that speaks of it alone."""
    parts = _load(recipe, dataset, rules)
    there = sum(map(len, parts))
    taken = taken_rows(share, len(parts[0]), dataset.id, recipe.split_seed)
    if taken is not None:
        parts[0] = parts[0].select(taken)
    rows, unmatched, origin = _extract_all(parts, recipe, dataset, rules)
    fields, labels = used_fields(rows, recipe, dataset.id, rules)
    equals = reference_fields(rows, recipe, dataset.id)
    rows = map_batches(
        rows.select_columns(list(dict.fromkeys(path[0] for path in (*fields.values(), *equals.values())))),
        fill,
        "Filling the prompt",
        Features(dict.fromkeys((*fields, *MADE), Value("string"))),
        fields=fields,
        labels=labels,
        prompts=recipe.prompt,
        target=recipe.target,
        seed=recipe.split_seed,
        schema=recipe.sql_schema or "",
        database=recipe.sql_database or "",
        rules=rules,
        references=recipe.references,
        reference_fields=equals,
    )
    if recipe.test_split is not None:
        rows = rows.add_column(ORIGIN, origin)
    test = 0 if recipe.test_split is None else len(parts[-1])
    return Filled(rows, there, sum(map(len, parts)), test, unmatched)


def _load(recipe: RecipeArguments, dataset: Pin, rules: int) -> list[Dataset]:
    """The rows of each split that the recipe names, or all that it joins, as one."""
    if isinstance(dataset, FilePin):
        parts = load_files(recipe.dataset_name, dataset, recipe.dataset_config)
    else:
        parts = load_rows(dataset, recipe.dataset_config, as_text=rules > 1)
    if recipe.test_split is not None:
        return read_own_splits(parts, recipe.own_splits(), dataset.id)
    missing = [split for split in recipe.dataset_splits if split not in parts]
    if missing:
        raise UserError(f"{dataset.id} has no split `{missing[0]}`, but {', '.join(parts)}: set `dataset_splits`")
    try:
        return [concatenate_datasets([parts[split] for split in recipe.dataset_splits or parts])]
    except ValueError:
        raise UserError(
            f"the splits of {dataset.id} ({', '.join(parts)}) have columns of different kinds: name those to be used "
            "in `dataset_splits`"
        ) from None


def _extract_all(
    parts: list[Dataset], recipe: RecipeArguments, dataset: Pin, rules: int
) -> tuple[Dataset, dict[str, int], np.ndarray]:
    """The parts' rows with their extracted columns, joined; how many do not match; each row's part, shape `(rows,)`."""
    extracted = [extract(part, recipe, rules) for part in parts]
    unmatched = sum_counts([counts for _, counts in extracted])
    origin = np.repeat(np.arange(len(parts), dtype=np.int8), [len(rows) for rows, _ in extracted])
    try:
        return concatenate_datasets([rows for rows, _ in extracted]), unmatched, origin
    except ValueError:
        named = ", ".join(recipe.own_splits().values())
        raise UserError(f"the splits of {dataset.id} ({named}) have columns of different kinds: name others") from None


def extract(rows: Dataset, recipe: RecipeArguments, rules: int = 2) -> tuple[Dataset, dict[str, int]]:
    """The rows with the columns that `extract` reads, and how many it does not match."""
    unmatched = {}
    for column, pattern in recipe.parsed_extract().items():
        if column not in rows.column_names:
            raise UserError(f"`extract` reads a column `{column}`, but there are {', '.join(rows.column_names)}")
        if rules > 1:
            check_text(rows.features[column], column)
        groups = map_batches(rows, read_groups, f"Reading {column}", column=column, pattern=pattern, rules=rules)
        matches = np.array(groups["matched"][:], dtype=bool)
        rows = groups.remove_columns("matched").select(np.flatnonzero(matches))
        unmatched[f"extract: no match in {column}"] = int((~matches).sum())
    return rows, unmatched
