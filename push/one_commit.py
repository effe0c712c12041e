"""A folder on its way to the Hub: one commit that names its parent, and is found again where its reply was lost."""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from hub.release import entries_of, fetch
from hub.retry import bounded_silence, retry, time_limit
from push import repository
from push.release import tree
from push.repository import RemoteState, Target
from record.errors import UserError
from record.hashes import sha256_file
from record.release_files import CARD_FILE, may_lie_beside
from record.signs_of_life import silence

# So often the branch may move on under a folder (somebody edits the card) before it is given up.
MOVES = 5
# Beginning of the names of the folders into which files are pulled back.
CHECKED = ".check-"


@dataclass(kw_only=True)
class Progress:
    """How far a folder has come.

    `state` is the word for it, `reached` how far the repository has come: untouched, sent (a commit may have arrived)
    or committed. `pull_request` is a number.
    """

    state: str = "failed"
    reached: str = "untouched"
    commit: str = ""
    pull_request: int | None = None


def send_folder(
    api: HfApi,
    target: Target,
    folder: Path,
    progress: Progress,
    look: Callable[[HfApi, Target], RemoteState],
    lay_out: Callable[[RemoteState], str],
    overwrite: str | None = None,
) -> None:
    """Sends exactly the files of `folder` as one commit, unless the branch holds them already.

    The commit names its parent, so that it fails rather than overwrites when somebody committed in between; then the
    folder is laid out again.

    Parameters:
        progress: filled in on the way, also where this ends with an error.
        look: reads what stands on the branch, and refuses a repository of something else.
        lay_out: writes the folder, given what stands there; returns the commit's message.
        overwrite: the newest commit, where somebody else's work in it may be lost.

    Raises:
        `UserError`: the repository holds something else, or somebody else's work would be lost.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """

    def look_now() -> RemoteState:
        return retry(f"looking at {target.repo_id}", lambda: look(api, target))

    first = there = look_now()
    for _ in range(MOVES):
        message = lay_out(there)
        if not there.head:
            _create(api, target)
            card, there = there.card, look_now()
            if there.card != card:
                continue
        if there.release != first.release:
            who, when = repository.author(api, target.repo_id, there.head)
            raise UserError(
                f"{who} published {target.repo_id}@{there.head[:12]} at {when}, while this was under way: look at it, "
                "then publish again"
            )
        _send(api, target, folder, progress, there, message, overwrite)
        if progress.commit:
            return
        there = look_now()
    raise UserError(f"{target.repo_id} changed {MOVES} times while this was under way: try again later")


def _create(api: HfApi, target: Target) -> None:
    if target.pull_request:
        raise UserError(f"{target.repo_id} has no branch {target.revision} to propose anything to: publish without PR")
    retry(f"creating {target.repo_id}", lambda: repository.create(api, target))


def _send(
    api: HfApi, target: Target, folder: Path, progress: Progress, there: RemoteState, message: str,
    overwrite: str | None,
) -> None:  # fmt: skip
    """Sends the folder; leaves `progress.commit` empty where the branch has moved on."""
    permitted = False

    def step() -> None:
        nonlocal permitted
        if find(api, target, folder, progress):
            return
        if not permitted:
            refuse_overwriting(api, target, there, overwrite)
            permitted = True
        print(f"Uploading {len(tree(folder))} files to {target.repo_id} in one commit", flush=True)
        progress.reached = "sent"
        try:
            info = repository.commit(api, target, there.head, there.stale, folder, message)
        except HfHubHTTPError as error:
            if not moved_on(error):
                raise
            find(api, target, folder, progress)
            return
        progress.commit, progress.pull_request = info.oid, info.pr_num
        progress.state, progress.reached = "proposed" if target.pull_request else "published", "committed"

    retry(f"committing to {target.repo_id}", step)


def moved_on(error: HfHubHTTPError) -> bool:
    """Whether a commit was refused because its parent is no longer the newest one."""
    return error.response is not None and error.response.status_code == 412


