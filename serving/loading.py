"""The adapters that a service answers with, on one base model whose weights they share."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hub.pins import locate
from hub.release import entries_of, pull
from recipes.base_model import refuse_unless_flat
from recipes.config import recipe_from_record
from recipes.training.model import load_adapter, load_base, load_tokenizer, on_gpu, pick_dtype
from record.errors import UserError
from record.release_files import ADAPTER_CONFIG_FILE, ADAPTER_FILE
from record.run_record import Record
from record.trained_run import load_trained_run
from scoring.decoding.generate import is_plain
from scoring.decoding.t5_weights import Weights, weights_of
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

    `max_tokens` are written unless a request says otherwise: those of the recipe's scores. `about` goes to
    `/v1/models`.
    """

    id: str
    model: PeftModel | PreTrainedModel
    weights: Weights
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int
    about: dict[str, Any]


# What is refused must be refused before the next step loads more: one sequence.
def load(adapters: list[str]) -> list[Served]:
    """Loads adapters and, once, their base model.

    Parameters:
        adapters: `owner/name` or `owner/name@revision` on the Hub, or folders of runs.

    Raises:
        `UserError`: two have one id, they are not of one base model at one commit, loaded alike, or its own generation
            config asks for more than greedy decoding; and as `pull`, `load_base` and `load_adapter`.
    """
    sources = [find(adapter) for adapter in adapters]
    first, pin = sources[0], sources[0].record.pins.base_model
    ids = [one.id for one in sources] + [pin.id]
    if twice := next((name for name in ids if ids.count(name) > 1), None):
        raise UserError(f"two models would bear the id {twice}: requests could not tell them apart")
    for other in sources[1:]:
        theirs = other.record.pins.base_model
        if (theirs.id, theirs.revision) != (pin.id, pin.revision):
            raise UserError(
                f"{first.id} is an adapter of {pin.id}@{pin.revision[:12]}, {other.id} of "
                f"{theirs.id}@{theirs.revision[:12]}: one process serves adapters of one base, start another for it"
            )
        if _how_loaded(other) != _how_loaded(first):
            raise UserError(
                f"{other.id} takes its base in another data type or quantization than {first.id}: "
                "start another process for it"
            )
    recipes = [recipe_from_record(one.record.name, one.record.recipe) for one in sources]
    config = recipes[0].model
    refuse_unless_flat(pin, "served")
    base = load_base(pin, config)
    if not is_plain(base.generation_config):
        raise UserError(f"the generation config of {pin.id} asks for more than greedy decoding: it is not served")
    # A quantized base is on the GPU already and cannot be moved.
    if on_gpu() and not (config.load_in_4bit or config.load_in_8bit):
        base.to("cuda")
    packed = {}
    served = []
    for one, recipe in zip(sources, recipes, strict=True):
        model = load_adapter(sharing(base), one.folder, pin)
        arguments = recipe.arguments
        about = {"parent": pin.id, "revision": one.revision, "prompt_template": arguments.prompt}
        tokenizer = load_tokenizer(pin, arguments.added_tokens)
        weights = weights_of(model, packed)
        served.append(Served(one.id, model, weights, tokenizer, arguments.max_new_tokens, about))
    about = {"parent": None, "revision": pin.revision, "prompt_template": None}
    most = recipes[0].arguments.max_new_tokens
    served.append(Served(pin.id, base, weights_of(base, packed), load_tokenizer(pin, []), most, about))
    # What is packed is computed with, and nothing else; an embedding that is also the head is looked up in, too.
    for weight in packed:
        if weight is not base.get_input_embeddings().weight:
            weight.data = weight.data.new_empty(0)
    return served


def find(adapter: str) -> Source:
    """The run in a folder, or the published one, downloaded and held against the hashes in its record.

    Raises:
        `UserError`: there is none, it is not trained to its end, its adapter is another than its record's, or it is an
            export.
    """
    folder = Path(adapter)
    if (folder / EXPORT_FILE).is_file():
        raise _export(adapter)
    if folder.is_dir():
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


def _how_loaded(source: Source) -> tuple:
    recipe = source.record.recipe
    quantized = {key: value for key, value in recipe.items() if key.startswith(("load_in_", "bnb_", "use_bnb_"))}
    return str(pick_dtype(recipe.get("dtype", "float32"))), quantized
