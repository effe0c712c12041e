"""Which texts are the same once disguises are undone: look-alike letters, hidden characters, order, words around."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain
from os.path import commonprefix

import numpy as np
from confusable_homoglyphs.confusables import confusables_data

Words = tuple[str, ...]

# Fewer words than these say something else in another order or inside another text: "who owns whom".
ORDERED = 4
# Fewer words than these, added to a question, make it another one: "… that have at least two players". Of the questions
# of sql-create-context 1.9 % would be called copies without this bound, 0.8 % are with it.
ADDED = 5
# A text that is parted by what is added needs more words: two short questions about one table often have this form.
PARTED = 10
# Pairs whose overlap is counted at once: some 50 MB.
CHUNK = 100_000

# Fillers that are letters to Unicode and are not drawn (Default_Ignorable_Code_Point of DerivedCoreProperties.txt).
_FILLERS = "\u115f\u1160"
# Control characters that are no white space.
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")


class _LookAlikes(dict[int, str]):
    """For `str.translate`: ASCII for the characters that look like it in Unicode's confusables.txt, "" for hidden ones."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        like = [entry["c"] for entry in confusables_data.get(character, ()) if entry["c"].isascii()]
        hidden = unicodedata.category(character) in ("Mn", "Me", "Cf") or character in _FILLERS
        self[code] = text = "" if hidden or _CONTROL.match(character) else character
        if code >= 128 and len(like) == 1:
            self[code] = text = like[0]
        return text


_look_alikes = _LookAlikes()
# What ASCII itself confuses, after case folding; `i` stands for a capital one, too.
_ASCII = str.maketrans({"i": "l", "1": "l", "0": "o", "m": "rn", "_": None})


def fold(text: str) -> str:
    """The text in NFKD without accents, format and control characters, with ASCII letters for their look-alikes."""
    if text.isascii() and not _CONTROL.search(text):
        return text
    return unicodedata.normalize("NFKD", text).translate(_look_alikes)


def alike(index: Sequence[Words], queries: Sequence[Words]) -> Iterator[np.ndarray]:
    """Numbers of an indexed and of a queried text, shape `(m, 2)`, that are the same in disguise.

    They consist of the same letters and numbers, in any order from `ORDERED` words on; or one, of at least `ORDERED`
    words, is the other without `ADDED` or more words around it, or without as many at one place within it, if it has
    at least `PARTED` words. Each pair may come more than once.

    Parameters:
        index, queries: words of folded texts, at least one each.
    """
    if not index or not queries:
        return
    vocabulary = {word: number for number, word in enumerate(set(chain.from_iterable(chain(index, queries))))}
    skeletons = [word.translate(_ASCII) for word in vocabulary]
    places = {skeleton: number for number, skeleton in enumerate(skeletons)}
    same = np.array([places[skeleton] for skeleton in skeletons])
    # The sum over a text tells its letters whatever their order; the letters themselves decide in the end.
    letters = np.array([sum(map(hash, word)) % 2**64 for word in skeletons], dtype=np.uint64)
    sides = []
    for texts in (index, queries):
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        numbers = np.fromiter(map(vocabulary.__getitem__, chain.from_iterable(texts)), np.int64, count=lengths.sum())
        sides.append((numbers, lengths))
    sums = [np.add.reduceat(letters[numbers], lengths.cumsum() - lengths) for numbers, lengths in sides]
    pairs = _equal(*sums)
    yield pairs[[_same_letters(index[number], queries[place]) for number, place in pairs.tolist()]]
    one, other = _shared_pairs(*((same[numbers], lengths) for numbers, lengths in sides), len(vocabulary))
    for pairs in _containing(one, other):
        yield pairs[[_is_contained(index[number], queries[place]) for number, place in pairs.tolist()]]
    for pairs in _containing(other, one):
        yield pairs[[_is_contained(queries[place], index[number]) for place, number in pairs.tolist()]][:, ::-1]


def _same_letters(one: Words, other: Words) -> bool:
    letters = [_letters(text) for text in (one, other)]
    numbers = [re.findall(r"\d+", " ".join(text)) for text in (one, other)]
    if letters[0] == letters[1]:
        # 3.5 is not 35. But where other words are split, numbers may be, too.
        plain = [[word for word in text if not re.search(r"\d", word)] for text in (one, other)]
        return numbers[0] == numbers[1] or plain[0] != plain[1]
    same = sorted(letters[0]) == sorted(letters[1]) and sorted(numbers[0]) == sorted(numbers[1])
    return same and min(len(one), len(other)) >= ORDERED


