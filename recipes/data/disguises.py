"""Which texts are the same once disguises are undone: look-alike letters, hidden characters, order, words around."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

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
# Candidates whose pairs are looked up at once: some 100 MB.
CHUNK = 100_000

# Fillers that are letters to Unicode and are not drawn (Default_Ignorable_Code_Point of DerivedCoreProperties.txt).
_FILLERS = "\u115f\u1160"
# Control characters that are no white space.
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
_DIGITS = re.compile(r"\d+")


class _LookAlikes(dict[int, str]):
    """For `str.translate`: ASCII for what looks like it in Unicode's confusables.txt, "" for hidden characters."""

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


def alike(index: Sequence[Words], queries: Sequence[Words]) -> Iterator[tuple[int, int]]:
    """Numbers of an indexed and of a queried text that are the same in disguise.

    They consist of the same letters and numbers, in any order from `ORDERED` words on; or one, of at least `ORDERED`
    words, is the other without `ADDED` or more words around it, or without as many at one place within it, if it has
    at least `PARTED` words. Split words with others around them are not told.

    Parameters:
        index, queries: words of folded texts.

    Returns:
        At least one pair for each indexed text that is like a queried one; a pair may come more than once. Where
        `index` is `queries`, the pairs connect all that are alike.
    """
    if not index or not queries:
        return
    vocabulary = {word: number for number, word in enumerate(set(chain.from_iterable(chain(index, queries))))}
    bare = [word.translate(_ASCII) for word in vocabulary]
    places = {word: number for number, word in enumerate(bare)}
    same = np.array([places[word] for word in bare])
    # The sum over a text tells its letters whatever their order; the letters themselves decide in the end.
    sums = np.array([sum(map(hash, word)) % 2**64 for word in bare], dtype=np.uint64)
    sides, totals = [], []
    alone = index is queries
    for texts in (index,) if alone else (index, queries):
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        numbers = np.fromiter(map(vocabulary.__getitem__, chain.from_iterable(texts)), np.int64, count=lengths.sum())
        sides.append((same[numbers], lengths))
        totals.append(np.add.reduceat(sums[numbers], lengths.cumsum() - lengths))
    query_places = np.flatnonzero(np.isin(totals[-1], _shared(totals)))
    index_places = np.flatnonzero(np.isin(totals[0], totals[-1][query_places]))
    yield from _same_letters(index, index_places.tolist(), queries, query_places.tolist())
    one, other = _shared_pairs(sides, len(vocabulary))
    for number, place in _holding(one, other):
        if _is_contained(index[number], queries[place]):
            yield number, place
    for place, number in _holding(other, one) if not alone else ():
        if _is_contained(queries[place], index[number]):
            yield number, place


def _same_letters(
    index: Sequence[Words], index_places: list[int], queries: Sequence[Words], query_places: list[int]
) -> Iterator[tuple[int, int]]:
    """Pairs with the same letters and numbers among the texts at these places.

    Of many alike among the queries the first ones stand for all.
    """
    exact, ordered = {}, {}
    split: dict[str, dict[Words, int]] = {}
    for place in query_places:
        letters, numbers, others = _parts(queries[place])
        exact.setdefault((letters, *numbers), place)
        if len(queries[place]) >= ORDERED:
            ordered.setdefault(("".join(sorted(letters)), *sorted(numbers)), place)
        if len(different := split.setdefault(letters, {})) < 2:
            different.setdefault(others, place)
    for number in index_places:
        letters, numbers, others = _parts(index[number])
        hits = [exact.get((letters, *numbers))]
        if len(index[number]) >= ORDERED:
            hits.append(ordered.get(("".join(sorted(letters)), *sorted(numbers))))
        # 3.5 is not 35. But where other words are split, numbers may be, too.
        hits += [place for words, place in split.get(letters, {}).items() if words != others]
        yield from ((number, place) for place in hits if place is not None)


def _parts(text: Words) -> tuple[str, list[str], Words]:
    """The text's letters, its numbers, and its words without digits."""
    numbers = _DIGITS.findall(" ".join(text))
    return _letters(text), numbers, tuple(word for word in text if not _DIGITS.search(word)) if numbers else text


def _letters(text: Words) -> str:
    return "".join(text).translate(_ASCII)


