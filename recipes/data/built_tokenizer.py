"""The tokenizer.json of a repository that has none, from the files there are: of bytes, of merges, of SentencePiece.

Laid out as transformers 5.23 does it, whose classes are named here; without transformers, which checks have not.
"""

import base64
from collections.abc import Sequence
from typing import Any

from recipes.base_model import download_if_there, tokenizer_config
from recipes.data.sentencepiece_file import FLAGS, pieces_of
from record import strict_json
from record.errors import UserError
from record.release_files import SENTENCEPIECE_FILE
from record.run_record import Pin

VOCABULARY_FILE, MERGES_FILE, BPE_MODEL_FILE = "vocab.json", "merges.txt", "sentencepiece.bpe.model"
START, PAD, END, UNKNOWN, MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"
# `ByT5Tokenizer`: three special tokens, the 256 bytes, and so many sentinels, of which transformers 5.23 takes no other
# number from a configuration (Xue et al., arXiv:2105.13626, section 3.2).
BYTE_SENTINELS = 125
# `PegasusTokenizer`: the tokens before SentencePiece's own, of which none but four is ever met in a text.
PEGASUS_UNKNOWN = 103
# mBART's languages, and those that mBART-50 has after them, in the order of their tokens (Tang et al.,
# arXiv:2008.00401, table 1; the order is fairseq's).
MBART = [
    "ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN", "hi_IN", "it_IT", "ja_XX",
    "kk_KZ", "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP", "nl_XX", "ro_RO", "ru_RU", "si_LK", "tr_TR", "vi_VN",
    "zh_CN",
]  # fmt: skip
MBART_50 = [
    "af_ZA", "az_AZ", "bn_IN", "fa_IR", "he_IL", "hr_HR", "id_ID", "ka_GE", "km_KH", "mk_MK", "ml_IN", "mn_MN",
    "mr_IN", "pl_PL", "ps_AF", "pt_XX", "sv_SE", "sw_KE", "ta_IN", "te_IN", "th_TH", "tl_XX", "uk_UA", "ur_PK",
    "xh_ZA", "gl_ES", "sl_SI",
]  # fmt: skip


def built_content(base: Pin, kind: str) -> dict[str, Any] | None:
    """What tokenizer.json would hold of a base model without one; None where its files are none of these.

    Parameters:
        kind: the key of the base model's row in `recipes.families`.

    Raises:
        `UserError`: a file cannot be read.
    """
    if kind == "byt5":
        return _of_bytes()
    try:
        if kind in ("bart", "codet5"):
            return _of_merges(base)
        name = {"mbart50": BPE_MODEL_FILE, "pegasus": SENTENCEPIECE_FILE}.get(kind)
        if name is None or (path := download_if_there(base, name)) is None:
            return None
        pieces, table = pieces_of(path.read_bytes())
        return (_pegasus if kind == "pegasus" else _mbart_50)(pieces, table)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = error if isinstance(error, ValueError) else "a part is missing"
        raise UserError(f"the tokenizer's files of {base.id} are not read: {reason}") from None


def _of_bytes() -> dict[str, Any]:
    """A token a byte. What is no character in UTF-8 is decoded as U+FFFD, where `ByT5Tokenizer` leaves it out."""
    special = [PAD, END, UNKNOWN]
    sentinels = [f"<extra_id_{number}>" for number in range(BYTE_SENTINELS)]
    vocabulary = {token: number for number, token in enumerate([*special, *_letters_of_bytes(), *sentinels])}
    added = [_added(vocabulary, token, lstrip=True, rstrip=True) for token in special]
    return {
        "added_tokens": [*added, *(_added(vocabulary, token) for token in sentinels)],
        "normalizer": None,
        "pre_tokenizer": _byte_level(regex=False),
        "post_processor": _template(["$A", END], vocabulary),
        "decoder": _byte_level(),
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [], "unk_token": UNKNOWN},
    }


