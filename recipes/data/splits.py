"""The recipe's data: pinned load → extracted columns → prompt → length rules → seeded split → token ids."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow.compute as pc
from datasets import Column, Dataset, concatenate_datasets
from tokenizers import Tokenizer

from recipes.config import RecipeArguments
from recipes.data import leakage
from recipes.data.batches import map_batches
from recipes.data.columns import (
    DATABASE,
    EMPTY,
    INPUT,
    REFERENCES,
    SCHEMA,
    cut,
    measure,
    token_ids,
)
from recipes.data.sources import DATASET, ORIGIN, Filled, fill_sources, join, sum_counts
from recipes.length_rules import Rule
from recipes.mixture import sources
from record.cache import BATCH, cached_value
from record.errors import UserError
from record.recipe_datasets import DatasetRows
from record.run_record import Data, Lengths, Pin


@dataclass
class Splits:
    """`train`, `validation` (None without one) and `test`; their `counts`.

    Columns: `prompt`, `target`, `schema`, the tables that a row's SQL is about, `database`, the place of the file that
    holds them (both "" where the recipe names none), and `input`, the texts of the prompt's columns without the
    template's own words; where `split` is grouped also `group`, the number of the row's group, and where the recipe
    names `references`, these (see `equals_of`); where it has several `datasets`, `dataset`, the number of the row's,
    from 0 on. `tokenizer` is the one that the prompts are read with.
    """

    train: Dataset
    validation: Dataset | None
    test: Dataset
    counts: Data
    tokenizer: Tokenizer


def build_splits(
    recipe: RecipeArguments, datasets: Pin | Sequence[Pin], tokenizer: Tokenizer, rules: Literal[1, 2] = 2
) -> Splits:
    """Loads the pinned datasets and makes the recipe's splits of them: they are joined first, in the recipe's order.

    The test split is `ceil(test_size · n)` rows of one seeded permutation, the validation split likewise of the rest
    (`Dataset.train_test_split`, or `hold_out_groups` where `split` is grouped), so they depend on the rows and
    `split_seed` alone. Where the recipe names the dataset's own splits, their rows are those, in their order.
    Of each of several `datasets` its `share` is taken first (`recipes.data.sources.taken_rows`), of its own splits of
    `train_split`.

    Parameters:
        datasets: one pin a dataset of the recipe.
        rules: those by which the rows of a record were made (`record.run_record.Data.rules`).

    Raises:
        `UserError`: a split or column does not exist, or the rules leave too few rows.
    """
    pins = [datasets] if isinstance(datasets, Pin) else datasets
    filled = fill_sources(recipe, pins, rules)
    own = sources(recipe)[0].own_splits()
    names, loaded = ", ".join(pinned.id for pinned in pins), sum(source.loaded for source in filled)
    rows, unmatched = join(filled, recipe), sum_counts([source.unmatched for source in filled])
    rows, empty = (rows, {}) if rules == 1 else _without_empty(rows)
    if not len(rows):
        raise UserError(f"no row of {names} has both a prompt and a target ({_summary(unmatched | empty)})")
    rows, dropped, truncated, limits = apply_rules(rows, recipe.parsed_rules(), tokenizer, rules)
    dropped = unmatched | empty | dropped
    made = {SCHEMA: "schema", DATABASE: "database", INPUT: "input"}
    made |= {REFERENCES: "references"} if recipe.templates("references") else {}
    made |= {DATASET: "dataset"} if len(pins) > 1 else {}
    rows = rows.select_columns(["prompt", "target", *made, *([ORIGIN] if own else [])]).rename_columns(made)
    if len(rows) < 2:
        raise UserError(f"{len(rows)} of {loaded} rows of {names} are left ({_summary(dropped)}): too few to train on")
    if recipe.split == "grouped":
        numbers = cached_value(
            "groups",
            lambda: leakage.groups(rows["input"][:], rows["prompt"][:], rules).tolist(),
            leakage.code(),
            str(rules),
            rows["input"],
            rows["prompt"],
        )
        rows = rows.add_column("group", np.array(numbers))
    train, validation, test = _own_rows(rows, recipe, own) if own else _split_rows(rows, recipe)
    counts = Data(
        rules=rules,
        loaded=loaded,
        dropped=dropped,
        truncated=truncated,
        limits=limits,
        lengths=_lengths(train, test, tokenizer, rules),
        train=len(train),
        validation=0 if validation is None else len(validation),
        test=len(test),
        test_dropped=sum(source.test for source in filled) - len(test) if own else 0,
        by_dataset=_count_by_dataset(filled, pins, train, validation, test) if len(pins) > 1 else [],
        test_sha256=rows_sha256(test),
    )
    return Splits(train, validation, test, counts, tokenizer)


def _count_by_dataset(
    filled: Sequence[Filled], pins: Sequence[Pin], train: Dataset, validation: Dataset | None, test: Dataset
) -> list[DatasetRows]:
    parts = {"train": train, "validation": validation, "test": test}
    counts = {name: Counter(rows["dataset"][:] if rows else []) for name, rows in parts.items()}
    for number, pinned in enumerate(pins):
        if not any(count[number] for count in counts.values()):
            raise UserError(f"no row of {pinned.id} is left: correct its keys in `datasets`, or remove it")
    return [
        DatasetRows(
            dataset=pinned.id,
            rows=source.there,
            loaded=source.loaded,
            **{name: counts[name][number] for name in parts},
        )
        for number, (source, pinned) in enumerate(zip(filled, pins, strict=True))
    ]


def _split_rows(rows: Dataset, recipe: RecipeArguments) -> tuple[Dataset, Dataset | None, Dataset]:
    """The rows to train on, to validate on (None where the recipe does without), and to test on."""
    train, test = _split(rows, recipe.test_size, recipe)
    return *_hold_out_validation(train, recipe), test


def _own_rows(rows: Dataset, recipe: RecipeArguments, own: dict[str, str]) -> tuple[Dataset, Dataset | None, Dataset]:
    """As `_split_rows`, of the splits that the recipe names."""
    origin = rows.with_format("numpy", columns=[ORIGIN])[ORIGIN][:]
    rows, parts = rows.remove_columns(ORIGIN), {}
    for number, (key, split) in enumerate(own.items()):
        parts[key] = rows.select(np.flatnonzero(origin == number))
        if not len(parts[key]):
            raise UserError(f"no row of `{key}: {split}` is left: the recipe drops them all")
    train, validation = parts["train_split"], parts.get("validation_split")
    if validation is None:
        train, validation = _hold_out_validation(train, recipe)
    return train, validation, parts["test_split"]


def _hold_out_validation(train: Dataset, recipe: RecipeArguments) -> tuple[Dataset, Dataset | None]:
    if not recipe.validation_size or recipe.select_on_test:
        return train, None
    if len(train) < 2:
        raise UserError(f"{len(train)} row is left to train on: too few to hold some out for validation")
    return _split(train, recipe.validation_size, recipe)


def _lengths(train: Dataset, test: Dataset, tokenizer: Tokenizer, rules: int) -> dict[str, Lengths]:
    tokens = tokenize(train, tokenizer)
    lengths = {"prompt": _lengths_of(tokens, "input_ids"), "target": _lengths_of(tokens, "labels")}
    if rules == 1:
        return {name: length.model_copy(update={"p99": None}) for name, length in lengths.items()}
    return lengths | {"reference": _lengths_of(tokenize(test, tokenizer), "labels")}


def _lengths_of(tokens: Dataset, ids: str) -> Lengths:
    batches = tokens.select_columns([ids]).with_format("arrow").iter(BATCH)
    counts = np.concatenate([pc.list_value_length(batch[ids]).to_numpy() for batch in batches])
    p99 = int(np.percentile(counts, 99, method="higher"))
    return Lengths(min=counts.min(), mean=int(counts.sum()) / len(counts), max=counts.max(), p99=p99)


def _without_empty(rows: Dataset) -> tuple[Dataset, dict[str, int]]:
    empty = rows.with_format("numpy", columns=[EMPTY])[EMPTY][:]
    counts = Counter(word for word in empty.tolist() if word)
    return (rows.select(np.flatnonzero(empty == "")) if counts else rows), dict(sorted(counts.items()))


def _summary(dropped: dict[str, int]) -> str:
    return ", ".join(f"{rule}: {rows:,}" for rule, rows in dropped.items() if rows) or "none was dropped"


def _split(rows: Dataset, size: float, recipe: RecipeArguments) -> tuple[Dataset, Dataset]:
    if recipe.split == "grouped":
        numbers = rows.with_format("numpy", columns=["group"])["group"][:]
        train, held_out = hold_out_groups(numbers, size, recipe.split_seed)
        return rows.select(train), rows.select(held_out)
    halves = rows.train_test_split(test_size=size, seed=recipe.split_seed)
    return halves["train"], halves["test"]


def hold_out_groups(numbers: np.ndarray, size: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to keep and to hold out, so that no group stands on both sides.

    Groups are drawn in the order of one seeded permutation of the rows; each is held out whole if it still fits into
    `ceil(size · n)` rows. So there may be fewer: a group that is larger than that stays with the kept rows.

    Parameters:
        numbers: the group of each row, shape `(n,)`.

    Raises:
        `UserError`: no group is small enough.
    """
    order = np.random.default_rng(seed).permutation(len(numbers))
    sizes, room, held_out = Counter(numbers.tolist()), math.ceil(size * len(numbers)), set()
    for group in dict.fromkeys(numbers[order].tolist()):
        if sizes[group] <= room:
            held_out.add(group)
            room -= sizes[group]
    if not held_out:
        raise UserError(
            f"`split: grouped` can hold out none of {len(numbers)} rows: near-duplicates connect too many of them. "
            "Use `split: random`"
        )
    held = np.isin(numbers[order], list(held_out))
    return order[~held], order[held]