def _is_contained(short: Words, long: Words) -> bool:
    if len(long) - len(short) < ADDED:
        return False
    inner, outer = _letters(short), _letters(long)
    if inner in outer:
        return True
    if len(short) < PARTED:
        return False
    start = next(place for place, character in enumerate(outer) if inner[place : place + 1] != character)
    return outer.endswith(inner[start:])


class _Pairs(NamedTuple):
    """Word pairs of texts that stand on the other side, too: their `codes`, and the number of each pair's text.

    `sizes` counts all pairs of every text.
    """

    codes: np.ndarray
    owners: np.ndarray
    sizes: np.ndarray


def _shared_pairs(sides: list[tuple[np.ndarray, np.ndarray]], vocabulary: int) -> tuple[_Pairs, _Pairs]:
    """The pairs of both sides, or of the only one, given as the words of all its texts and the texts' lengths."""
    pairs = []
    for numbers, lengths in sides:
        owners = np.repeat(np.arange(len(lengths)), lengths)
        inside = owners[1:] == owners[:-1]
        pairs.append(_Pairs((numbers[:-1] * vocabulary + numbers[1:])[inside], owners[1:][inside], lengths - 1))
    known = _shared([side.codes for side in pairs])
    shared = []
    for codes, owners, sizes in pairs:
        places = np.searchsorted(known, codes)
        stands = known[np.minimum(places, len(known) - 1)] == codes if len(known) else places < 0
        shared.append(_Pairs(places[stands], owners[stands], sizes))
    return shared[0], shared[-1]


def _shared(sides: list[np.ndarray]) -> np.ndarray:
    """The sorted values that stand on the first side and, where there are two, perhaps on the other; else twice."""
    if len(sides) > 1:
        return np.unique(sides[0])
    values, counts = np.unique(sides[0], return_counts=True)
    return values[counts > 1]


def _holding(short: _Pairs, long: _Pairs) -> Iterator[list[int]]:
    """Numbers of a text on one side and of one on the other that holds all its pairs, or all but one.

    What is added at one place parts one pair. So of any two pairs the other text holds one: the two rarest lead to the
    few texts that come into question.
    """
    needed, texts = short.sizes - 1, len(short.sizes)
    frequency = np.bincount(long.codes, minlength=short.codes.max(initial=0) + 1)
    stands = frequency[short.codes] > 0
    held = np.bincount(short.owners[stands], minlength=texts)
    stands &= ((held >= needed) & (short.sizes >= ORDERED - 1))[short.owners]
    codes, owners = short.codes[stands], short.owners[stands]
    order = np.lexsort((frequency[codes], owners))
    codes, owners = codes[order], owners[order]
    starts, ends = (np.searchsorted(owners, np.arange(texts), side) for side in ("left", "right"))
    # Pairs that stand nowhere on the other side are the rarest of all.
    rarest = np.flatnonzero(np.arange(len(owners)) - starts[owners] + (short.sizes - held)[owners] < 2)
    wanted = np.zeros(len(frequency), dtype=bool)
    wanted[codes[rarest]] = True
    among = np.flatnonzero(wanted[long.codes])
    among = among[np.argsort(long.codes[among], kind="stable")]
    firsts = np.searchsorted(long.codes[among], codes[rarest])
    asked = np.zeros(len(long.sizes), dtype=bool)
    asked[long.owners[among]] = True
    keys = np.sort((long.owners * len(frequency) + long.codes)[asked[long.owners]])
    many = frequency[codes[rarest]]
    for part in np.split(np.arange(len(rarest)), np.flatnonzero(np.diff(many.cumsum() // CHUNK)) + 1):
        one = np.repeat(owners[rarest[part]], many[part])
        other = long.owners[among[_ranges(firsts[part], many[part])]]
        one, other = np.divmod(np.unique(one * len(long.sizes) + other), len(long.sizes))
        sizes = ends[one] - starts[one]
        looked_up = np.repeat(other, sizes) * len(frequency) + codes[_ranges(starts[one], sizes)]
        hits = keys[np.minimum(np.searchsorted(keys, looked_up), len(keys) - 1)] == looked_up if len(keys) else []
        overlap = np.bincount(np.repeat(np.arange(len(one)), sizes)[hits], minlength=len(one))
        yield from np.stack([one, other], axis=1)[overlap >= needed[one]].tolist()


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The numbers from each start on, as many as its size, in one array."""
    return np.arange(sizes.sum()) + np.repeat(starts - sizes.cumsum() + sizes, sizes)
