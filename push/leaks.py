"""The last look at a release before it is uploaded: nothing leaves this machine that should not."""

import bisect
import html
import itertools
import json
import re
import stat
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from push.machine_traces import chosen_words, local_traces, own_paths_in_data
from record import strict_json
from record.errors import UserError
from record.hashes import FREE_SECTION
from record.recipe_datasets import dataset_recipes
from record.redaction import find_secrets, own_secrets, redact
from record.release_files import (
    ADAPTER_CONFIG_FILE,
    CARD_FILE,
    RECORD_FILE,
    SIGNATURE_FILE,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    largest_size,
    recipe_file,
)
from record.run_record import FilePin, Record

# A larger file needs an upload in parts. The largest adapter in sight is smaller: FLAN-T5-XXL, all linear layers,
# r = 256, float32 is 4.5 GB; the shipped finance-xxl is 151 MB.
MAX_FILE_BYTES = 5 * 10**9
MAX_RELEASE_BYTES = 10 * 10**9
# Weights are fractions: bytes or whole numbers in an adapter could be anything.
WEIGHT_DTYPES = {"F64", "F32", "F16", "BF16"}
# The chunks that matplotlib writes (https://www.w3.org/TR/png-3/#5Chunk-naming-conventions), and PNG's texts.
PICTURE_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"IEND"}
# How other files begin: pickles of protocol 2 to 5, zip (torch.save, npz), numpy, gzip, ELF.
DISGUISES = {
    "a pickle": re.compile(rb"\x80[\x02-\x05](?!\0\0\0\0\0\0)"),
    "a zip archive (torch.save, npz)": re.compile(rb"PK\x03\x04"),
    "a numpy array": re.compile(rb"\x93NUMPY"),
    "a gzip archive": re.compile(rb"\x1f\x8b"),
    "a program": re.compile(rb"\x7fELF|MZ"),
}
KINDS = (".json", ".md", ".parquet", ".png", ".safetensors", ".sig", ".yaml")
DATA_COLUMNS = ("prompt", "reference", "references", "schema", "seen", "base", "adapter")
# What transformers calls the place that a tokenizer was loaded from.
SOURCE_KEYS = {"name_or_path", "_name_or_path", "base_model_name_or_path", "tokenizer_file", "special_tokens_map_file",
               "vocab_file", "merges_file"}  # fmt: skip


@dataclass
class Texts:
    """The texts of one file, each with where it stands.

    `metadata` was written by programs, `data` holds what the dataset and the models say (and what people wrote on
    the card): there, paths and names are nobody's.
    """

    metadata: list[tuple[str, str]] = field(default_factory=list)
    data: list[tuple[str, str]] = field(default_factory=list)


def refuse_leaks(folder: Path, run: Path, record: Record) -> None:
    """Checks a finished release before it is uploaded.

    Refused are: anything but plain files of the kinds and names that a release has, whole, of a sensible size, and
    holding what their name says; secrets, in any text (`record.redaction`); local paths and names of this machine
    in metadata (`push.machine_traces` says which and why); a base model other than the pinned one. Hard links pass:
    what they hold is checked like any other file.

    Parameters:
        folder: the release.
        run: the folder that it was laid out from.
        record: the release's own, with `files`.

    Raises:
        `UserError`: with the file, what was found, where, and what to do; never with a secret itself.
    """
    paths = _plain_files(folder, record)
    for path in paths:
        _refuse_size(folder, path)
    if sum((folder / path).stat().st_size for path in paths) > MAX_RELEASE_BYTES:
        raise UserError(f"the release is larger than {MAX_RELEASE_BYTES / 1e9:g} GB: remove what does not belong to it")
    refuse_traces(folder, paths, run, record)
    _refuse_other_base(folder, record)


