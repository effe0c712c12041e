"""The files of an adapter or a full model that was not published by this project, at a pinned commit."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from hub.release import WEIGHTS, fetch, refuse_large
from record.errors import UserError
from record.hashes import sha256_file
from record.release_files import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    SENTENCEPIECE_FILE,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
)
from record.run_record import Pin

CONFIG_FILE, GENERATION_FILE, INDEX_FILE = "config.json", "generation_config.json", "model.safetensors.index.json"
TOKENIZER_FILES = (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, SENTENCEPIECE_FILE)
SAFETENSORS = (
    "have it saved again by `save_pretrained`, or converted at https://huggingface.co/spaces/safetensors/convert"
)


def pull_foreign(source: Pin, kind: str) -> tuple[Path, dict[str, str]]:
    """Downloads what is read of an `adapter` or a full `model`, and nothing else: no pickle, no code.

    Returns:
        The folder in the Hub's cache where the files lie, and the sha256 of each by its name.

    Raises:
        `UserError`: the repository holds no such thing as safetensors, or too large a file.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    entries = {
        entry.path: entry
        for entry in HfApi().list_repo_tree(source.id, revision=source.revision)
        if isinstance(entry, RepoFile)
    }
    names = _adapter_files(source, entries) if kind == "adapter" else _model_files(source, entries)
    wanted = {name: entries[name] for name in sorted(names)}
    refuse_large(source.id, wanted)
    paths = {name: fetch(source.id, entry, source.revision) for name, entry in wanted.items()}
    return next(iter(paths.values())).parent, {name: sha256_file(path) for name, path in paths.items()}


def _adapter_files(source: Pin, there: dict[str, RepoFile]) -> set[str]:
    if ADAPTER_CONFIG_FILE not in there:
        cure = ": it holds a full model: add --model" if CONFIG_FILE in there else ": it is no adapter of PEFT"
        raise UserError(f"{source.id} holds no {ADAPTER_CONFIG_FILE}{cure}")
    if ADAPTER_FILE not in there:
        pickled = " but adapter_model.bin, a pickle, which is not read" if "adapter_model.bin" in there else ""
        raise UserError(f"{source.id} holds no {ADAPTER_FILE}{pickled}: {SAFETENSORS}")
    return {ADAPTER_CONFIG_FILE, ADAPTER_FILE, *(there.keys() & set(TOKENIZER_FILES))}


def _model_files(source: Pin, there: dict[str, RepoFile]) -> set[str]:
    if CONFIG_FILE not in there:
        cure = ": it holds an adapter, leave out --model" if ADAPTER_CONFIG_FILE in there else ""
        raise UserError(f"{source.id} holds no {CONFIG_FILE}{cure}")
    if ADAPTER_CONFIG_FILE in there:
        raise UserError(f"{source.id} holds an adapter next to a full model, and transformers would load the adapter's "
                        "base model instead: check the adapter without --model")  # fmt: skip
    weights = {name for name in there if WEIGHTS.fullmatch(name)}
    if not weights:
        raise UserError(f"{source.id} holds no weights as safetensors, and pickles are not read: {SAFETENSORS}")
    return {CONFIG_FILE, *weights, *(there.keys() & {GENERATION_FILE, INDEX_FILE, *TOKENIZER_FILES})}
