"""The tokenizer without transformers, the tokens that a recipe adds to it, and what it cannot write."""

import json
import re
from collections import Counter
from pathlib import Path

from huggingface_hub import hf_hub_download
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from recipes.errors import UserError
from recipes.record import Pin, Unwritable

MOST_FREQUENT = 20
# The white space that the tokenizer takes for a space wherever it stands; it deletes some other.
SPACES = re.compile(r"[ \t\r\n]+")


def load_tokens(base: Pin, added: list[str]) -> Tokenizer:
    """The base model's tokenizer at the pinned commit, with the `added` tokens after its own.

    It gives the ids that transformers 5.23 gives, whose `T5Tokenizer` takes the pieces and the table of characters
    from `tokenizer.json` and lays down the rest itself. The scores are read by Python: the Rust reader is off by a
    last bit in some, which decides between equally good pieces.

    Added tokens become pieces of the vocabulary. As `AddedToken`s they would lose the spaces around them: `a < b`
    would come back as `a< b`.

    Raises:
        `UserError`: one of `added` can be written already, or the tokenizer replaces its characters by others.
    """
    path = Path(hf_hub_download(base.id, "tokenizer.json", revision=base.revision))
    stored = json.loads(path.read_text(encoding="utf-8"))
    pieces = [(piece, score) for piece, score in stored["model"]["vocab"]]
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.normalizer = _character_table(tokenizer.normalizer)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.model = models.Unigram(pieces, stored["model"]["unk_id"])
    for token in added:
        if tokenizer.decode(tokenizer.encode(token).ids) == token:
            raise UserError(f"`added_tokens`: {base.id} can write {token!r} already")
    # A score of 0 is a probability of 1: wherever such a token fits, it is taken.
    tokenizer.model = models.Unigram([*pieces, *((token, 0.0) for token in added)], stored["model"]["unk_id"])
    for token in added:
        if (written := tokenizer.decode(tokenizer.encode(token).ids)) != token:
            raise UserError(f"`added_tokens`: the tokenizer of {base.id} turns {token!r} into {written!r}")
    return tokenizer


def _character_table(normalizer: normalizers.Normalizer | None) -> normalizers.Normalizer | None:
    parts = [normalizer]
    if isinstance(normalizer, normalizers.Sequence):
        parts = list(normalizer)
    return next((part for part in parts if isinstance(part, normalizers.Precompiled)), None)


def count_tokens(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    """Number of tokens of each text with its final `</s>`, as `encode` gives them.

    The tokenizer takes a text apart at white space before all else, so each word is encoded once.
    """
    rows = [SPACES.split(text) for text in texts]
    words = list({word for row in rows for word in row})
    tokens_of = dict(zip(words, (len(one.ids) - 1 for one in tokenizer.encode_batch_fast(words)), strict=True))
    return [1 + sum(tokens_of[word] for word in row) for row in rows]


def audit(tokenizer: Tokenizer, texts: list[str]) -> Unwritable:
    """Counts the texts that do not survive encoding and decoding, and the characters without a token in them.

    The tokenizer takes a text apart at white space before all else: what holds for its words holds for the text, and
    each word is tried once.

    Parameters:
        tokenizer: without truncation, as `load_tokens` gives it.
        texts: all references of a recipe: a model can only write what its tokenizer gives back.
    """
    words = list({word for text in texts for word in text.split()})
    encoded = tokenizer.encode_batch_fast(words)
    written = [back.strip() for back in tokenizer.decode_batch([word.ids for word in encoded])]
    lost = {
        word: _unknown(tokenizer, word)
        for word, back in zip(words, written, strict=True)
        if "".join(back.split()) != word
    }
    parted = {word for word, back in zip(words, written, strict=True) if back != word} - lost.keys()
    unwritable = white_space = 0
    rows_of: Counter[str] = Counter()
    for text in texts:
        own = text.split()
        if not lost.keys().isdisjoint(own):
            unwritable += 1
            rows_of.update(set().union(*(lost[word] for word in own if word in lost)))
        elif " ".join(own) != text.strip() or not parted.isdisjoint(own):
            white_space += 1
    most = sorted(rows_of.items(), key=lambda item: (-item[1], item[0]))[:MOST_FREQUENT]
    return Unwritable(rows=len(texts), unwritable=unwritable, white_space=white_space, characters=dict(most))


def _unknown(tokenizer: Tokenizer, text: str) -> set[str]:
    """The characters of the text that become `<unk>`; neighbours share one."""
    encoded, unknown = tokenizer.encode(text), tokenizer.token_to_id("<unk>")
    parts = [text[slice(*place)] for place, token in zip(encoded.offsets, encoded.ids, strict=True) if token == unknown]
    return {character for part in parts for character in part if not character.isspace()}
