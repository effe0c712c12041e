"""Pulls a published run from the Hub and checks that it is what its record says."""

from pathlib import Path

from recipes.errors import UserError
from recipes.record import MAX_RECORD_BYTES, RECORD_FILE, Record, load_record, sha256_published


def pull(repo_id: str, revision: str, cache: Path | None = None) -> tuple[Path, Record, list[str]]:
    """Downloads the record of `repo_id` at the commit `revision` and the files that it lists, and hashes them.

    The Hub's clients check a download's size, never its bytes. Nothing that the record does not list is downloaded.

    Parameters:
        cache: folder for the downloads; the Hub's usual cache unless given.

    Returns:
        The folder with the files; the record; the listed files that are missing or whose bytes differ.

    Raises:
        `UserError`: the repository holds no run record, or one too large.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    from huggingface_hub import HfApi, hf_hub_download

    info = {entry.path: entry.size for entry in HfApi().get_paths_info(repo_id, [RECORD_FILE], revision=revision)}
    if RECORD_FILE not in info:
        raise UserError(
            f"{repo_id} holds no {RECORD_FILE}: it was not published by this project, nothing can be checked"
        )
    if info[RECORD_FILE] > MAX_RECORD_BYTES:
        raise UserError(f"the {RECORD_FILE} of {repo_id} is larger than {MAX_RECORD_BYTES} bytes: it is not read")
    folder = Path(hf_hub_download(repo_id, RECORD_FILE, revision=revision, cache_dir=cache)).parent
    record = load_record(folder)
    there = {entry.path for entry in HfApi().get_paths_info(repo_id, list(record.files), revision=revision)}
    differing = []
    for path, sha256 in record.files.items():
        if path not in there:
            differing.append(path)
            continue
        local = Path(hf_hub_download(repo_id, path, revision=revision, cache_dir=cache))
        if sha256_published(local) != sha256:
            differing.append(path)
    return folder, record, differing
