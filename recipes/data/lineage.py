"""Which test rows the trainings behind an adapter have seen: its own, and those of every adapter it continues."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
from datasets import Dataset, concatenate_datasets

from hub.release import pull, refuse_own_rows
from recipes.config import arguments_from_record
from recipes.data import leakage
from recipes.data.splits import Splits, build_splits, tokenize
from recipes.data.stored_tokenizer import languages_of
from recipes.data.tokenizer import load_tokens
from record.cache import BATCH, cached_value
from record.errors import UserError
from record.predictions import SEEN
from record.release_files import PREDICTIONS_FILE, VERDICT_FILE
from record.run_record import Leakage, Pin, Pins, Record
from record.verdict import load_verdict, why_unrelated

# A record is untrusted, and each ancestor costs a dataset.
LONGEST_CHAIN = 10


def find_seen_rows(splits: Splits, pins: Pins) -> tuple[list[str], list[Leakage]]:
    """Compares the test rows with all training rows of the chain, validation rows among them.

    Compared are the inputs, and from the second rules on what the model reads: the prompts, as the templates filled and
    the length rules cut them, and their token ids, each training's by its own tokenizer.

    Parameters:
        splits, pins: those of the adapter in question.

    Returns:
        Per test row one of `record.predictions.SEEN` or "", the gravest finding of the chain; and the counts, this
        training's first.

    Raises:
        `UserError`: the chain is too long, or an ancestor has no record or other rows than its record states.
    """
    rules = splits.counts.rules
    findings, counts = [], []
    for adapter, dataset, theirs, verdict in _trainings(splits, pins):
        training = _training_rows(theirs)
        test, inputs = splits.test["input"], training["input"]
        kinds = cached_value(
            "seen",
            lambda: leakage.compare(test[:], inputs[:], rules),  # noqa: B023
            leakage.code(),
            str(rules),
            test,
            inputs,
        )
        entry = Leakage(adapter=adapter, dataset=dataset.id, training_rows=len(training), exact=0, near=0)
        if rules > 1:
            prompts, token_ids = _same_prompts(splits, theirs)
            same = [any(pair) for pair in zip(prompts, token_ids, strict=True)]
            kinds = [
                "prompt" if equal and kind not in ("exact", "near") else kind
                for kind, equal in zip(kinds, same, strict=True)
            ]
            entry.disguised, entry.prompts, entry.token_ids = kinds.count("disguised"), sum(prompts), sum(token_ids)
            entry.verdict = verdict
        entry.exact, entry.near = kinds.count("exact"), kinds.count("near")
        findings.append(kinds)
        counts.append(entry)
    gravest = [next((kind for kind in SEEN if kind in row), "") for row in zip(*findings, strict=True)]
    return gravest, counts


def _same_prompts(splits: Splits, theirs: Splits) -> tuple[list[bool], list[bool]]:
    """Whether each test row's prompt is also a training row's, and whether its token ids are."""
    prompts = splits.test["prompt"][:]
    test_ids = list(_token_ids(splits.test, splits))
    seen_prompts, seen_ids = set(), set()
    wanted_prompts, wanted_ids = set(prompts), set(test_ids)
    for rows in (theirs.train, theirs.validation):
        if rows is not None:
            for batch in rows.select_columns("prompt").iter(BATCH):
                seen_prompts |= wanted_prompts.intersection(batch["prompt"])
            seen_ids |= wanted_ids.intersection(_token_ids(rows, theirs))
    return [prompt in seen_prompts for prompt in prompts], [ids in seen_ids for ids in test_ids]


def _token_ids(rows: Dataset, splits: Splits) -> Iterator[bytes]:
    tokens = tokenize(rows, splits.tokenizer).select_columns("input_ids").with_format("arrow")
    for batch in tokens.iter(BATCH):
        for column in batch["input_ids"].chunks:
            values, ends = column.values.cast(pa.int64()).to_numpy(), column.offsets.to_numpy()
            yield from (values[start:end].tobytes() for start, end in pairwise(ends))


def _trainings(splits: Splits, pins: Pins) -> Iterator[tuple[str | None, Pin, Splits, str | None]]:
    yield from ((None, dataset, rows, None) for dataset, rows in _by_dataset(pins, splits))
    parent = pins.parent_adapter
    for _ in range(LONGEST_CHAIN):
        if parent is None:
            return
        published = pull(parent.id, parent.revision, names=[])
        refuse_own_rows(published)
        record = published.record
        recipe = arguments_from_record(record.recipe)
        tokens = load_tokens(record.pins.base_model, recipe.added_tokens, languages_of(record.recipe))
        theirs = build_splits(recipe, record.pins.datasets, tokens, record.data.rules)
        if theirs.counts.where_stated(record.data) != record.data:
            names = ", ".join(dataset.id for dataset in record.pins.datasets)
            raise UserError(f"{parent.id}: {names} gives other rows than its record states")
        name, verdict = f"{parent.id}@{parent.revision}", _stated_verdict(parent, record)
        yield from ((name, dataset, rows, verdict) for dataset, rows in _by_dataset(record.pins, theirs))
        parent = record.pins.parent_adapter
    raise UserError(
        f"more than {LONGEST_CHAIN} adapters continue each other: what they were trained on is not compared"
    )


def _by_dataset(pins: Pins, splits: Splits) -> Iterator[tuple[Pin, Splits]]:
    """The training rows of each dataset by themselves, for it to be told which of them holds copies."""
    if not pins.more_datasets:
        yield pins.dataset, splits
        return
    for number, dataset in enumerate(pins.datasets):
        own = [
            rows.select(np.flatnonzero(np.array(rows["dataset"][:]) == number))
            for rows in (splits.train, splits.validation)
            if rows is not None
        ]
        # Of a small dataset either may be empty.
        if parts := [rows for rows in own if len(rows)]:
            yield dataset, replace(splits, train=parts[0], validation=parts[1] if parts[1:] else None)


def _stated_verdict(adapter: Pin, record: Record) -> str | None:
    """What an ancestor's release says of a check of itself, and at which level; None where it carries no verdict."""
    if VERDICT_FILE not in record.files:
        return None
    folder = pull(adapter.id, adapter.revision, [VERDICT_FILE, PREDICTIONS_FILE]).require_whole().folder
    try:
        verdict = load_verdict(folder)
    except UserError:
        return None
    if verdict is None or why_unrelated(verdict, adapter.id, record, folder):
        return None
    return f"{verdict.verdict} at level {verdict.level}"


def _training_rows(splits: Splits) -> Dataset:
    return concatenate_datasets([rows for rows in (splits.train, splits.validation) if rows is not None])
