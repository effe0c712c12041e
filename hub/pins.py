"""Pins: which commit a branch, tag or repository of the Hub is now."""

from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.file_download import repo_folder_name

from record.errors import UserError, one_line
from record.release_files import RECORD_FILE
from record.run_record import Pin
from record.whole_file import write_whole


def pin(kind: Literal["model", "dataset"], repo_id: str, revision: str) -> Pin:
    """Asks the Hub which commit `revision` of a `"model"` or `"dataset"` repository is now.

    The Hub knows an id in any case, and under the names that a repository had before: the pin has its own name for it.

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
        id=info.id,
        revision=info.sha,
        license=one_line(", ".join(str(name) for name in licences), 300) or None,
        miniature="miniature" in (info.tags or []),
    )


def note_commit(adapter: str, revision: str, commit: str) -> None:
    """Notes in the Hub's cache which commit a branch or tag is, so that offline its name is enough.

    The file is one of the cache's own (huggingface.co/docs/huggingface_hub/guides/manage-cache). To download a file by
    the name of the branch writes it too, but by then the branch may be another commit, of any size.
    """
    if revision != commit:
        path = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=adapter, repo_type="model"), "refs", revision)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, commit.encode())


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


def same_repository(name: str, pinned: Pin) -> bool:
    """Whether the Hub knows the pinned repository under another name, too: in another case, or from before a move.

    Raises:
        as `pin`; `UserError`: the Hub is offline, and the names differ in more than case.
    """
    if name.casefold() == pinned.id.casefold():
        return True
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"offline, and whether {name} and {pinned.id} are the same repository is not known: try online")
    return name_on_hub(pinned.kind, name) == name_on_hub(pinned.kind, pinned.id)


def name_on_hub(kind: str, repo_id: str) -> str:
    """The Hub's own name for a repository: `repo_id` may have another case, or be from before a move.

    Where there is no such repository, or none that the token may see, it is `repo_id` itself.
    """
    try:
        return HfApi().repo_info(repo_id, repo_type=kind).id
    except (HFValidationError, RepositoryNotFoundError):
        return repo_id


def locate(adapter: str, revision: str) -> tuple[str, str]:
    """The Hub's own name for a published adapter, and the commit that `revision` of it is.

    Both are from the cache where the Hub is offline.

    Raises:
        as `pin`; `UserError`: the Hub is offline and the cache does not know.
    """
    if not constants.HF_HUB_OFFLINE:
        pinned = pin("model", adapter, revision)
        return pinned.id, pinned.revision
    cached = f"models--{adapter.replace('/', '--')}".casefold()
    names = [path.name for path in Path(constants.HF_HUB_CACHE).glob("models--*") if path.name.casefold() == cached]
    for name in ["/".join(folder.split("--")[1:]) for folder in names]:
        path = try_to_load_from_cache(name, RECORD_FILE, revision=revision)
        if isinstance(path, str):
            return name, Path(path).parent.name
    raise UserError(f"offline, and the cache does not hold {adapter} at {revision}: check it once online")
