"""The fingerprint of what renders a card: all that its text and pictures depend on."""

import hashlib
from importlib.metadata import version
from pathlib import Path

from model_cards import card, escape, evaluation, plots
from recipes import expectations, families
from recipes.data import letters
from record import (
    energy,
    field_types,
    hashes,
    names,
    predictions,
    project,
    recipe_datasets,
    release_files,
    run_record,
    scored_record,
    scores,
    strict_json,
    sweep,
    swept_run,
    verdict,
    versions,
    withdrawals,
)
from record.cache import code_of
from record.run_record import Record, Renderer
from scoring import concerns
from scoring.sql.databases import KINDS

FOLDER = Path(__file__).parent
TEXTS = ("card.md.jinja", "evaluation.md.jinja", "citations.bib")
MODULES = (
    card,
    escape,
    evaluation,
    plots,
    expectations,
    families,
    energy,
    field_types,
    hashes,
    letters,
    names,
    predictions,
    project,
    recipe_datasets,
    release_files,
    run_record,
    scored_record,
    scores,
    strict_json,
    sweep,
    swept_run,
    verdict,
    versions,
    withdrawals,
    concerns,
)
# Front matter is written by huggingface_hub and PyYAML; matplotlib has a field of its own.
LIBRARIES = ("huggingface_hub", "Jinja2", "MarkupSafe", "PyYAML", *plots.LIBRARIES)


def renderer() -> Renderer:
    """What renders cards and plots here."""
    digest = hashlib.sha256(code_of(MODULES, LIBRARIES).encode())
    for name in TEXTS:
        digest.update((FOLDER / name).read_bytes())
    # Of the databases only their number stands on a card.
    digest.update(f"{[len(kinds) for kinds in KINDS.values()]} databases".encode())
    return Renderer(code=digest.hexdigest(), matplotlib=version("matplotlib"))


def same_renderer(record: Record) -> bool:
    """Whether the published card was rendered by this very code."""
    return record.rendered == renderer()
