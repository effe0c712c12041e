"""What depends on a base model's type, as plain data: a row a type."""

from dataclasses import dataclass
from typing import Literal

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


_OVERFLOW = "feed-forward layers"
# Lengths: Raffel et al. (arXiv:1910.10683, 3.1.2), Xue et al. (arXiv:2010.11934, 3.2), Chung et al.
# (arXiv:2304.09151), and Gemma 2's context (arXiv:2408.00118), from which T5Gemma is made.
FAMILIES = {
    "t5": Family("T5", flat=True, t5_tokenizer=True, lora_targets=("q", "v"), trained_length=512, converter="T5Loader",
                 float16_overflows=_OVERFLOW, unwritable=Markup("`<`, `{`, `}`, `~` or a newline")),
    "mt5": Family("mT5", flat=True, t5_tokenizer=True, lora_targets=("q", "v"), converter="T5Loader",
                  float16_overflows=_OVERFLOW),
    "umt5": Family("umT5", lora_targets=("q", "v"), float16_overflows=_OVERFLOW),
    "bart": Family("BART", positions="max_position_embeddings"),
    "mbart": Family("mBART", positions="max_position_embeddings", language="last", starts_with_last=True),
    "pegasus": Family("PEGASUS", positions="max_position_embeddings"),
    "marian": Family("Marian", positions="max_position_embeddings"),
    "m2m_100": Family("M2M-100", language="first"),
    "t5gemma": Family("T5Gemma", trained_length=8_192),
}  # fmt: skip


def family_of_record(record: Record) -> Family:
    """The row of a record's base model, without asking the Hub; of a record of before, T5's.

    Raises:
        `UserError`: there is no such row.
    """
    kind = record.model.type or "t5"
    if kind not in FAMILIES:
        raise UserError(f"the record's base model is of the type {kind}, which is none of {', '.join(FAMILIES)}")
    return FAMILIES[kind]
