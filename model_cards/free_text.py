"""What people write on a card between its free marks, and what it may do to what was measured: nothing."""

import re
import unicodedata

from model_cards.rendered import HEADINGS, Leaf, Page, body_of, read
from record.errors import UserError
from record.hashes import FREE_SECTION

# Of the card's own headings these may stand in a free text too: nothing that was measured stands under them.
HARMLESS = {"intended use", "limits", "citation"}
PLACE = "the place of the free text"
CODE = ("code", "pre")
# As the card comes: no more than hints to its writer.
COMMENTS = re.compile(r"\s*(?:<!--(?:(?!-->).)*-->\s*)*", re.DOTALL)
# Elements, and styles of one, that reach beyond where they stand.
REACHING = {"style", "script", "link", "base"}
REACHING_STYLE = re.compile(r"style=.*(?:position|transform|z-index|float|margin[^;]*-\d)", re.IGNORECASE)


def free_texts(card: str) -> dict[str, str]:
    """What stands between the marks of a card, by the section's name."""
    return {match[2]: match[3] for match in FREE_SECTION.finditer(card)}


def without_free_texts(card: str, keep: str | None = None, text: str = "") -> str:
    """The card with its free sections empty, but for `text` in the one named `keep`."""
    return FREE_SECTION.sub(lambda match: match[1] + (text if match[2] == keep else "") + match[4], card)


def hidden_by_free_text(card: str) -> str | None:
    """Which free section changes how the rest of the card is shown, and by what, in one line; None if none does.

    The card is rendered with each text and without it: all around it must be the same, and stand in the same elements.
    """
    body = body_of(card)
    for name, text in free_texts(body).items():
        if COMMENTS.fullmatch(text):
            continue
        try:
            empty = read(without_free_texts(body, name, f"\n\n{PLACE}\n\n"))
            filled = read(without_free_texts(body, name, text))
        except UserError as error:
            return f"the free section `{name}` cannot be read: {error}"
        if effect := _effect(empty, filled, text):
            return f"the free section `{name}` {effect}"
    return None


def _effect(empty: Page, filled: Page, text: str) -> str | None:
    """What a free text does to the page around it; `empty` has `PLACE` in its stead."""
    around, whole = _seen(empty), _seen(filled)
    places = [number for number, leaf in enumerate(around) if leaf.text.strip() == PLACE]
    if len(places) != 1:
        return "stands where it is not shown"
    before, after = around[: places[0]], around[places[0] + 1 :]
    own = whole[len(before) : len(whole) - len(after)]
    if before + own + after != whole:
        return f"opens {_opened(text)}: what stands outside of it is no longer shown as it was rendered"
    prose = "".join(leaf.text for leaf in own if not any(element.startswith(CODE) for element in leaf.path))
    if prose.count("$$") % 2:
        return "opens a formula ($$): what stands after it is no longer shown as it was rendered"
    elements = {element for leaf in own for element in leaf.path}
    if reaching := next((e for e in elements if e.partition(" ")[0] in REACHING or REACHING_STYLE.search(e)), None):
        return f"holds <{reaching}>, which reaches beyond it"
    own_blocks = filled.blocks.copy()
    for block in empty.blocks:
        if block in own_blocks:
            own_blocks.remove(block)
    ours = {_plain(block.text) for block in empty.blocks if block.element in HEADINGS} - HARMLESS
    for block in own_blocks:
        if block.element in HEADINGS and (_plain(block.text) in ours or _plain(block.text).startswith("results")):
            return f"has the heading {block.text[:80]!r}, as a rendered part has"
    return None


def _seen(page: Page) -> list[Leaf]:
    """Its texts and empty elements, without the blanks between blocks."""
    return [leaf for leaf in page.leaves if leaf.text.strip() or not leaf.text]


def _opened(text: str) -> str:
    """What a free text leaves open, in words."""
    after = next((leaf for leaf in read(f"{text}<!-- /free -->\n\n{PLACE}\n").leaves if PLACE in leaf.text), None)
    if after is None:
        return "a comment or an element that is not shown"
    element = after.path[0] if after.path else "p"
    if element == "p":
        return "a tag or a link's definition"
    return "a code block" if element == "pre" else f"<{element.strip('=')}>"


def _plain(heading: str) -> str:
    return " ".join(re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", heading).casefold()).split())