def apply_rules(
    rows: Dataset, length_rules: list[Rule], tokenizer: Tokenizer, rules: int = 2
) -> tuple[Dataset, dict[str, int], dict[str, int], dict[str, float]]:
    """Applies the length rules in order.

    A percentile is taken over all `rows` (`numpy.percentile`, linear). Tokens are counted with the final `</s>`, as
    the model sees them.

    Parameters:
        rules: as in `build_splits`.

    Returns:
        The kept rows; rows dropped by rule (each by the first rule that it breaks); rows cut by rule; the lengths that
        percentile rules came to.
    """
    dropped, truncated, limits = {}, {}, {}
    loaded = {rule: lengths(rows, rule, tokenizer) for rule in length_rules if rule.percentile}
    numbers = np.arange(len(rows))
    for rule in length_rules:
        limit = rule.limit
        if rule.percentile:
            limit = limits[rule.text] = float(np.percentile(loaded[rule], rule.limit))
        # Measured again where a rule before has cut texts.
        counts = loaded[rule][numbers] if rule.percentile and not truncated else lengths(rows, rule, tokenizer)
        breaks = rule.breaks(counts, limit)
        if rule.action == "drop":
            dropped[rule.text] = int(breaks.sum())
            rows, numbers = rows.select(np.flatnonzero(~breaks)), numbers[~breaks]
        else:
            truncated[rule.text] = int(breaks.sum())
            rows = map_batches(
                rows,
                cut,
                f"Applying: {rule.text}",
                text=rule.texts[0],
                unit=rule.unit,
                longest=rule.longest(limit),
                tokenizer=tokenizer if rule.unit == "tokens" else None,
                rules=rules,
            )
    return rows, dropped, truncated, limits


