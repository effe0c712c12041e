"""The adapter's repository on the Hub: what stands there, the one commit, the pull request, the tag, the collection.

Every function may be called again after any failure, its own lost reply included: it looks first, and does what is
missing.
"""

import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    build_hf_headers,
    disable_progress_bars,
    enable_progress_bars,
    paginate,
    parse_datetime,
)

from hub.release import entries_of, fetch, pull, unlisted
from push.release import tree
from record.errors import UserError, xet_errors
from record.release_files import CARD_FILE, RECORD_FILE, SIGNATURE_FILE, may_lie_beside
from record.run_record import Record

# Bytes that are sent in a moment.
SMALL = 10_000_000


@dataclass(frozen=True)
class Target:
    """Where a folder goes: the branch `revision` of `repo_id`, a "model" or "space", or a pull request to it."""

    repo_id: str
    revision: str = "main"
    private: bool = False
    pull_request: bool = False
    kind: str = "model"


@dataclass(frozen=True)
class RemoteState:
    """What stands on the branch: its newest commit ("" without repository), files, card, and the release's record.

    `edited` says that the card was changed outside its free sections, `marker` is the file that a release has, `stale`
    are the files of the release that stands there: the only ones that a new release may remove.
    """

    head: str = ""
    files: frozenset[str] = frozenset()
    card: str | None = None
    record: Record | None = None
    edited: bool = False
    marker: str = RECORD_FILE
    stale: frozenset[str] = frozenset()

    @property
    def release(self) -> bytes | None:
        """What tells one release from another."""
        return None if self.record is None else self.record.to_bytes()


def refuse_public(target: Target, private: bool | None) -> None:
    """Refuses a public repository where a private one was asked for."""
    if target.private and not private:
        raise UserError(f"{target.repo_id} exists and is public: make it private in its settings, or leave out PRIVATE")


def look(api: HfApi, target: Target) -> RemoteState:
    """Reads what stands on the branch now.

    Raises:
        `UserError`: it is something else than a release of this project, or something besides; or it is public.
    """
    try:
        info = api.model_info(target.repo_id, revision=target.revision)
    except RevisionNotFoundError:
        # A new branch starts as `main`.
        return replace(look(api, replace(target, revision="main")), head="")
    except RepositoryNotFoundError:
        return RemoteState()
    refuse_public(target, info.private)
    head = info.sha or ""
    files = frozenset(sibling.rfilename for sibling in info.siblings or [])
    if RECORD_FILE in files:
        with tempfile.TemporaryDirectory() as cache:
            published = pull(target.repo_id, head, names=[CARD_FILE], cache=Path(cache))
            path = published.folder / CARD_FILE
            card = path.read_text(encoding="utf-8") if path.is_file() else None
        strange, _ = unlisted(target.repo_id, head, published.record)
        if strange:
            raise UserError(
                f"{target.repo_id} holds {', '.join(strange)} next to its release, which checks call drift: remove it "
                "there"
            )
        stale = files & {*published.record.files, SIGNATURE_FILE}
        return RemoteState(head, files, card, published.record, edited=bool(published.differing), stale=stale)
    if not all(map(may_lie_beside, files)):
        raise UserError(f"{target.repo_id} exists and holds other things than a release: set another `adapter_name`")
    if CARD_FILE in files:
        card = read(target.repo_id, head, CARD_FILE).decode()
        return RemoteState(head, files, card, edited=True)
    return RemoteState(head, files)


def holds(api: HfApi, repo_id: str, revision: str, folder: Path, kind: str = "model") -> bool:
    """Whether a revision holds exactly the folder, every file by the hash that the Hub states.

    What the Hub and its community add may lie next to it, in a Space any other file.
    """
    checks = api.verify_repo_checksums(repo_id, repo_type=kind, revision=revision, local_dir=folder)
    others = [path for path in checks.missing_paths if not may_lie_beside(path)]
    return not (checks.mismatches or checks.extra_paths or (others and kind != "space"))


def create(api: HfApi, target: Target) -> None:
    """Makes the repository and the branch where they are missing.

    Raises:
        `UserError`: the name is taken by a repository that the token may not see.
    """
    if os.environ.get("HF_OIDC_RESOURCE"):
        raise UserError(f"a Trusted Publisher's token cannot make {target.repo_id}: publish once with a user's token")
    sdk = "gradio" if target.kind == "space" else None
    api.create_repo(target.repo_id, repo_type=target.kind, space_sdk=sdk, exist_ok=True, private=target.private or None)
    if target.revision != "main":
        api.create_branch(target.repo_id, branch=target.revision, exist_ok=True)
    try:
        api.repo_info(target.repo_id, repo_type=target.kind, revision=target.revision)
    except RepositoryNotFoundError:
        raise UserError(
            f"the name {target.repo_id} is taken by a repository that your token may not see: choose "
            "another name, or use a token that may"
        ) from None


