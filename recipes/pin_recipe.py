"""What a recipe takes from the Hub, pinned to full commits."""

import os
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token

from hub.pins import pin, same_repository
from hub.release import pull_parent
from recipes.mixture import refuse_same_rows, sources
from record.adapter_config import LORA_OF_RECIPE, check_adapter_config
from record.errors import UserError
from record.run_record import FilePin, Pin, Pins


def pin_recipe(recipe) -> Pins:
    """Resolves all that a recipe takes from the Hub.

    An adapter that is continued brings its own base model commit: on another one it would be another model.

    The recipe then has the Hub's own names for all of them, which may differ in case, or since a move.

    Raises:
        `UserError`: the parent adapter has no record, or another base model, other added tokens or another LoRA shape
            than the recipe.
    """
    dataset, *more = _pin_datasets(recipe)
    if recipe.arguments.parent_adapter is None:
        base = pin("model", recipe.model.model_name_or_path, recipe.model.model_revision)
        _rename(recipe, recipe.model, "model_name_or_path", base.id)
        return Pins(base_model=base, dataset=dataset, more_datasets=more)
    parent = pin("model", *parent_id(recipe.arguments.parent_adapter))
    pulled = pull_parent(parent)
    record, base = pulled.record, pulled.record.pins.base_model
    if not same_repository(recipe.model.model_name_or_path, base):
        raise UserError(
            f"{parent.id} is an adapter of {base.id}: set `model_name_or_path` to that, not "
            f"{recipe.model.model_name_or_path}"
        )
    _rename(recipe, recipe.model, "model_name_or_path", base.id)
    name, _, revision = recipe.arguments.parent_adapter.partition("@")
    if not f"/{parent.id}".endswith(f"/{name}"):
        _rename(recipe, recipe.arguments, "parent_adapter", f"{parent.id}@{revision}" if revision else parent.id)
    tokens = record.recipe.get("added_tokens", [])
    if tokens != recipe.arguments.added_tokens:
        raise UserError(
            f"{parent.id} was trained with `added_tokens: {tokens}`, which its rows belong to: state the same, not "
            f"{recipe.arguments.added_tokens}"
        )
    config = check_adapter_config(pulled.folder, base)
    for theirs, ours in LORA_OF_RECIPE.items():
        if ours in recipe.resolved and _as_set(recipe.resolved[ours]) != _as_set(config[theirs]):
            raise UserError(f"`{ours}` is that of {parent.id}, which is continued: remove it from the recipe")
    return Pins(base_model=base, dataset=dataset, more_datasets=more, parent_adapter=parent)


def _pin_datasets(recipe) -> list[Pin]:
    each, entries = sources(recipe.arguments), [dict(entry) for entry in recipe.arguments.datasets]
    pins = [_pin_dataset(source) for source in each]
    refuse_same_rows(each, pins)
    for number, pinned in enumerate(pins):
        if isinstance(pinned, FilePin):
            continue
        if entries and "dataset_name" in entries[number]:
            entries[number]["dataset_name"] = pinned.id
        else:
            _rename(recipe, recipe.arguments, "dataset_name", pinned.id)
    if entries:
        recipe.arguments.datasets = recipe.resolved["datasets"] = entries
    return pins


def _pin_dataset(arguments) -> Pin:
    # Heavy to import, and every command that pins does it once.
    from recipes.data.local_files import is_local, pin_files

    name = arguments.dataset_name
    if is_local(name):
        if arguments.dataset_revision != "main":
            raise UserError(f"`dataset_revision` names a commit on the Hub, `dataset_name: {name}` files: remove it")
        return pin_files(name)
    if Path(name).is_dir():
        raise UserError(f"the folder {name} has the name of a repository: write ./{name} to read it, or work elsewhere")
    return pin("dataset", name, arguments.dataset_revision)


def _rename(recipe, arguments, key: str, name: str) -> None:
    if getattr(arguments, key) != name:
        setattr(arguments, key, name)
        recipe.resolved[key] = name


def _as_set(modules: Any) -> Any:
    return frozenset(modules) if isinstance(modules, list) else frozenset({modules})


def parent_id(parent: str) -> tuple[str, str]:
    """The id and the revision of a `parent_adapter`, which without an owner is one's own.

    Raises:
        `UserError`: nobody is signed in whose it could be.
    """
    repo_id, _, revision = parent.partition("@")
    if "/" not in repo_id:
        owner = os.environ.get("HUB_USER") or (HfApi().whoami(cache=True)["name"] if get_token() else None)
        if owner is None:
            raise UserError(f"`parent_adapter: {parent}` is one of your own: run `hf auth login`, or set HUB_USER=name")
        repo_id = f"{owner}/{repo_id}"
    return repo_id, revision or "main"
