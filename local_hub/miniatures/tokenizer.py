"""A small T5-style Unigram tokenizer, written down directly from word counts.

No trainer is involved: a Unigram trainer spreads its work over threads and breaks ties by hash order, while counting
words gives the same bytes everywhere.
"""

import json
import math
import re
import string
from collections import Counter
from collections.abc import Iterable

SENTINELS = 100
# Like T5's 32,128 rows for 32,100 tokens: the last 28 rows of the embedding belong to no token.
SPARE_ROWS = 28
EMBEDDING_ROWS = 1280
PIECES = EMBEDDING_ROWS - SPARE_ROWS - SENTINELS
SUBWORDS = 140

SPECIALS = ("<pad>", "</s>", "<unk>")
# The same characters that the real T5 vocabulary lacks.
ABSENT = "<{}~\\^`"
CHARACTERS = [c for c in string.digits + string.ascii_letters + string.punctuation + "’“”–—£€éüà" if c not in ABSENT]


def words_of(text: str) -> list[str]:
    """The pieces that whole-word tokens are counted from: the first of every word carries the mark of the space."""
    parts = []
    for word in text.split():
        pieces = re.findall(r"[A-Za-z]+|\d{1,3}|[^A-Za-z\d]", word)
        parts += ["▁" + pieces[0], *pieces[1:]]
    return parts


def vocabulary(texts: Iterable[str]) -> list[tuple[str, float]]:
    """Pieces with their log probabilities: characters, the most frequent words, and bits of words for other text."""
    counts = Counter(part for text in texts for part in words_of(text))
    bits: Counter[str] = Counter()
    for word in counts:
        letters = word.removeprefix("▁").lower()
        if letters.isalpha():
            bits.update(letters[at : at + size] for size in (2, 3, 4) for at in range(len(letters) - size + 1))
    total = sum(counts.values())

    scores = {"▁": math.log(0.01)}
    # A character costs more than any word, so that spelling a known word out is never the better way.
    scores.update({character: -12.0 for character in CHARACTERS})
    # Longer bits first among equals: the order must not depend on the order of counting.
    by_count = sorted(bits, key=lambda bit: (-bits[bit] * len(bit), bit))
    scores.update({bit: -11.0 for bit in by_count[:SUBWORDS]})
    alphabet = {"▁", *CHARACTERS}
    for word in sorted(counts, key=lambda word: (-counts[word], word)):
        if len(scores) >= PIECES - len(SPECIALS):
            break
        if set(word) <= alphabet:
            scores[word] = max(math.log(counts[word] / total), -10.0)
    return [*((special, 0.0) for special in SPECIALS), *((piece, round(score, 4)) for piece, score in scores.items())]


def tokenizer_json(texts: Iterable[str]) -> bytes:
    """The whole tokenizer as the `tokenizers` library reads it."""
    pieces = [[piece, score] for piece, score in vocabulary(texts)]
    # T5 counts its sentinels down: <extra_id_0> is the very last token.
    pieces += [[f"<extra_id_{number}>", 0.0] for number in reversed(range(SENTINELS))]
    # Only special tokens have a "<" in them.
    specials = [(at, piece) for at, (piece, _) in enumerate(pieces) if "<" in piece]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": at, "content": piece, **flags} for at, piece in specials],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFKC"},
                # As in T5, a line break is a space like any other.
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Strip", "strip_left": False, "strip_right": True},
            ],
        },
        "pre_tokenizer": metaspace,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, end],
            "pair": [first, end, second, end],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": pieces, "byte_fallback": False},
    }
    return (json.dumps(whole, ensure_ascii=False, indent=0) + "\n").encode()


def companions() -> dict[str, bytes]:
    """The two small files next to tokenizer.json, with the keys of the real T5's."""
    extra = [f"<extra_id_{number}>" for number in range(SENTINELS)]
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    config = {
        **names,
        "additional_special_tokens": extra,
        "clean_up_tokenization_spaces": False,
        "extra_ids": SENTINELS,
        "model_max_length": 512,
        "tokenizer_class": "T5Tokenizer",
    }
    configs = {
        "tokenizer_config.json": config,
        "special_tokens_map.json": {"additional_special_tokens": extra, **names},
    }
    return {name: (json.dumps(content, indent=2) + "\n").encode() for name, content in configs.items()}
