"""Verdicts by others on the Hub: those beside a release or in a dataset, and those proposed by pull requests."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.hf_api import RepoFile

from hub import dsse
from hub.pins import same_repository
from hub.release import entries_of, fetch, pull
from hub.signing_extra import BadSignature
from record.errors import UserError, one_line
from record.hashes import sha256_file
from record.release_files import RECORD_FILE
from record.run_record import Pin, Record
from record.signers import Identity, Key
from record.vouchers import FOLDER, LARGEST, Voucher, folder_in_dataset, parse_voucher, why_no_voucher

# Files and pull requests that are read: anybody may open as many as he likes.
MOST_FILES, MOST_REQUESTS = 200, 100
# A file that a pull request changes, in git's own form: within the file's text each line begins otherwise.
CHANGED = re.compile(r"^diff --git a/.+ b/(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Release:
    """A published release that verdicts speak of.

    `record_blob` is git's name of its record, `history` says when each commit up to the release's was made.
    """

    adapter: str
    commit: str
    record: Record
    record_sha256: str
    record_blob: str
    history: Mapping[str, datetime]

    @property
    def publisher(self) -> str:
        return self.adapter.partition("/")[0]


@dataclass(frozen=True)
class VoucherFile:
    """The file of a verdict by somebody: the voucher, or why it is refused.

    `pull_request` is the number of the one that proposes it, `unverified` says why its signature was not checked.
    """

    path: str
    voucher: Voucher | None = None
    refusal: str = ""
    pull_request: int | None = None
    unverified: str = ""


@dataclass(frozen=True)
class Wanted:
    """Whose signatures vouchers must have.

    `signers` names by the checker's name who must have signed what he says, `trust_config` describes the Sigstore
    instance that certifies identities; None for the public one.
    """

    signers: Mapping[str, Key | Identity] = field(default_factory=dict)
    trust_config: Path | None = None


def read_release(adapter: str, commit: str) -> Release:
    """What vouchers of a release are held against.

    Raises:
        `UserError`: it is no release.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    published = pull(adapter, commit, names=[])
    history = {one.commit_id: one.created_at for one in HfApi().list_repo_commits(adapter, revision=commit)}
    blob = entries_of(adapter, [RECORD_FILE], commit)[RECORD_FILE].blob_id
    return Release(adapter, commit, published.record, sha256_file(published.folder / RECORD_FILE), blob, history)


