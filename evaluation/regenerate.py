"""Outputs generated again with the base model and the published adapter, and compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from datasets import Dataset

from evaluation.findings import Drift, Undecided
from evaluation.tolerance import (
    Outcome,
    change_interval,
    corpus_change_interval,
    hidden_share,
    margin_of,
    outcome,
    rows_to_decide,
    same_stack,
    unlikely,
    visible_change,
)
from hub.release import pull_parent
from recipes.config import recipe_from_record
from recipes.environment import describe_environment
from recipes.training.model import adapter_numbers, size_of
from record.errors import UserError
from record.hashes import sha256_file
from record.predictions import Predictions, load_predictions
from record.release_files import ADAPTER_FILE, FORGETTING_FILE
from record.run_record import Environment, Pin, Record
from record.scored_record import ScoredRecord, require_scores
from record.scores import METRIC_NAMES, Contract, Interval
from record.verdict import Change, Evidence, Model, Part
from scoring.bootstrap import Corpus, Rows, applies, mean
from scoring.decoding.generate import generate, shortfalls
from scoring.decoding.predict import load_for_scoring, parent_predictions, predict
from scoring.engines import engine_here
from scoring.scores import metric_rows

MODELS: tuple[Model, ...] = ("base", "adapter")


@dataclass(frozen=True)
class Loaded:
    """Base model and adapter, loaded as the record says.

    `tokenizer` is the base model's. `contract` is the record's with the engine and dtype of this machine. `repeatable`
    is whether tokens must be equal: the published adapter on the same device and versions. `gains` and `parent_gains`
    are the published differences adapter − base by metric, for the test rows and for the parent's.
    """

    model: Any
    tokenizer: Any
    contract: Contract
    environment: Environment
    published_adapter: bool
    repeatable: bool
    gains: dict[str, float]
    parent_gains: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """New outputs for the test rows with the numbers `rows`, and how they differ from the published ones."""

    rows: list[int]
    fresh: Predictions
    differing: dict[Model, list[int]]
    changes: list[Change]


def load(adapter: Path, record: ScoredRecord) -> Loaded:
    """Loads the base model and the adapter in the folder `adapter`.

    Raises:
        `Drift`: the adapter does not fit the base model.
    """
    recipe = recipe_from_record(record.name, dict(record.recipe))
    try:
        model, tokenizer, dtype = load_for_scoring(adapter, record, recipe.model)
    except UserError as error:
        raise Drift("weights", str(error)) from error
    contract, here = _contract_here(record, dtype), describe_environment()
    published_adapter = sha256_file(adapter / ADAPTER_FILE) == record.training.adapter_sha256
    same = contract == record.contract and same_stack(here, record.scored_in)
    return Loaded(
        model,
        tokenizer,
        contract,
        here,
        published_adapter,
        repeatable=published_adapter and same,
        gains={name: gain.mean for name, gain in record.scores.difference.items()},
        parent_gains={name: gain.mean for name, gain in record.forgetting.difference.items()}
        if record.forgetting
        else {},
    )


def check_sizes(record: Record, loaded: Loaded) -> None:
    """Compares the record's parameter counts with the model as loaded; its bytes on the same device and versions.

    Raises:
        `Drift`: one of them differs.
    """
    model = size_of(loaded.model).model_copy(update={"trainable": adapter_numbers(loaded.model)})
    names = ["trainable", "total", "quantized_layers"]
    same = same_stack(loaded.environment, record.environment)
    if same and model.dtype == record.model.dtype and not model.quantized_layers:
        names.append("memory_bytes")
    for name in names:
        if getattr(model, name) != getattr(record.model, name):
            raise Drift(
                "weights",
                f"{name} of the model is {getattr(model, name):,}, the record states {getattr(record.model, name):,}",
            )


def regenerate(loaded: Loaded, published: Predictions, test: Dataset, rows: list[int]) -> Comparison:
    """Generates with the base model and the adapter for the test rows with the numbers `rows`, and compares."""
    subset = published.take(rows)
    fresh, *_ = predict(loaded.model, loaded.tokenizer, test.select(rows), subset.seen, loaded.contract)
    differing = {who: differing_rows(subset, fresh, who, rows) for who in MODELS}
    moves = [
        change
        for who in MODELS
        for change in changes(
            subset, fresh, who, loaded.contract, loaded.gains, who == "base" or loaded.published_adapter
        )
    ]
    print(change_table(moves), flush=True)
    return Comparison(rows, fresh, differing, moves)


def decide(loaded: Loaded, published: Predictions, comparison: Comparison, sample: int | None) -> tuple[Evidence, str]:
    """Decides whether new outputs confirm the published ones.

    Where tokens are repeatable they must be equal, row by row; elsewhere outputs that differ must be about as likely,
    and every score that decides must be the same within its margin.

    Returns:
        What decided, and what was reproduced, in one line.

    Raises:
        `Drift`: outputs or scores are not the published ones.
        `Undecided`: the rows are too few to tell.
    """
    rows, differing = comparison.rows, comparison.differing
    if not loaded.repeatable:
        for who in MODELS if loaded.published_adapter else MODELS[:1]:
            numbers = differing[who]
            here = [place for place, number in enumerate(rows) if number in set(numbers)]
            _refuse_unlikely(
                loaded, published.take(numbers), comparison.fresh.take(here), numbers, who, loaded.contract
            )
    part: Part = "generation" if differing["base"] else "weights"
    metrics = loaded.contract.deciding(dict.fromkeys(change.metric for change in comparison.changes))
    score = next(c.now for c in comparison.changes if (c.model, c.metric) == ("adapter", metrics[0]))
    stated = f"{METRIC_NAMES[metrics[0]]} {score:.4f}"
    of = f" for a sample of {len(rows):,} rows" if sample else ""
    if not any(differing.values()):
        hidden = f"; had {hidden_share(len(rows)):.1%} of all rows differed, it would have shown" if sample else ""
        return "tokens", f"{stated}: all {2 * len(rows):,} outputs{of} are equal token for token{hidden}"
    summary = _summary(comparison)
    if loaded.repeatable:
        raise Drift(part, f"on the same device and versions {summary}", "tokens")
    deciding = [change for change in comparison.changes if change.metric in metrics]
    _refuse_changes(deciding, len(rows), part, "", f"; {summary}")
    widest = max(visible_change(change.difference) for change in deciding)
    return "statistics", (
        f"{stated}: no score moved{of} on another device, version or adapter (a change of "
        f"{widest:.4f} would have shown); {summary}"
    )


def _refuse_changes(deciding: list[Change], rows: int, part: Part, of: str, more: str) -> None:
    """Refuses scores that moved by more than their margin, then those of which the rows do not tell.

    Raises:
        `Drift`, `Undecided`
    """
    shown = {kind: [c for c in deciding if outcome(c.difference, c.margin) == kind] for kind in get_args(Outcome)}
    if shown["moved"]:
        change = shown["moved"][0]
        moved = f"{METRIC_NAMES[change.metric]} of the {change.model}{of} moved by {_interval(change)}"
        raise Drift(part, f"{moved}, more than {change.margin:.4f}{more}", "statistics")
    if undecided := shown["undecided"]:
        needed = [rows_to_decide(rows, change.difference, change.margin) for change in undecided]
        change = undecided[int(np.argmax(needed))]
        raise Undecided(
            f"{METRIC_NAMES[change.metric]} of the {change.model}{of} moved by {_interval(change)}: too few "
            f"rows ({rows:,}) to tell whether by more than {change.margin:.4f}; about {max(needed):,} test rows would "
            f"decide, or a check on the device and versions that the record names, where tokens must be equal{more}"
        )


def regenerate_parent_rows(loaded: Loaded, pinned: Pin, folder: Path, sample: int | None, commit: str) -> str:
    """Generates with the adapter for the test rows of the `pinned` parent; compares with `FORGETTING_FILE` in `folder`.

    Returns:
        How many outputs are equal, in one line.

    Raises:
        `Drift`: outputs or scores are not the published ones.
        `Undecided`: the rows are too few to tell.
    """
    published = load_predictions(folder, FORGETTING_FILE)
    rows = sample_rows(len(published.prompt), sample, commit)
    published = published.take(rows)
    parent = pull_parent(pinned)
    fresh = parent_predictions(loaded.model, loaded.tokenizer, parent.folder, parent.record, rows)
    others = differing_rows(published, fresh, "adapter", rows)
    if others and loaded.repeatable:
        raise Drift(
            "weights", f"on the same device and versions {len(others):,} outputs for the parent's test rows differ"
        )
    if others and loaded.published_adapter:
        contract = require_scores(parent.record).contract
        places = [rows.index(number) for number in others]
        _refuse_unlikely(loaded, published.take(places), fresh.take(places), others, "adapter", contract)
    moves = changes(published, fresh, "adapter", loaded.contract, loaded.parent_gains, loaded.published_adapter)
    metrics = loaded.contract.deciding(change.metric for change in moves)
    deciding = [change for change in moves if change.metric in metrics]
    _refuse_changes(deciding, len(rows), "weights", " on the parent's test rows", "")
    return f"{len(rows) - len(others):,} of {len(rows):,} outputs for the parent's test rows are equal"


def generate_row(folder: Path, record: Record, prompt: str) -> None:
    """Generates the first test row's answers with the base model and the published adapter in `folder`.

    Parameters:
        prompt: the row's, which a release may lack.

    Raises:
        `Drift`: they are not the published ones, nor, on another device or other versions, nearly as likely.
        `UserError`: the record holds no scores.
    """
    record = require_scores(record)
    recipe = recipe_from_record(record.name, dict(record.recipe))
    model, tokenizer, dtype = load_for_scoring(folder, record, recipe.model)
    contract = _contract_here(record, dtype)
    same = contract == record.contract and same_stack(describe_environment(), record.scored_in)
    contract = contract.model_copy(update={"batch_size": 1})
    first = load_predictions(folder).take([0])
    for who in MODELS:
        published = getattr(first, f"{who}_tokens")
        adapter = who == "adapter"
        fresh, _ = generate(model, tokenizer, [prompt], contract, adapter)
        if fresh == published:
            continue
        # Alone, a row is not rounded as among others.
        short = shortfalls(model, tokenizer, [prompt], published, fresh, contract, adapter)
        if unlikely(short, contract.num_beams) or (same and np.isnan(short).any()):
            raise Drift("weights", f"the {who} output of the first test row is another one")


def _contract_here(record: ScoredRecord, dtype: str) -> Contract:
    """The record's contract with the engine and the dtype that this machine has. In float32 tokens are the same."""
    engine_there = record.contract.engine
    engine = engine_here(engine_there) if dtype == "float32" else "transformers"
    if engine != engine_there:
        print(f"The record's outputs were generated by {engine_there}, here {engine} generates", flush=True)
    return record.contract.model_copy(update={"dtype": dtype, "engine": engine})


