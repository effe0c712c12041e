"""What depends on a base model's type, as plain data: a row a type."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from record.errors import UserError
from record.run_record import Record


@dataclass(frozen=True)
class Family:
    """What holds for all base models of one type.

    Parameters:
        name: as a card says it.
        flat: training runs without padding (`recipes.training.unpadded_t5`), and decoding in slots
            (`scoring.decoding.slot_decoding`), whose weights service and exports are made of; else both go through
            transformers' own forward and `generate`, in padded batches.
        t5_tokenizer: the tokenizer is laid out as T5's; else it is taken as its tokenizer.json stands.
        lora_targets: modules that LoRA goes on where a recipe names none.
        trained_length: tokens of the longest text in pre-training, where the repository states none.
        positions: the configuration's key for how many tokens a text may have at most; None where nothing sets a limit.
        language: where the language's token stands in a text's ids: `first`, or `last`; None where texts have no such
            token.
        starts_with_last: the decoder starts with the target's last token, not with `decoder_start_token_id`.
        converter: CTranslate2's loader for an adapter merged into such a model; None where none is tried.
        float16_overflows: in which layers float16 overflows; None where that is not known of the family.
        unwritable: what no tokenizer of the family has a piece for, as Markdown.
        images: the module that only images pass through, which is taken out of the model; None where there is none.
    """

    name: str
    flat: bool = False
    t5_tokenizer: bool = False
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")
    trained_length: int = 1_024
    positions: str | None = None
    language: Literal["first", "last"] | None = None
    starts_with_last: bool = False
    converter: str | None = None
    float16_overflows: str | None = None
    unwritable: Markup | None = None
    images: str | None = None


_OVERFLOW = "feed-forward layers"
_T5 = {"lora_targets": ("q", "v"), "float16_overflows": _OVERFLOW}
_BART = {"positions": "max_position_embeddings", "converter": "BartLoader"}
# Lengths: Raffel et al. (arXiv:1910.10683, 3.1.2), Xue et al. (arXiv:2010.11934, 3.2; arXiv:2105.13626, 3.2), Wang et
# al. (arXiv:2109.00859, 4.4), Chung et al. (arXiv:2304.09151), Guo et al. (arXiv:2112.07916, 3.1.2), and the contexts
# of Gemma 2 (arXiv:2408.00118) and Gemma 3 (arXiv:2503.19786), from which the T5Gemmas are made.
FAMILIES = {
    "t5": Family("T5", flat=True, t5_tokenizer=True, trained_length=512, converter="T5Loader",
                 unwritable=Markup("`<`, `{`, `}`, `~` or a newline"), **_T5),
    "byt5": Family("ByT5", flat=True, converter="T5Loader", **_T5),
    "codet5": Family("CodeT5", flat=True, trained_length=512, converter="T5Loader", **_T5),
    "madlad": Family("MADLAD-400", flat=True, trained_length=512, converter="T5Loader", **_T5),
    "mt5": Family("mT5", flat=True, t5_tokenizer=True, converter="T5Loader", **_T5),
    "umt5": Family("umT5", converter="UMT5Loader", **_T5),
    "longt5": Family("LongT5", t5_tokenizer=True, trained_length=4_096, **_T5),
    "bart": Family("BART", **_BART),
    "mbart": Family("mBART", language="last", starts_with_last=True, **_BART),
    "mbart50": Family("mBART-50", language="first", starts_with_last=True, **_BART),
    "pegasus": Family("PEGASUS", **_BART),
    # CTranslate2's own loader for it takes the last row for <pad>'s and leaves it out.
    "marian": Family("Marian", **_BART),
    "m2m_100": Family("M2M-100", language="first", converter="M2M100Loader"),
    "t5gemma": Family("T5Gemma", trained_length=8_192),
    "t5gemma2": Family("T5Gemma 2", trained_length=32_768, images="model.encoder.vision_tower"),
}  # fmt: skip
# Models of one type that differ in the tokenizer's class, or in the id of </s>: MADLAD's is 2, that of all T5s 1. Their
# rows are alike in all that `transformers` decides by the type alone.
VARIANTS = {
    ("t5", "ByT5Tokenizer"): "byt5",
    ("t5", "RobertaTokenizer"): "codet5",
    ("t5", 2): "madlad",
    ("mbart", "MBart50Tokenizer"): "mbart50",
}


def kind_of(config: Mapping[str, Any], tokenizer_class: str | None) -> Any:
    """The key of a base model's row; of a model of no family here its type, or what stands in its place.

    Parameters:
        config: as config.json holds it.
        tokenizer_class: as the repository states it.
    """
    kind = config.get("model_type")
    for mark in ((tokenizer_class or "").removesuffix("Fast"), config.get("eos_token_id")):
        if isinstance(kind, str) and isinstance(mark, str | int) and (kind, mark) in VARIANTS:
            return VARIANTS[kind, mark]
    return kind


def family_of_record(record: Record) -> Family:
    """The row of a record's base model, without asking the Hub; of a record of before, T5's.

    Raises:
        `UserError`: there is no such row.
    """
    kind = record.model.type or "t5"
    if kind not in FAMILIES:
        raise UserError(f"the record's base model is of the type {kind}, which is none of {', '.join(FAMILIES)}")
    return FAMILIES[kind]