def lengths(rows: Dataset, rule: Rule, tokenizer: Tokenizer) -> np.ndarray:
    """Length of the rule's text (or sum of texts) in the rule's unit, shape `(len(rows),)`."""
    counts = map_batches(
        rows.select_columns(list(rule.texts)),
        measure,
        f"Measuring: {rule.text}",
        unit=rule.unit,
        tokenizer=tokenizer if rule.unit == "tokens" else None,
    )
    return counts.with_format("numpy")["length"][:]


def tokenize(rows: Dataset, tokenizer: Tokenizer) -> Dataset:
    """Token ids of prompts (`input_ids`) and targets (`labels`), each ended by `</s>`; not padded."""
    return map_batches(rows.select_columns(["prompt", "target"]), token_ids, "Tokenizing", tokenizer=tokenizer)


def references(splits: Splits) -> Column:
    """The targets of all rows, read from their file as they are gone through."""
    parts = (splits.train, splits.validation, splits.test)
    return concatenate_datasets([rows.select_columns("target") for rows in parts if rows])["target"]


def datasets_of(rows: Dataset) -> list[int]:
    """The number of each row's dataset where there are several, from 0 on; none where there is one."""
    return rows["dataset"][:] if "dataset" in rows.column_names else []


def equals_of(rows: Dataset) -> list[str]:
    """The rows' right answers besides their targets, each a JSON list of texts; "" for none."""
    return rows["references"][:] if "references" in rows.column_names else [""] * len(rows)


def rows_sha256(rows: Dataset) -> str:
    """Hex sha256 over the prompts and targets, in order, one JSON array a line; over `references` too if there are."""
    digest, line = hashlib.sha256(), json.JSONEncoder(ensure_ascii=False).encode
    columns = ["prompt", "target", *({"references"} & set(rows.column_names))]
    for batch in rows.select_columns(columns).iter(BATCH):
        for texts in zip(*(batch[name] for name in columns), strict=True):
            digest.update(line(texts).encode() + b"\n")
    return digest.hexdigest()
