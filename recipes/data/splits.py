"""The recipe's data: pinned load → extracted columns → prompt → length rules → seeded split → token ids."""

import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
import regex
from datasets import Column, Dataset, concatenate_datasets
from tokenizers import Tokenizer

from recipes.config import RecipeArguments, template_columns
from recipes.data.batches import map_batches
from recipes.data.dataset_files import load_rows
from recipes.data.leakage import groups
from recipes.data.tokenizer import count_tokens, encode
from recipes.length_rules import Rule
from record.cache import BATCH, cached_value
from record.errors import UserError
from record.run_record import Data, Lengths, Pin

# A pattern from somebody else's record may take for ever; an honest one takes microseconds.
PATTERN_SECONDS = 5
# Not to be mistaken for columns of the dataset: no template can name them.
INPUT, SCHEMA = "the model's input", "the tables of the SQL"


@dataclass
class Splits:
    """`train`, `validation` (None without one) and `test`; their `counts`.

    Columns: `prompt`, `target`, `schema`, the tables that a row's SQL is about ("" without `sql_schema`), and `input`,
    the texts of the prompt's columns without the template's own words; where `split` is grouped also `group`, the
    number of the row's group.
    """

    train: Dataset
    validation: Dataset | None
    test: Dataset
    counts: Data


def build_splits(recipe: RecipeArguments, dataset: Pin, tokenizer: Tokenizer) -> Splits:
    """Loads the pinned dataset and makes the recipe's splits of it.

    The test split is `ceil(test_size · n)` rows of one seeded permutation, the validation split likewise of the rest
    (`Dataset.train_test_split`, or `hold_out_groups` where `split` is grouped), so they depend on the rows and
    `split_seed` alone.

    Raises:
        `UserError`: a split or column does not exist, or the rules leave too few rows.
    """
    rows = _load(recipe, dataset)
    loaded = len(rows)
    rows, unmatched = _extract(rows, recipe)
    rows = _used_columns(rows, recipe, dataset.id)
    rows = map_batches(
        rows,
        _fill,
        "Filling the prompt",
        prompts=recipe.prompt,
        target=recipe.target,
        seed=recipe.split_seed,
        schema=recipe.sql_schema or "",
    )
    rows, dropped, truncated, limits = apply_rules(rows, recipe.parsed_rules(), tokenizer)
    dropped = unmatched | dropped
    rows = rows.select_columns(["prompt", "target", SCHEMA, INPUT])
    rows = rows.rename_columns({SCHEMA: "schema", INPUT: "input"})
    if len(rows) < 2:
        raise UserError(
            f"the length rules keep {len(rows)} of {loaded} rows of {dataset.id}: nothing is left to train on"
        )
    if recipe.split == "grouped":
        numbers = cached_value("groups", lambda: groups(rows["input"][:]).tolist(), "", rows["input"])
        rows = rows.add_column("group", np.array(numbers))
    train, test = _split(rows, recipe.test_size, recipe)
    validation = None
    if recipe.validation_size and not recipe.select_on_test:
        if len(train) < 2:
            raise UserError(f"{len(train)} row is left to train on: too few to hold some out for validation")
        train, validation = _split(train, recipe.validation_size, recipe)
    counts = Data(
        loaded=loaded,
        dropped=dropped,
        truncated=truncated,
        limits=limits,
        lengths=_lengths(tokenize(train, tokenizer)),
        train=len(train),
        validation=0 if validation is None else len(validation),
        test=len(test),
        test_sha256=rows_sha256(test),
    )
    return Splits(train, validation, test, counts)


def _lengths(tokens: Dataset) -> dict[str, Lengths]:
    found = {}
    for column, ids in (("prompt", "input_ids"), ("target", "labels")):
        batches = tokens.select_columns(ids).with_format("arrow").iter(BATCH)
        counts = np.concatenate([pc.list_value_length(batch[ids]).to_numpy() for batch in batches])
        found[column] = Lengths(min=counts.min(), mean=int(counts.sum()) / len(counts), max=counts.max())
    return found


def _load(recipe: RecipeArguments, dataset: Pin) -> Dataset:
    parts = load_rows(dataset, recipe.dataset_config)
    missing = [split for split in recipe.dataset_splits if split not in parts]
    if missing:
        raise UserError(f"{dataset.id} has no split `{missing[0]}`, but {', '.join(parts)}: set `dataset_splits`")
    return concatenate_datasets([parts[split] for split in recipe.dataset_splits or parts])