def commit(api: HfApi, target: Target, parent: str, stale: frozenset[str], folder: Path, message: str) -> CommitInfo:
    """Puts the folder into the repository: one commit on top of `parent`, or one pull request.

    Returns:
        The client's `CommitInfo`.

    Raises:
        `huggingface_hub.errors.HfHubHTTPError`: with status 412, the branch has moved on from `parent`.
    """
    # The client asks whether a dataset was meant: the predictions lie next to the adapter on purpose.
    warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
    paths = tree(folder)
    with xet_errors(), _few_bars(sum((folder / path).stat().st_size for path in paths)):
        return api.create_commit(
            target.repo_id,
            operations=[
                *(CommitOperationAdd(path, folder / path) for path in paths),
                *(CommitOperationDelete(path) for path in sorted(stale - set(paths))),
            ],
            repo_type=target.kind,
            commit_message=message,
            revision=target.revision,
            parent_commit=parent,
            create_pr=target.pull_request,
        )


def open_proposal(api: HfApi, repo_id: str, release: Path) -> int | None:
    """The number of an open pull request that holds exactly the release; None where there is none."""
    for discussion in api.get_repo_discussions(repo_id, discussion_type="pull_request", discussion_status="open"):
        if holds(api, repo_id, discussion.git_reference or f"refs/pr/{discussion.num}", release):
            return discussion.num
    return None


def author(api: HfApi, repo_id: str, revision: str) -> tuple[str, str]:
    """Who made the commit `revision`, and when (ISO 8601)."""
    # `list_repo_commits` reads the whole history, page by page; the newest stands first.
    address = f"{api.endpoint}/api/models/{repo_id}/commits/{quote(revision, safe='')}"
    newest = next(iter(paginate(address, params={}, headers=build_hf_headers(token=api.token))))
    when = parse_datetime(newest["date"]).isoformat(timespec="seconds")
    return ", ".join(person["user"] for person in newest["authors"]), when


def publisher(api: HfApi, repo_id: str, revision: str, marker: str = RECORD_FILE) -> tuple[str, str]:
    """As `author`, of the commit that brought the release which stands in `revision`.

    The Hub may not say which that was; then the history is searched.
    """
    (entry,) = api.get_paths_info(repo_id, [marker], revision=revision, expand=True)
    if entry.last_commit is not None:
        return author(api, repo_id, entry.last_commit.oid)
    brought, blob = revision, _blob(repo_id, revision, marker)
    for commit in api.list_repo_commits(repo_id, revision=revision):
        if _blob(repo_id, commit.commit_id, marker) != blob:
            break
        brought = commit.commit_id
    return author(api, repo_id, brought)


def me(api: HfApi) -> str | None:
    """The name of the user whose token is used; None for a Trusted Publisher's, which is a repository's."""
    return None if os.environ.get("HF_OIDC_RESOURCE") else str(api.whoami(cache=True)["name"])


def read(repo_id: str, revision: str, path: str) -> bytes:
    """The bytes of one file."""
    entry = entries_of(repo_id, [path], revision)[path]
    with tempfile.TemporaryDirectory() as cache:
        return fetch(repo_id, entry, revision, Path(cache)).read_bytes()


def tag(api: HfApi, repo_id: str, commit: str) -> str:
    """The version (`v1`, `v2`, …) of the release in `commit`; a new one where it has none.

    A commit that only edits the card's free sections is of the same version.
    """
    versions = {
        int(ref.name[1:]): ref.target_commit
        for ref in api.list_repo_refs(repo_id).tags
        if re.fullmatch(r"v[1-9]\d{0,5}", ref.name)
    }
    newest = max(versions, default=0)
    if newest and _blob(repo_id, versions[newest], RECORD_FILE) == _blob(repo_id, commit, RECORD_FILE):
        return f"v{newest}"
    try:
        api.create_tag(repo_id, tag=f"v{newest + 1}", revision=commit)
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        # Somebody was faster, or it was us and the reply was lost.
        return tag(api, repo_id, commit)
    return f"v{newest + 1}"


def _blob(repo_id: str, commit: str, path: str) -> str | None:
    entries = entries_of(repo_id, [path], commit)
    return entries[path].blob_id if entries else None


def collect(api: HfApi, owner: str, title: str, notes: dict[str, str], private: bool) -> str:
    """Puts adapters into the owner's collection of that title, which is made where there is none.

    Parameters:
        notes: a line about each adapter by its repository's id, in the collection's order.

    Returns:
        The collection's address.
    """
    collection = api.create_collection(title, namespace=owner, private=private, exists_ok=True)
    for repo_id, note in notes.items():
        api.add_collection_item(collection.slug, repo_id, item_type="model", note=note, exists_ok=True)
    return collection.url


@contextmanager
def _few_bars(size: int) -> Iterator[None]:
    """The client shows a bar a file: none where all files together are `SMALL`."""
    hide = size <= SMALL and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()
