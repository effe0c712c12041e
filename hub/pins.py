"""Pins: which commit a branch, tag or repository of the Hub is now."""

from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, constants, try_to_load_from_cache

from record.errors import UserError, one_line
from record.release_files import RECORD_FILE
from record.run_record import Pin


def pin(kind: Literal["model", "dataset"], repo_id: str, revision: str) -> Pin:
    """Asks the Hub which commit `revision` of a `"model"` or `"dataset"` repository is now.

    Raises:
        `UserError`: the id is a local path.
        `huggingface_hub.errors.HfHubHTTPError`: no such repository or revision, gated, or the Hub cannot be reached.
    """
    if repo_id.count("/") != 1 or repo_id.startswith((".", "/", "~")):
        raise UserError(f"{repo_id!r} is not a Hub id (owner/name): a local path cannot be published or checked")
    api = HfApi()
    info = (api.model_info if kind == "model" else api.dataset_info)(repo_id, revision=revision)
    # What the card states may be anything.
    licence = info.card_data.get("license") if info.card_data else None
    licences = [licence] if isinstance(licence, str) else licence if isinstance(licence, list) else []
    return Pin(
        kind=kind,
        id=repo_id,
        revision=info.sha,
        license=one_line(", ".join(str(name) for name in licences), 300) or None,
        miniature="miniature" in (info.tags or []),
    )


def refuse_local(repo_id: str) -> None:
    """Refuses an id that is a folder here: transformers and datasets would read that instead of the pinned commit.

    Raises:
        `UserError`: there is such a folder.
    """
    if Path(repo_id).exists():
        raise UserError(
            f"the folder {repo_id} has the name of a repository, and would be read instead: work in another folder"
        )


def on_a_branch(pinned: Pin) -> bool:
    """Whether a pinned commit is in the history of `main`, or the tip of another branch or a tag.

    Anybody may open a pull request in a repository, and its commits are then found there, whatever they hold.
    """
    api = HfApi()
    refs = api.list_repo_refs(pinned.id, repo_type=pinned.kind)
    if pinned.revision in {ref.target_commit for ref in (*refs.branches, *refs.converts, *refs.tags)}:
        return True
    commits = api.list_repo_commits(pinned.id, repo_type=pinned.kind)
    return any(commit.commit_id == pinned.revision for commit in commits)


def commit_of(adapter: str, revision: str) -> str:
    """The commit that `revision` of a published adapter is, from the Hub, or from the cache where the Hub is offline.

    Raises:
        as `pin`; `UserError`: the Hub is offline and the cache does not know.
    """
    if not constants.HF_HUB_OFFLINE:
        return pin("model", adapter, revision).revision
    path = try_to_load_from_cache(adapter, RECORD_FILE, revision=revision)
    if not isinstance(path, str):
        raise UserError(f"offline, and the cache does not hold {adapter} at {revision}: check it once online")
    return Path(path).parent.name
