"""Which test inputs a training has already seen: exact copies after normalisation, and near-duplicates.

What is compared is what the model reads without its prompt's own words: `Splits` carries it as the column `input`. A
layout inside the dataset's texts (`### Instruction: …`) is found by what the texts of a list share, and left out too.
"""

import re
import sys
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Literal, NamedTuple

import numpy as np
from datasketch import MinHash

from recipes.data import disguises
from recipes.data.disguises import Words
from record.cache import code_of

# Lee et al. 2022, "Deduplicating Training Data Makes Language Models Better" (arXiv:2107.06499): near-duplicates have
# a Jaccard similarity of at least 0.8 between their sets of word n-grams. They take n = 5, for web pages. Where one of
# L words is replaced the similarity is (L - 2n + 1) / (L + 1), at least 0.8 from L = 10n - 1 words on. Inputs have 10
# to 60 words: pairs bear one change in 19 words and still know the words' order, which single words do not.
NEAR = 0.8
# A pair of texts becomes a candidate with the probability 1 - (1 - J^ROWS)^BANDS (Leskovec et al., "Mining of Massive
# Datasets", section 3.4.2): 0.9977 at J = 0.8, 0.9999 at 0.85, 0.08 at 0.4. Its exact similarity then decides.
BANDS, ROWS = 20, 6
# Fewer texts than these share words by chance. A layout may have variants (Alpaca's has one with an input and one
# without), so its lines are those of a fifth of the texts; words within a line are layout where nearly all have them.
LAYOUT_TEXTS = 10
LAYOUT_LINES = 0.2
LAYOUT_WORDS = 0.95

# Texts whose candidates are looked up at once, and candidates whose sketches are compared at once: some 10 MB each,
# unless thousands of texts are alike.
QUERIES, CHUNK = 1_000, 10_000

# Punctuation, currency signs and accents that stand alone. Kept are `<`, `=`, `+`, emoji and the like.
_DROPPED = "".join(
    re.escape(character)
    for character in map(chr, range(0x10000))
    if unicodedata.category(character) in ("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sc", "Sk")
)
_WORD = re.compile(rf"\w+|!=|[^\w\s{_DROPPED}]|[-*/](?=\s*\d)")
# The comma of 1,000; it comes first, where a search is quick.
_THOUSANDS = re.compile(r",(?<=\d,)(?=\d{3})")


def code() -> str:
    """The hash of all that decides which inputs are alike."""
    libraries = ["datasketch", "numpy", "confusable_homoglyphs"]
    return code_of([sys.modules[__name__], disguises], libraries) + unicodedata.unidata_version


def compare(
    test: list[str], training: list[str], rules: Literal[1, 2] = 2
) -> list[Literal["exact", "near", "disguised", ""]]:
    """How a training has seen each test input, if at all.

    Two inputs are exact copies if they have the same `words`, and near-duplicates if the Jaccard similarity of their
    sets of word pairs is at least `NEAR`. All exact copies are found, 99.7 % of the near-duplicates at 0.8 (see
    `BANDS`), more above. Disguised is what only `recipes.data.disguises.alike` finds, and nothing else is found.
    Copies within `test` alone do not count.

    Parameters:
        test: inputs of the test rows.
        training: inputs of the training rows of one dataset. Compare with each dataset by itself: each has its layout,
            which only ten different texts or more make known.
        rules: 1 looks for no disguises (`record.run_record.Data.rules`).

    Returns:
        One finding a test input; the same on every machine and in any order of the rows.
    """
    tests, trainings, layout = _contents(test, training)
    seen = set(trainings.bare.values())
    rest = list(set(tests.bare.values()) - seen)
    rest_pairs = {pair for text in rest for pair in _pairs(text)}
    # A text has a near-duplicate in the rest only if the rest holds this share of its pairs.
    likely = [text for text in seen if len((pairs := _pairs(text)) & rest_pairs) >= NEAR * len(pairs)]
    near = {rest[number] for number, _ in _near(rest, likely)}
    kinds = {
        text: "exact" if content in seen else "near" if content in near else "" for text, content in tests.bare.items()
    }
    for removed in layout.variants() if rules > 1 else ():
        open_texts = [text for text, kind in kinds.items() if not kind]
        contents = _undisguised(tests, open_texts, removed)
        index = list(dict.fromkeys(contents))
        queries = list(dict.fromkeys(_undisguised(trainings, list(trainings.bare), removed)))
        alike = {index[number] for number, _ in disguises.alike(index, queries)}
        kinds.update(
            {text: "disguised" for text, content in zip(open_texts, contents, strict=True) if content in alike}
        )
    return [kinds[text] for text in test]


