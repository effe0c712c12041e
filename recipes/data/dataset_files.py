"""The pinned dataset's rows, from a repository that a stranger may have made.

datasets 5.2 runs no code of a repository. What it leaves open is closed here: a folder on this disk that bears the
dataset's name, files of another commit than the pinned one, metadata that stand for more than memory holds, kinds of
files whose readers do far more than read rows, and sheer size. What becomes of a file of bounded size is not bounded: a
compressed one can fill the disk, as any dataset can that is large enough.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from datasets import DatasetBuilder, DatasetDict, Features, Value, config, load_dataset_builder
from datasets.exceptions import DatasetGenerationError, DatasetsError
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from hub.pins import refuse_local
from hub.release import entries_of, refuse_large
from record.errors import UserError, chain, explain, one_line
from record.run_record import Pin

# Readers of datasets 5.2 that do no more than read rows; `cache` finds what was prepared before, offline.
READERS = ("arrow", "cache", "csv", "json", "parquet", "text")
# Where datasets reads YAML.
METADATA = ("README.md", ".huggingface.yaml")
MAX_METADATA_VALUES = 100_000
MAX_BYTES = 32 * 2**30
# More columns than a table of texts has; pandas reads any others by its own rules.
MAX_TEXT_COLUMNS = 4_096


def load_rows(dataset: Pin, name: str | None, as_text: bool = True) -> DatasetDict:
    """All splits of a pinned dataset.

    Parameters:
        name: of the dataset's configuration.
        as_text: takes the cells of CSV files as they stand there. Otherwise pandas makes `NA` and `null` missing, and
            of whole numbers with gaps fractions: so were the rows of records before version 5 made.

    Raises:
        `UserError`: it cannot be loaded, or asks for what is not done here.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    with say_why(dataset.id):
        builder = _builder(dataset, name, as_text)
        if builder.name in READERS:
            _check_files(dataset, builder.config.data_files or {})
        return prepare_rows(builder, dataset.id, as_text)


def _builder(dataset: Pin, name: str | None, as_text: bool) -> DatasetBuilder:
    refuse_local(dataset.id)
    if not constants.HF_HUB_OFFLINE:
        _check_metadata(dataset)
    # A place of its own, since the names in the cache do not tell one reading of a file from the other.
    cache = str(Path(config.HF_DATASETS_CACHE, "as_text")) if as_text else None
    builder = load_dataset_builder(dataset.id, name, revision=dataset.revision, cache_dir=cache)
    # Where the Hub cannot be reached, it takes whatever commit the cache holds.
    if builder.hash != dataset.revision:
        raise UserError(f"{dataset.id} is only cached at {builder.hash}, not at {dataset.revision}: try again online")
    return builder


def files_of(dataset: Pin, name: str | None) -> list[str]:
    """The files of a pinned dataset that its rows are read from; no row is downloaded.

    Parameters:
        name: as in `load_rows`.

    Raises:
        as `load_rows`.
    """
    with say_why(dataset.id):
        files = _builder(dataset, name, as_text=True).config.data_files or {}
    return [path.partition(f"@{dataset.revision}/")[2] for split in files.values() for path in split]


@contextmanager
def say_why(name: str) -> Iterator[None]:
    """Says in one line why the dataset of that name cannot be loaded."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, yaml.YAMLError, DatasetsError, OSError) as error:
        if explain(error):
            raise
        raise UserError(f"{name} cannot be loaded: {_reason(error)}") from error


def prepare_rows(builder: DatasetBuilder, name: str, as_text: bool) -> DatasetDict:
    """All splits that a builder reads; `as_text` as in `load_rows`.

    Raises:
        `UserError`: it reads other kinds of files than those in `READERS`.
    """
    if builder.name not in READERS:
        raise UserError(f"{name} holds {builder.name} files: only {', '.join(READERS)} are read")
    if builder.name == "csv" and as_text:
        _read_texts(builder)
    builder.download_and_prepare()
    return builder.as_dataset()


def _read_texts(builder: DatasetBuilder) -> None:
    """Has pandas give each cell as it stands in the file."""
    reader = builder.config
    reader.converters = dict.fromkeys(range(MAX_TEXT_COLUMNS), str)
    reader.keep_default_na = reader.na_filter = False
    if reader.features is not None:
        # Kinds that the dataset's card states: it may speak of numbers where the file has gaps.
        reader.features = Features(dict.fromkeys(reader.features, Value("string")))
        reader.converters = None
    builder.info.features = reader.features


def _reason(error: Exception) -> str:
    """What went wrong with a file: datasets itself says only that something did."""
    causes = list(chain(error))
    if isinstance(error, DatasetGenerationError) and len(causes) > 1 and "An error occurred while" in str(error):
        error = next(cause for cause in causes if not isinstance(cause, DatasetGenerationError))
    cure = ": save the file as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
    return one_line(" ".join(str(error).split()), 500) + cure


def _check_metadata(dataset: Pin) -> None:
    """Refuses YAML whose aliases multiply: datasets prints what it does not understand, and would come to no end."""
    for path, entry in entries_of(dataset.id, list(METADATA), dataset.revision, "dataset").items():
        refuse_large(dataset.id, {"README.md": entry})
        where = hf_hub_download(dataset.id, path, revision=dataset.revision, repo_type="dataset")
        text = Path(where).read_text(encoding="utf-8")
        block = REGEX_YAML_BLOCK.search(text) if path == "README.md" else None
        metadata = yaml.safe_load(block[2] if block else "" if path == "README.md" else text)
        if _values(metadata, {}) > MAX_METADATA_VALUES:
            raise UserError(f"the metadata in {path} of {dataset.id} stand for too many values: they are not read")


def _values(value: Any, counts: dict[int, float]) -> float:
    """How many values one stands for, each as often as it is named; without end where it holds itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in counts:
        counts[id(value)] = float("inf")
        parts = value.values() if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_values(part, counts) for part in parts)
    return counts[id(value)]


def _check_files(dataset: Pin, files: dict[str, list[str]]) -> None:
    pinned = f"hf://datasets/{dataset.id}@{dataset.revision}/"
    paths = [path for split in files.values() for path in split]
    if strange := next((path for path in paths if not path.startswith(pinned)), None):
        raise UserError(f"{dataset.id} takes rows from {strange}: that is not the pinned commit {dataset.revision}")
    if paths and not constants.HF_HUB_OFFLINE:
        names = [path.removeprefix(pinned) for path in paths]
        size = sum(entry.size for entry in entries_of(dataset.id, names, dataset.revision, "dataset").values())
        if size > MAX_BYTES:
            raise UserError(f"the files of {dataset.id} have {size:,} bytes, more than {MAX_BYTES:,}")
