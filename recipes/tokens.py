"""The tokenizer without transformers, and the tokens that a recipe adds to it."""

import json
from pathlib import Path

from huggingface_hub import hf_hub_download
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from recipes.errors import UserError
from recipes.record import Pin


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
