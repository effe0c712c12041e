"""The adapters that a service answers with, on one base model whose weights they share."""

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hub.pins import locate
from hub.release import entries_of, pull
from recipes.base_model import refuse_unless_served
from recipes.config import Recipe, recipe_from_record
from recipes.training.dtype import keep_float32, on_gpu, pick_dtype
from recipes.training.model import load_adapter, load_base, load_tokenizer, trained_length
from record.errors import UserError
from record.release_files import ADAPTER_CONFIG_FILE, ADAPTER_FILE
from record.run_record import Record
from record.trained_run import load_trained_run
from scoring.decoding.generate import is_plain
from scoring.decoding.t5_weights import Layer, Weights, weights_of
from serving.export.export_record import EXPORT_FILE


@dataclass
class Source:
    """A trained run in `folder`; `revision` is its commit on the Hub, None for a local one."""

    id: str
    folder: Path
    record: Record
    revision: str | None


@dataclass
class Served:
    """A model that requests name by its `id`, an adapter or the bare base.

    `max_tokens` are written unless a request says otherwise: those of the recipe's scores. `trained` is the longest
    text that the base model was trained with, in tokens. `about` goes to `/v1/models`.
    """

    id: str
    model: PeftModel | PreTrainedModel
    weights: Weights
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int
    trained: int
    about: dict[str, Any]


class Models:
    """The bare base model, and the adapters on it; `by_id` holds those that are answered with.

    Parameters:
        sources: the first adapters; they name the base model.
        growing: more will be loaded. The base's weights then are held twice on a CPU: packed, and as PEFT reads them.

    Raises:
        `UserError`: as `load`.
    """

    def __init__(self, sources: list[Source], growing: bool):
        first = sources[0]
        self.first, self.pin, self.growing = first, first.record.pins.base_model, growing
        for source in sources[1:]:
            self._refuse_other_base(source)
        recipe = _recipe(first)
        refuse_unless_served(self.pin)
        self.base = load_base(self.pin, recipe.model)
        if not is_plain(self.base.generation_config):
            raise UserError(f"the generation config of {self.pin.id} asks for more than greedy decoding: "
                            "it is not served")  # fmt: skip
        # A quantized base is on the GPU already and cannot be moved.
        if on_gpu() and not (recipe.model.load_in_4bit or recipe.model.load_in_8bit):
            self.base.to("cuda")
        self.trained = trained_length(self.pin, load_tokenizer(self.pin, []))
        self.packed: dict[nn.Parameter, Layer] = {}
        self.by_id: dict[str, Served] = {}
        for source in sources:
            self.by_id[source.id] = self.load(source)
        about = {"parent": None, "revision": self.pin.revision, "prompt_template": None}
        weights, tokenizer = weights_of(self.base, self.packed), load_tokenizer(self.pin, [])
        most = recipe.arguments.max_new_tokens
        self.by_id[self.pin.id] = Served(self.pin.id, self.base, weights, tokenizer, most, self.trained, about)
        if not growing:
            self._forget_what_is_packed()

    def load(self, source: Source) -> Served:
        """Loads an adapter onto the base.

        Raises:
            `UserError`: it is of another base, or loaded otherwise; and as `load_adapter`.
        """
        self._refuse_other_base(source)
        arguments = _recipe(source).arguments
        model = load_adapter(sharing(self.base), source.folder, self.pin)
        about = {"parent": self.pin.id, "revision": source.revision, "prompt_template": arguments.prompt}
        tokenizer = load_tokenizer(self.pin, arguments.added_tokens)
        # What only this adapter has must not outlive it.
        packed = dict(self.packed)
        weights = weights_of(model, packed)
        of_base = {id(weight) for weight in self.base.parameters()}
        self.packed |= {weight: layer for weight, layer in packed.items() if id(weight) in of_base}
        return Served(source.id, model, weights, tokenizer, arguments.max_new_tokens, self.trained, about)

    def _refuse_other_base(self, other: Source) -> None:
        theirs, pin = other.record.pins.base_model, self.pin
        if (theirs.id, theirs.revision) != (pin.id, pin.revision):
            raise UserError(
                f"{self.first.id} is an adapter of {pin.id}@{pin.revision[:12]}, {other.id} of "
                f"{theirs.id}@{theirs.revision[:12]}: one process serves adapters of one base, start another for it"
            )
        if _how_loaded(other) != _how_loaded(self.first):
            raise UserError(
                f"{other.id} takes its base in another data type or quantization than {self.first.id}: "
                "start another process for it"
            )

    def _forget_what_is_packed(self) -> None:
        """Frees the weights that are computed with in their packed form alone."""
        modules = [module for one in self.by_id.values() for module in one.weights.modules]
        used = {id(weight) for module in modules for weight in module.parameters()}
        # An embedding that is also the head is looked up in, too.
        used.add(id(self.base.get_input_embeddings().weight))
        for weight in self.packed:
            if id(weight) not in used:
                weight.data = weight.data.new_empty(0)


