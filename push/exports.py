"""An export on its way to the Hub: one commit that names its parent, pulled back and checked, and a line on the card of
its adapter."""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hub.release import entries_of, fetch
from hub.retry import bounded_silence, retry, time_limit
from push import repository
from push.delivery import MOVES, refuse_loss
from push.leaks import refuse_traces
from push.release import tree
from push.repository import RemoteState, Target
from record.errors import UserError
from record.hashes import FREE_SECTION, sha256_file
from record.release_files import CARD_FILE, HUB_WRITTEN, TOKENIZER_CONFIG_FILE
from record.run_record import Record

MINUTES = 60
# What a reader's tools could take for somebody's own words; a vocabulary is the base model's.
TEXTS = {CARD_FILE, "config.json", "generation_config.json", TOKENIZER_CONFIG_FILE}


def deliver(
    folder: Path,
    marker: str,
    repo_id: str,
    lay_out: Callable[[str | None], object],
    record: Record,
    private: bool = False,
    overwrite: str | None = None,
) -> tuple[str, str]:
    """Publishes exactly the files of `folder`.

    Parameters:
        marker: the file by which such a repository is known, looked through for traces of this machine like the card.
        lay_out: renders the card into the folder, given the one that stands there now.
        record: the adapter's, whose names are no traces.
        overwrite: as `push.delivery.Options` has it.

    Returns:
        "published" or "unchanged", and the commit.

    Raises:
        `UserError`: the repository holds something else, somebody else's work would be lost, or what came back is not
            what was sent.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    from huggingface_hub import HfApi

    api, target = HfApi(), Target(repo_id, private=private)
    with bounded_silence(), time_limit(MINUTES):
        for _ in range(MOVES):
            there = retry(f"looking at {repo_id}", lambda: _look(api, target, marker))
            lay_out(there.card)
            refuse_traces(folder, sorted({*TEXTS, marker} & set(tree(folder))), folder, record)
            if there.head is None:
                retry(f"creating {repo_id}", lambda: repository.create(api, target))
                continue
            send = partial(_send, api, target, there, folder, overwrite)
            state, commit = retry(f"committing to {repo_id}", send)
            if commit:
                retry(f"checking {repo_id}", partial(_verify, repo_id, commit, folder))
                return state, commit
    raise UserError(f"{repo_id} moved on {MOVES} times while this was under way: try again in a calm hour")


def _look(api, target: Target, marker: str) -> RemoteState:
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.model_info(target.repo_id)
    except RepositoryNotFoundError:
        return RemoteState()
    if target.private and not info.private:
        raise UserError(f"{target.repo_id} exists and is public: make it private in its settings, or leave out PRIVATE")
    files = frozenset(sibling.rfilename for sibling in info.siblings or [])
    if marker not in files and files - HUB_WRITTEN - {CARD_FILE}:
        raise UserError(f"{target.repo_id} exists and holds other things than an export: rename it there")
    card = repository.read(api, target.repo_id, info.sha, CARD_FILE).decode() if CARD_FILE in files else None
    return RemoteState(info.sha, files, card, edited=card is not None and marker not in files, marker=marker)


def _send(api, target: Target, there: RemoteState, folder: Path, overwrite: str | None) -> tuple[str, str]:
    """Sends the folder; the commit is "" where the branch has moved on."""
    from huggingface_hub.errors import HfHubHTTPError

    head = api.model_info(target.repo_id).sha
    if repository.holds(api, target.repo_id, head, folder):
        return "unchanged" if head == there.head else "published", head
    refuse_loss(api, target, there, overwrite)
    print(f"Uploading {len(tree(folder))} files to {target.repo_id} in one commit", flush=True)
    stale = set(there.files) - HUB_WRITTEN if there.marker in there.files else set()
    try:
        return "published", repository.commit(api, target, there.head, stale, folder, f"Publish {folder.name}").oid
    except HfHubHTTPError as error:
        if error.response is None or error.response.status_code != 412:
            raise
        return "", ""


def _verify(repo_id: str, commit: str, folder: Path) -> None:
    """Pulls every file into a fresh cache and compares it with the one that was sent.

    Raises:
        `UserError`: one is missing or differs.
    """
    paths = tree(folder)
    entries = entries_of(repo_id, paths, commit)
    # Beside the export, whose disk has room for such files.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".check-") as cache:
        for path in paths:
            pulled = fetch(repo_id, entries[path], commit, Path(cache)) if path in entries else None
            if pulled is None or sha256_file(pulled) != sha256_file(folder / path):
                raise UserError(f"{repo_id}@{commit} came back with other bytes in {path}: publish it again")


def link(repo_id: str, section: str, line: str) -> None:
    """Adds a line to a free section of a published card, once; what is published of it besides stays as it is.

    Whoever renders the card again keeps free sections, and no hash covers them.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()

    def step() -> bool:
        head = api.model_info(repo_id).sha
        card = repository.read(api, repo_id, head, CARD_FILE).decode()
        if line in card.splitlines():
            return True
        edited = FREE_SECTION.sub(
            lambda match: f"{match[1]}{match[3].rstrip()}\n\n{line}\n{match[4]}" if match[2] == section else match[0],
            card,
        )
        if edited == card:
            print(f"The card of {repo_id} has no free section {section!r}: it names no export", file=sys.stderr)
            return True
        try:
            api.create_commit(
                repo_id, [CommitOperationAdd(CARD_FILE, edited.encode())], commit_message="Name an export",
                parent_commit=head,
            )  # fmt: skip
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code != 412:
                raise
            return False
        return True

    with bounded_silence(), time_limit(MINUTES):
        if not any(retry(f"linking from {repo_id}", step) for _ in range(MOVES)):
            raise UserError(f"{repo_id} moved on {MOVES} times while its card was edited: run the command again")
