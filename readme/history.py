"""Every verdict that `claims` has ever seen of an adapter, kept in docs/claims/, and the page that shows them."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from model_cards.html import PAGE_STYLE, render_page, source
from readme.render import Claim, Listed, folder_of, listed, load_claim
from record import strict_json
from record.errors import one_line
from record.field_types import Line, Section, Sha1
from record.run_record import Record, load_record
from record.verdict import Level, Model, Part, Verdict
from record.vouchers import Agreement, Voucher, days_ago, row_numbers
from record.whole_file import write_whole

HISTORY_FILE = "history.json"
# Four years of weekly checks; the oldest go.
MOST = 200
HERE = Path(__file__).parent


class PastVerdict(Section):
    """One verdict about an adapter.

    Parameters:
        checker: the account that vouched for it; empty for the checks of `claims` itself.
        rows: numbers of the rows with other outputs, per model, in words.
    """

    date: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d[\d:.+Z-]{0,20}$")]
    checker: Line = ""
    verdict: Literal["REPRODUCED", "DRIFTED", "UNCHECKED"]
    reason: Line
    level: Level
    sample: int | None = None
    commit: Sha1 | None
    moved: Part | None = None
    device: Line = ""
    rows: dict[Model, Line] = Field(default_factory=dict)
    signed_by: Line = ""

    @property
    def age(self) -> str:
        """How old it is now, in words."""
        return age(self.date)


class History(Section):
    """The verdicts about one adapter, the newest first, and where its present vouchers part, one line each."""

    verdicts: Annotated[list[PastVerdict], Field(max_length=MOST)] = Field(default_factory=list)
    parts: list[Line] = Field(default_factory=list)


def load_history(folder: Path) -> History:
    """The history kept in `folder`; an empty one where none is.

    Raises:
        `UserError`: the file there is none.
    """
    path = folder / HISTORY_FILE
    return strict_json.load(path, History, "a history as `make claims` keeps it") if path.is_file() else History()


def add_to_history(folder: Path, own: Iterable[Verdict], vouched: Agreement) -> None:
    """Adds verdicts to the history in `folder`: those of `claims` itself, and others' that speak of the release.

    Each is kept once, however often it is seen.

    Raises:
        `UserError`: the file there is no history.
    """
    new = [_past(verdict) for verdict in own]
    new += [_past(voucher.verdict, voucher) for voucher in (*vouched.counted, *vouched.own)]
    verdicts = {(verdict.date, verdict.checker): verdict for verdict in [*load_history(folder).verdicts, *new]}
    newest = [verdicts[key] for key in sorted(verdicts, reverse=True)][:MOST]
    parts = [
        one_line(f"{', '.join(names)}: other outputs of the {model} in row {row_numbers(rows)}", 300)
        for model, names, rows in vouched.parts
    ]
    text = History(verdicts=newest, parts=parts).model_dump_json(indent=1, exclude_defaults=True)
    write_whole(folder / HISTORY_FILE, f"{text}\n".encode())


def _past(verdict: Verdict, voucher: Voucher | None = None) -> PastVerdict:
    device = verdict.environment.device if verdict.environment and verdict.level != "score" else ""
    return PastVerdict(
        date=verdict.date,
        checker=voucher.checker if voucher else "",
        verdict=verdict.verdict,
        reason=one_line(verdict.reason, 300),
        level=verdict.level,
        sample=verdict.sample,
        commit=verdict.revision,
        moved=verdict.moved,
        device=one_line(device, 300),
        rows={model: row_numbers(rows) for model, rows in verdict.rows.items() if rows},
        signed_by=one_line(voucher.signature, 300) if voucher else "",
    )


def age(date: str) -> str:
    """How old a verdict of this date is now, in words."""
    then = datetime.fromisoformat(date)
    return days_ago(then if then.tzinfo else then.replace(tzinfo=UTC))


def render_claims(root: Path) -> str:
    """The page over the adapters that the listing in the folder `root` names, as one HTML file that loads nothing."""
    entries: list[tuple[Listed, Claim | None, Record | None, History]] = []
    for entry in listed(root):
        folder = folder_of(root, entry)
        claim = load_claim(folder)
        entries.append((entry, claim, load_record(folder) if claim else None, load_history(folder)))
    values: dict[str, Any] = {"entries": entries, "age": age, "now": f"{datetime.now(UTC):%Y-%m-%d}"}
    return render_page(HERE / "claims.html.jinja", style=source(PAGE_STYLE, HERE / "claims.css"), **values)
