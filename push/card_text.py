"""One line more on a published card, in a section that people write."""

from collections.abc import Callable

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from hub.pins import pin
from hub.retry import bounded_silence, retry, time_limit
from push import repository
from push.one_commit import MOVES, moved_on
from record.errors import UserError
from record.hashes import FREE_SECTION
from record.release_files import CARD_FILE

MINUTES = 60


def add_line(repo_id: str, section: str, line: str, message: str) -> None:
    """Adds a line to a free section of a published card, once; what is published of it besides stays as it is.

    Raises:
        `UserError`: as `edit_section`.
    """

    def edit(text: str) -> str:
        return text if line in text.splitlines() else f"{text.rstrip()}\n\n{line}\n"

    edit_section(repo_id, section, edit, message, f"write into it by hand: {line}")


def edit_section(repo_id: str, section: str, edit: Callable[[str], str], message: str, cure: str) -> bool:
    """Puts what `edit` makes of it in place of a free section of a published card.

    Whoever renders the card again keeps free sections, and no hash covers them.

    Parameters:
        message: of the commit.
        cure: what to do where the card has no such section.

    Returns:
        Whether the section is another one now.

    Raises:
        `UserError`: the card has no such section, or somebody else changes it all the time.
    """
    api, changed = HfApi(), False

    def step() -> bool:
        nonlocal changed
        head = pin("model", repo_id, "main").revision
        card = repository.read(repo_id, head, CARD_FILE).decode()
        if section not in {match[2] for match in FREE_SECTION.finditer(card)}:
            raise UserError(f"the card of {repo_id} has no free section {section!r}: {cure}")
        edited = with_section(card, section, edit)
        if edited == card:
            return True
        operation = CommitOperationAdd(CARD_FILE, edited.encode())
        try:
            api.create_commit(repo_id, [operation], commit_message=message, parent_commit=head)
        except HfHubHTTPError as error:
            if not moved_on(error):
                raise
            return False
        changed = True
        return True

    with bounded_silence(), time_limit(MINUTES):
        if not any(retry(f"editing the card of {repo_id}", step) for _ in range(MOVES)):
            raise UserError(f"{repo_id} changed {MOVES} times while its card was edited: run the command again")
    return changed


def with_section(card: str, section: str, edit: Callable[[str], str]) -> str:
    """A card with what `edit` makes of one of its free sections."""
    return FREE_SECTION.sub(
        lambda match: f"{match[1]}{edit(match[3])}{match[4]}" if match[2] == section else match[0], card
    )
