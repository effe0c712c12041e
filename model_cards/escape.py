"""Makes foreign text harmless in the card: in markdown by default, and by a filter where markdown does not hold.

All texts of a record, its predictions and its verdict are foreign. `environment` escapes every `{{ }}` of a template
for markdown unless a filter or a macro gave it as `Markup`; inside code fences, where an entity is no character, one of
the filters must be named.
"""

import html
import json
import re
import shlex
import unicodedata
from typing import Any
from urllib.parse import quote

from jinja2 import StrictUndefined, Undefined
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup

# Longest text in the card; those from the data are shortened before.
TEXT = 2_000
SAMPLE_CHARACTERS = 300
# Characters that could end a table cell or start markdown, HTML, a link, maths or an emoji inside one; GitHub and the
# Hub make a link of `www.` too.
MARKDOWN = re.compile(r"[|`*_\[\]()~$\\:#!{}@]|(?<=www)\.", re.IGNORECASE)
# C0/C1 controls, zero-width and bidirectional marks, tags, lone surrogates: they hide or reorder the text around them.
INVISIBLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)
# GitHub links an address after it has read the entities; a comment inside parts it.
ADDRESS = re.compile(r"&#64;(?=[^\s<]*\.)")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def environment():
    """Jinja's sandbox for markdown: every value is escaped, and one that is not there is an error."""
    jinja = SandboxedEnvironment(
        autoescape=True, finalize=as_markdown, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    jinja.filters |= {item.__name__: item for item in (shorten, listed, url, line, shell, python, quoted, bibtex)}
    return jinja


def as_markdown(value: Any) -> Any:
    """A template's value as markdown that shows it; numbers, and what is markdown already, as they are."""
    # Of an undefined value Jinja makes nothing, or an error.
    if isinstance(value, Markup | int | float | Undefined):
        return value
    return Markup(cell(cut(str(value), TEXT)))


def cell(text: Any) -> str:
    """Text for a markdown table cell: every character that markdown or HTML would act on becomes an entity."""
    text = INVISIBLE.sub(REPLACEMENT, str(text))
    escaped = MARKDOWN.sub(lambda match: f"&#{ord(match[0])};", html.escape(text, quote=False))
    return "<br>".join(ADDRESS.sub("&#64;<!-- -->", escaped).splitlines()) or "—"


def cut(text: str, characters: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= characters else text[:characters].rstrip() + " …"


def shorten(text: str) -> str:
    """A text from the data as it is shown."""
    return cut(text, SAMPLE_CHARACTERS)


def listed(values: Any) -> str:
    """The values of a list with commas between them; anything else as it is."""
    return ", ".join(map(str, values)) if isinstance(values, list) else str(values)


def url(text: str) -> Markup:
    """A part of a link's path; slashes stay."""
    return Markup(quote(cut(text, SAMPLE_CHARACTERS), safe="/", errors="replace"))


def plain(text: str) -> str:
    """One line of visible characters, for metadata and code fences: it can end no fence and open no comment."""
    one = " ".join(INVISIBLE.sub(REPLACEMENT, cut(str(text), SAMPLE_CHARACTERS)).split())
    return one.replace("`", "'").replace("<!--", "<! --")


def line(text: str) -> Markup:
    """Text for one line inside a code fence."""
    return Markup(plain(text))


def shell(text: str) -> Markup:
    """A word of a shell command inside a code fence."""
    return Markup(shlex.quote(plain(text)))


def python(text: str) -> Markup:
    """A Python string inside a code fence; `repr` leaves it one line of visible characters.

    Which characters can be seen differs between versions of Python. Those younger than Unicode 3.2, which each has, are
    written by their numbers, so that each renders the same card.
    """
    literal = repr(text).replace("<!--", "\\x3c!--")
    return Markup("".join(c if unicodedata.ucd_3_2_0.category(c) != "Cn" else ascii(c)[1:-1] for c in literal))


def quoted(text: str) -> Markup:
    """A Python string in double quotes, as ids are written, inside a code fence."""
    return Markup(json.dumps(plain(text), ensure_ascii=False))


def bibtex(text: str) -> Markup:
    """A value of a BibTeX field inside a code fence."""
    return Markup(re.sub(r"[{}\\%#&$_^~\"]", " ", plain(text)).strip())
