"""Tokenizers that are taken as their tokenizer.json stands, with the recipe's languages."""

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer, processors

from recipes.families import Family
from record import strict_json
from record.errors import UserError
from record.run_record import Pin

# The parts of which a tokenizer.json may be made: no time that they take grows faster than the text.
KINDS = {
    "model": {"BPE", "Unigram", "WordLevel", "WordPiece"},
    "normalizer": {"Sequence", "NFC", "NFD", "NFKC", "NFKD", "Precompiled", "Lowercase", "Strip", "Prepend", "Replace"},
    "pre_tokenizer": {"Sequence", "ByteLevel", "Metaspace", "WhitespaceSplit", "Whitespace", "Split", "Punctuation"},
    "post_processor": {"Sequence", "TemplateProcessing", "RobertaProcessing", "ByteLevel"},
    "decoder": {"Sequence", "ByteLevel", "Metaspace", "Replace", "Fuse", "Strip", "ByteFallback", "WordPiece"},
}
LISTS = ("normalizers", "pretokenizers", "processors", "decoders")
# Of the regular expressions, those that XLM-R's and PEGASUS's normalizers hold.
PATTERNS = (" {2,}", r"\s+", r"\n")
SPECIAL = "SpecialToken"


def languages_of(recipe: Mapping[str, Any]) -> tuple[str, str] | None:
    """The tokens of a recipe's languages, of its prompts and of its targets; None where it names none."""
    source, target = recipe.get("source_language"), recipe.get("target_language")
    return (str(source), str(target)) if source and target else None


def parse_stored(base: Pin, stored: bytes) -> dict[str, Any]:
    """What a tokenizer.json holds.

    Raises:
        `UserError`: it is no JSON object.
    """
    try:
        content = strict_json.parse(stored)
    except ValueError as error:
        raise UserError(f"tokenizer.json of {base.id} is not read: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"tokenizer.json of {base.id} is not read: it is no object")
    return content


def build_stored(base: Pin, content: dict[str, Any], family: Family, languages: tuple[str, str] | None) -> Tokenizer:
    """The tokenizer that the content of a tokenizer.json describes, without truncation and padding.

    With languages its ids of a single text are a prompt's, those of the second text of a pair a target's:
    `tokenizer.encode("", target)`.

    Raises:
        `UserError`: the file is no tokenizer's, it is made of other parts than `KINDS`, or the languages do not fit it.
    """
    try:
        for part, kinds in KINDS.items():
            _check_part(content.get(part), part, kinds)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = error if isinstance(error, ValueError) else "it lacks a part"
        raise UserError(f"tokenizer.json of {base.id} is not read: {reason}") from None
    if (family.language is None) != (languages is None):
        cure = "set" if languages is None else "remove"
        raise UserError(
            f"{base.id} is a model of the family {family.name}, whose texts "
            f"{'begin or end with' if family.language else 'have no'} tokens of languages: {cure} `source_language` "
            "and `target_language`"
        )
    try:
        tokenizer = Tokenizer.from_str(json.dumps(content | {"truncation": None, "padding": None}))
    except BaseException as error:
        # A panic in Rust is no `Exception`.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"tokenizer.json of {base.id} is not read: {str(error)[:200]}") from None
    if languages is not None:
        _set_languages(base, tokenizer, content["post_processor"], family, languages)
    return tokenizer


def _check_part(part: dict[str, Any] | None, name: str, kinds: set[str]) -> None:
    if part is None:
        return
    if part["type"] not in kinds:
        raise ValueError(f"its {name} is of the kind {part['type']}")
    pattern = part.get("pattern")
    if isinstance(pattern, dict) and pattern.get("Regex", " {2,}") not in PATTERNS:
        raise ValueError(f"its {name} holds a regular expression of its own")
    for key in LISTS:
        for inner in part.get(key, []):
            _check_part(inner, name, kinds)


def _set_languages(base: Pin, tokenizer: Tokenizer, stored: Any, family: Family, languages: tuple[str, str]) -> None:
    ids = {}
    for key, token in zip(("source_language", "target_language"), languages, strict=True):
        if (number := tokenizer.token_to_id(token)) is None:
            raise UserError(f"`{key}: {token}` is no token of {base.id}: name one as its vocabulary does (eng_Latn)")
        ids[token] = number
    if (end := tokenizer.token_to_id("</s>")) is None:
        raise UserError(f"the tokenizer of {base.id} has no </s>, with which texts of languages end")
    single = stored["single"] if stored and stored.get("type") == "TemplateProcessing" else []
    first = family.language == "first"
    if not first and single and SPECIAL in single[0]:
        raise UserError(f"texts of {base.id} begin with their language's token, but its configuration does not name "
                        "`MBart50Tokenizer`: set `tokenizer_class` in a copy's tokenizer_config.json")  # fmt: skip
    source, target = ([token, "{}", "</s>"] if first else ["{}", "</s>", token] for token in languages)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[piece.format("$A") for piece in source],
        pair=["$A", *(piece.format("$B:1") for piece in target)],
        special_tokens=[*ids.items(), ("</s>", end)],
    )


def encode_whole(tokenizer: Tokenizer, texts: list[str], targets: bool = False) -> list[list[int]]:
    """Token ids of each text, as a prompt's or a target's."""
    if targets and has_languages(tokenizer):
        return [encoding.ids for encoding in tokenizer.encode_batch([("", text) for text in texts])]
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def has_languages(tokenizer: Tokenizer) -> bool:
    """Whether the second text of a pair is laid out as a target: the first has no tokens of its own then."""
    if tokenizer.post_processor is None:
        return False
    layout = json.loads(tokenizer.post_processor.__getstate__())
    if layout["type"] != "TemplateProcessing":
        return False
    return len(_specials(layout["pair"])) == len(_specials(layout["single"])) == 2


def _specials(template: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [piece for piece in template if SPECIAL in piece]