def refuse_traces(folder: Path, paths: list[str], run: Path, record: Record) -> None:
    """Looks for secrets, local paths and names of this machine in files of a release, as `refuse_leaks` says.

    Raises:
        `UserError`: one was found, or a file does not hold what its name says.
    """
    texts = {path: _read(folder, path) for path in paths}
    for path, parts in texts.items():
        parts.metadata.append(("its name", path))
    # A variable such as MODEL_KEY may hold a name that is published on purpose.
    own = {value: kind for value, kind in own_secrets().items() if value.lower() not in chosen_words(record)}
    traces, in_data = list(local_traces(run, record)), list(own_paths_in_data(run))
    row_text = "\n".join(text for parts in texts.values() for where, text in parts.data if where.startswith("row "))
    for path, parts in texts.items():
        for passages, patterns in ((parts.metadata, traces), (parts.data, in_data)):
            whole_text = "\n".join(text for _, text in passages)
            for secret in find_secrets(whole_text, own):
                raise UserError(
                    f"{redact(path)} holds what looks like a token or private key ({secret.kind}) in "
                    f"{_where(passages, secret.start)}: remove it from {_source(path, parts, passages)}, and revoke it"
                )
            for what, words, pattern in patterns:
                for match in pattern.finditer(whole_text) if words in whole_text else ():
                    # The card's examples are the dataset's words.
                    if path == CARD_FILE and match[0] in row_text:
                        continue
                    detail = f" ({match[0]})" if what == "a local path" else ""
                    raise UserError(
                        f"{path} holds {what}{detail} in {_where(passages, match.start())}, which tells of this "
                        f"machine: remove it from {_source(path, parts, passages)}"
                    )


def refuse_foreign_files(run: Path, names: Iterable[str], folder: Path, record: Record) -> None:
    """Checks what a release is about to be laid out from, before anything is read: a fifo would be read forever.

    A link inside the run is as good as its target; the run itself may be one. What is not published, such as
    checkpoints on another disk, is left alone.

    Raises:
        `UserError`: a file is no plain file or lies outside the run, or the release would.
    """
    if not re.fullmatch(r"\w[\w.-]*", record.name, re.ASCII):
        raise UserError(f"the record's name {record.name!r} is no file name: train it again under a plain one")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder} is no folder of its own: remove it, it is written again")
    for name in names:
        path = run / name
        if path.is_symlink() and not path.resolve().is_relative_to(run.resolve()):
            raise UserError(f"{path} is a symbolic link out of the run: put the file itself there")
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no plain file: train and score it again")


def _plain_files(folder: Path, record: Record) -> list[str]:
    """The files of a release, sorted, where there is nothing else."""
    paths = []
    for entry in sorted(folder.rglob("*")):
        path = entry.relative_to(folder).as_posix()
        mode = entry.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise UserError(f"{path} is a symbolic link: a release holds plain files only, put the file itself there")
        if not re.fullmatch(r"[\w/.-]+", path, re.ASCII):
            raise UserError(f"{path!a} is no plain file name: rename it with letters, digits, `.`, `_` and `-`")
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            raise UserError(f"{path} is no plain file (a fifo, socket or device): remove it from the run")
        if entry.suffix not in KINDS:
            raise UserError(f"{path} is of no kind that a release holds ({', '.join(KINDS)}): remove it")
        if path not in {*record.files, RECORD_FILE, SIGNATURE_FILE}:
            raise UserError(f"{path} is not listed in {RECORD_FILE}: remove it, or publish again")
        paths.append(path)
    if missing := {*record.files, RECORD_FILE} - set(paths):
        raise UserError(f"the release lacks {', '.join(sorted(missing))}: publish again")
    return paths


def _refuse_size(folder: Path, path: str) -> None:
    size = (folder / path).stat().st_size
    limit = min(largest_size(path), MAX_FILE_BYTES)
    if size == 0:
        raise UserError(f"{path} is empty: train and score the run again")
    if size > limit:
        raise UserError(f"{path} has {size:,} bytes, more than the {limit:,} that a release allows: make it smaller")


