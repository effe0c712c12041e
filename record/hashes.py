"""The hashes that a record states for published files."""

import hashlib
import re
from pathlib import Path

from record.release_files import CARD_FILE

# What people write on a card between these marks stays when the card is rendered again.
FREE_SECTION = re.compile(r"(<!-- free: ([\w -]+) -->)(.*?)(<!-- /free -->)", re.DOTALL)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_published(path: Path) -> str:
    """Hex sha256 that the record states for a published file.

    In the card (`README.md`) what people wrote between `<!-- free: … -->` and `<!-- /free -->` is left out, so that
    they may edit it after publication.
    """
    if path.name != CARD_FILE:
        return sha256_file(path)
    text = FREE_SECTION.sub(r"\1\4", path.read_text(encoding="utf-8"))
    return hashlib.sha256(text.encode()).hexdigest()