def _refuse_unlikely(
    loaded: Loaded, published: Predictions, fresh: Predictions, numbers: list[int], who: Model, contract: Contract
) -> None:
    """Refuses outputs that the same weights write on no device.

    The record itself says where its scores were taken, and so whether tokens must be equal: whoever wants it otherwise
    names another version. Scores alone would then let pass what lies within their margin.

    Parameters:
        published, fresh: the rows with the `numbers`, whose outputs of `who` differ.
    """
    column, adapter = f"{who}_tokens", who == "adapter"
    short = shortfalls(
        loaded.model,
        loaded.tokenizer,
        published.prompt,
        getattr(published, column),
        getattr(fresh, column),
        contract,
        adapter,
    )
    if unlikely(short, contract.num_beams):
        worst = int(np.argmax(short))
        raise Drift(
            "weights" if adapter else "generation",
            f"these weights do not write the {who} output of row {numbers[worst]}: they prefer another by "
            f"{short[worst]:.1f} nats; {len(numbers):,} {who} outputs differ, by {np.mean(short):.2f} nats in the mean",
        )


def _summary(comparison: Comparison) -> str:
    """How many outputs differ, and the first of them, per model that has any."""
    return ", ".join(
        f"{len(numbers):,} of {len(comparison.rows):,} {who} outputs differ (rows {', '.join(map(str, numbers[:5]))}"
        f"{', …' if len(numbers) > 5 else ''})"
        for who, numbers in comparison.differing.items()
        if numbers
    )