def groups(inputs: list[str], prompts: list[str] | None = None, rules: Literal[1, 2] = 2) -> np.ndarray:
    """Numbers the groups of rows that copies of any kind (as in `compare`) connect in any steps.

    Parameters:
        inputs, prompts: of all rows; rows with the same prompt are copies, too. None: the inputs are the prompts.
        rules: 1 knows exact copies and near-duplicates of inputs alone.

    Returns:
        The group of every row, shape `(len(inputs),)`; groups are numbered in the order of their first rows.
    """
    contents, _, layout = _contents(inputs, [])
    numbers = {text: number for number, text in enumerate(dict.fromkeys(map(contents.bare.__getitem__, inputs)))}
    own = [numbers[contents.bare[text]] for text in inputs]
    texts, parents = list(numbers), list(range(len(numbers)))

    def first(number: int) -> int:
        while parents[number] != number:
            parents[number] = number = parents[parents[number]]
        return number

    def connect(one: int, other: int) -> None:
        one, other = sorted((first(one), first(other)))
        parents[other] = one

    for one, other in _near(texts, texts):
        connect(one, other)
    if rules > 1:
        firsts: dict[str, int] = {}
        for prompt, number in zip(prompts or inputs, own, strict=True):
            connect(number, firsts.setdefault(prompt, number))
        raw = list(contents.bare)
        for removed in layout.variants():
            firsts_alike: dict[Words, int] = {}
            for text, content in zip(raw, _undisguised(contents, raw, removed), strict=True):
                connect(numbers[contents.bare[text]], firsts_alike.setdefault(content, numbers[contents.bare[text]]))
            alike = list(firsts_alike)
            for one, other in disguises.alike(alike, alike):
                connect(firsts_alike[alike[one]], firsts_alike[alike[other]])
    _, labels = np.unique([first(number) for number in own], return_inverse=True)
    return labels