def read_vouchers(release: Release, wanted: Wanted = Wanted(), dataset: str | None = None) -> list[VoucherFile]:
    """The files of verdicts that lie beside a release, or in a dataset of verdicts, each judged.

    Parameters:
        wanted: whose signatures they must have.
        dataset: its id; the adapter's own repository unless given.

    Raises:
        `UserError`: a signature cannot be checked as asked.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    place = _place(release, dataset)
    revision = "main" if dataset else release.commit
    entries = _listed(place, revision, release)
    if not entries:
        return []
    commits = HfApi().list_repo_commits(place.id, repo_type=place.kind, revision=revision)
    authors = {one.commit_id: one.authors for one in commits}
    return [
        _judge(release, place, revision, entry, authors.get(entry.last_commit.oid if entry.last_commit else ""), wanted)
        for entry in entries[-MOST_FILES:]
    ] + [
        VoucherFile(entry.path, refusal=f"not read: there are more than {MOST_FILES} verdicts")
        for entry in entries[:-MOST_FILES]
    ]


def read_proposed(release: Release, wanted: Wanted = Wanted(), dataset: str | None = None) -> list[VoucherFile]:
    """The files of verdicts that open pull requests would add; parameters and errors as of `read_vouchers`.

    One whose pull request changes anything else is refused: whoever merges it merges that as well.
    """
    place, api, files = _place(release, dataset), HfApi(), []
    there = {entry.path for entry in _listed(place, "main", release)}
    requests = api.get_repo_discussions(
        place.id, repo_type=place.kind, discussion_type="pull_request", discussion_status="open"
    )
    for request in islice(requests, MOST_REQUESTS):
        revision = f"refs/pr/{request.num}"
        added = [entry for entry in _listed(place, revision, release) if entry.path not in there]
        if not added:
            continue
        diff = api.get_discussion_details(place.id, request.num, repo_type=place.kind).diff
        changed = set(CHANGED.findall(diff)) - {entry.path for entry in added} if diff else {"what is not known"}
        for entry in added:
            file = _judge(release, place, revision, entry, [request.author], wanted)
            if changed:
                told = f"its pull request also changes {', '.join(sorted(changed)[:5])}"
                file = replace(file, voucher=None, refusal=told)
            files.append(replace(file, pull_request=request.num))
    return files


def accepted(files: Iterable[VoucherFile]) -> list[Voucher]:
    """The vouchers among files."""
    return [file.voucher for file in files if file.voucher is not None]


def _place(release: Release, dataset: str | None) -> Pin:
    kind = "dataset" if dataset else "model"
    return Pin(kind=kind, id=dataset or release.adapter, revision=release.commit)


def _listed(place: Pin, revision: str, release: Release) -> list[RepoFile]:
    """The files in the folder of verdicts, the oldest first as their names say."""
    folder = folder_in_dataset(release.adapter) if place.kind == "dataset" else FOLDER
    tree = HfApi().list_repo_tree(place.id, folder, revision=revision, repo_type=place.kind, expand=True)
    try:
        return sorted((entry for entry in tree if isinstance(entry, RepoFile)), key=lambda entry: entry.path[-21:])
    except EntryNotFoundError:
        return []


def _judge(
    release: Release, place: Pin, revision: str, entry: RepoFile, authors: list[str] | None,
    wanted: Wanted,
) -> VoucherFile:  # fmt: skip
    """One file, held against the release.

    Parameters:
        authors: who brought it, where that is known.
    """
    file = VoucherFile(entry.path)
    if entry.size > LARGEST:
        return replace(file, refusal=f"it has {entry.size:,} bytes, more than {LARGEST:,}")
    try:
        voucher = parse_voucher(fetch(place.id, entry, revision, kind=place.kind).read_bytes(), entry.path)
    except ValueError as error:
        return replace(file, refusal=one_line(str(error), 300))
    if refusal := _why_refused(release, voucher, authors):
        return replace(file, refusal=one_line(refusal, 300))
    signer = {name.casefold(): signer for name, signer in wanted.signers.items()}.get(voucher.checker.casefold())
    try:
        if signer is not None or voucher.contents.signer is not None:
            dsse.verify(voucher, signer, wanted.trust_config)
            voucher = replace(voucher, verified=True)
    except BadSignature as error:
        return replace(file, refusal=str(error))
    except UserError as error:
        # Whoever names a signer asks for the check; others may look without the extra of signatures.
        if signer is not None or wanted.trust_config is not None:
            raise
        return replace(file, voucher=voucher, unverified=str(error))
    return replace(file, voucher=voucher)


def _why_refused(release: Release, voucher: Voucher, authors: list[str] | None) -> str | None:
    """Why a voucher says nothing about the release, in one line; None where it speaks of it."""
    verdict, checker, commit = voucher.verdict, voucher.checker, voucher.verdict.revision or "none"
    if authors is not None and checker.casefold() not in {author.casefold() for author in authors}:
        return f"it is said to be {checker}'s, and was brought by {', '.join(authors)}"
    own = Pin(kind="model", id=release.adapter, revision=release.commit)
    if not same_repository(verdict.adapter, own):
        return f"it speaks of {verdict.adapter}, not of {release.adapter}"
    if commit not in release.history:
        return f"it speaks of the commit {commit[:12]}, which is not in the history of {release.adapter}"
    if _record_blob(release.adapter, commit) != release.record_blob:
        return f"it speaks of the commit {commit[:12]}, which holds another record"
    return why_no_voucher(voucher, release.record, release.record_sha256, release.history[commit])


@lru_cache(maxsize=1_000)
def _record_blob(adapter: str, commit: str) -> str | None:
    """Git's name of a commit's record."""
    entries = entries_of(adapter, [RECORD_FILE], commit)
    return entries[RECORD_FILE].blob_id if entries else None
