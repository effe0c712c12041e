"""The figures that a card's visible text states, held against those that the record gives."""

import re
import unicodedata
from collections.abc import Iterable

from model_cards.rendered import CELLS, Block, Page, body_of, read
from record.names import METRIC, is_score, other_models
from record.release_files import PLOTS
from record.run_record import Record
from record.scores import METRIC_NAMES, Compared, Forgetting, Interval

NUMBER = re.compile(r"(?<![\w.,])\d+(?:,\d{3})+(?:\.\d+)?(?![\w,])|(?<![\w.,])\d*\.?\d+(?:e[+-]?\d+)?(?![\w])")
PERCENT = re.compile(r"(\d[\d,]*(?:\.\d+)?)\s*(?:%|percent\b|per cent\b)")
COUNT = re.compile(r"(\d[\d,]*k?)\s+(?:[a-z-]+\s+){0,2}(?:rows?|examples|samples|questions|pairs|records)\b")
SHARE = re.compile(r"(?<![\w.])(?:[01]?\.\d+|\d{1,3}(?:\.\d+)?\s*%|\d{2}\.\d+)(?!\w|\.\d)")
# Numbers in words; small ones are ordinary English.
WORDS = re.compile(r"\b(?:(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundreds?|thousands?|millions?|billions?)\b")
SENTENCE = re.compile(r"(?<=[.!?;])\s+(?=\S)")
# A commit, a hash, or a version says nothing of scores.
HEX = re.compile(r"\b[0-9a-f]{12,64}\b")
REPOSITORY = re.compile(r"(?<![\w./-])[\w-][\w.-]*/[\w.-]*\w(?![\w/])")
HUB = "https://huggingface.co/"
# What the template writes; whatever else stands in a card may be hidden, or hide.
ELEMENTS = {
    *("h1", "h2", "h3", "p", "a href", "img alt src", "pre", "code", "code class", "table", "thead", "tbody", "tr"),
    *("th", "td", "strong", "em", "ul", "li", "details", "summary", "br", "blockquote"),
}


def stated_otherwise(text: str, record: Record) -> list[str]:
    """The sentences and rows of a free text that state another value of a metric than the record, one line each.

    Parameters:
        text: markdown, as people wrote it.
    """
    if record.scores is None:
        return []
    findings = []
    for sentence in _sentences(read(text).blocks):
        if not METRIC.search(_folded(sentence)):
            continue
        rest = METRIC.sub(" ", _folded(sentence))
        others = [figure[0] for figure in SHARE.finditer(rest) if not is_score(figure[0], record.scores)]
        if others:
            findings.append(f"{_short(sentence)} states {', '.join(others)}, which is none of the scores")
    return findings


def _sentences(blocks: Iterable[Block]) -> list[str]:
    return [
        sentence
        for block in blocks
        for sentence in ([block.text] if block.element in ("tr", *CELLS) else SENTENCE.split(block.text))
    ]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")


def other_scores_in_table(page: Page, record: Record) -> str | None:
    """Which row of the visible tables of scores is missing or not the record's, in one line; None if none is."""
    names = record.scores.shown() if record.scores else []
    allowed = _rows(record)
    for name in names:
        heading = METRIC_NAMES[name]
        rows = [_figures(block.text) for block in page.blocks if block.cells[:1] == (heading,)]
        if not rows:
            return f"the card shows no row of scores for {heading}"
        # The first is the one that is read as the result.
        if not _rounded(rows[0], allowed[name][0]) or not all(
            any(_rounded(row, one) for one in allowed[name]) for row in rows
        ):
            return f"the card's table states other numbers for {heading} than the record"
    return None


def _rows(record: Record) -> dict[str, list[list[float]]]:
    """The values of a metric's row in each table of scores, that of all rows first."""
    scores, rows = record.scores, {}
    more = [scores.clean, *scores.by_dataset] if scores else []
    parts: list[Compared | Forgetting] = [part for part in (scores, *more, record.forgetting) if part]
    for name in scores.shown() if scores else []:
        sides = [
            (part.parent if isinstance(part, Forgetting) else part.base, part.adapter, part.difference)
            for part in parts
        ]
        rows[name] = [_row([side[name] for side in part]) for part in sides if all(name in side for side in part)]
    return rows


def _row(intervals: list[Interval]) -> list[float]:
    return [getattr(interval, key) for interval in intervals for key in ("mean", "low", "high")]


def _rounded(figures: list[str], values: list[float]) -> bool:
    """Whether the figures are the values to the decimals that they have, three or more: versions wrote four."""
    decimals = [len(figure.partition(".")[2]) for figure in figures]
    # Nobody writes more than a float has.
    return (
        len(figures) == len(values)
        and all(3 <= number <= 17 for number in decimals)
        and figures == [f"{value:.{number}f}" for value, number in zip(values, decimals, strict=True)]
    )


