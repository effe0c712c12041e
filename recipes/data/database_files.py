"""The SQLite files that a recipe's `sql_database` names for its test rows: found, bounded, and hashed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import constants, hf_hub_download

from hub.release import entries_of, fetch
from recipes.config import RecipeArguments
from record.errors import UserError
from record.hashes import sha256_file
from record.published_recipe import MAX_PLACE
from record.run_record import FilePin, Pin

ON_THIS_MACHINE = (".", "/", "~")
# Of one file and of all: Spider's databases have 1 GB together.
LARGEST_FILE, MAX_BYTES, MAX_FILES = 2**30, 8 * 2**30, 2_000


@dataclass(frozen=True)
class DatabaseFiles:
    """The files of the test rows.

    Parameters:
        paths: where each row's file lies on this machine.
        files, bytes, sha256: as in `record.scores.OwnDatabases`.
    """

    paths: list[Path]
    files: int
    bytes: int
    sha256: str


def find_databases(names: Sequence[str], recipe: RecipeArguments, dataset: Pin) -> DatabaseFiles:
    """The file of each row; those in the dataset's repository are downloaded at its pin.

    Parameters:
        names: what `sql_database` came to for each test row.

    Raises:
        `UserError`: a file is missing or too large, there are too many, or a name is no file's place.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    distinct = sorted(set(names))
    if len(distinct) > MAX_FILES:
        raise UserError(f"`sql_database` names {len(distinct):,} files, more than {MAX_FILES:,}: name fewer of them")
    # The recipe says where files are looked for, never a row.
    if str(recipe.sql_database).startswith(ON_THIS_MACHINE):
        there = {name: Path(name).expanduser() for name in distinct}
    else:
        for name in distinct:
            _refuse_other_places(name)
        there = _in_dataset(distinct, dataset, recipe.dataset_name)
    if missing := [name for name, path in there.items() if not path.is_file()]:
        raise UserError(f"there is no file {missing[0]}, which `sql_database` names: correct it")
    sizes = {name: path.stat().st_size for name, path in there.items()}
    _refuse_large(sizes)
    lines = "".join(f"{sha256_file(there[name])} {name}\n" for name in distinct)
    return DatabaseFiles(
        [there[name] for name in names], len(there), sum(sizes.values()), hashlib.sha256(lines.encode()).hexdigest()
    )


def _in_dataset(names: list[str], dataset: Pin, dataset_name: str) -> dict[str, Path]:
    if isinstance(dataset, FilePin):
        folder = Path(dataset_name).expanduser()
        return {name: (folder if folder.is_dir() else folder.parent) / name for name in names}
    if constants.HF_HUB_OFFLINE:
        return {
            name: Path(hf_hub_download(dataset.id, name, repo_type="dataset", revision=dataset.revision))
            for name in names
        }
    entries = entries_of(dataset.id, names, dataset.revision, "dataset")
    if missing := [name for name in names if name not in entries]:
        raise UserError(f"{dataset.id} holds no file {missing[0]}, which `sql_database` names: correct it")
    _refuse_large({name: entry.size for name, entry in entries.items()})
    return {name: fetch(dataset.id, entry, dataset.revision, kind="dataset") for name, entry in entries.items()}


def _refuse_other_places(name: str) -> None:
    """Refuses what is no file's place below the dataset: rows may hold any text."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or len(name) > MAX_PLACE or not name.isprintable():
        raise UserError(f"`sql_database` comes to {name[:100]!r} for a test row, which is no file's place")


def _refuse_large(sizes: dict[str, int]) -> None:
    name = max(sizes, key=lambda one: sizes[one])
    if sizes[name] > LARGEST_FILE or sum(sizes.values()) > MAX_BYTES:
        raise UserError(
            f"the files that `sql_database` names have {sum(sizes.values()):,} bytes, the largest ({name}) "
            f"{sizes[name]:,}: more than {MAX_BYTES:,} and {LARGEST_FILE:,} are not read"
        )