def _read(folder: Path, path: str) -> Texts:
    """The texts of a file that holds what its name says.

    Raises:
        `UserError`: it holds something else, or not all of it.
    """
    file = folder / path
    with file.open("rb") as stream:
        head = stream.read(8)
    for what, beginning in DISGUISES.items():
        if beginning.match(head):
            raise UserError(f"{path} begins like {what}, which may run code: remove it, train and score the run again")
    reader = {".safetensors": _weights, ".parquet": _rows, ".png": _picture, ".json": _json, ".sig": _json,
              ".yaml": _lines, ".md": _card}[file.suffix]  # fmt: skip
    try:
        return reader(file)
    except (ValueError, pa.ArrowException, yaml.YAMLError, struct.error, zlib.error, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is no whole {file.suffix} file ({reason}): train and score the run again") from None


def _weights(file: Path) -> Texts:
    """Only the header is read: safetensors' own checks see that tensors fill the rest without a gap."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as stream:
            metadata, names = stream.metadata() or {}, list(stream.keys())
            dtypes = {stream.get_slice(name).get_dtype() for name in names}
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    if strange := dtypes - WEIGHT_DTYPES:
        raise ValueError(
            f"it holds {', '.join(sorted(strange))} values, weights are {', '.join(sorted(WEIGHT_DTYPES))}"
        )
    if not names:
        raise ValueError("it holds no tensor")
    return Texts([*((f"__metadata__.{key}", f"{key}: {value}") for key, value in metadata.items()),
                  *(("a tensor's name", name) for name in names)])  # fmt: skip


def _rows(file: Path) -> Texts:
    parquet = pq.ParquetFile(file)
    schema = parquet.schema_arrow
    origins = [(schema.metadata or {}, "schema metadata")]
    origins += [(column.metadata or {}, f"metadata of column {column.name}") for column in schema]
    origins += [({key: value for key, value in (parquet.metadata.metadata or {}).items() if key != b"ARROW:schema"},
                   "file metadata")]  # fmt: skip
    metadata = []
    for pairs, where in origins:
        for key, value in pairs.items():
            key, value = key.decode(errors="replace"), value.decode(errors="replace")
            metadata.append((f"{where}, {key[:80]}", f"{key}: {value}"))
    if strange := set(schema.names) - {*DATA_COLUMNS, "base_tokens", "adapter_tokens"}:
        raise ValueError(f"it has the columns {', '.join(sorted(strange))}")
    table = parquet.read(columns=[name for name in DATA_COLUMNS if name in schema.names])
    data = [
        (f"row {row}, column {name}", text)
        for name in table.column_names
        for row, text in enumerate(table[name].to_pylist())
        if text
    ]
    return Texts(metadata, data)


def _picture(file: Path) -> Texts:
    """The texts of a PNG of known chunks, each with its checksum, and nothing behind the last."""
    data = file.read_bytes()
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("it does not begin like one")
    texts, start, kind = [], 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, start)
        body = data[start + 8 : start + 8 + length]
        if struct.unpack_from(">I", data, start + 8 + length)[0] != zlib.crc32(kind + body):
            raise ValueError(f"its chunk {kind!r} is damaged")
        if kind not in PICTURE_CHUNKS:
            raise ValueError(f"it has a chunk {kind!r}, which no plot has")
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            key, _, rest = body.partition(b"\0")
            packed = kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1")
            if packed:
                rest = zlib.decompress(rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[2])
            texts.append((f"its text {key.decode('latin-1')}", rest.decode("utf-8", errors="replace")))
        start += 12 + length
    if start != len(data):
        raise ValueError(f"{len(data) - start} bytes stand behind its end")
    return Texts(texts)


def _json(file: Path) -> Texts:
    """Keys with their values, unescaped; a tokenizer's vocabulary is data."""
    texts = Texts()

    # Objects become tuples of pairs, so that of a key that stands twice both values are seen.
    def walk(value: Any, where: str) -> None:
        pairs = value if isinstance(value, tuple) else enumerate(value)
        for key, item in pairs:
            inner = f"{where}.{key}" if where else f"{key}"
            if file.name == TOKENIZER_FILE and inner == "model":
                texts.data.append(("`model`", json.dumps(item, ensure_ascii=False)))
                continue
            texts.metadata.append((f"`{inner[:80]}`", f'"{key}": "{item}"' if isinstance(item, str) else f'"{key}":'))
            if isinstance(item, list | tuple):
                walk(item, inner)

    content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=tuple)
    walk(content if isinstance(content, tuple) else [content], "")
    return texts


