"""The tokenizer without transformers, the tokens that a recipe adds to it, and what it cannot write."""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers

from recipes.base_model import base_kind, download_if_there, tokenizer_config
from recipes.data.built_tokenizer import built_content
from recipes.data.sentencepiece_file import tokenizer_content
from recipes.data.stored_tokenizer import build_stored, encode_whole, parse_stored
from recipes.families import FAMILIES
from record import strict_json
from record.cache import batches, cached_value, code_of
from record.errors import UserError, one_line
from record.release_files import SENTENCEPIECE_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE
from record.run_record import Pin, Unwritable

MOST_FREQUENT = 20
# Words whose ids are kept, some 50 MB.
MOST_WORDS = 200_000
# The white space that the tokenizer takes for a space wherever it stands; it deletes some other.
SPACES = re.compile(r"[ \t\r\n]+")
# The sentinels of a tokenizer whose configuration does not number them, and the most that one may have.
SENTINELS, MOST_SENTINELS = 100, 10_000
# The kinds of parts that a T5's tokenizer.json is made of; of its normalizer only the table of characters is used.
PARTS = {"model": ("Unigram",), "decoder": ("Metaspace",), "post_processor": ("TemplateProcessing",)}


def load_tokens(base: Pin, added: list[str], languages: tuple[str, str] | None = None) -> Tokenizer:
    """The base model's tokenizer at the pinned commit, with the `added` tokens after its own.

    Of a family without T5's tokenizer it is what tokenizer.json describes (`recipes.data.stored_tokenizer`), or would
    if there were one (`recipes.data.built_tokenizer`). Of T5's it
    gives the ids that transformers 5.23 gives, whose `T5Tokenizer` takes the pieces and the table of characters
    from `tokenizer.json` or, without one, `spiece.model`, and lays down the rest itself. The scores are read by
    Python: the Rust reader is off by a last bit in some, which decides between equally good pieces.

    Added tokens become pieces of the vocabulary. As `AddedToken`s they would lose the spaces around them: `a < b`
    would come back as `a< b`.

    Parameters:
        languages: as `recipes.data.stored_tokenizer.languages_of` gives them.

    Raises:
        `UserError`: it is no tokenizer of its family, one of `added` can be written already, or the tokenizer replaces
            its characters by others.
    """
    kind = base_kind(base)
    family = FAMILIES[kind]
    if not family.t5_tokenizer:
        if added:
            raise UserError(f"`added_tokens` are for tokenizers like T5's, which that of {base.id} is not: remove it")
        return build_stored(base, _stored_content(base, kind), family, languages)
    if languages is not None:
        raise UserError(f"`source_language` and `target_language` are not of {base.id}: state languages in `prompt`")
    content = _read(base)
    tokenizer = _build(base, content)
    pieces = [(piece, score) for piece, score in content["model"]["vocab"]]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.model = models.Unigram(pieces, content["model"]["unk_id"])
    for token in added:
        if tokenizer.decode(tokenizer.encode(token).ids) == token:
            raise UserError(f"`added_tokens`: {base.id} can write {token!r} already")
    # A score of 0 is a probability of 1: wherever such a token fits, it is taken.
    tokenizer.model = models.Unigram([*pieces, *((token, 0.0) for token in added)], content["model"]["unk_id"])
    for token in added:
        if (output := tokenizer.decode(tokenizer.encode(token).ids)) != token:
            raise UserError(f"`added_tokens`: the tokenizer of {base.id} turns {token!r} into {output!r}")
    return tokenizer


def _stored_content(base: Pin, kind: str) -> dict[str, Any]:
    """What tokenizer.json holds; ByT5's class reads none, whatever a repository has."""
    path = None if kind == "byt5" else download_if_there(base, TOKENIZER_FILE)
    content = built_content(base, kind) if path is None else parse_stored(base, path.read_bytes())
    if content is not None:
        return content
    if kind == "marian":
        raise UserError(
            f"{base.id} holds no {TOKENIZER_FILE}, but one vocabulary for sources and one for targets, which one file "
            "cannot describe: take another base model, as facebook/nllb-200-distilled-600M"
        )
    raise UserError(
        f"{base.id} holds no {TOKENIZER_FILE}: save one in a copy of it, by `AutoTokenizer.from_pretrained` "
        "and `save_pretrained` where transformers can convert it"
    )


