"""A base model's configuration, and what is refused by it before anything is trained; no torch, no weights."""

from pathlib import Path
from typing import Any

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from hub.release import download
from recipes.families import FAMILIES, VARIANTS, Family, kind_of
from record import strict_json
from record.errors import UserError
from record.release_files import TOKENIZER_CONFIG_FILE
from record.run_record import Lengths, Pin

# The largest models in sight: mT5-XXL and FLAN-T5-XXL with 24 layers of 4,096, feed-forward layers of 10,240, 64 heads
# of 64 and 250,112 tokens; T5Gemma 9B with 42 layers of 3,584; T5Gemma's and NLLB's 256,000 tokens.
LARGEST_SHAPE = {
    **dict.fromkeys(("num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers", "num_hidden_layers"), 200),
    **dict.fromkeys(("d_model", "hidden_size"), 32_768),
    **dict.fromkeys(("d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "intermediate_size"), 131_072),
    **dict.fromkeys(("num_heads", "encoder_attention_heads", "decoder_attention_heads", "num_attention_heads"), 512),
    **dict.fromkeys(("d_kv", "head_dim"), 1_024),
    "max_position_embeddings": 1_000_000,
    "vocab_size": 1_000_000,
}
# What a configuration may name as its `model_type`.
TYPES = [kind for kind in FAMILIES if kind not in VARIANTS.values()]
# Configurations within a configuration.
PARTS = ("encoder", "decoder", "text_config", "vision_config")
# transformers 5 takes code, kernels and quantizers from other repositories where a configuration names them.
ON_DEMAND = {"auto_map", "attn_implementation", "_attn_implementation", "quantization_config", "use_kernels"}


def family_of(base: Pin) -> Family:
    """The row of a base model's kind.

    Raises:
        `UserError`: as `base_config`.
    """
    return FAMILIES[base_kind(base)]


def base_kind(base: Pin) -> str:
    """The key of a base model's row, as its config.json and the class of its tokenizer say.

    Raises:
        `UserError`: as `base_config`.
    """
    config = base_config(base)
    return kind_of(config, tokenizer_class(base, config))


def tokenizer_class(base: Pin, config: dict[str, Any]) -> str | None:
    """The class of a base model's tokenizer, as `AutoTokenizer` finds it; None unless it decides about the family.

    Parameters:
        config: what config.json holds.
    """
    if config["model_type"] not in {kind for kind, _ in VARIANTS}:
        return None
    stated = tokenizer_config(base).get("tokenizer_class") or config.get("tokenizer_class")
    return stated if isinstance(stated, str) else None


def tokenizer_config(base: Pin) -> dict[str, Any]:
    """What tokenizer_config.json holds; empty where the repository lacks it.

    Raises:
        `UserError`: it is no JSON object.
    """
    path = download_if_there(base, TOKENIZER_CONFIG_FILE)
    try:
        content = {} if path is None else strict_json.parse(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{TOKENIZER_CONFIG_FILE} of {base.id} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{TOKENIZER_CONFIG_FILE} of {base.id} cannot be read: it is no object")
    return content


def download_if_there(base: Pin, name: str) -> Path | None:
    """A small file of the base model's repository; None where the repository lacks it, or offline the cache."""
    if constants.HF_HUB_OFFLINE:
        path = try_to_load_from_cache(base.id, name, revision=base.revision)
        return Path(path) if isinstance(path, str) else None
    try:
        return download(base.id, name, base.revision)
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return None


def refuse_unless_served(base: Pin) -> None:
    """Refuses what the service does not answer with: it decodes in slots, whose weights are not known of all families.

    Raises:
        `UserError`: the base model is of another family; and as `base_config`.
    """
    if not (family := family_of(base)).flat:
        raise UserError(
            f"{base.id} is a model of the family {family.name}, which the service does not decode: export the adapter "
            "with `--format merged`, or load it with peft and transformers as its card shows"
        )


def refuse_for_family(recipe: Any, base: Pin) -> None:
    """Refuses keys of a recipe (`recipes.config.Recipe`) that have no effect on models of the base's family.

    Raises:
        `UserError`: one of them; and as `base_config`.
    """
    family = family_of(base)
    if recipe.arguments.engine == "ctranslate2" and family.converter is None:
        raise UserError(f"`engine: ctranslate2` does not decode {family.name}: remove it")
    if family.flat:
        return
    for key, value in (
        ("neftune_noise_alpha", recipe.training.neftune_noise_alpha),
        ("torch_compile", recipe.training.torch_compile),
        ("added_tokens", recipe.arguments.added_tokens),
    ):
        if value:
            raise UserError(f"`{key}` has no effect on {family.name} here: remove it")
    longest = _positions(base)
    if longest and recipe.arguments.max_new_tokens > longest:
        raise UserError(f"{base.id} has {longest:,} positions: set `max_new_tokens` to {longest:,} at most")


def refuse_too_long(base: Pin, lengths: dict[str, Lengths], test_rows: Any) -> None:
    """Refuses texts for which the base model has no position: it would fail in the midst of training or scoring.

    Parameters:
        lengths: of the training rows' prompts and targets.
        test_rows: token ids of the test rows.

    Raises:
        `UserError`: there are some.
    """
    longest = _positions(base)
    if not longest:
        return
    test = max(map(len, test_rows["input_ids"]))
    for name, most in (("prompt", max(lengths["prompt"].max, test)), ("target", lengths["target"].max)):
        if most > longest:
            raise UserError(
                f"the longest {name} has {most:,} tokens, but {base.id} has {longest:,} positions: set `length_rules` "
                f"(`truncate tokens({name}) > {longest}`)"
            )


def _positions(base: Pin) -> int | None:
    key = family_of(base).positions
    return None if key is None else base_config(base).get(key)


def base_config(base: Pin) -> dict[str, Any]:
    """A base model's configuration, looked at before its weights are downloaded and memory for them is taken.

    Raises:
        `UserError`: it is of no type in `FAMILIES`, of no possible shape, or names what would be loaded from elsewhere.
    """
    try:
        shape = strict_json.parse(download(base.id, "config.json", base.revision).read_bytes())
    except ValueError as error:
        raise UserError(f"config.json of {base.id} cannot be read: {error}") from None
    kind = shape.get("model_type") if isinstance(shape, dict) else None
    if not isinstance(kind, str) or kind not in TYPES:
        raise UserError(_refusal(base, shape))
    _refuse_part(base, shape)
    return shape


def _refusal(base: Pin, shape: Any) -> str:
    names = shape.get("architectures") if isinstance(shape, dict) else None
    if isinstance(names, list) and any(str(name).endswith("ForCausalLM") for name in names):
        return (
            f"{base.id} is a decoder-only model, and encoder-decoders are trained here: train it with TRL's SFTTrainer "
            "(https://huggingface.co/docs/trl/sft_trainer)"
        )
    return f"{base.id} is no model of the types {', '.join(TYPES)}: none else is trained here"


def _refuse_part(base: Pin, part: dict[str, Any]) -> None:
    if keys := sorted(ON_DEMAND & part.keys()):
        raise UserError(f"config.json of {base.id} sets `{keys[0]}`: what that loads is not pinned")
    for key, most in LARGEST_SHAPE.items():
        if not isinstance(part.get(key, 1), int) or not 1 <= part.get(key, 1) <= most:
            raise UserError(f"{base.id}: its `{key}` is no whole number from 1 to {most:,}: it is not loaded")
    for name in PARTS:
        if isinstance(inner := part.get(name), dict):
            _refuse_part(base, inner)