def find(api: HfApi, target: Target, folder: Path, progress: Progress) -> bool:
    """Looks whether the folder stands on the branch or in an open pull request, and notes it."""
    was = progress.reached
    head = api.repo_info(target.repo_id, repo_type=target.kind, revision=target.revision).sha or ""
    if repository.holds(api, target.repo_id, head, folder, target.kind):
        progress.commit, progress.reached = head, "committed"
        progress.state = "published" if was == "sent" and not target.pull_request else "unchanged"
        return True
    progress.reached = "untouched"
    if target.pull_request and (number := repository.open_proposal(api, target.repo_id, folder)) is not None:
        progress.commit = api.model_info(target.repo_id, revision=f"refs/pr/{number}").sha or ""
        progress.pull_request, progress.state, progress.reached = number, "proposed", "committed"
        return True
    return False


def refuse_overwriting(api: HfApi, target: Target, there: RemoteState, overwrite: str | None) -> None:
    """Refuses to replace what somebody else published or wrote on the card, unless told to or answered yes."""
    if target.pull_request or (there.record is None and there.card is None):
        return
    me = repository.me(api)
    if there.edited:
        who, when = repository.author(api, target.repo_id, there.head)
        loss = f"the card of {target.repo_id} was written or edited outside its free sections ({who}, {when})"
    else:
        who, when = repository.publisher(api, target.repo_id, there.head, there.marker)
        if me is None or who == me:
            return
        loss = f"the release in {target.repo_id} is somebody else's ({who}, {when})"
    if overwrite and len(overwrite) >= 7 and there.head.startswith(overwrite):
        return
    if sys.stdin.isatty():
        with silence():
            answer = input(f"{loss}. Replace it? [y/N] ")
        if answer.strip().lower() in ("y", "yes"):
            return
    raise UserError(f"{loss}: look at it, then add OVERWRITE={there.head[:12]} (--overwrite) to replace it, or PR=1")


def publish_folder(
    target: Target,
    folder: Path,
    marker: str,
    lay_out: Callable[[str | None], str],
    other: str,
    minutes: float,
    overwrite: str | None = None,
) -> Progress:
    """Publishes exactly the files of `folder`, within so many minutes, and checks every one that comes back.

    Parameters:
        marker: the file by which such a repository is known.
        lay_out: writes the folder, given the card that stands there now; returns the commit's message.
        other: the end of the line that refuses a repository of something else.
        overwrite: as `send_folder` has it.

    Raises:
        `UserError`: as `send_folder`, or what came back is not what was sent.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    api, progress = HfApi(), Progress()
    look = partial(_look, marker=marker, other=other)
    with bounded_silence(), time_limit(minutes):
        send_folder(api, target, folder, progress, look, lambda there: lay_out(there.card), overwrite)
        retry(f"checking {target.repo_id}", lambda: _verify_files(target, progress.commit, folder))
    return progress


def _look(api: HfApi, target: Target, marker: str, other: str) -> RemoteState:
    try:
        info = api.space_info(target.repo_id) if target.kind == "space" else api.model_info(target.repo_id)
    except RepositoryNotFoundError:
        return RemoteState()
    repository.refuse_public(target, info.private)
    head = info.sha or ""
    files = frozenset(sibling.rfilename for sibling in info.siblings or [])
    if marker not in files and not all(map(may_lie_beside, files)):
        raise UserError(f"{target.repo_id} {other}")
    if target.kind == "space":
        # The Hub writes a README.md into a new Space, and nobody's words in a later one are kept.
        return RemoteState(head, files, marker=marker)
    card = repository.read(target.repo_id, head, CARD_FILE).decode() if CARD_FILE in files else None
    stale = frozenset(path for path in files if not may_lie_beside(path)) if marker in files else frozenset()
    edited = card is not None and marker not in files
    return RemoteState(head, files, card, edited=edited, marker=marker, stale=stale)


def _verify_files(target: Target, commit: str, folder: Path) -> None:
    """Pulls every file into a fresh cache and compares it with the one that was sent.

    Raises:
        `UserError`: one is missing or differs.
    """
    paths = tree(folder)
    entries = entries_of(target.repo_id, paths, commit, target.kind)
    # Next to the folder, whose disk has room for such files.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=CHECKED) as cache:
        for path in paths:
            pulled = None
            if path in entries:
                pulled = fetch(target.repo_id, entries[path], commit, Path(cache), target.kind)
            if pulled is None or sha256_file(pulled) != sha256_file(folder / path):
                raise UserError(f"{target.repo_id}@{commit} came back with other bytes in {path}: publish it again")