def _read(base: Pin) -> dict[str, Any]:
    """The stored tokenizer, if it is made of a T5's parts: others hold patterns, which may take forever."""
    name, stored = _stored(base)
    try:
        content = strict_json.parse(stored) if name == TOKENIZER_FILE else tokenizer_content(stored, _sentinels(base))
        kinds = {part: (content.get(part) or {"type": None})["type"] for part in PARTS}
        table = content.get("normalizer") or {"type": None}
        steps = table["normalizers"] if table["type"] == "Sequence" else [table]
        tables = [step for step in steps if step["type"] == "Precompiled"]
        if wrong := next((part for part in PARTS if kinds[part] not in PARTS[part]), None):
            raise ValueError(f"its {wrong} is of the kind {kinds[wrong]}")
        for piece, score in content["model"]["vocab"]:
            if not isinstance(piece, str) or not isinstance(score, int | float):
                raise ValueError("its vocabulary is not a list of pieces and scores")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = error if isinstance(error, ValueError) else "it lacks a part"
        raise UserError(f"{name} of {base.id} is not a T5's: {reason}") from None
    blanks = {"truncation": None, "padding": None, "pre_tokenizer": None}
    return content | blanks | {"normalizer": tables[0] if tables else None}


def _stored(base: Pin) -> tuple[str, bytes]:
    """The file that transformers takes the tokenizer from, and its bytes."""
    for name in (TOKENIZER_FILE, SENTENCEPIECE_FILE):
        if (path := download_if_there(base, name)) is not None:
            return name, path.read_bytes()
    raise UserError(
        f"{base.id} holds neither {TOKENIZER_FILE} nor {SENTENCEPIECE_FILE}: save the first in a copy of it, by "
        "`AutoTokenizer.from_pretrained` and `save_pretrained`"
    )


def _sentinels(base: Pin) -> int:
    number = tokenizer_config(base).get("extra_ids", SENTINELS)
    if not isinstance(number, int) or not 0 <= number <= MOST_SENTINELS:
        raise ValueError(f"{TOKENIZER_CONFIG_FILE} sets `extra_ids` to no number up to {MOST_SENTINELS:,}")
    return number


def _build(base: Pin, content: dict[str, Any]) -> Tokenizer:
    try:
        return Tokenizer.from_str(json.dumps(content))
    except BaseException as error:
        # A panic in Rust is no `Exception`.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"tokenizer.json of {base.id} is not a T5's: {one_line(str(error), 200)}") from None


