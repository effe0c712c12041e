"""How many bytes of large files a namespace may keep, in ``ROOT/quotas.json``; who is not in there has no limit.

As on the real Hub, private and public storage are counted apart (the same limit holds here for each), every version in
a repository's history counts until the repository is deleted, and what is above is refused with 403. The sentences are
the Hub's (huggingface_hub#3049 and #3366). Reports name the commit and the LFS batch as what was refused, so a client
of Xet uploads before it learns; some have 400 instead of 403 at the commit. Assumed: that regular files do not count,
and that content in two repositories counts twice.
"""

from __future__ import annotations

from pathlib import Path

from . import durable, history
from .errors import HubError
from .store import FOLDERS, Repository, Store, split_id

PRIVATE = "Private repository storage limit reached, please upgrade your plan to increase your private storage limit"
PUBLIC = (
    "Your storage patterns tripped our internal systems! Please contact us at website@huggingface.co so we can verify "
    "your account and unlock more storage for your use-case."
)


def set_limit(root: Path, namespace: str, limit: int | None) -> None:
    """Limit a namespace's private and public storage to ``limit`` bytes each; None lifts the limit."""
    with durable.locked(root / "quotas.lock"):
        limits = durable.read_json(root / "quotas.json", {})
        durable.write_json(root / "quotas.json", {**limits, namespace: limit})


def _sizes(repository: Repository) -> dict[str, int]:
    # Every large file that a branch, tag or pull request can lead to: sha256 to size in bytes.
    git, sizes, seen = repository.git, {}, set()
    for sha in git.refs.as_dict().values():
        for commit in history.commits(git, history.peel(git, sha)):
            if commit.id in seen:
                break
            seen.add(commit.id)
            for blob in history.files(git, commit.id.decode()).values():
                info = history.file_info(git, blob)
                if info.sha256:
                    sizes[info.sha256] = info.size
    return sizes


def check(store: Store, repository: Repository, added: dict[str, int]) -> None:
    """Raise 403 where large files (sha256 to size in bytes) would take the repository's namespace over its limit."""
    namespace = split_id(repository.id)[0]
    limit = durable.read_json(store.root / "quotas.json", {}).get(namespace)
    new = added.keys() - _sizes(repository).keys() if limit is not None else ()
    if not new:
        return
    private = repository.facts["private"]
    used = sum(
        sum(_sizes(other).values())
        for kind in FOLDERS
        for other in store.all(kind)
        if split_id(other.id)[0] == namespace and other.facts["private"] == private
    )
    if used + sum(added[sha256] for sha256 in new) > limit:
        raise HubError(403, PRIVATE if private else PUBLIC)
