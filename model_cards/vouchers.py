"""What a card shows of the verdicts by others that lie beside its release, in a free section that no hash covers."""

from collections.abc import Iterable
from pathlib import Path

from model_cards.escape import environment
from model_cards.free_text import free_texts
from record.vouchers import SECTION, Voucher, agreement, row_numbers


def render_vouchers(vouchers: Iterable[Voucher], publisher: str) -> str:
    """The text of the section, from vouchers that speak of the release."""
    text = Path(__file__).with_name("vouchers.md.jinja").read_text(encoding="utf-8")
    template = environment().from_string(text)
    body = template.render(agreement=agreement(vouchers, publisher), row_numbers=row_numbers)
    return f"\n{body.strip()}\n"


def section_of(card: str) -> str | None:
    """The section as a card has it; None where it has none."""
    return free_texts(card).get(SECTION)


def states_otherwise(section: str, vouchers: Iterable[Voucher], publisher: str) -> bool:
    """Whether a section is not what the vouchers that it names give: some may have been merged since."""
    named = [voucher for voucher in vouchers if f"({voucher.path})" in section]
    return section.strip() != render_vouchers(named, publisher).strip()
