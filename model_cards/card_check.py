"""Holds a published card and its plots against what the record and the predictions give."""

import re
import tempfile
from pathlib import Path

from model_cards.card import front_matter, render_card
from model_cards.fingerprint import renderer, same_renderer
from model_cards.plots import draw_plots
from record.predictions import Predictions
from record.release_files import CARD_FILE, PLOTS
from record.run_record import Record
from record.scores import METRIC_NAMES
from record.verdict import Verdict

# Metadata that no later version of the card states otherwise.
STATED = ("base_model", "base_model_relation", "datasets", "license", "model-index")


def find_difference(
    adapter: str, folder: Path, record: Record, predictions: Predictions, verdict: Verdict | None = None
) -> str | None:
    """What differs between the published card and plots and those rendered here, in one line; None if nothing does.

    A card by other code may look otherwise by right: then only its metadata and its table of scores are compared.
    Plots are compared where the same matplotlib draws them.

    Parameters:
        adapter: the id under which the card is published.
        folder: the published files.
        verdict: the one among them, if there is one.
    """
    published = (folder / CARD_FILE).read_text(encoding="utf-8")
    here = renderer()
    if record.rendered is not None and record.rendered.code == here.code:
        ours = render_card(record, predictions, adapter, previous=published, verdict=verdict)
        for number, (one, other) in enumerate(_lines(published, ours), start=1):
            if one != other:
                return f"line {number} of the card reads {_short(one)}, the record gives {_short(other)}"
    if same_renderer(record):
        with tempfile.TemporaryDirectory() as temporary:
            draw_plots(record, Path(temporary), verdict)
            for path in PLOTS.values():
                if (folder / path).read_bytes() != Path(temporary, path).read_bytes():
                    return f"{path} is not the plot that the record gives"
    return _other_scores(adapter, folder / CARD_FILE, record)


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

    try:
        card, scores = ModelCard.load(path), record.scores
    except (ValueError, RecursionError, YAMLError) as error:
        return f"the card's metadata cannot be read: {str(error).splitlines()[0]}"
    stated = {result.metric_name: result.metric_value for result in card.data.eval_results or []}
    if stated != {METRIC_NAMES[name]: round(scores.adapter[name].mean, 4) for name in scores.shown()}:
        return "the scores in the card's metadata are not the record's"
    stated, ours = card.data.to_dict(), front_matter(record, adapter).to_dict()
    for key in STATED:
        if stated.get(key) != ours.get(key):
            return f"the card's metadata states another {key} than the record gives"
    for name in scores.shown():
        heading = METRIC_NAMES[name]
        row = next((line for line in card.content.splitlines() if line.startswith(f"| {heading} |")), "")
        parts = (scores.base[name], scores.adapter[name], scores.difference[name])
        figures = [f"{getattr(part, key):.4f}" for part in parts for key in ("mean", "low", "high")]
        if [number.lstrip("+") for number in re.findall(r"[+-]?\d+\.\d+", row)] != figures:
            return f"the card's table states other numbers for {heading} than the record"
    return None
