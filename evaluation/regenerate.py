"""Outputs generated again with the base model and the published adapter, and compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from datasets import Dataset

from evaluation.findings import Drift, Findings, Undecided
from evaluation.loaded import MODELS, Loaded, contract_here, rounding_of
from evaluation.margins import check_readings, read_as, read_outputs
from evaluation.numbers import leading_score
from evaluation.tolerance import (
    Outcome,
    change_interval,
    corpus_change_interval,
    hidden_share,
    margin_of,
    outcome,
    rows_to_decide,
    same_stack,
    sample_rows,
    unlikely,
    visible_change,
)
from hub.release import pull_parent
from recipes.config import recipe_from_record
from recipes.environment import describe_environment
from record.predictions import Predictions, load_predictions
from record.release_files import FORGETTING_FILE
from record.run_record import Pin, Record
from record.scored_record import AnyScored, require_scores
from record.scores import METRIC_NAMES, Contract, Interval
from record.verdict import Change, Check, Evidence, Level, Model, Part
from scoring.bootstrap import Corpus, Rows, applies, mean
from scoring.decoding.generate import generate, shortfalls
from scoring.decoding.margins import why_not_greedy
from scoring.decoding.predict import load_for_scoring, parent_predictions, predict
from scoring.scores import metric_rows


@dataclass(frozen=True)
class Comparison:
    """New outputs for the test rows with the numbers `rows`, and how they differ from the published ones."""

    rows: list[int]
    fresh: Predictions
    differing: dict[Model, list[int]]
    changes: list[Change]


def regenerate(loaded: Loaded, published: Predictions, test: Dataset, rows: list[int]) -> Comparison:
    """Generates with the base model and the adapter for the test rows with the numbers `rows`, and compares."""
    subset = published.take(rows)
    fresh, *_ = predict(loaded.model, loaded.tokenizer, test.select(rows), subset.seen, loaded.contract, loaded.base)
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


def compare(
    findings: Findings, loaded: Loaded, record: AnyScored, published: Predictions, test: Dataset, level: Level
) -> None:
    """Has both models read or write the outputs of the test rows or a sample of them, and notes what decided.

    Parameters:
        level: `prefill` has them read the published outputs; others, write again.

    Raises:
        `Drift`, `Undecided`: as `decide` and `evaluation.margins.check_readings`.
        `UserError`: as that.
    """
    findings.environment = loaded.environment
    rows = sample_rows(len(test), findings.sample, findings.revision or "")
    if len(rows) == len(test):
        findings.sample = None
    if level == "prefill":
        findings.evidence = "margins"
        findings.reason = f"{leading_score(record)}: {check_readings(loaded, published, rows, findings.sample)}"
    else:
        comparison = regenerate(loaded, published, test, rows)
        findings.rows, findings.fresh = rows, comparison.fresh
        findings.differing, findings.changes = comparison.differing, comparison.changes
        findings.evidence, findings.reason = decide(loaded, published, comparison, findings.sample)
    findings.checks.append(Check(part="generation", outcome="passed", detail=findings.reason))


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
            _refuse_unlikely(loaded, published.take(rows), comparison.fresh, rows, differing[who], who, loaded.contract)
    part: Part = "generation" if differing["base"] else "weights"
    metrics = loaded.contract.deciding(dict.fromkeys(change.metric for change in comparison.changes))
    leading = next(c for c in comparison.changes if (c.model, c.metric) == ("adapter", metrics[0]))
    stated = f"{METRIC_NAMES[metrics[0]]} {leading.difference.figure(leading.now)}"
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
        moved = f"{METRIC_NAMES[change.metric]} of the {change.model}{of} moved by {change.difference.text('+')}"
        raise Drift(part, f"{moved}, more than {change.difference.figure(change.margin)}{more}", "statistics")
    if undecided := shown["undecided"]:
        needed = [rows_to_decide(rows, change.difference, change.margin) for change in undecided]
        change = undecided[int(np.argmax(needed))]
        raise Undecided(
            f"{METRIC_NAMES[change.metric]} of the {change.model}{of} moved by {change.difference.text('+')}: too few "
            f"rows ({rows:,}) to tell whether by more than {change.difference.figure(change.margin)}; about "
            f"{max(needed):,} test rows would decide, or a check on the device and versions that the record names, "
            f"where tokens must be equal{more}"
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
        _refuse_unlikely(loaded, published, fresh, rows, others, "adapter", contract)
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
    contract = contract_here(record, dtype)
    same = contract == record.contract and same_stack(describe_environment(), record.scored_in, contract.dtype)
    contract = contract.model_copy(update={"batch_size": 1})
    first = load_predictions(folder).take([0])
    for who in MODELS:
        published = getattr(first, f"{who}_tokens")
        adapter = who == "adapter"
        fresh, _ = generate(model, tokenizer, [prompt], contract, adapter)
        if fresh == published:
            continue
        # Alone, a row is not rounded as among others.
        if contract.num_beams > 1:
            short = shortfalls(model, tokenizer, [prompt], published, fresh, contract, adapter)
            other = unlikely(short) or (same and np.isnan(short).any())
        elif why_not_greedy(model, contract) is not None:
            other = same
        else:
            ids = tokenizer([prompt])["input_ids"]
            other = read_as(model, ids, published, contract, adapter, rounding_of(record, contract)).unlikely
        if other:
            raise Drift("weights", f"the {who} output of the first test row is another one")


def _refuse_unlikely(
    loaded: Loaded,
    published: Predictions,
    fresh: Predictions,
    rows: list[int],
    differing: list[int],
    who: Model,
    contract: Contract,
) -> None:
    """Refuses outputs that the same weights write on no device, where any of them differ.

    Parameters:
        published, fresh: the test rows with the numbers `rows`.
        differing: numbers of those for which `who` has written other tokens.
    """
    if not differing:
        return
    if contract.num_beams == 1:
        if why_not_greedy(loaded.model, contract) is None:
            read_outputs(loaded, published, rows, contract, who)
        return
    places = [rows.index(number) for number in differing]
    published, fresh = published.take(places), fresh.take(places)
    pair = getattr(published, f"{who}_tokens"), getattr(fresh, f"{who}_tokens")
    model, adapter = loaded.of(who)
    short = shortfalls(model, loaded.tokenizer, published.prompt, *pair, contract, adapter)
    if unlikely(short):
        worst = int(np.argmax(short))
        raise Drift(
            "weights" if who == "adapter" else "generation",
            f"these weights do not write the {who} output of row {differing[worst]}: they prefer another by "
            f"{short[worst]:.1f} nats; {len(differing):,} {who} outputs differ, by {np.mean(short):.2f} nats "
            "in the mean",
        )


def _summary(comparison: Comparison) -> str:
    """How many outputs differ, and the first of them, per model that has any."""
    return ", ".join(
        f"{len(numbers):,} of {len(comparison.rows):,} {who} outputs differ (rows {', '.join(map(str, numbers[:5]))}"
        f"{', …' if len(numbers) > 5 else ''})"
        for who, numbers in comparison.differing.items()
        if numbers
    )


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
    """Published and new means and their paired differences as a small text table; what did not move, in a line."""
    moved = [c for c in changes if any(c.difference.model_dump().values())]
    if not moved:
        return f"  all {len(changes)} scores, row by row, are the published ones"
    lines = [f"\n{'':<30}{'published':>10}{'now':>10}   difference"]
    lines += [
        f"{c.model:<8}{c.metric:<22}{c.difference.figure(c.published):>10}{c.difference.figure(c.now):>10}   "
        f"{c.difference.text('+')}"
        for c in moved
    ]
    if still := len(changes) - len(moved):
        lines.append(f"The other {still} scores are the published ones, row by row.")
    return "\n".join(lines) + "\n"
