"""Pins: what a run takes from the Hub, each resolved to a full commit sha before anything is loaded."""

import os
from pathlib import Path

from recipes.errors import UserError
from recipes.record import RECORD_FILE, Pin, Pins, Record, load_record, sha256_file

ADAPTER_FILE = "adapter_model.safetensors"


def pin(kind: str, repo_id: str, revision: str) -> Pin:
    """Asks the Hub which commit `revision` of a `"model"` or `"dataset"` repository is now.

    Raises:
        `UserError`: the id is a local path.
        `huggingface_hub.errors.HfHubHTTPError`: no such repository or revision, gated, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    if repo_id.count("/") != 1 or repo_id.startswith((".", "/", "~")):
        raise UserError(f"{repo_id!r} is not a Hub id (owner/name): a local path cannot be published or checked")
    info = HfApi().repo_info(repo_id, repo_type=kind, revision=revision)
    card = info.card_data or {}
    licence = card.get("license")
    return Pin(
        kind=kind,
        id=repo_id,
        revision=info.sha,
        license=licence if isinstance(licence, str) else ", ".join(licence or []) or None,
        miniature="miniature" in (info.tags or []),
    )


def pin_recipe(recipe) -> Pins:
    """Resolves all that a recipe takes from the Hub.

    An adapter that is continued brings its own base model commit: on another one it would be another model.

    Raises:
        `UserError`: the parent adapter has no record, or another base model than the recipe's.
    """
    dataset = pin("dataset", recipe.arguments.dataset_name, recipe.arguments.dataset_revision)
    if recipe.arguments.parent_adapter is None:
        base = pin("model", recipe.model.model_name_or_path, recipe.model.model_revision)
        return Pins(base_model=base, dataset=dataset)
    parent = pin("model", *_parent_id(recipe.arguments.parent_adapter))
    base = pull_parent(parent)[1].pins.base_model
    if base.id != recipe.model.model_name_or_path:
        raise UserError(
            f"{parent.id} is an adapter of {base.id}: set `model_name_or_path` to that, not "
            f"{recipe.model.model_name_or_path}"
        )
    return Pins(base_model=base, dataset=dataset, parent_adapter=parent)


def _parent_id(parent: str) -> tuple[str, str]:
    from huggingface_hub import HfApi, get_token

    repo_id, _, revision = parent.partition("@")
    if "/" not in repo_id:
        owner = os.environ.get("HUB_USER") or (HfApi().whoami(cache=True)["name"] if get_token() else None)
        if owner is None:
            raise UserError(f"`parent_adapter: {parent}` is one of your own: run `hf auth login`, or set HUB_USER=name")
        repo_id = f"{owner}/{repo_id}"
    return repo_id, revision or "main"


def pull_parent(parent: Pin) -> tuple[Path, Record]:
    """The parent adapter's files at its pinned commit, its weights checked against its record.

    Raises:
        `UserError`: it holds no run record, or its weights are not those of the record.
    """
    from huggingface_hub import snapshot_download

    files = [RECORD_FILE, "adapter_config.json", ADAPTER_FILE, "predictions.parquet"]
    folder = Path(snapshot_download(parent.id, revision=parent.revision, allow_patterns=files))
    if not (folder / RECORD_FILE).is_file():
        raise UserError(
            f"{parent.id} holds no {RECORD_FILE}: only an adapter published by this project can be continued"
        )
    record = load_record(folder)
    for name in files[1:]:
        if not (folder / name).is_file() or sha256_file(folder / name) != record.files.get(name):
            raise UserError(f"{parent.id}@{parent.revision} is damaged: {name} is not the file that its record names")
    return folder, record
