"""Rows from files on this machine: which files a recipe means, and their rows while they are as they were pinned."""

import hashlib
import re
from pathlib import Path

from datasets import DatasetDict, config, load_dataset_builder

from recipes.data.dataset_files import prepare_rows, say_why
from record.errors import UserError
from record.hashes import sha256_file
from record.release_files import CARD_FILE
from record.run_record import FilePin

# What reads a file, as datasets does for one on the Hub.
READER_OF = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".parquet": ("parquet", {}),
}


def is_local(name: str) -> bool:
    """Whether `dataset_name` means files of this machine: by their suffix, or by `./`, `../`, `~` or `/` before it."""
    return name.startswith(("./", "../", "~", "/")) or Path(name).suffix.lower() in READER_OF


def row_files(name: str) -> list[Path]:
    """The file, or the files of rows in the folder and its card, sorted; none whose name begins with a dot.

    Raises:
        `UserError`: there is none.
    """
    path = Path(name).expanduser()
    if path.is_file() and path.suffix.lower() in READER_OF:
        return [path]
    files = [] if not path.is_dir() else [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file()
        and (file.suffix.lower() in READER_OF or file == path / CARD_FILE)
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]  # fmt: skip
    if all(file.name == CARD_FILE for file in files):
        kinds = ", ".join(READER_OF)
        raise UserError(f"{name} is neither a file of rows ({kinds}) nor a folder of them: name another")
    return files


def pin_files(name: str) -> FilePin:
    """The files as they are now: the last part of their path, and the sha256 of the file, or of all names and files.

    Raises:
        `UserError`: as `row_files`.
    """
    path, files = Path(name).expanduser(), row_files(name)
    if path.is_file():
        revision = sha256_file(path)
    else:
        lines = (f"{sha256_file(file)} {file.relative_to(path).as_posix()}\n" for file in files)
        revision = hashlib.sha256("".join(lines).encode()).hexdigest()
    return FilePin(
        kind="file", id=re.sub(r"[^\w.-]", "-", path.resolve().name).strip(".-") or "rows", revision=revision
    )


def load_files(name: str, pinned: FilePin, config_name: str | None) -> DatasetDict:
    """The splits of the pinned files: `train` of one file, those that datasets makes out of a folder.

    Raises:
        `UserError`: the files have changed since, or cannot be read.
    """
    if pin_files(name).revision != pinned.revision:
        raise UserError(f"{name} has changed since this run began: restore it, or train again in another folder")
    path = Path(name).expanduser().absolute()
    # A place of its own for each content: the names in the cache would not tell one from the other.
    cache = str(Path(config.HF_DATASETS_CACHE, "files", pinned.revision))
    with say_why(name):
        if path.is_file():
            reader, options = READER_OF[path.suffix.lower()]
            builder = load_dataset_builder(reader, data_files={"train": str(path)}, cache_dir=cache, **options)
        else:
            builder = load_dataset_builder(str(path), config_name, cache_dir=cache)
            known = {str(file.absolute()) for file in row_files(name)}
            used = [file for split in (builder.config.data_files or {}).values() for file in split]
            if strange := next((file for file in used if file not in known), None):
                raise UserError(f"{name} takes rows from {strange}: keep only {', '.join(READER_OF)} files there")
        return prepare_rows(builder, name, as_text=True)