def _extract(rows: Dataset, recipe: RecipeArguments) -> tuple[Dataset, dict[str, int]]:
    unmatched = {}
    for column, pattern in recipe.parsed_extract().items():
        if column not in rows.column_names:
            raise UserError(f"`extract` reads a column `{column}`, but there are {', '.join(rows.column_names)}")
        found = map_batches(rows, _groups, f"Reading {column}", column=column, pattern=pattern)
        matched = np.array(found["matched"][:], dtype=bool)
        rows = found.remove_columns("matched").select(np.flatnonzero(matched))
        unmatched[f"extract: no match in {column}"] = int((~matched).sum())
    return rows, unmatched


def _groups(batch: dict[str, list], column: str, pattern: regex.Pattern) -> dict[str, list]:
    try:
        matches = [pattern.search(text or "", timeout=PATTERN_SECONDS) for text in batch[column]]
    except TimeoutError:
        raise UserError(f"`extract` of `{column}` takes over {PATTERN_SECONDS} s on one row: simplify it") from None
    read = {name: [match[name] or "" if match else "" for match in matches] for name in pattern.groupindex}
    return {**batch, **read, "matched": [match is not None for match in matches]}


def _used_columns(rows: Dataset, recipe: RecipeArguments, dataset_id: str) -> Dataset:
    templates = (*recipe.prompt, recipe.target, recipe.sql_schema or "")
    used = [column for template in templates for column in template_columns(template)]
    used += [text for rule in recipe.parsed_rules() for text in rule.texts if text not in ("prompt", "target")]
    for column in used:
        if column not in rows.column_names:
            raise UserError(
                f"{dataset_id} has no column `{column}`, but {', '.join(rows.column_names)}: "
                "mend `prompt`, `target`, `sql_schema` or `length_rules`"
            )
    return rows.select_columns(list(dict.fromkeys(used)))


def fill_templates(row: dict[str, Any], prompts: list[str], target: str, seed: int) -> dict[str, str]:
    """The row's prompt and target: templates filled from its columns (None as ""), outer white space removed.

    Which of several prompts a row gets is a function of its texts and the seed alone: neither its place nor the number
    of processes matters.
    """
    texts = {name: "" if value is None else str(value) for name, value in row.items()}
    prompt = prompts[0]
    if len(prompts) > 1:
        draw = hashlib.sha256(json.dumps([seed, sorted(texts.items())], ensure_ascii=False).encode()).digest()
        prompt = prompts[int.from_bytes(draw[:8]) % len(prompts)]
    return {"prompt": prompt.format_map(texts).strip(), "target": target.format_map(texts).strip()}


def _fill(batch: dict[str, list], prompts: list[str], target: str, seed: int, schema: str) -> dict[str, list[str]]:
    read = dict.fromkeys(column for template in prompts for column in template_columns(template))
    filled = {name: [] for name in (*batch, "prompt", "target", INPUT, SCHEMA)}
    for values in zip(*batch.values(), strict=True):
        texts = {name: "" if value is None else str(value) for name, value in zip(batch, values, strict=True)}
        row = dict(zip(batch, values, strict=True)) | fill_templates(texts, prompts, target, seed)
        row |= {INPUT: " ".join(texts[column] for column in read).strip(), SCHEMA: schema.format_map(texts).strip()}
        for name, text in row.items():
            filled[name].append(text)
    return filled


