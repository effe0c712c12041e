"""The base model and the adapter on it."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, prepare_model_for_kbit_training
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.utils import logging
from trl import ModelConfig, get_peft_config, get_quantization_config

from recipes.errors import UserError
from recipes.pins import ADAPTER_FILE
from recipes.record import Model, Pin
from recipes.tokens import load_tokens

# The id of `<unk>` in every T5.
UNKNOWN = 2

# PEFT 0.21 reads an attribute that transformers 5.23 has renamed; nothing a user could act on.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")

# transformers 5.23 rightly leaves FLAN-T5's head untied, and warns on each load that the config says otherwise.
logging.get_logger("transformers.modeling_utils").addFilter(
    lambda record: "to tie shared.weight to lm_head.weight" not in record.getMessage()
)


def pick_dtype(requested: str) -> torch.dtype:
    """The data type for the base's weights: the requested one where this device computes in it, else float32.

    bfloat16 has no hardware on CPUs without AVX512-BF16/AMX nor on GPUs before Ampere, and is many times slower there.
    """
    if requested == "bfloat16":
        native = on_gpu() and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    if requested == "float32":
        return torch.float32
    raise UserError(f"`dtype: {requested}` is not supported: use bfloat16 or float32")


def on_gpu() -> bool:
    """Whether this process works on a GPU: not where accelerate was told to use the CPU."""
    return PartialState().device.type == "cuda"


def load_tokenizer(base: Pin, added: list[str]) -> PreTrainedTokenizerBase:
    """The base model's tokenizer at the pinned commit, with the `added` tokens; saved, it is read by `AutoTokenizer`.

    Raises:
        `UserError`: as `load_tokens`.
    """
    tokenizer = AutoTokenizer.from_pretrained(base.id, revision=base.revision)
    if added:
        tokenizer.backend_tokenizer.model = load_tokens(base, added).model
    return tokenizer


def load_base(base: Pin, config: ModelConfig) -> PreTrainedModel:
    """The base model at the pinned commit, quantized if the recipe says so."""
    config.dtype = str(pick_dtype(config.dtype)).removeprefix("torch.")
    model = AutoModelForSeq2SeqLM.from_pretrained(
        base.id,
        revision=base.revision,
        dtype=config.dtype,
        attn_implementation=config.attn_implementation,
        quantization_config=get_quantization_config(config),
        use_safetensors=True,
    )
    for layer in model.modules():
        if type(layer).__name__ == "Linear4bit":
            # On CPUs with AVX512-BF16, bitsandbytes 0.50 repacks 4-bit weights at the first evaluation, and the
            # training steps after it then lose the gradient below each such layer.
            layer.support_avx512bf16_for_cpu = False
    return model


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
    """The trained adapter in `folder`, to be trained on; without `is_trainable` it would learn nothing."""
    set_seed(seed)
    adapter = PeftModel.from_pretrained(_trainable_if_quantized(model, config), folder, is_trainable=True)
    adapter.peft_config["default"].base_model_name_or_path = base.id
    return adapter


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """A trained adapter from `folder`, for inference; only safetensors are read.

    Raises:
        `UserError`: there is none, or it holds other tensors than its configuration asks for. PEFT 0.21 would load a
            tensor of the base model's name into the base model.
    """
    path = folder / ADAPTER_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no {path.name}")
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        adapter = PeftModel.from_pretrained(model, folder).eval()
    except SafetensorError as error:
        raise UserError(f"{path.name} is not a safetensors file: {error}") from None
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        raise UserError(f"{path.name} does not fit {model.name_or_path} and adapter_config.json") from None
    wanted = {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(adapter).items()}
    if wrong := sorted(name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name)):
        raise UserError(f"{path.name} holds other tensors than adapter_config.json asks for: {wrong[0]}")
    return adapter


def adapter_numbers(adapter: PeftModel) -> int:
    """How many numbers the adapter itself holds: all that was trained."""
    return sum(tensor.numel() for tensor in get_peft_model_state_dict(adapter).values())


def describe(model: Any) -> Model:
    """Parameter counts and memory of a model with its adapter.

    4-bit weights are packed two to a byte; PEFT counts them as they were.
    """
    trainable, total = model.get_nb_trainable_parameters()
    base = model.get_base_model()
    return Model(
        trainable=trainable,
        total=total,
        memory_bytes=model.get_memory_footprint(),
        dtype=str(base.dtype).removeprefix("torch."),
        quantized_layers=sum(type(weight).__name__ in ("Params4bit", "Int8Params") for weight in base.parameters()),
    )
