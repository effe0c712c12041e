"""Which test rows the trainings behind an adapter have seen: its own, and those of every adapter it continues."""

from collections.abc import Iterator

from datasets import Dataset, concatenate_datasets

from hub.release import pull
from recipes.config import arguments_from_record
from recipes.data import leakage
from recipes.data.splits import Splits, build_splits
from recipes.data.tokenizer import load_tokens
from record.cache import cached_value
from record.errors import UserError
from record.release_files import PREDICTIONS_FILE, VERDICT_FILE
from record.run_record import Leakage, Pin, Pins, Record
from record.verdict import load_verdict, why_unrelated

# A record is untrusted, and each ancestor costs a dataset.
LONGEST_CHAIN = 10


def find_seen_rows(splits: Splits, pins: Pins) -> tuple[list[str], list[Leakage]]:
    """Compares the test inputs with all training inputs of the chain, validation rows among them.

    Parameters:
        splits, pins: those of the adapter in question.

    Returns:
        Per test row "exact", "near" or "", the gravest finding of the chain; and the counts, this training's first.

    Raises:
        `UserError`: the chain is too long, or an ancestor has no record or other rows than its record states.
    """
    findings, counts = [], []
    for adapter, dataset, training, verdict in _trainings(splits, pins):
        test, inputs = splits.test["input"], training["input"]
        seen = cached_value("seen", lambda: leakage.compare(test[:], inputs[:]), leakage.code(), "", test, inputs)  # noqa: B023
        findings.append(seen)
        counts.append(
            Leakage(
                adapter=adapter,
                dataset=dataset.id,
                training_rows=len(training),
                exact=seen.count("exact"),
                near=seen.count("near"),
                verdict=verdict,
            )
        )
    gravest = ["exact" if "exact" in row else max(row) for row in zip(*findings, strict=True)]
    return gravest, counts


def _trainings(splits: Splits, pins: Pins) -> Iterator[tuple[str | None, Pin, Dataset, str | None]]:
    yield None, pins.dataset, _training_rows(splits), None
    parent = pins.parent_adapter
    for _ in range(LONGEST_CHAIN):
        if parent is None:
            return
        record = pull(parent.id, parent.revision, names=[]).record
        recipe = arguments_from_record(record.recipe)
        tokens = load_tokens(record.pins.base_model, recipe.added_tokens)
        theirs = build_splits(recipe, record.pins.dataset, tokens, record.data.rules)
        if theirs.counts.where_stated(record.data) != record.data:
            raise UserError(f"{parent.id}: {record.pins.dataset.id} gives other rows than its record states")
        yield (
            f"{parent.id}@{parent.revision}",
            record.pins.dataset,
            _training_rows(theirs),
            _stated_verdict(parent, record),
        )
        parent = record.pins.parent_adapter
    raise UserError(
        f"more than {LONGEST_CHAIN} adapters continue each other: what they were trained on is not compared"
    )


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