def load(adapters: list[str], growing: bool = False) -> Models:
    """Loads adapters and, once, their base model.

    Parameters:
        adapters: `owner/name` or `owner/name@revision` on the Hub, or folders of runs.
        growing: as of `Models`.

    Raises:
        `UserError`: two have one id, they are not of one base model at one commit, loaded alike, or its own generation
            config asks for more than greedy decoding; and as `pull`, `load_base` and `load_adapter`.
    """
    sources = [find(adapter) for adapter in adapters]
    ids = [one.id for one in sources] + [sources[0].record.pins.base_model.id]
    if twice := next((name for name in ids if ids.count(name) > 1), None):
        raise UserError(f"two models would bear the id {twice}: requests could not tell them apart")
    return Models(sources, growing)


def find(adapter: str) -> Source:
    """The run in a folder, or the published one, downloaded and held against the hashes in its record.

    Raises:
        `UserError`: there is none, it is not trained to its end, its adapter is another than its record's, or it is an
            export.
    """
    folder = Path(adapter)
    # Not Path's own, which raise where a name is too long for the file system.
    if os.path.isfile(folder / EXPORT_FILE):  # noqa: PTH113
        raise _export(adapter)
    if os.path.isdir(folder):  # noqa: PTH112
        record = load_trained_run(folder)
        return Source(folder.resolve().name, folder, record, None)
    name, _, revision = adapter.partition("@")
    name, commit = locate(name, revision or "main")
    if not constants.HF_HUB_OFFLINE and entries_of(name, [EXPORT_FILE], commit):
        raise _export(adapter)
    published = pull(name, commit, [ADAPTER_CONFIG_FILE, ADAPTER_FILE]).require_whole()
    return Source(adapter, published.folder, published.record, commit)


def _export(name: str) -> UserError:
    return UserError(
        f"{name} is an export, and the service takes adapters, whose weights it packs for the CPU by itself: name the "
        "adapter that it was made of"
    )


def sharing(model: PreTrainedModel) -> PreTrainedModel:
    """A model of its own modules around the very weights of another.

    Each adapter then is loaded, checked and decoded as if it were the only one. PEFT's several adapters on one model
    take turns in the same modules, which would have to be switched at every step.
    """
    weights = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(weight): weight for weight in weights})


def _recipe(source: Source) -> Recipe:
    recipe = recipe_from_record(source.record.name, source.record.recipe)
    keep_float32(recipe.model, source.record, scored=True)
    return recipe


def _how_loaded(source: Source) -> tuple:
    recipe = source.record.recipe
    quantized = {key: value for key, value in recipe.items() if key.startswith(("load_in_", "bnb_", "use_bnb_"))}
    return pick_dtype(_recipe(source).model.dtype, source.record.pins.base_model), quantized
