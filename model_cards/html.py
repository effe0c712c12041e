"""HTML pages that load nothing, filled from untrusted texts."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup, escape

from model_cards.escape import INVISIBLE

# Characters shown of one text.
TEXT = 3_000
PAGE_STYLE = Path(__file__).with_name("page.css")


def render_page(template: Path, **values: Any) -> str:
    """The HTML page of a template, filled with values.

    Texts of record and data are hostile until escaped: every value passes `as_html` and Jinja's autoescape.
    """
    environment = SandboxedEnvironment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=as_html
    )
    environment.filters |= {"csp_hash": csp_hash}
    return environment.from_string(source(template)).render(**values)


def source(*files: Path) -> Markup:
    """Files of ours, one after the other, as they stand."""
    return Markup("").join(Markup(file.read_text(encoding="utf-8")) for file in files)


def visible(text: str) -> Markup:
    """The text as HTML, every character of it to be seen."""
    return escape(reveal(text))


def reveal(text: str) -> str:
    """The text; marks that hide or reorder what stands around them are replaced by their code points."""
    return INVISIBLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def as_html(value: Any) -> Any:
    """The value; a text that is not HTML yet is made visible, and cut where it is longer than any honest one."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return visible(value if len(value) <= TEXT else f"{value[:TEXT]} …")


def csp_hash(text: str) -> str:
    """The source that a Content-Security-Policy allows a style sheet or script by (CSP level 3, section 2.3.1)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