def _letters(text: Words) -> str:
    return "".join(text).translate(_ASCII)


def _equal(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The places of equal values, shape `(m, 2)`."""
    order = np.argsort(one, kind="stable")
    first, last = (np.searchsorted(one[order], other, side) for side in ("left", "right"))
    many = last - first
    places = np.arange(many.sum()) - np.repeat(many.cumsum() - many - first, many)
    return np.stack([order[places], np.repeat(np.arange(len(other)), many)], axis=1)


def _is_contained(short: Words, long: Words) -> bool:
    if len(long) - len(short) < ADDED:
        return False
    inner, outer = _letters(short), _letters(long)
    if inner in outer:
        return True
    same = len(commonprefix([inner, outer])) + len(commonprefix([inner[::-1], outer[::-1]]))
    return len(short) >= PARTED and same >= len(inner)


class _Pairs:
    """The word pairs of texts that stand on the other side, too: `codes` of `owners`; `sizes` counts all of a text."""

    def __init__(self, codes: np.ndarray, owners: np.ndarray, sizes: np.ndarray):
        self.codes, self.owners, self.sizes = codes, owners, sizes


def _shared_pairs(index: tuple, queries: tuple, many: int) -> tuple[_Pairs, _Pairs]:
    sides = []
    for numbers, lengths in (index, queries):
        owners = np.repeat(np.arange(len(lengths)), lengths)
        inside = owners[1:] == owners[:-1]
        sides.append(((numbers[:-1] * many + numbers[1:])[inside], owners[1:][inside], lengths - 1))
    known = np.unique(sides[1][0])
    shared = []
    for codes, owners, sizes in sides:
        places = np.minimum(np.searchsorted(known, codes), len(known) - 1)
        stands = known[places] == codes if len(known) else np.zeros(len(codes), dtype=bool)
        shared.append(_Pairs(places[stands], owners[stands], sizes))
    return shared[0], shared[1]


def _containing(short: _Pairs, long: _Pairs) -> Iterator[np.ndarray]:
    """Numbers of a text on one side and of one on the other that holds all its pairs but one, shape `(m, 2)`.

    What is added at one place parts one pair. So of any two pairs the other text holds one: the two rarest lead to the
    few texts that come into question.
    """
    needed = short.sizes - 1
    frequency = np.bincount(long.codes, minlength=short.codes.max(initial=0) + 1)
    stands = frequency[short.codes] > 0
    held = np.bincount(short.owners[stands], minlength=len(short.sizes))
    stands &= ((held >= needed) & (short.sizes >= ORDERED - 1))[short.owners]
    codes, owners = short.codes[stands], short.owners[stands]
    order = np.lexsort((frequency[codes], owners))
    codes, owners = codes[order], owners[order]
    rank = np.arange(len(owners)) - np.searchsorted(owners, owners)
    # Pairs that stand nowhere on the other side are the rarest of all.
    rarest = rank + (short.sizes - held)[owners] < 2
    wanted = np.zeros(len(frequency), dtype=bool)
    wanted[codes[rarest]] = True
    holding = wanted[long.codes]
    hits = _equal(long.codes[holding], codes[rarest])
    width = len(long.sizes)
    candidates = np.unique(owners[rarest][hits[:, 1]] * width + long.owners[holding][hits[:, 0]])
    ends = np.searchsorted(owners, np.arange(len(short.sizes)), "right")
    starts = np.searchsorted(owners, np.arange(len(short.sizes)))
    asked = np.zeros(width, dtype=bool)
    asked[candidates % width] = True
    keys = np.sort((long.owners * len(frequency) + long.codes)[asked[long.owners]])
    if not len(keys):
        return
    for chunk in np.array_split(candidates, len(candidates) // CHUNK + 1):
        one, other = np.divmod(chunk, width)
        many = ends[one] - starts[one]
        places = np.arange(many.sum()) - np.repeat(many.cumsum() - many - starts[one], many)
        looked_up = np.repeat(other, many) * len(frequency) + codes[places]
        at = np.minimum(np.searchsorted(keys, looked_up), len(keys) - 1)
        overlap = np.bincount(np.repeat(np.arange(len(chunk)), many)[keys[at] == looked_up], minlength=len(chunk))
        yield np.stack([one, other], axis=1)[overlap >= needed[one]]
