"""A published release, downloaded at a pinned commit and held against the hashes that its record states."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.hf_api import RepoFile

from record.adapter_config import check_adapter_config
from record.errors import Damaged, UserError, xet_errors
from record.hashes import sha256_file, sha256_published
from record.published_recipe import refused_key
from record.release_files import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    HUB_WRITTEN,
    PREDICTIONS_FILE,
    RECORD_FILE,
    SIGNATURE_FILE,
    largest_size,
    may_lie_beside,
)
from record.run_record import Pin, Record, load_record

# The files that transformers loads.
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
# Bytes of an adapter file before its numbers of 4 bytes each: the names and shapes of its tensors.
ADAPTER_HEADER = 16 * 2**20


@dataclass(frozen=True)
class Published:
    """What was downloaded of a release.

    `name` is its `owner/name@commit`, `folder` holds its files, `differing` names those of the wanted files that are
    missing or whose bytes differ from the record.
    """

    name: str
    folder: Path
    record: Record
    differing: list[str]

    def require_whole(self) -> "Published":
        """The release itself.

        Raises:
            `UserError`: files are missing or differ.
        """
        if self.differing and self.record.evaluated is not None:
            raise UserError(f"{self.name} is evaluation-only: it holds scores of {self.record.evaluated.source.id}, no "
                            "weights: name that")  # fmt: skip
        if self.differing:
            raise UserError(f"{self.name} is damaged: {', '.join(self.differing)} differ from its record")
        return self


def pull_parent(parent: Pin) -> Published:
    """The parent adapter's files and its record, at its pinned commit.

    Raises:
        `UserError`: it holds no run record with scores, other files than its record names, an adapter that is of
            another base model or asks PEFT for what no adapter of this project does, or its rows are not on the Hub.
    """
    published = pull(parent.id, parent.revision, [ADAPTER_CONFIG_FILE, ADAPTER_FILE, PREDICTIONS_FILE]).require_whole()
    if published.record.contract is None or published.record.scores is None:
        raise UserError(f"{published.name} is not scored: an adapter continues only one that is")
    refuse_own_rows(published)
    check_adapter_config(published.folder, published.record.pins.base_model)
    return published


def refuse_own_rows(published: Published) -> None:
    """Refuses to continue an adapter whose rows are no dataset: which rows the chain has seen could not be told.

    Raises:
        `UserError`: it is one.
    """
    if published.record.pins.file is not None:
        raise UserError(
            f"{published.name} was trained on rows that only its publisher has, so nobody can say which rows it has "
            "seen: continue one whose rows are on the Hub"
        )


def pull(repo_id: str, revision: str, names: list[str] | None = None, cache: Path | None = None) -> Published:
    """Downloads a published run at the commit `revision` and hashes its files.

    The Hub's clients check a download's size, never its bytes. Nothing that the record does not list is downloaded, and
    nothing that is larger than such a file may be.

    Parameters:
        names: the files to take; all that the record lists unless given.
        cache: folder for the downloads; the Hub's usual cache unless given.

    Raises:
        `UserError`: the repository holds no run record, one whose recipe is not trained here, or too large a file.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    name = f"{repo_id}@{revision}"
    if constants.HF_HUB_OFFLINE:
        folder = Path(hf_hub_download(repo_id, RECORD_FILE, revision=revision, cache_dir=cache)).parent
        record = _load(repo_id, folder)
        paths = list(record.files) if names is None else names
        return Published(name, folder, record, _differing(folder, record, paths))
    entries = entries_of(repo_id, [RECORD_FILE], revision)
    if RECORD_FILE not in entries:
        raise UserError(
            f"{repo_id} holds no {RECORD_FILE}: it was not published by this project, nothing can be checked"
        )
    refuse_large(repo_id, entries)
    folder = fetch(repo_id, entries[RECORD_FILE], revision, cache).parent
    record = _load(repo_id, folder)
    paths = list(record.files) if names is None else names
    entries = {path: one for path, one in entries_of(repo_id, paths, revision).items() if path in record.files}
    refuse_large(repo_id, entries, record)
    for entry in entries.values():
        fetch(repo_id, entry, revision, cache)
    return Published(name, folder, record, _differing(folder, record, paths))