def _lines(file: Path) -> Texts:
    text = file.read_text(encoding="utf-8")
    yaml.safe_load(text)
    return Texts([(f"line {number}", line) for number, line in enumerate(text.splitlines(), 1)])


def _card(file: Path) -> Texts:
    """The card's lines as a reader sees them; what people wrote between its free marks is theirs, like data."""
    from huggingface_hub import ModelCard

    card = file.read_text(encoding="utf-8")
    free = {
        number
        for match in FREE_SECTION.finditer(card)
        for number in range(card.count("\n", 0, match.start(3)) + 1, card.count("\n", 0, match.end(3)) + 2)
    }
    ModelCard(card)
    texts = Texts()
    for number, line in enumerate(card.split("\n"), 1):
        (texts.data if number in free else texts.metadata).append((f"line {number}", html.unescape(line)))
    return texts


def _where(passages: list[tuple[str, str]], position: int) -> str:
    starts = list(itertools.accumulate((len(text) + 1 for _, text in passages), initial=0))
    return passages[bisect.bisect_right(starts, position) - 1][0]


def _source(path: str, parts: Texts, passages: list[tuple[str, str]]) -> str:
    """Where a user corrects a text of this file."""
    if passages is parts.data and path.endswith(".parquet"):
        return "the dataset"
    if path == CARD_FILE and passages is parts.data:
        return "the card on the Hub"
    return "the recipe or the run"


def _refuse_other_base(folder: Path, record: Record) -> None:
    """The base model is stated in several places; each must state the pinned one, never a local folder."""
    from huggingface_hub import ModelCard

    base, datasets = record.pins.base_model, record.pins.datasets
    names = [dataset.dataset_name if isinstance(dataset, FilePin) else dataset.id for dataset in datasets]
    adapter = strict_json.read(folder / ADAPTER_CONFIG_FILE, "the configuration of an adapter")
    tokenizer = strict_json.read(folder / TOKENIZER_CONFIG_FILE, "the configuration of a tokenizer")
    front = ModelCard.load(folder / CARD_FILE).data.to_dict()
    recipe = yaml.safe_load((folder / recipe_file(record.name)).read_text(encoding="utf-8"))
    statements = [
        (ADAPTER_CONFIG_FILE, "base_model_name_or_path", adapter, base.id),
        (ADAPTER_CONFIG_FILE, "revision", adapter, base.revision),
        (CARD_FILE, "base_model", front, base.id),
        (recipe_file(record.name), "model_name_or_path", recipe, base.id),
        *((recipe_file(record.name), "dataset_name", *one) for one in zip(dataset_recipes(recipe), names, strict=True)),
        (RECORD_FILE, "model_name_or_path", record.recipe, base.id),
    ]  # fmt: skip
    for path, key, values, pinned in statements:
        value = values.get(key) if isinstance(values, dict) else None
        if value != pinned:
            raise UserError(f"{path} states `{key}: {value}`, the record pins {pinned}: train the run again")
    for key in SOURCE_KEYS & set(tokenizer):
        if tokenizer[key] not in (None, base.id):
            raise UserError(
                f"{TOKENIZER_CONFIG_FILE} states `{key}: {tokenizer[key]}`, the record pins {base.id}: remove the line"
            )
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", base.id, re.ASCII):
        raise UserError(f"the base model {base.id!r} is no Hub id (owner/name): nobody could check the adapter")