def _split(rows: Dataset, size: float, recipe: RecipeArguments) -> tuple[Dataset, Dataset]:
    if recipe.split == "grouped":
        numbers = rows.with_format("numpy", columns=["group"])["group"][:]
        kept, held_out = hold_out_groups(numbers, size, recipe.split_seed)
        return rows.select(kept), rows.select(held_out)
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
    rows: Dataset, rules: list[Rule], tokenizer: Tokenizer
) -> tuple[Dataset, dict[str, int], dict[str, int], dict[str, float]]:
    """Applies the length rules in order.

    A percentile is taken over all rows as loaded (`numpy.percentile`, linear). Tokens are counted with the final
    `</s>`, as the model sees them.

    Returns:
        The kept rows; rows dropped by rule (each by the first rule that it breaks); rows cut by rule; the lengths that
        percentile rules came to.
    """
    dropped, truncated, limits = {}, {}, {}
    loaded = {rule: lengths(rows, rule, tokenizer) for rule in rules if rule.percentile}
    kept = np.arange(len(rows))
    for rule in rules:
        limit = rule.limit
        if rule.percentile:
            limit = limits[rule.text] = float(np.percentile(loaded[rule], rule.limit))
        # Measured again where a rule before has cut texts.
        known = loaded[rule][kept] if rule.percentile and not truncated else lengths(rows, rule, tokenizer)
        breaks = rule.breaks(known, limit)
        if rule.action == "drop":
            dropped[rule.text] = int(breaks.sum())
            rows, kept = rows.select(np.flatnonzero(~breaks)), kept[~breaks]
        else:
            truncated[rule.text] = int(breaks.sum())
            rows = map_batches(
                rows,
                _cut,
                f"Applying: {rule.text}",
                text=rule.texts[0],
                unit=rule.unit,
                longest=rule.longest(limit),
                tokenizer=tokenizer if rule.unit == "tokens" else None,
            )
    return rows, dropped, truncated, limits


def lengths(rows: Dataset, rule: Rule, tokenizer: Tokenizer) -> np.ndarray:
    """Length of the rule's text (or sum of texts) in the rule's unit, shape `(len(rows),)`."""
    measured = map_batches(
        rows.select_columns(list(rule.texts)),
        _measure,
        f"Measuring: {rule.text}",
        unit=rule.unit,
        tokenizer=tokenizer if rule.unit == "tokens" else None,
    )
    return measured.with_format("numpy")["length"][:]


def _measure(batch: dict[str, list], unit: str, tokenizer: Tokenizer | None) -> dict[str, list[int]]:
    columns = [["" if text is None else str(text) for text in column] for column in batch.values()]
    if unit == "characters":
        measured = [[len(text) for text in column] for column in columns]
    elif unit == "words":
        measured = [[len(text.split()) for text in column] for column in columns]
    else:
        measured = [count_tokens(tokenizer, column) for column in columns]
    return {"length": [sum(row) for row in zip(*measured, strict=True)]}


def _cut(batch: dict[str, list], text: str, unit: str, longest: int, tokenizer: Tokenizer | None) -> dict[str, list]:
    return {**batch, text: [_shortened(whole, unit, longest, tokenizer) for whole in batch[text]]}


def _shortened(whole: str, unit: str, longest: int, tokenizer: Tokenizer | None) -> str:
    if unit == "characters":
        return whole[:longest]
    if unit == "words":
        return " ".join(whole.split()[:longest]) if len(whole.split()) > longest else whole
    encoding = tokenizer.encode(whole)
    if len(encoding.ids) <= longest:
        return whole
    # The last token is `</s>`, which is added again when the cut text is tokenized.
    return whole[: encoding.offsets[longest - 2][1]] if longest > 1 else ""


def tokenize(rows: Dataset, tokenizer: Tokenizer) -> Dataset:
    """Token ids of prompts (`input_ids`) and targets (`labels`), each ended by `</s>`; not padded."""
    return map_batches(rows.select_columns(["prompt", "target"]), _tokenize, "Tokenizing", tokenizer=tokenizer)


def _tokenize(batch: dict[str, list], tokenizer: Tokenizer) -> dict[str, list[list[int]]]:
    return {"input_ids": encode(tokenizer, batch["prompt"]), "labels": encode(tokenizer, batch["target"])}


def references(splits: Splits) -> Column:
    """The targets of all rows, read from their file as they are gone through."""
    parts = (splits.train, splits.validation, splits.test)
    return concatenate_datasets([rows.select_columns("target") for rows in parts if rows])["target"]


def rows_sha256(rows: Dataset) -> str:
    """Hex sha256 over the prompts and targets, in order, one JSON array a line."""
    digest, line = hashlib.sha256(), json.JSONEncoder(ensure_ascii=False).encode
    for batch in rows.select_columns(["prompt", "target"]).iter(BATCH):
        for pair in zip(batch["prompt"], batch["target"], strict=True):
            digest.update(line(pair).encode() + b"\n")
    return digest.hexdigest()