def fetch(repo_id: str, entry: RepoFile, revision: str, cache: Path | None = None, kind: str = "model") -> Path:
    """Downloads one file of a repository and holds its bytes against the hash that the Hub states.

    Parameters:
        entry: the file as `HfApi.get_paths_info` describes it.

    Raises:
        `Damaged`: other bytes of the same size arrived, which the clients do not notice. They are removed from the
            cache.
    """
    with xet_errors():
        path = Path(hf_hub_download(repo_id, entry.path, repo_type=kind, revision=revision, cache_dir=cache))
    # The size first: the cache is made of links, and where one was turned to a device, reading would not end.
    if not path.is_file() or path.stat().st_size != entry.size:
        same = False
    elif entry.lfs is None:
        # Git's name of a file: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        same = hashlib.sha1(b"blob %d\0" % entry.size + path.read_bytes()).hexdigest() == entry.blob_id
    else:
        same = sha256_file(path) == entry.lfs.sha256
    if not same:
        target = path.resolve()
        path.unlink()
        # Nothing outside of the cache is removed.
        if target.is_relative_to(Path(cache or constants.HF_HUB_CACHE).resolve()):
            target.unlink(missing_ok=True)
        raise Damaged(f"{entry.path} of {repo_id} arrived damaged: run the command again")
    return path


def download(repo_id: str, name: str, revision: str) -> Path:
    """Downloads one small file of a model repository, no larger than `largest_size` lets such a file be.

    Raises:
        `UserError`: it is larger.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    if not isinstance(try_to_load_from_cache(repo_id, name, revision=revision), str):
        # That it is not there is for the download to tell.
        refuse_large(repo_id, entries_of(repo_id, [name], revision))
    return Path(hf_hub_download(repo_id, name, revision=revision))


def _load(repo_id: str, folder: Path) -> Record:
    record = load_record(folder)
    if refusal := refused_key(record.recipe):
        raise UserError(f"the recipe in the {RECORD_FILE} of {repo_id} is not trained here: {refusal}")
    return record


def entries_of(repo_id: str, names: list[str], revision: str, kind: str = "model") -> dict[str, RepoFile]:
    """Those of the files that the repository holds, with the sizes and hashes that the Hub states, by path.

    A folder may bear a file's name.
    """
    api, entries = HfApi(), []
    # The Hub takes a thousand paths at once.
    for start in range(0, len(names), 1_000):
        entries += api.get_paths_info(repo_id, names[start : start + 1_000], revision=revision, repo_type=kind)
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _largest(path: str, record: Record | None) -> int:
    """How many bytes a published file may have."""
    if path == ADAPTER_FILE and record is not None:
        return min(4 * record.model.trainable + ADAPTER_HEADER, largest_size(path))
    return largest_size(path)


def refuse_large(repo_id: str, entries: dict[str, RepoFile], record: Record | None = None) -> None:
    """Refuses files of which one is larger than such a file of a release may be.

    Raises:
        `UserError`: names it and both sizes.
    """
    for path, entry in entries.items():
        if (size := entry.size) > (most := _largest(path, record)):
            raise UserError(f"the {path} of {repo_id} has {size:,} bytes, more than {most:,}: it is not downloaded")


def refuse_large_weights(base: Pin, parameters: int) -> None:
    """Refuses a base model with more bytes of weights than so many numbers of the widest type have.

    Raises:
        `UserError`: names both sizes.
    """
    if constants.HF_HUB_OFFLINE:
        return
    entries = HfApi().list_repo_tree(base.id, revision=base.revision)
    size = sum(entry.size for entry in entries if isinstance(entry, RepoFile) and WEIGHTS.fullmatch(entry.path))
    if size > (most := 8 * parameters + ADAPTER_HEADER):
        raise UserError(
            f"the weights of {base.id} have {size:,} bytes, more than the {most:,} that {parameters:,} parameters "
            "take: they are not downloaded"
        )


def unlisted(repo_id: str, revision: str, record: Record) -> tuple[list[str], list[str]]:
    """Files of a published commit that its record does not list, sorted.

    Offline nothing is known of them, and there are none.

    Returns:
        Those that who loads the repository may run or read, and those that the Hub and its community added
        (`record.release_files.may_lie_beside`).
    """
    if constants.HF_HUB_OFFLINE:
        return [], []
    there = HfApi().list_repo_files(repo_id, revision=revision)
    others = sorted(set(there) - {*record.files, RECORD_FILE, SIGNATURE_FILE})
    return (
        [name for name in others if not may_lie_beside(name)],
        [name for name in others if may_lie_beside(name) and name not in HUB_WRITTEN],
    )


def _differing(folder: Path, record: Record, names: list[str]) -> list[str]:
    return sorted(
        name
        for name in names
        if name not in record.files
        or not (folder / name).is_file()
        or (folder / name).stat().st_size > _largest(name, record)
        or sha256_published(folder / name) != record.files[name]
    )
