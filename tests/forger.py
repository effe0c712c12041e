"""A forger who knows all of this project's code and uses it: what he changes he scores, renders and hashes anew.

Every forgery is a function that changes a copy of a scored and published run and returns the folder to be published.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from safetensors.torch import load_file, save_file

from evaluation.predictions import FORGETTING_FILE, PREDICTIONS_FILE, Predictions, load_predictions
from evaluation.score import load_for_scoring, predict, score_forgetting, score_predictions
from push.release import stage, tree
from recipes.chain import look_back
from recipes.config import arguments_from_record, recipe_from_record
from recipes.data import build_splits, references
from recipes.expectations import compare
from recipes.pins import ADAPTER_FILE
from recipes.record import RECORD_FILE, Record, load_record, sha256_file, sha256_published
from recipes.tokens import audit, load_tokens

Forgery = Callable[[Path, str], Path]


def publish(repo_id: str, commit: str, honest: Path, forged: Path) -> str:
    """Opens a pull request that makes the release `honest`, published at `commit`, the forged one; its revision."""
    changed = [
        CommitOperationAdd(path, forged / path)
        for path in tree(forged)
        if not (honest / path).is_file() or (honest / path).read_bytes() != (forged / path).read_bytes()
    ]
    gone = [CommitOperationDelete(path) for path in tree(honest) if not (forged / path).is_file()]
    request = HfApi().create_commit(
        repo_id, [*changed, *gone], commit_message="Publish", parent_commit=commit, create_pr=True
    )
    return request.pr_revision


def staged(run: Path, repo_id: str) -> Path:
    """Renders card and plots of the changed run, and hashes all files."""
    stage(run, repo_id, None, run / "release")
    return run / "release"


def rehash(release: Path) -> Path:
    """Gives the record of a release the hashes of the files as they are now."""
    record = load_record(release)
    record.files = {path: sha256_published(release / path) for path in tree(release) if path != RECORD_FILE}
    record.save(release)
    return release


def file(name: str, change: Callable[[bytes], bytes | None], hashed: bool = False) -> Forgery:
    """Changes one published file (None: removes it), and with `hashed` makes the record's hashes fit."""

    def forge(run: Path, repo_id: str) -> Path:
        path = run / "release" / name
        before = path.read_bytes() if path.is_file() else b""
        after = change(before)
        assert after != before
        if after is None:
            path.unlink()
        else:
            path.write_bytes(after)
        return rehash(run / "release") if hashed else run / "release"

    return forge


def text(old: str, new: str) -> Callable[[bytes], bytes]:
    """Replaces a text at its first place."""

    def change(data: bytes) -> bytes:
        assert old.encode() in data
        return data.replace(old.encode(), new.encode(), 1)

    return change


def record(**changes: Any) -> Forgery:
    """Changes values of the record (`a__b` is `b` in `a`) and renders all from it."""

    def forge(run: Path, repo_id: str) -> Path:
        edit_record(run, **changes)
        return staged(run, repo_id)

    return forge


def edit_record(run: Path, **changes: Any) -> None:
    """Changes values in `record.json` of a folder; a callable gives the new value from the old."""
    found = json.loads((run / RECORD_FILE).read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = found
        for parent in parents:
            target = target[int(parent) if parent.isdigit() else parent]
        target[last] = value(target[last]) if callable(value) else value
    Record.model_validate(found).save(run)


def predictions(change: Callable[[Predictions, Any], Predictions], name: str = PREDICTIONS_FILE, **also: Any) -> Forgery:
    """Changes the predictions, given the tokenizer too; scores them, holds them against the expectations, renders.

    Parameters:
        also: further changes of the record, as in `record`.
    """

    def forge(run: Path, repo_id: str) -> Path:
        edit_record(run, **also)
        found = load_record(run)
        changed = change(load_predictions(run, name), tokens_of(found))
        changed.save(run, name)
        if name == FORGETTING_FILE:
            found.forgetting = score_forgetting(changed, found.contract)
            found.save(run)
        else:
            rescore(run, found, changed)
        return staged(run, repo_id)

    return forge


def rescore(run: Path, found: Record, changed: Predictions) -> None:
    """Scores predictions with our own code and puts the scores, and what hangs on them, into the run's record."""
    seconds = found.scores.base_outputs.seconds, found.scores.adapter_outputs.seconds
    found.scores = score_predictions(changed, found.contract, *seconds)
    found.expectations = compare(arguments_from_record(found.recipe).expect, found)
    found.save(run)


def tokens_of(found: Record):
    """The tokenizer of a record's base model."""
    return load_tokens(found.pins.base_model, found.recipe.get("added_tokens", []))


def rows(order: Callable[[list], list]) -> Callable[[Predictions, Any], Predictions]:
    """The same reordering, dropping or doubling of every column."""
    return lambda found, _: Predictions(**{item.name: order(getattr(found, item.name)) for item in fields(found)})


def said(who: str, numbers: range, ids: Callable[[Predictions, Any, int], list[int]]):
    """Puts other tokens, and the texts that they read as, into some rows of what `who` wrote."""

    def change(found: Predictions, tokens) -> Predictions:
        written, texts = list(getattr(found, f"{who}_tokens")), list(getattr(found, who))
        for number in numbers:
            written[number] = ids(found, tokens, number)
            texts[number] = tokens.decode(written[number]).strip()
        return replace(found, **{f"{who}_tokens": written, who: texts})

    return change


def the_reference(found: Predictions, tokens, number: int) -> list[int]:
    """The right answer's tokens, without `</s>`, as many as the short runs write."""
    return tokens.encode(found.reference[number]).ids[:-1][:12]


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], again: bool = False) -> Forgery:
    """Changes the adapter's tensors and makes all hashes fit; with `again` it also generates and scores with them."""

    def forge(run: Path, repo_id: str) -> Path:
        torch.manual_seed(0)
        save_file(change(load_file(run / ADAPTER_FILE)), run / ADAPTER_FILE, metadata={"format": "pt"})
        edit_record(run, training__adapter_sha256=sha256_file(run / ADAPTER_FILE))
        if again:
            generate(run, load_record(run))
        return staged(run, repo_id)

    return forge


def generate(run: Path, found: Record) -> None:
    """Draws the test rows, generates for them and scores, all as the record says now."""
    recipe = recipe_from_record(found.name, found.recipe)
    tokens = tokens_of(found)
    splits = build_splits(recipe.arguments, found.pins.dataset, tokens)
    found.data, found.unwritable = splits.counts, audit(tokens, references(splits))
    seen, found.leakage = look_back(splits, found.pins)
    model, tokenizer, _ = load_for_scoring(run, found, recipe.model)
    fresh, *_ = predict(model, tokenizer, splits.test, seen, found.contract)
    fresh.save(run)
    rescore(run, found, fresh)


def recipe(generated: bool = True, **keys: Any) -> Forgery:
    """Changes the recipe, and draws, generates and scores anew by it: only the training was another."""

    def forge(run: Path, repo_id: str) -> Path:
        edit_record(run, **{f"recipe__{key}": value for key, value in keys.items()})
        if generated:
            generate(run, load_record(run))
        return staged(run, repo_id)

    return forge


def config(name: str, **keys: Any) -> Forgery:
    """Changes keys of a published JSON file and renders and hashes anew."""

    def forge(run: Path, repo_id: str) -> Path:
        found = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps(found | keys))
        return staged(run, repo_id)

    return forge


def copy_of(run: Path, folder: Path) -> Path:
    """A copy of a run that may be changed."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    return folder
