"""The base model and the adapter on it."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, prepare_model_for_kbit_training
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)
from transformers.utils import logging
from trl import ModelConfig, get_peft_config, get_quantization_config

from hub.pins import refuse_local
from recipes.base_model import base_config, base_kind, download_if_there, family_of, tokenizer_config
from recipes.data.tokenizer import load_tokens
from recipes.families import FAMILIES
from recipes.quantization import bring_in_bitsandbytes
from recipes.training.dtype import pick_dtype
from record.adapter_config import check_adapter_config
from record.errors import UserError, chain, explain, explanation, one_line
from record.release_files import ADAPTER_CONFIG_FILE, ADAPTER_FILE, TOKENIZER_FILE
from record.run_record import Model, Pin
from record.signs_of_life import waiting_for

# The id of `<unk>` in every T5.
UNKNOWN = 2

# transformers takes 1e30 for a tokenizer that states no length.
UNSTATED_LENGTH = 10**9
# Keys of a tokenizer.json that decide no id of a whole text.
NO_PART_OF_IDS = {"version", "truncation", "padding"}
# What an adapter's weights are stored in, as safetensors names it.
WEIGHTS = ("F32", "BF16", "F16")

# PEFT 0.21 reads an attribute that transformers 5.23 has renamed; nothing a user could act on.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")

# transformers 5.23 rightly leaves FLAN-T5's head untied, and warns on each load that the config says otherwise.
logging.get_logger("transformers.modeling_utils").addFilter(
    lambda record: "to tie shared.weight to lm_head.weight" not in record.getMessage()
)


def load_tokenizer(base: Pin, added: list[str], languages: tuple[str, str] | None = None) -> PreTrainedTokenizerBase:
    """The base model's tokenizer at the pinned commit, with the `added` tokens; saved, it is read by `AutoTokenizer`.

    Parameters:
        languages: as in `load_tokens`.

    Raises:
        `UserError`: as `load_tokens`, or the repository's tokenizer is code of its own.
    """
    refuse_local(base.id)
    if not family_of(base).t5_tokenizer:
        return _load_stored(base, load_tokens(base, added, languages))
    plain, tokens = load_tokens(base, [], languages), load_tokens(base, added)
    try:
        tokenizer = AutoTokenizer.from_pretrained(base.id, revision=base.revision, trust_remote_code=False)
    except (ValueError, ImportError, OSError) as error:
        raise _not_loaded(base, "tokenizer", error) from error
    if differing := _differing(tokenizer, plain):
        raise UserError(
            f"transformers reads the tokenizer of {base.id} as {type(tokenizer).__name__}, not as a T5's (its "
            f"{differing}): its ids could not be checked without transformers. Choose another base model, "
            "or set `tokenizer_class: T5Tokenizer` in a copy's tokenizer_config.json"
        )
    if added:
        tokenizer.backend_tokenizer.model = tokens.model
    return tokenizer


def _load_stored(base: Pin, tokens: Tokenizer) -> PreTrainedTokenizerBase:
    """As its tokenizer.json stands: transformers 5 would build another of it for some classes, and saves this one."""
    names = ["input_ids", "attention_mask"]
    if base_kind(base) == "byt5" or download_if_there(base, TOKENIZER_FILE) is None:
        # Names that all tokenizers have which `recipes.data.built_tokenizer` makes.
        return PreTrainedTokenizerFast(
            tokenizer_object=tokens, model_input_names=names, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
            model_max_length=tokenizer_config(base).get("model_max_length"),
        )  # fmt: skip
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(base.id, revision=base.revision, model_input_names=names)
    except (ValueError, ImportError, OSError) as error:
        raise _not_loaded(base, "tokenizer", error) from error
    if tokenizer.pad_token_id is None:
        raise UserError(f"the tokenizer of {base.id} has no padding token: set `pad_token` in a copy's "
                        "tokenizer_config.json")  # fmt: skip
    tokenizer.backend_tokenizer.post_processor = tokens.post_processor
    if differing := _differing(tokenizer, tokens):
        raise UserError(
            f"transformers reads another tokenizer of {base.id} than its tokenizer.json describes (its {differing}): "
            "choose another base model"
        )
    return tokenizer


def _differing(tokenizer: PreTrainedTokenizerBase, tokens: Tokenizer) -> str:
    """The parts in which transformers makes another tokenizer than `load_tokens`, by which the run is checked."""
    theirs = json.loads(tokenizer.backend_tokenizer.to_str()) if isinstance(tokenizer, PreTrainedTokenizerFast) else {}
    ours = json.loads(tokens.to_str())
    return ", ".join(part for part in ours if part not in NO_PART_OF_IDS and theirs.get(part) != ours[part])


def load_base(base: Pin, config: ModelConfig) -> PreTrainedModel:
    """The base model at the pinned commit, quantized if the recipe says so; `config` then has the dtype it was given.

    A record names any base model. No code of its repository is run and no pickle of it is read, but its weights are
    downloaded, whatever their size: how large a model one is willing to check, no rule can say.

    Raises:
        `UserError`: it is of no family here or of no possible shape, or has no safetensors, or they do not fit its
            configuration.
    """
    waiting_for("Loading the base model")
    refuse_local(base.id)
    base_config(base)
    config.dtype = str(pick_dtype(config.dtype, base)).removeprefix("torch.")
    if config.load_in_4bit or config.load_in_8bit:
        bring_in_bitsandbytes()
    try:
        model = AutoModelForSeq2SeqLM.from_pretrained(
            base.id,
            revision=base.revision,
            dtype=config.dtype,
            attn_implementation=config.attn_implementation,
            quantization_config=get_quantization_config(config),
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (ValueError, ImportError, OSError, SafetensorError) as error:
        if isinstance(error, OSError) and "model.safetensors" in str(error) and not explanation(error):
            raise UserError(
                f"{base.id}@{base.revision[:12]} holds no weights as safetensors, and pickles (pytorch_model.bin) are "
                "not read: have them converted at https://huggingface.co/spaces/safetensors/convert, and set "
                "`model_revision` to the pull request that it opens, as refs/pr/1"
            ) from None
        raise _not_loaded(base, "model", error) from error
    return suit_training(model, base)


def suit_training(model: PreTrainedModel, base: Pin) -> PreTrainedModel:
    """The base model without what training here cannot do with."""
    for layer in model.modules():
        if type(layer).__name__ == "Linear4bit":
            # On CPUs with AVX512-BF16, bitsandbytes 0.50 repacks 4-bit weights at the first evaluation, and the
            # training steps after it then lose the gradient below each such layer.
            layer.support_avx512bf16_for_cpu = False
        if "layerdrop" in vars(layer):
            # M2M-100 leaves out whole layers at random: other ones in each micro-batch and process, which would then
            # wait for gradients that never come.
            layer.layerdrop = 0.0
    if (images := family_of(base).images) is not None:
        # Only texts are trained on: LoRA on it would get no gradients, for which several processes would wait.
        model.set_submodule(images, torch.nn.Identity())
    return model


def set_target_language(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, base: Pin, languages: tuple[str, str] | None
) -> None:
    """Lets `generate` begin with the token of the targets' language, where texts of the family have such tokens.

    Parameters:
        languages: as in `load_tokens`.
    """
    if languages is None:
        return
    target = tokenizer.convert_tokens_to_ids(languages[1])
    if family_of(base).language == "last":
        model.generation_config.decoder_start_token_id = target
    else:
        model.generation_config.forced_bos_token_id = target


def trained_length(base: Pin, tokenizer: PreTrainedTokenizerBase) -> int:
    """The longest text in tokens that the base model was trained with: as its repository states it, else its paper."""
    if tokenizer.model_max_length < UNSTATED_LENGTH:
        return tokenizer.model_max_length
    config, family = base_config(base), family_of(base)
    return config.get("n_positions") or config.get("max_position_embeddings") or family.trained_length


def _not_loaded(base: Pin, what: str, error: Exception) -> Exception:
    """The Hub's own refusals as they are; all else is the repository's."""
    if any(explain(cause) for cause in chain(error)):
        return error
    return UserError(f"the {what} of {base.id}@{base.revision[:12]} cannot be loaded: {one_line(str(error), 300)}")


def add_adapter(
    model: PreTrainedModel, base: Pin, config: ModelConfig, seed: int, token_ids: Sequence[int] = ()
) -> PeftModel:
    """A new LoRA adapter on the base, its weights in float32.

    The seed is set here because the weights are drawn here, before `Trainer` sets its own. The adapter's config names
    the base's id and sha, so that every consumer loads the very base it was trained on.

    Parameters:
        token_ids: ids of the added tokens. Each gets two trained rows of `d_model` weights: one in the embedding of
            both stacks, one in the head.

    Raises:
        `UserError`: the recipe's LoRA does not fit the model, or there are more added tokens than spare rows.
    """
    lora = get_peft_config(config)
    if lora.target_modules is None:
        lora.target_modules = set(FAMILIES[model.config.model_type].lora_targets)
    lora.base_model_name_or_path = base.id
    lora.revision = base.revision
    rows = model.get_input_embeddings().num_embeddings
    if token_ids and max(token_ids) >= rows:
        raise UserError(
            f"`added_tokens` names {len(token_ids)}, but the embedding of {base.id} has only "
            f"{rows - min(token_ids)} spare rows: name fewer"
        )
    if token_ids:
        # PEFT 0.21 finds `lm_head` by its end. Under its full name it would tie the head's rows to the embedding's,
        # since transformers 5 says so of every T5; but FLAN-T5's are other weights, several times smaller.
        lora.trainable_token_indices = {"shared": list(token_ids), "head": list(token_ids)}
    set_seed(seed)
    try:
        adapter = get_peft_model(_trainable_if_quantized(model, config), lora, revision=base.revision)
    except ValueError as error:
        raise UserError(f"the adapter cannot be made: {' '.join(str(error).split())[:300]}") from error
    if token_ids:
        _start_as_unknown(adapter)
    return adapter


def refuse_targets(adapter: PeftModel) -> None:
    """Refuses LoRA that would train less than its recipe says.

    Raises:
        `UserError`: a name in `lora_target_modules` is of no module, which PEFT 0.21 lets pass next to one that is; or
            it is `shared`, which transformers 5.23 never calls, but its copies in encoder and decoder.
    """
    modules = dict(adapter.get_base_model().named_modules())
    targets = adapter.peft_config["default"].target_modules
    for target in sorted(targets) if not isinstance(targets, str) else ():
        if not any(f".{name}".endswith(f".{target}") for name in modules):
            linear = {name.removesuffix(".base_layer").rpartition(".")[2] for name, module in modules.items()
                      if isinstance(module, torch.nn.Linear) and "lora_" not in name}  # fmt: skip
            raise UserError(f"`lora_target_modules` names `{target}`, which the base model lacks: it has "
                            f"{', '.join(sorted(linear))}")  # fmt: skip
    if any(name.endswith("shared") and isinstance(module, BaseTunerLayer) for name, module in modules.items()):
        raise UserError("`lora_target_modules` names `shared`, which is never called: name `embed_tokens`")


def _start_as_unknown(adapter: PeftModel) -> None:
    """Gives the added tokens the rows of `<unk>`: so the base model met their texts, and so it reads and writes them.

    What the spare rows hold, or a mean over all rows, the few steps on a rare token do not move far enough.
    """
    with torch.no_grad():
        for layer in (adapter.get_input_embeddings(), adapter.get_output_embeddings()):
            rows = layer.token_adapter
            rows.trainable_tokens_delta["default"].copy_(rows.base_layer.weight[UNKNOWN])


def _trainable_if_quantized(model: PreTrainedModel, config: ModelConfig) -> PreTrainedModel:
    if config.load_in_4bit or config.load_in_8bit:
        # Norms in float32 and gradients through the embeddings; checkpointing itself is the Trainer's business.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        model.enable_input_require_grads()
    return model


def continue_adapter(model: PreTrainedModel, folder: Path, base: Pin, config: ModelConfig, seed: int) -> PeftModel:
    """The trained adapter in `folder`, to be trained on; without `is_trainable` it would learn nothing.

    Raises:
        `UserError`: as `load_adapter`.
    """
    check_adapter_config(folder, base)
    shapes = _shapes(folder)
    set_seed(seed)
    adapter = _with_adapter(_trainable_if_quantized(model, config), folder, shapes, is_trainable=True)
    adapter.peft_config["default"].base_model_name_or_path = base.id
    return adapter


def load_adapter(model: PreTrainedModel, folder: Path, base: Pin) -> PeftModel:
    """A trained adapter from `folder`, for inference; only safetensors are read.

    Raises:
        `UserError`: there is none, it is of another base model than `base`, its configuration asks for what no adapter
            here does, or it holds other tensors than that asks for. PEFT 0.21 would load a tensor of the base model's
            name into the base model.
    """
    check_adapter_config(folder, base)
    return _with_adapter(model, folder, _shapes(folder)).eval()


def load_foreign_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """An adapter that was not made here, from a `folder` whose configuration `record.foreign_config` wrote.

    Raises:
        `UserError`: as `load_adapter`.
    """
    return _with_adapter(model, folder, _shapes(folder)).eval()


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    path = folder / ADAPTER_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no {path.name}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            for name, tensor in tensors.items():
                if tensor.get_dtype() not in WEIGHTS:
                    raise UserError(f"{path.name}: {name} is of the type {tensor.get_dtype()}, which no weights are")
            return {name: tuple(tensor.get_shape()) for name, tensor in tensors.items()}
    except SafetensorError as error:
        raise UserError(f"{path.name} is not a safetensors file: {error}") from None


def _refuse_other_base(model: PreTrainedModel, folder: Path) -> None:
    """PEFT 0.21 saves the head's own weight next to LoRA on it, and loads it over the base model's."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    with safe_open(folder / ADAPTER_FILE, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            if ".base_layer." not in name:
                continue
            saved = file.get_tensor(name)
            own = weights.get(name.removeprefix("base_model.model.").replace(".base_layer.", "."))
            if own is None:
                raise UserError(f"{ADAPTER_FILE} does not fit {model.name_or_path}: {one_line(name, 300)}")
            # One of them may have been rounded to bfloat16.
            coarse = torch.bfloat16 if torch.bfloat16 in (saved.dtype, own.dtype) else saved.dtype
            if not torch.equal(saved.to(coarse), own.cpu().to(coarse)):
                raise UserError(f"{ADAPTER_FILE} changes the base model's own weights: {name} is not that of "
                                f"{model.name_or_path}")  # fmt: skip


