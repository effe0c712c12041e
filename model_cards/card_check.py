"""Holds a published card and its plots against what the record and the predictions give."""

import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from model_cards.card import front_matter, render_card
from model_cards.fingerprint import renderer, same_renderer
from model_cards.free_text import hidden_by_free_text, without_free_texts
from model_cards.plots import draw_plots
from model_cards.rendered import body_of, read
from model_cards.statements import not_derivable, other_scores_in_table
from record.errors import UserError
from record.predictions import Predictions
from record.release_files import CARD_FILE, PLOTS
from record.run_record import Record
from record.verdict import Unchecked, Verdict

# Metadata that no later version of the card states otherwise.
STATED = ("base_model", "base_model_relation", "datasets", "license", "model-index")


def name_on_card(folder: Path) -> str | None:
    """The id that a published card states as its own, in the command that checks it; None where it states none."""
    text = (folder / CARD_FILE).read_text(encoding="utf-8")
    command = re.search(r"^make reproduce ADAPTER=(\w[\w.-]*/[\w.-]+)(?: HUB=local)?$", text, re.MULTILINE | re.ASCII)
    return command[1] if command else None


def find_difference(
    adapter: str, folder: Path, record: Record, predictions: Predictions, verdict: Verdict | None = None
) -> str | None:
    """What differs between the published card and plots and those rendered here, in one line; None if nothing does.

    A card by other code may look otherwise by right: then its metadata and its visible tables of scores are compared,
    and `not_compared` tells of the rest. What people wrote may state what it likes, but change nothing around it.

    Parameters:
        adapter: the id that the card states as its own.
        folder: the published files.
        verdict: the one among them, if there is one.
    """
    published = (folder / CARD_FILE).read_text(encoding="utf-8")
    if hidden := hidden_by_free_text(published):
        return hidden
    here = renderer()
    if record.rendered is not None and record.rendered.code == here.code:
        ours = render_card(record, predictions, adapter, previous=published, verdict=verdict)
        for number, (one, other) in enumerate(_lines(published, ours), start=1):
            if one != other:
                return f"line {number} of the card reads {_short(one)}, the record gives {_short(other)}"
    if same_renderer(record) and (path := _other_picture(folder, record, verdict)):
        return f"{path} is not the plot that the record gives"
    return _other_scores(adapter, folder / CARD_FILE, record)


class NotCompared(NamedTuple):
    """A part of a card that nobody can vouch for, and why, in one line."""

    part: Unchecked
    why: str


def not_compared(
    adapter: str, folder: Path, record: Record, predictions: Predictions, verdict: Verdict | None = None
) -> NotCompared | None:
    """What of a card without a difference was not compared; None where all that it shows follows from the record.

    Parameters: as those of `find_difference`.
    """
    if same_renderer(record):
        return None
    published = (folder / CARD_FILE).read_text(encoding="utf-8")
    if record.rendered is None or record.rendered.code != renderer().code:
        ours = render_card(record, predictions, adapter, verdict=verdict)
        try:
            strange = not_derivable(without_free_texts(published), without_free_texts(ours), record)
        except UserError as error:
            strange = str(error)
        if strange:
            return NotCompared("card", f"another version rendered the card, and {strange}")
    if path := _other_picture(folder, record, verdict):
        return NotCompared("pictures", f"another version drew {path}, which cannot be compared here")
    return None


def _other_picture(folder: Path, record: Record, verdict: Verdict | None) -> str | None:
    """The first published plot that is not, byte by byte, the one that is drawn here."""
    with tempfile.TemporaryDirectory() as temporary:
        draw_plots(record, Path(temporary), verdict)
        return next(
            (p for p in PLOTS.values() if (folder / p).read_bytes() != Path(temporary, p).read_bytes()),
            None,
        )


def _lines(one: str, other: str) -> list[tuple[str, str]]:
    lines, others = one.splitlines(), other.splitlines()
    longest = max(len(lines), len(others))
    return list(zip(*(part + [""] * (longest - len(part)) for part in (lines, others)), strict=True))


def _short(line: str) -> str:
    return repr(line if len(line) <= 120 else line[:120] + "…")


def _other_scores(adapter: str, path: Path, record: Record) -> str | None:
    """What in the card's metadata or in its table of scores is not the record's; None if nothing is."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    ours = front_matter(record, adapter)
    try:
        card = ModelCard.load(path)
    except (ValueError, RecursionError, YAMLError) as error:
        return f"the card's metadata cannot be read: {str(error).splitlines()[0]}"
    stated, expected = (
        sorted((str(result.metric_name), str(result.metric_value)) for result in data.eval_results or [])
        for data in (card.data, ours)
    )
    if stated != expected:
        return "the scores in the card's metadata are not the record's"
    for key in STATED:
        if card.data.to_dict().get(key) != ours.to_dict().get(key):
            return f"the card's metadata states another {key} than the record gives"
    try:
        return other_scores_in_table(read(body_of(without_free_texts(path.read_text(encoding="utf-8")))), record)
    except UserError as error:
        return str(error)