def sample_rows(rows: int, sample: int | None, commit: str) -> list[int]:
    """Numbers of the test rows to generate for, in order: all of them, or a sample without replacement.

    The commit seeds the draw: nobody who publishes can know before which rows will be looked at.
    """
    if sample is None or sample >= rows:
        return list(range(rows))
    return sorted(np.random.default_rng(int(commit, 16)).choice(rows, sample, replace=False).tolist())


def differing_rows(published: Predictions, fresh: Predictions, who: Model, rows: list[int]) -> list[int]:
    """Numbers of the rows where `who` wrote other tokens."""
    pairs = zip(rows, getattr(published, f"{who}_tokens"), getattr(fresh, f"{who}_tokens"), strict=True)
    return [row for row, old, new in pairs if old != new]


def changes(
    published: Predictions,
    fresh: Predictions,
    who: Model,
    contract: Contract,
    gains: dict[str, float],
    same_weights: bool,
) -> list[Change]:
    """How the scores of `who` moved, by each metric that applies to any of the rows.

    Parameters:
        gains, same_weights: give the margins (see `margin_of`).
    """
    was, now = metric_rows(published, who, contract), metric_rows(fresh, who, contract)
    return [
        Change(
            model=who,
            metric=name,
            published=mean(was[name]),
            now=mean(now[name]),
            difference=_difference(was[name], now[name]),
            margin=margin_of(gains.get(name, 0.0), same_weights),
        )
        for name in was
        if applies(was[name])
    ]


def _difference(was: Rows, now: Rows) -> Interval:
    if isinstance(was, Corpus) or isinstance(now, Corpus):
        assert isinstance(was, Corpus) and isinstance(now, Corpus)
        return corpus_change_interval(was, now)
    return change_interval([b - a for a, b in zip(was, now, strict=True)])


def change_table(changes: list[Change]) -> str:
    """Published and new means and their paired differences as a small plain-text table."""
    lines = [f"\n{'':<30}{'published':>10}{'now':>10}   difference"]
    lines += [f"{c.model:<8}{c.metric:<22}{c.published:>10.4f}{c.now:>10.4f}   {_interval(c)}" for c in changes]
    return "\n".join(lines) + "\n"


def _interval(change: Change) -> str:
    x = change.difference
    return f"{x.mean:+.4f} [{x.low:+.4f}, {x.high:+.4f}]"
