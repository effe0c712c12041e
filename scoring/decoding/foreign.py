"""An adapter or a full model that was not trained here, loaded to be scored next to its base model."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from recipes.base_model import base_kind
from recipes.data.stored_tokenizer import languages_of
from recipes.data.tokenizer import load_tokens
from recipes.training.model import adapter_numbers, load_foreign_adapter, size_of
from record import strict_json
from record.errors import UserError, one_line
from record.foreign_config import read_foreign_config, write_safe_config
from record.release_files import ADAPTER_FILE, SENTENCEPIECE_FILE, TOKENIZER_FILE
from record.run_record import Model, Pin
from scoring.decoding import processes
from scoring.decoding.predict import load_model


class Foreign(NamedTuple):
    """`model` is the adapter on its base model, or a full model; then `base` is the base model, else None.

    `kind` is the model's, as `recipes.base_model.base_kind` names it.
    """

    model: Any
    base: Any
    tokenizer: Any
    dtype: str
    kind: str

    def size(self) -> Model:
        """Parameter counts and memory; of a full model nothing is counted as trained."""
        if self.base is None:
            return size_of(self.model, self.kind).model_copy(update={"trainable": adapter_numbers(self.model)})
        return Model(
            trainable=0,
            total=self.model.num_parameters(),
            memory_bytes=self.model.get_memory_footprint(),
            dtype=self.dtype,
            type=self.kind,
        )


def load_foreign(folder: Path, kind: str, source: Pin, base: Pin, recipe: Mapping[str, Any], config: Any) -> Foreign:
    """Loads what lies in `folder`, of safetensors alone and without code of its repository.

    Parameters:
        kind, source: as in `record.run_record.Evaluated`.
        base: the adapter's base model, or the one that a full model is compared with.
        recipe, config: its resolved keys, and TRL's `ModelConfig` of them.

    Raises:
        `UserError`: it does not fit the base model, or asks for what is not scored here.
    """
    loaded: list[Foreign] = []
    files = processes.adapter_files(folder)
    processes.gather_from_all(_load_foreign, folder, files, kind, source, base, recipe, config, loaded)
    return loaded[0]


def _load_foreign(folder: Path, files, kind: str, source: Pin, base: Pin, recipe, config, loaded: list) -> None:
    """Loads on each process, which keeps what is `loaded`: nothing of it can be sent."""
    bare, tokenizer = load_model(base, recipe, config)
    if kind == "model":
        model, _ = load_model(source, recipe, config, tokenizer_of=base)
        processes.enroll(bare, tokenizer)
        foreign = Foreign(model, bare, tokenizer, config.dtype, base_kind(source))
    else:
        with tempfile.TemporaryDirectory() as safe, processes.adapter_folder(folder, files) as own:
            write_safe_config(read_foreign_config(own), Path(safe))
            Path(safe, ADAPTER_FILE).symlink_to((own / ADAPTER_FILE).resolve())
            model = load_foreign_adapter(bare, Path(safe))
        foreign = Foreign(model, None, tokenizer, config.dtype, base_kind(base))
    processes.enroll(model, tokenizer)
    loaded.append(foreign)


def refuse_other_tokenizer(folder: Path, kind: str, source: Pin, base: Pin, recipe: Mapping[str, Any]) -> bool:
    """Refuses a tokenizer in `folder` that has other tokens than the base model's, by which all is scored.

    Returns:
        Whether there is one, with the same tokens.

    Raises:
        `UserError`: it has others.
    """
    languages = languages_of(recipe)
    tokens = load_tokens(base, [], languages)
    if kind == "model" and any((folder / name).is_file() for name in (TOKENIZER_FILE, SENTENCEPIECE_FILE)):
        if load_tokens(source, [], languages).to_str() != tokens.to_str():
            raise UserError(f"the tokenizer of {source.id} is not that of {base.id}: name its base model by --base")
        return True
    if not (folder / TOKENIZER_FILE).is_file():
        return False
    content = strict_json.read(folder / TOKENIZER_FILE, "a tokenizer")
    try:
        vocabulary = content["model"]["vocab"]
        names = set(vocabulary if isinstance(vocabulary, dict) else [piece for piece, _ in vocabulary])
        names |= {token["content"] for token in content.get("added_tokens") or []}
    except (LookupError, TypeError, ValueError, AttributeError):
        raise UserError(f"{TOKENIZER_FILE} of {source.id} is not a tokenizer's") from None
    if others := sorted(map(str, names - tokens.get_vocab(with_added_tokens=True).keys())):
        raise UserError(
            f"the tokenizer of {source.id} has {len(others):,} tokens that {base.id} lacks "
            f"({one_line(', '.join(others[:5]), 100)}): an adapter with added tokens is not scored without its own "
            "embedding; check a merged export of it with --model and --base"
        )
    return True
