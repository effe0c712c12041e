"""Withdrawn versions, as lines on the adapter's card: which release it was, by its record's hash, and why."""

import html
import re

from record.errors import one_line

# The free section of the card that names them: what stands there survives each publishing.
SECTION = "intended use"
LINE = re.compile(r"^- \*\*Withdrawn\*\*: .+ \(record ([0-9a-f]{64})\): (.+)$", re.MULTILINE)
LONGEST_REASON = 300  # characters


def withdrawal_line(version: str, commit: str, record_sha256: str, why: str) -> str:
    """The line of the card; the reason is text, whatever it looks like in HTML."""
    reason = html.escape(one_line(why, LONGEST_REASON), quote=False)
    return f"- **Withdrawn**: {version}, commit `{commit[:12]}` (record {record_sha256}): {reason}"


def why_withdrawn(card: str, record_sha256: str) -> str | None:
    """Why the card says that the release with this record was withdrawn; None where it does not say so."""
    reasons = [
        one_line(html.unescape(match[2]), LONGEST_REASON) for match in LINE.finditer(card) if match[1] == record_sha256
    ]
    return reasons[-1] if reasons else None
