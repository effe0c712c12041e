"""Whether a published version was withdrawn, as its adapter's card on the Hub says."""

from huggingface_hub.errors import HfHubHTTPError

from hub.pins import locate
from hub.release import download
from record.errors import UserError
from record.hashes import sha256_file
from record.release_files import CARD_FILE, RECORD_FILE
from record.withdrawals import why_withdrawn


def find_withdrawal(adapter: str, commit: str) -> str | None:
    """Why the release at a commit was withdrawn, as the adapter's card on `main` says; None where it does not.

    Without the Hub only a card that lies in the cache can say so.
    """
    try:
        card = download(adapter, CARD_FILE, locate(adapter, "main")[1]).read_text(encoding="utf-8")
        record = download(adapter, RECORD_FILE, commit)
    # That a file is missing or too large, or the Hub out of reach, is for the other checks to tell.
    except (UserError, HfHubHTTPError, OSError, UnicodeDecodeError):
        return None
    return why_withdrawn(card, sha256_file(record))
