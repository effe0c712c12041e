"""A SentencePiece model, as T5 v1.1 and mT5 are published with it, as the parts of a tokenizer.json.

It is read here and not by the sentencepiece library: that gives the table of characters only through generated code
for another library, and checking numbers shall need neither. The format:
https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto, in protobuf's
https://protobuf.dev/programming-guides/encoding.
"""

import base64
import struct
from collections.abc import Iterator
from typing import Any

# Numbers of fields in the three messages that are read, and kinds of pieces.
PIECES, TRAINER, NORMALIZER = 1, 2, 3
PIECE, SCORE, KIND = 1, 2, 3
MODEL_TYPE, UNIGRAM = 3, 1
CHARACTERS = 2
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
# `T5Tokenizer` of transformers 5.23 takes the third piece for the unknown one, whatever the file says.
UNKNOWN = 2
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def tokenizer_content(model: bytes, extra_ids: int) -> dict[str, Any]:
    """The content of a tokenizer.json with the model's pieces and, after them, `extra_ids` sentinels.

    Raises:
        `ValueError`: it is no Unigram model of SentencePiece.
    """
    pieces, special, table = _parts(model)
    sentinels = [f"<extra_id_{number}>" for number in reversed(range(extra_ids))]
    pieces += [(sentinel, 0.0) for sentinel in sentinels]
    ids = {piece: number for number, (piece, _) in enumerate(pieces)}
    special |= dict.fromkeys([pieces[UNKNOWN][0], *sentinels], True)
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": ids[token], "content": token, **FLAGS, "special": special[token]}
            for token in sorted(special, key=lambda token: ids[token])
        ],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}
        if table
        else None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, end],
            "pair": [first, end, second, end],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [ids["</s>"]], "tokens": ["</s>"]}},
        },
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": UNKNOWN, "vocab": pieces, "byte_fallback": False},
    }


def pieces_of(model: bytes) -> tuple[list[tuple[str, float]], bytes]:
    """The model's pieces with their scores, and its table of characters.

    Raises:
        `ValueError`: as `tokenizer_content`.
    """
    pieces, _, table = _parts(model)
    return pieces, table


def _parts(model: bytes) -> tuple[list[tuple[str, float]], dict[str, bool], bytes]:
    """The pieces, those among them that stand for themselves and whether each is a control piece, and the table."""
    pieces, special, table = [], {}, b""
    for number, value in _fields(model):
        if number == PIECES:
            piece = dict(_fields(value))
            text = bytes(piece[PIECE]).decode()
            if (kind := piece.get(KIND, NORMAL)) in (CONTROL, USER_DEFINED):
                special[text] = kind == CONTROL
            pieces.append((text, struct.unpack("<f", piece[SCORE])[0] if SCORE in piece else 0.0))
        elif number == TRAINER and dict(_fields(value)).get(MODEL_TYPE, UNIGRAM) != UNIGRAM:
            raise ValueError("its SentencePiece model is not a Unigram")
        elif number == NORMALIZER:
            table = bytes(dict(_fields(value)).get(CHARACTERS, b""))
    return pieces, special, table


def _fields(message: bytes | memoryview) -> Iterator[tuple[int, Any]]:
    """The fields of a message of protobuf: their numbers, and whole numbers or bytes."""
    message, at = memoryview(message), 0
    while at < len(message):
        key, at = _whole_number(message, at)
        size = {1: 8, 5: 4}.get(key & 7, 0)
        if key & 7 == 2:
            size, at = _whole_number(message, at)
        if key & 7 == 0:
            value, at = _whole_number(message, at)
            yield key >> 3, value
        elif key & 7 in (1, 2, 5) and at + size <= len(message):
            yield key >> 3, message[at : at + size]
            at += size
        else:
            raise ValueError("it is no SentencePiece model")


def _whole_number(message: memoryview, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        number |= (message[at] & 0x7F) << shift
        at += 1
        if message[at - 1] < 0x80:
            return number, at
    raise ValueError("it is no SentencePiece model")
