"""One line more on a published card, in a section that people write."""

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

    Whoever renders the card again keeps free sections, and no hash covers them.

    Parameters:
        message: of the commit.

    Raises:
        `UserError`: the card has no such section, or somebody else changes it all the time.
    """
    api = HfApi()

    def step() -> bool:
        head = pin("model", repo_id, "main").revision
        card = repository.read(repo_id, head, CARD_FILE).decode()
        if line in card.splitlines():
            return True
        edited = FREE_SECTION.sub(
            lambda match: f"{match[1]}{match[3].rstrip()}\n\n{line}\n{match[4]}" if match[2] == section else match[0],
            card,
        )
        if edited == card:
            raise UserError(f"the card of {repo_id} has no free section {section!r}: write into it by hand: {line}")
        operation = CommitOperationAdd(CARD_FILE, edited.encode())
        try:
            api.create_commit(repo_id, [operation], commit_message=message, parent_commit=head)
        except HfHubHTTPError as error:
            if not moved_on(error):
                raise
            return False
        return True

    with bounded_silence(), time_limit(MINUTES):
        if not any(retry(f"editing the card of {repo_id}", step) for _ in range(MOVES)):
            raise UserError(f"{repo_id} changed {MOVES} times while its card was edited: run the command again")