def words(text: str) -> Words:
    """The text's words after Unicode's NFKC and case folding, without punctuation; a text without words, as it is.

    Signs of comparison and arithmetic are words: `a < b` is not `a > b`, `3 - 5` is not `3 * 5`.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("'", "").replace("’", "")
    return tuple(map(sys.intern, _WORD.findall(_THOUSANDS.sub("", folded)))) or (text.strip(),)


class _Contents(NamedTuple):
    """The words of each text of a list: the `whole` text but for lines of a layout, and `bare` without any layout."""

    whole: dict[str, Words]
    bare: dict[str, Words]


@dataclass(frozen=True)
class _Layout:
    """The lines that many texts share, and the words that nearly all begin with, end with, or have in between."""

    lines: frozenset[str]
    starts: tuple[Words, ...] = ()
    ends: tuple[Words, ...] = ()
    between: frozenset[str] = frozenset()

    def variants(self) -> set["_Layout"]:
        """This layout and its lines alone: where many copies are disguised, words that they lack pass for a layout."""
        return {self, _Layout(self.lines)}


def _contents(one: list[str], other: list[str]) -> tuple[_Contents, _Contents, _Layout]:
    """The words of the texts of both lists, and the layout that they are told without.

    Every text is treated alike, whichever list it is in: equal texts stay equal.
    """
    lines = frozenset(_shared_lines(set(one)) | _shared_lines(set(other)))
    wholes = [{text: words(_without_lines(text, lines)) for text in dict.fromkeys(texts)} for texts in (one, other)]
    both = [set(texts.values()) for texts in wholes]
    large = [texts for texts in both if len(texts) >= LAYOUT_TEXTS]
    layout = _Layout(
        lines, *(tuple(text for text in map(side, large) if text) for side in (_shared_start, _shared_end))
    )
    cores = [{text: _core(text, layout) for text in texts} for texts in both]
    ours, theirs = (list(texts.values()) for texts in cores)
    between = frozenset(_words_between(ours, theirs) | _words_between(theirs, ours))
    layout = replace(layout, between=between)
    one, other = (
        _Contents(whole, {text: _without_between(parts[content], layout) or content for text, content in whole.items()})
        for whole, parts in zip(wholes, cores, strict=True)
    )
    return one, other, layout


def _undisguised(contents: _Contents, texts: list[str], layout: _Layout) -> list[Words]:
    """The words of the folded texts without the folded layout."""
    fold = disguises.fold
    starts, ends = (tuple(tuple(map(fold, side)) for side in sides) for sides in (layout.starts, layout.ends))
    folded_layout = _Layout(frozenset(map(fold, layout.lines)), starts, ends, frozenset(map(fold, layout.between)))
    as_they_are = contents.bare if layout.starts or layout.ends or layout.between else contents.whole
    undisguised = []
    for text in texts:
        content = as_they_are[text]
        if (folded := fold(text)) != text:
            whole = words(_without_lines(folded, folded_layout.lines))
            content = _without_between(_core(whole, folded_layout), folded_layout) or whole
        undisguised.append(content)
    return undisguised


def _shared_lines(texts: set[str]) -> set[str]:
    counts = Counter(chain.from_iterable({line.strip() for line in text.splitlines()} for text in texts))
    return {line for line, count in counts.items() if count >= max(LAYOUT_TEXTS, LAYOUT_LINES * len(texts))}


def _without_lines(text: str, lines: frozenset[str]) -> str:
    return "\n".join(line for line in text.splitlines() if line.strip() not in lines) or text


def _shared_start(texts: set[Words]) -> Words:
    start = ()
    while True:
        following = Counter(text[len(start)] for text in texts if text[: len(start)] == start and text != start)
        word, count = next(iter(following.most_common(1)), ("", 0))
        if count < LAYOUT_WORDS * len(texts):
            return start
        start += (word,)


def _shared_end(texts: set[Words]) -> Words:
    end = ()
    while True:
        longer = (text for text in texts if len(text) > len(end) and text[len(text) - len(end) :] == end)
        following = Counter(text[-1 - len(end)] for text in longer)
        word, count = next(iter(following.most_common(1)), ("", 0))
        if count < LAYOUT_WORDS * len(texts):
            return end
        end = (word, *end)


def _core(text: Words, layout: _Layout) -> Words:
    for start in layout.starts:
        text = text[len(start) :] if text[: len(start)] == start else text
    for end in layout.ends:
        text = text[: len(text) - len(end)] if text[len(text) - len(end) :] == end else text
    return text


def _without_between(text: Words, layout: _Layout) -> Words:
    return tuple(word for word in text if word not in layout.between) if layout.between else text


def _words_between(texts: list[Words], others: list[Words]) -> set[str]:
    """Words that stand in (nearly) all texts, and on average once more than in the others."""
    if len(texts) < LAYOUT_TEXTS or not others:
        return set()

    def mean(word: str, texts: list[Words]) -> float:
        return sum(text.count(word) for text in texts) / len(texts)

    holding = Counter(chain.from_iterable(map(set, texts)))
    frequent = [word for word, count in holding.items() if count >= LAYOUT_WORDS * len(texts)]
    return {word for word in frequent if mean(word, texts) - mean(word, others) >= 0.9}


def _near(index: list[Words], queries: list[Words]) -> Iterator[tuple[int, int]]:
    """Numbers of an indexed and of a queried text with a similarity of at least `NEAR`."""
    index_sketches = _sketches(index)
    query_sketches = index_sketches if queries is index else _sketches(queries)
    for pairs in _candidates(index_sketches, query_sketches):
        for chunk in np.array_split(pairs, len(pairs) // CHUNK + 1):
            # The sketches' own estimate has a standard error of 0.04 at 0.8: five of them away, nothing is near.
            likely = np.mean(index_sketches[chunk[:, 0]] == query_sketches[chunk[:, 1]], axis=(1, 2)) >= NEAR - 0.2
            for number, place in chunk[likely].tolist():
                one, other = _pairs(index[number]), _pairs(queries[place])
                overlap = len(one & other)
                if overlap >= NEAR * (len(one) + len(other) - overlap):
                    yield number, place


def _sketches(texts: list[Words]) -> np.ndarray:
    """MinHash sketches of the texts' word pairs, shape `(len(texts), BANDS, ROWS)`."""
    # CRC-32 needs no quality: the sketch mixes its bits again, and a collision only makes a candidate.
    sketch = MinHash(num_perm=BANDS * ROWS, seed=1, hashfunc=lambda pair: zlib.crc32(" ".join(pair).encode()))
    sketches = np.empty((len(texts), BANDS, ROWS), dtype=np.uint32)
    for number, text in enumerate(texts):
        sketch.clear()
        sketch.update_batch(_pairs(text))
        sketches[number] = sketch.hashvalues.reshape(BANDS, ROWS)
    return sketches


def _candidates(index_sketches: np.ndarray, query_sketches: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs of numbers, shape `(m, 2)`, of the sketches that agree in a whole band; `QUERIES` texts at a time.

    datasketch's own index is asked text by text, which takes several times as long.
    """
    odd = np.random.RandomState(1).randint(2**62, size=ROWS).astype(np.uint64) * 2 + 1
    keys, others = (
        np.stack([(sketches[:, band] * odd).sum(axis=1, dtype=np.uint64) for band in range(BANDS)])
        for sketches in (index_sketches, query_sketches)
    )
    orders = np.argsort(keys, axis=1)
    sorted_keys = np.take_along_axis(keys, orders, axis=1)
    for start in range(0, len(query_sketches), QUERIES):
        hits = []
        for band in range(BANDS):
            queries = others[band, start : start + QUERIES]
            first, last = (np.searchsorted(sorted_keys[band], queries, side) for side in ("left", "right"))
            many = last - first
            places = np.repeat(np.arange(start, start + len(queries)), many)
            numbers = orders[band][np.arange(many.sum()) - np.repeat(many.cumsum() - many - first, many)]
            hits.append(numbers * len(query_sketches) + places)
        yield np.stack(np.divmod(np.unique(np.concatenate(hits)), len(query_sketches)), axis=1)


def _pairs(text: Words) -> set[Words]:
    return set(pairwise(text)) or {text}
