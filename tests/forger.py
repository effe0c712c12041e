"""A forger who knows all of this project's code and uses it: what he changes he scores, renders and hashes anew.

Every forgery is a function that changes a copy of a scored and published run and returns the folder to be published.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import short_runs
import torch
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from safetensors.torch import load_file, save_file

from evaluation import reproduce
from model_cards.plots import draw_plots
from push.release import lay_out, tree
from recipes.config import arguments_from_record, recipe_from_record
from recipes.data.lineage import find_seen_rows
from recipes.data.splits import build_splits, references
from recipes.data.tokenizer import audit, load_tokens
from recipes.expectations import compare
from record.hashes import sha256_file, sha256_published
from record.predictions import Predictions, load_predictions
from record.release_files import ADAPTER_FILE, FORGETTING_FILE, PREDICTIONS_FILE, RECORD_FILE
from record.run_record import Record, load_record
from scoring.baselines import score_baselines
from scoring.decoding.predict import load_for_scoring, predict
from scoring.scores import score_forgetting, score_predictions

Forgery = Callable[[Path, str], Path]
# Of a run on `short_runs.FEW_ROWS`.
ALL_ROWS = range(90)


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
    """Renders card and plots of the changed run, and hashes all files; the publisher's own refusals are left out."""
    with patch("push.release._refuse_unreadable"):
        lay_out(run, repo_id, None, run / "release")
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
    """Changes values of the record (`a__b` is `b` in `a`), what the recipe expects of them, and renders all from it."""

    def forge(run: Path, repo_id: str) -> Path:
        edit_record(run, **changes)
        found = load_record(run)
        if not any(path.startswith("expectations") for path in changes):
            found.expectations = compare(arguments_from_record(found.recipe).expect, found)
            found.save(run)
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


def predictions(
    change: Callable[[Predictions, Any], Predictions], name: str = PREDICTIONS_FILE, **also: Any
) -> Forgery:
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
    splits = build_splits(arguments_from_record(found.recipe), found.pins.dataset, tokens_of(found), found.data.rules)
    # Of rows that are no longer the dataset's there are none to compare with.
    if len(splits.test) == len(changed.prompt):
        found.baselines = score_baselines(splits, changed, found.contract)
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
    return tokens.encode(found.reference[number]).ids[:-1][: max(map(len, found.adapter_tokens))]


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Forgery:
    """Changes the adapter's tensors and makes all hashes fit."""

    def forge(run: Path, repo_id: str) -> Path:
        torch.manual_seed(0)
        save_file(change(load_file(run / ADAPTER_FILE)), run / ADAPTER_FILE, metadata={"format": "pt"})
        edit_record(run, training__adapter_sha256=sha256_file(run / ADAPTER_FILE))
        return staged(run, repo_id)

    return forge


def generate(run: Path, found: Record) -> None:
    """Draws the test rows, generates for them and scores, all as the record says now."""
    recipe = recipe_from_record(found.name, found.recipe)
    tokens = tokens_of(found)
    splits = build_splits(recipe.arguments, found.pins.dataset, tokens, found.data.rules)
    found.data, found.unwritable = splits.counts, audit(tokens, references(splits))
    seen, found.leakage = find_seen_rows(splits, found.pins)
    model, tokenizer, _ = load_for_scoring(run, found, recipe.model)
    fresh, *_ = predict(model, tokenizer, splits.test, seen, found.contract)
    fresh.save(run)
    rescore(run, found, fresh)


def drawn_anew(**changes: Any) -> Forgery:
    """Changes the record, and draws, generates and scores by it: only the training was another."""

    def forge(run: Path, repo_id: str) -> Path:
        edit_record(run, **changes)
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


def published_as(name: str, run: Path, folder: Path) -> tuple[Path, str]:
    """A copy of the scored run, published as `name`: its folder and commit."""
    short_runs.copy_of(run, folder, name)
    return folder, short_runs.publish(folder)


def check(repo_id, published, forge, tmp_path, **how):
    """The verdict on a forged release of a published run."""
    run, commit = published
    forged = forge(copy_of(run, tmp_path / "forged"), repo_id)
    verdict, _ = reproduce.reproduce(repo_id, publish(repo_id, commit, run / "release", forged), **how)
    return verdict


def found_out(verdict, part, told):
    """Holds a verdict to be DRIFTED, in the right part, for the right reason."""
    assert (verdict.verdict, verdict.moved) == ("DRIFTED", part), verdict.line
    assert verdict.line.startswith("DRIFTED ") and told in verdict.reason, verdict.line
    assert reproduce.EXIT_CODES[verdict.verdict] == 1


def in_row(column, value):
    """Changes the first row of one column of the predictions."""
    return lambda found, _: replace(found, **{column: [value, *getattr(found, column)[1:]]})


def columns(**sources):
    """Fills columns of the predictions with others of them."""
    return lambda found, _: replace(found, **{to: getattr(found, source) for to, source in sources.items()})


def flattered(found, tokens):
    """The right answers in every other row, as tokens too."""
    return said("adapter", ALL_ROWS[::2], the_reference)(found, tokens)


def noisy(found, tokens):
    """Nonsense in two rows of the base model's, and the right answer in a third: no score moves visibly."""
    worse = said("base", range(5, 7), lambda found, tokens, number: [40 + number] * 12)(found, tokens)
    return said("base", range(7, 8), the_reference)(worse, tokens)


def elsewhere(environment):
    """Another version of torch: tokens need not be equal there."""
    return environment | {"packages": environment["packages"] | {"torch": "1.13.1"}}


def unlisted(name, data):
    def forge(run, repo_id):
        (run / "release" / name).write_bytes(data)
        return run / "release"

    return forge


def listed(name, data):
    return lambda run, repo_id: rehash(unlisted(name, data)(run, repo_id))


def scaled(tensors, by):
    return {name: tensor * by if "lora_B" in name else tensor for name, tensor in tensors.items()}


def no_safetensors(run, repo_id):
    (run / ADAPTER_FILE).write_bytes(b"?" * 1000)
    edit_record(run, training__adapter_sha256=sha256_file(run / ADAPTER_FILE))
    return staged(run, repo_id)


def without_file(data, name):
    found = json.loads(data)
    del found["files"][name]
    return json.dumps(found).encode()


def as_by_another_renderer(run, repo_id, old, new):
    """A card with a lie, in a release whose record says that other code rendered it."""
    release = staged(run, repo_id)
    (release / "README.md").write_bytes(text(old, new)((release / "README.md").read_bytes()))
    edit_record(release, rendered__code="0" * 64)
    return rehash(release)


def with_the_plot(run, picture):
    (run / "release" / "plots" / "loss.png").write_bytes(picture.read_bytes())
    return rehash(run / "release")


def plot_of_other_losses(run, repo_id):
    other = load_record(run)
    for point in other.training.history:
        point.loss = point.loss and point.loss / 2
    draw_plots(other, run / "other")
    return run / "other" / "plots" / "loss.png"