class Words(dict[str, list[int]]):
    """The ids of each word, without `</s>`, encoded when it is first asked for.

    The tokenizer takes a text apart at white space before all else, so a text's ids are those of its words.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._encode = tokenizer.encode

    def __missing__(self, word: str) -> list[int]:
        if len(self) >= MOST_WORDS:
            self.clear()
        self[word] = ids = self._encode(word).ids[:-1]
        return ids


# A tokenizer is no more changed once `load_tokens` has given it.
words_of = lru_cache(maxsize=2)(Words)


@lru_cache(maxsize=2)
def is_word_by_word(tokenizer: Tokenizer) -> bool:
    """Whether a text's ids are those of its words, and `</s>`: as `load_tokens` builds T5's tokenizer."""
    if tokenizer.pre_tokenizer is None or tokenizer.post_processor is None or tokenizer.encode("").ids == []:
        return False
    layout = json.loads(tokenizer.pre_tokenizer.__getstate__())
    apart = [part["type"] for part in layout.get("pretokenizers", [])] == ["WhitespaceSplit", "Metaspace"]
    normalizer = tokenizer.normalizer
    plain = normalizer is None or json.loads(normalizer.__getstate__())["type"] == "Precompiled"
    return apart and plain and len(tokenizer.encode("").ids) == 1


def encode(tokenizer: Tokenizer, texts: Iterable[str], targets: bool = False) -> list[list[int]]:
    """Token ids of each text with its final `</s>`, as the tokenizer's own `encode` gives them.

    Parameters:
        targets: whether the texts are in the language of the targets.
    """
    if not is_word_by_word(tokenizer):
        return encode_whole(tokenizer, list(texts), targets)
    ids_of, end = words_of(tokenizer).__getitem__, tokenizer.encode("").ids
    return [[*chain.from_iterable(map(ids_of, SPACES.split(text))), *end] for text in texts]


def count_tokens(tokenizer: Tokenizer, texts: Iterable[str]) -> list[int]:
    """Number of tokens of each text with its final `</s>`."""
    if not is_word_by_word(tokenizer):
        return [len(ids) for ids in encode_whole(tokenizer, list(texts))]
    ids_of = words_of(tokenizer).__getitem__
    return [1 + sum(map(len, map(ids_of, SPACES.split(text)))) for text in texts]


def audit(tokenizer: Tokenizer, texts: Sequence[str]) -> Unwritable:
    """Counts the texts that do not survive encoding and decoding, and the characters without a token in them.

    The tokenizer takes a text apart at white space before all else: what holds for its words holds for the text, and
    each word is tried once.

    Parameters:
        tokenizer: without truncation, as `load_tokens` gives it.
        texts: all references of a recipe: a model can only write what its tokenizer gives back.
    """
    code = code_of([sys.modules[__name__], Unwritable], ["tokenizers"])
    counts = cached_value("unwritable", lambda: _audit(tokenizer, texts).model_dump(), code, tokenizer.to_str(), texts)
    return Unwritable(**counts)


def _audit(tokenizer: Tokenizer, texts: Sequence[str]) -> Unwritable:
    if not is_word_by_word(tokenizer):
        return _audit_whole(tokenizer, texts)
    words = list({word for batch in batches(texts) for text in batch for word in text.split()})
    encoded = [word.ids for word in tokenizer.encode_batch_fast(words)]
    lost, parted = {}, set()
    for word, back in zip(words, map(str.strip, tokenizer.decode_batch(encoded)), strict=True):
        if "".join(back.split()) != word:
            lost[word] = _unknown(tokenizer, word)
        elif back != word:
            parted.add(word)
    unwritable = white_space = 0
    rows_of: Counter[str] = Counter()
    for text in chain.from_iterable(batches(texts)):
        own = text.split()
        if not lost.keys().isdisjoint(own):
            unwritable += 1
            rows_of.update(set().union(*(lost[word] for word in own if word in lost)))
        elif " ".join(own) != text.strip() or not parted.isdisjoint(own):
            white_space += 1
    most = sorted(rows_of.items(), key=lambda item: (-item[1], item[0]))[:MOST_FREQUENT]
    return Unwritable(rows=len(texts), unwritable=unwritable, white_space=white_space, characters=dict(most))


def _audit_whole(tokenizer: Tokenizer, texts: Sequence[str]) -> Unwritable:
    unwritable = white_space = 0
    rows_of: Counter[str] = Counter()
    for batch in batches(texts):
        outputs = tokenizer.decode_batch(encode_whole(tokenizer, batch, targets=True))
        for text, back in zip(batch, outputs, strict=True):
            if "".join(back.split()) != "".join(text.split()):
                unwritable += 1
                rows_of.update(_unknown(tokenizer, text))
            elif back.strip() != text.strip():
                white_space += 1
    most = sorted(rows_of.items(), key=lambda item: (-item[1], item[0]))[:MOST_FREQUENT]
    return Unwritable(rows=len(texts), unwritable=unwritable, white_space=white_space, characters=dict(most))


def _unknown(tokenizer: Tokenizer, text: str) -> set[str]:
    """The characters of the text that become `<unk>`; neighbours share one."""
    encoded, unknown = tokenizer.encode(text), tokenizer.token_to_id("<unk>")
    parts = [text[slice(*place)] for place, token in zip(encoded.offsets, encoded.ids, strict=True) if token == unknown]
    return {character for part in parts for character in part if not character.isspace()}