def _with_adapter(model: PreTrainedModel, folder: Path, shapes: dict[str, tuple[int, ...]], **how: Any) -> PeftModel:
    _refuse_other_base(model, folder)
    try:
        with warnings.catch_warnings():
            # Refused below, with its name.
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            adapter = PeftModel.from_pretrained(model, folder, **how)
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        raise UserError(f"{ADAPTER_FILE} does not fit {model.name_or_path} and {ADAPTER_CONFIG_FILE}: it is of "
                        "another base model, or of a larger vocabulary") from None  # fmt: skip
    except ValueError as error:
        raise UserError(
            f"{ADAPTER_CONFIG_FILE} does not fit {model.name_or_path}: {one_line(str(error), 300)}"
        ) from None
    adapter_shapes = {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(adapter).items()}
    if wrong := sorted(
        name for name in shapes.keys() | adapter_shapes.keys() if shapes.get(name) != adapter_shapes.get(name)
    ):
        raise UserError(f"{ADAPTER_FILE} holds other tensors than {ADAPTER_CONFIG_FILE} asks for: {wrong[0]}")
    return adapter


def adapter_numbers(adapter: PeftModel) -> int:
    """How many numbers the adapter itself holds: all that was trained."""
    return sum(tensor.numel() for tensor in get_peft_model_state_dict(adapter).values())


def size_of(model: Any, kind: str) -> Model:
    """Parameter counts and memory of a model with its adapter.

    Parameters:
        kind: the key of the base model's row in `recipes.families`.

    4-bit weights are packed two to a byte; PEFT counts them as they were.
    """
    trainable, total = model.get_nb_trainable_parameters()
    base = model.get_base_model()
    return Model(
        trainable=trainable,
        total=total,
        memory_bytes=model.get_memory_footprint(),
        dtype=str(base.dtype).removeprefix("torch."),
        type=kind,
        quantized_layers=sum(type(weight).__name__ in ("Params4bit", "Int8Params") for weight in base.parameters()),
    )