def _score_values(record: Record) -> list[float]:
    """Every value that is a score, a baseline's, or a bound of its interval."""
    scores = record.scores
    parts = [part for part in (scores, scores and scores.clean, scores and scores.databases) if part]
    sides = [side for part in parts for side in (part.base, part.adapter, part.difference)]
    if record.forgetting:
        sides += [record.forgetting.parent, record.forgetting.adapter, record.forgetting.difference]
    sides += [side for one in (record.baselines or {}).values() for side in (one.scores, one.difference)]
    return [value for side in sides for interval in side.values() for value in _row([interval])]


def _counts(record: Record) -> list[int]:
    """How many outputs and references are not as they should be, by what is wrong with them."""
    scores = record.scores
    counts = [count for one in (scores.base_outputs, scores.adapter_outputs) for count in (one.cut, one.empty)]
    counts += [scores.sql.not_executable, scores.sql.base_empty, scores.sql.adapter_empty] if scores.sql else []
    return [*counts, record.unwritable.unwritable] if record.unwritable else counts


def _figures(text: str) -> list[str]:
    return [number.lstrip("+") for number in re.findall(r"[+-]?\d+\.\d+", text)]


def not_derivable(published: str, ours: str, record: Record) -> str | None:
    """What a card by another renderer shows that does not follow from the record, in one line; None if nothing does.

    Every number, repository and model that its visible text names is looked for in the card that is rendered here: in
    the same block, or among those of the same kind (of a metric, of rows, in percent).

    Parameters:
        published, ours: both cards, with empty free sections.
    """
    theirs, here = read(body_of(published)), read(body_of(ours))
    if strange := sorted(theirs.elements - ELEMENTS):
        return f"it holds <{strange[0]}>, which no card of this project does"
    known = _Known(here, record)
    links = {link for link in here.links if not link.startswith(HUB)} | set(record.files)
    for link in theirs.links:
        if link not in here.links and not link.startswith("#") and link not in links:
            return f"it links to {_short(link)}"
    if other := next((picture for picture in theirs.pictures if picture not in PLOTS.values()), None):
        return f"it shows the picture {_short(other)}"
    if not any(record.pins.base_model.id in block.text for block in theirs.blocks):
        return f"it does not name the base model {record.pins.base_model.id}"
    for block in theirs.blocks:
        if block.text in known.texts:
            continue
        if block.cells[:1] == ("",):
            return f"it has a table with the columns {_short(block.text)}"
        if "REPRODUCED" in block.text and "DRIFTED" not in block.text and not known.reproduced:
            return f"{_short(block.text)} tells of a check that is not in the release"
        if strange := known.strange(_folded(block.text), record):
            return f"{_short(block.text)} states {strange}"
    return None


class _Known:
    """What the card that is rendered here states, by kind."""

    def __init__(self, page: Page, record: Record):
        texts = [_folded(block.text) for block in page.blocks]
        self.texts = {block.text for block in page.blocks}
        # The explanation of the verdicts names all of them.
        self.reproduced = any("REPRODUCED" in text and "DRIFTED" not in text for text in self.texts)
        self.numbers = {number for text in texts for number in NUMBER.findall(text)}
        self.percents = {number for text in texts for number in PERCENT.findall(text)}
        self.counts = {number for text in texts for number in COUNT.findall(text)}
        self.repositories = {name for text in texts for name in REPOSITORY.findall(text)}
        self.of_metrics = {n for text in texts if METRIC.search(text) for n in NUMBER.findall(text)}
        # Earlier versions wrote each of these with four decimals.
        self.of_metrics |= (scores := {f"{abs(value):.4f}" for value in _score_values(record)})
        history = record.training.history if record.training else []
        losses = {f"{loss:.4f}" for point in history for loss in (point.loss, point.eval_loss) if loss is not None}
        self.numbers |= scores | losses
        if not all(_counts(record)):
            # Where nothing was counted, they wrote a zero.
            self.numbers |= {"0", "0.0"}
            self.percents.add("0.0")

    def strange(self, text: str, record: Record) -> str | None:
        """The first number or name in a text that is not among the known ones."""
        if METRIC.search(text):
            numbers = NUMBER.findall(METRIC.sub(" ", text))
            if other := next((number for number in numbers if number not in self.of_metrics), None):
                return f"{other} by a metric's name"
        for pattern, known, what in (
            (PERCENT, self.percents, "{} %"),
            (COUNT, self.counts, "{} rows"),
            (NUMBER, self.numbers, "{}"),
            (REPOSITORY, self.repositories, "{}"),
            (WORDS, set(), "a number in words, {}"),
        ):
            names = pattern.findall(HEX.sub(" ", text))
            if other := next((name for name in names if name not in known), None):
                return what.format(other)
        return next(iter(other_models(text, record)), None)
