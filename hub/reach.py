"""What can be reached on the Hub, and what of it is still to be downloaded; nothing is downloaded to find out."""

from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name

from hub.pins import pin
from hub.release import WEIGHTS
from record.errors import UserError
from record.run_record import Pin


def reach(kind: Literal["model", "dataset"], repo_id: str, revision: str) -> Pin:
    """The commit that `revision` is, of a repository whose files may be read.

    Offline it is what the cache holds: the branch, tag or commit if it knows it, else the commit that came last.

    Raises:
        as `hub.pins.pin`, and `huggingface_hub.errors.GatedRepoError`: its files are for those who were let in.
        `UserError`: offline, and the cache holds nothing of it.
    """
    if constants.HF_HUB_OFFLINE:
        return Pin(kind=kind, id=repo_id, revision=_cached_commit(kind, repo_id, revision))
    found = pin(kind, repo_id, revision)
    HfApi().auth_check(found.id, repo_type=kind)
    return found


def _cached_commit(kind: str, repo_id: str, revision: str) -> str:
    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo_id, repo_type=kind))
    if (folder / "snapshots" / revision).is_dir():
        return revision
    if (named := folder / "refs" / revision).is_file():
        return named.read_text().strip()
    commits = sorted((folder / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime)
    if not commits:
        raise UserError(f"offline, and the cache holds nothing of {repo_id}: plan it once online")
    return commits[-1].name


def missing_bytes(pinned: Pin, names: list[str] | None = None) -> int:
    """How many bytes are to be downloaded of a pinned repository: what the cache holds counts as 0.

    Parameters:
        names: the files that are read; of a model, unless given, its weights and what stands in JSON around them.
    """
    if constants.HF_HUB_OFFLINE:
        return 0
    api = HfApi()
    ask = api.model_info if pinned.kind == "model" else api.dataset_info
    info = ask(pinned.id, revision=pinned.revision, files_metadata=True)
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    if names is None:
        names = [name for name in sizes if WEIGHTS.fullmatch(name) or ("/" not in name and name.endswith(".json"))]
    return sum(
        sizes.get(name, 0)
        for name in names
        if not isinstance(try_to_load_from_cache(pinned.id, name, revision=pinned.revision, repo_type=pinned.kind), str)
    )
