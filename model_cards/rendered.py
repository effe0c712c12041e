"""The card as its reader sees it: markdown rendered to HTML, and that read as a browser does (WHATWG's HTML)."""

from functools import lru_cache
from typing import NamedTuple

import justhtml
from markdown_it import MarkdownIt

from record.errors import UserError

HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
# Each has a text of its own: a row of a table is one, its cells are kept apart.
BLOCKS = HEADINGS | {"p", "li", "tr", "pre", "summary", "blockquote", "dt", "dd", "div", "details"}
# Deeper than any card that people write; each level costs the memory of its path.
DEEPEST = 100
CELLS = {"td", "th"}


class Leaf(NamedTuple):
    """A text, or an element without content, and the elements with their attributes that it stands in."""

    path: tuple[str, ...]
    text: str


class Block(NamedTuple):
    """A heading, paragraph, row or the like: its element, its text without needless blanks, and its cells if a row."""

    element: str
    text: str
    cells: tuple[str, ...] = ()


class Page(NamedTuple):
    """What a card renders to: all texts, its blocks, its links' and pictures' addresses, its elements."""

    leaves: list[Leaf]
    blocks: list[Block]
    links: list[str]
    pictures: list[str]
    elements: set[str]


def body_of(card: str) -> str:
    """The card without its front matter."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    match = REGEX_YAML_BLOCK.search(card)
    return card[match.end() :] if match else card


# A check reads the same card for several questions.
@lru_cache(maxsize=4)
def read(markdown: str) -> Page:
    """The page of a card's markdown, with HTML as it stands, as GitHub and the Hub read it before they clean it.

    Raises:
        `UserError`: its elements are nested without end.
    """
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)
    page = Page([], [], [], [], set())
    # A block's text is gathered until the next block begins or ends; the tree may be as deep as a stranger likes.
    gathered: list[str] = []
    cells: list[str] = []
    stack: list[tuple[justhtml.Node, tuple[str, ...], bool]] = [
        (justhtml.JustHTML(html, fragment=True, sanitize=False).root, (), False)
    ]
    while stack:
        node, path, closing = stack.pop()
        if closing:
            _end(node.name, path, gathered, cells, page)
            continue
        if node.name == "#text":
            page.leaves.append(Leaf(path, str(node.data)))
            gathered.append(str(node.data))
        elif not node.name.startswith("#"):
            if len(path) == DEEPEST:
                raise UserError(f"the card nests its elements more than {DEEPEST} deep")
            path = _enter(node, path, gathered, page)
            stack.append((node, path, True))
        stack += [(child, path, False) for child in reversed(node.children or [])]
    _flush("", gathered, page)
    return page


def _enter(node: justhtml.Node, path: tuple[str, ...], gathered: list[str], page: Page) -> tuple[str, ...]:
    """The path inside an element, whose attributes are noted."""
    attributes = {name: str(value or "") for name, value in (node.attrs or {}).items()}
    element = " ".join([node.name, *(f"{name}={value}" for name, value in sorted(attributes.items()))])
    page.elements.add(" ".join([node.name, *sorted(attributes)]))
    if node.name in BLOCKS:
        _flush(path[-1].partition(" ")[0] if path else "", gathered, page)
    page.links.extend(value for name, value in attributes.items() if name == "href")
    page.pictures.extend(value for name, value in attributes.items() if name == "src")
    if not node.children:
        page.leaves.append(Leaf((*path, element), ""))
    gathered.append(attributes.get("alt", "") if node.name == "img" else " " if node.name == "br" else "")
    return (*path, element)


def _end(name: str, path: tuple[str, ...], gathered: list[str], cells: list[str], page: Page) -> None:
    if name in CELLS:
        cells.append(_joined(gathered))
        gathered.clear()
    elif name == "tr":
        gathered.clear()
        page.blocks.append(Block("tr", " | ".join(cells), tuple(cells)))
        cells.clear()
    elif name == "pre":
        page.blocks.extend(Block("pre", line.strip()) for line in "".join(gathered).splitlines() if line.strip())
        gathered.clear()
    elif name in BLOCKS:
        _flush(name, gathered, page)


def _joined(parts: list[str]) -> str:
    return " ".join("".join(parts).split())


def _flush(name: str, gathered: list[str], page: Page) -> None:
    if text := _joined(gathered):
        page.blocks.append(Block(name, text))
    gathered.clear()