def _letters_of_bytes() -> list[str]:
    """A letter for each byte, as GPT-2's vocabularies write them: its own where it is printable in Latin-1."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in own else next(others)) for byte in range(0x100)]


def _of_merges(base: Pin) -> dict[str, Any] | None:
    """`RobertaTokenizer`: pairs of pieces that are merged one after another, over letters of bytes."""
    paths = [download_if_there(base, name) for name in (VOCABULARY_FILE, MERGES_FILE, "added_tokens.json")]
    if paths[0] is None or paths[1] is None:
        return None
    vocabulary = strict_json.parse(paths[0].read_bytes())
    merges = [line.split(" ") for line in paths[1].read_text(encoding="utf-8").split("\n")
              if line and not line.startswith("#version")]  # fmt: skip
    config = tokenizer_config(base)
    later = {} if paths[2] is None else strict_json.parse(paths[2].read_bytes())
    named = config.get("additional_special_tokens") or []
    names = [token["content"] if isinstance(token, dict) else token for token in named]
    for token in [*sorted(later, key=later.get), *names]:
        later.setdefault(token, vocabulary.get(token, len(vocabulary | later)))
    ids = vocabulary | later
    special = dict.fromkeys([*(token for token in (START, PAD, END, UNKNOWN, MASK) if token in ids), *later])
    space = bool(config.get("add_prefix_space", False))
    return {
        "added_tokens": sorted((_added(ids, token) for token in special), key=lambda token: token["id"]),
        "normalizer": None,
        "pre_tokenizer": _byte_level(space=space),
        "post_processor": {"type": "RobertaProcessing", "sep": [END, ids[END]], "cls": [START, ids[START]],
                           "trim_offsets": True, "add_prefix_space": space},
        "decoder": _byte_level(),
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges, "continuing_subword_prefix": "",
                  "end_of_word_suffix": ""},
    }  # fmt: skip


def _mbart_50(pieces: list[tuple[str, float]], table: bytes) -> dict[str, Any]:
    """`MBart50Tokenizer`: fairseq's order of special tokens, and the languages after the pieces."""
    languages = MBART + MBART_50
    names = [START, PAD, END, UNKNOWN]
    vocabulary = [*((name, 0.0) for name in names), *pieces[3:], *((name, 0.0) for name in [*languages, MASK])]
    ids = {piece: number for number, (piece, _) in enumerate(vocabulary)}
    added = [*(_added(ids, name) for name in [*names, *languages]), _added(ids, MASK, lstrip=True)]
    # The languages of a recipe take the place of these.
    return _of_pieces(vocabulary, 3, table, added) | {"post_processor": _template([MBART[3], "$A", END], ids)}


def _pegasus(pieces: list[tuple[str, float]], table: bytes) -> dict[str, Any]:
    """`PegasusTokenizer`: four tokens and those that no text holds before the pieces."""
    names = [PAD, END, "<mask_1>", "<mask_2>", *(f"<unk_{number}>" for number in range(2, PEGASUS_UNKNOWN))]
    vocabulary = [*((name, 0.0) for name in names), (UNKNOWN, 0.0), *pieces[3:]]
    ids = {piece: number for number, (piece, _) in enumerate(vocabulary)}
    added = [_added(ids, name) for name in [*names, UNKNOWN]]
    lines = {"type": "Replace", "pattern": {"Regex": r"\n"}, "content": " "}
    return _of_pieces(vocabulary, ids[UNKNOWN], table, added, [lines]) | {"post_processor": _template(["$A", END], ids)}


def _of_pieces(
    vocabulary: list[tuple[str, float]], unknown: int, table: bytes, added: list, lines: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """`lines` are the steps of the normalizer where the model has no table of characters."""
    steps = [{"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}] if table else lines
    spaces = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [*steps, spaces]},
        "pre_tokenizer": metaspace,
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": False},
    }


def _added(ids: dict[str, int], token: str, **flags: bool) -> dict[str, Any]:
    return {"id": ids[token], "content": token, **FLAGS, **flags, "special": True}


def _byte_level(space: bool = False, regex: bool = True) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": regex}


def _template(single: list[str], ids: dict[str, int]) -> dict[str, Any]:
    special = [piece for piece in single if piece != "$A"]
    return {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}} if piece == "$A" else
                   {"SpecialToken": {"id": piece, "type_id": 0}} for piece in single],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {piece: {"id": piece, "ids": [ids[piece]], "tokens": [piece]} for piece in special},
    }  # fmt: skip
