"""The fingerprint of what renders a card: all that its text and pictures depend on."""

import hashlib
from importlib.metadata import version
from pathlib import Path

from record.project import PROJECT_URL
from record.run_record import Record, Renderer

SOURCES = ("card.md.jinja", "card.py", "citations.bib", "escape.py", "plots.py")


def renderer() -> Renderer:
    """What renders cards and plots here."""
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    digest.update(PROJECT_URL.encode())
    return Renderer(code=digest.hexdigest(), matplotlib=version("matplotlib"))


def same_renderer(record: Record) -> bool:
    """Whether the published card was rendered by this very code."""
    return record.rendered == renderer()
