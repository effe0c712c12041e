"""The places of a release in which a text may stand, each with the function that plants one there."""

import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from record.predictions import load_predictions
from record.release_files import ADAPTER_FILE, PREDICTIONS_FILE


def in_json(name: str, key: str):
    def plant(folder: Path, text: str) -> None:
        content = json.loads((folder / name).read_bytes())
        inner = content
        *parents, last = key.split(".")
        for parent in parents:
            inner = inner[parent]
        inner[last] = text
        (folder / name).write_text(json.dumps(content))

    return plant


def in_escapes(folder: Path, text: str) -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in text)
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text().replace("{", f'{{"note": "{escaped}",', 1))


def in_a_key_that_stands_twice(folder: Path, text: str) -> None:
    path = folder / "adapter_config.json"
    path.write_text(path.read_text().replace("{", f'{{"task_type": {json.dumps(text)},', 1))


def in_yaml(folder: Path, text: str) -> None:
    with (folder / "finance.yaml").open("a") as file:
        file.writelines(f"# {line}\n" for line in text.splitlines())


def in_card(folder: Path, text: str) -> None:
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("## Training", f"{text}\n\n## Training", 1))


def in_card_entities(folder: Path, text: str) -> None:
    in_card(folder, re.sub(r"[_:@/-]", lambda match: f"&#{ord(match[0])};", text))


def in_free_section(folder: Path, text: str) -> None:
    card = (folder / "README.md").read_text()
    mark = "<!-- free: intended use -->"
    (folder / "README.md").write_text(card.replace(mark, f"{mark}\n{text}", 1))


def in_rows(column: str, row: int):
    def plant(folder: Path, text: str) -> None:
        predictions = load_predictions(folder)
        getattr(predictions, column)[row] += f" {text}"
        predictions.save(folder)

    return plant


def in_parquet_metadata(folder: Path, text: str) -> None:
    table = pq.read_table(folder / PREDICTIONS_FILE)
    pq.write_table(table.replace_schema_metadata({"pandas": text}), folder / PREDICTIONS_FILE)


def in_column_metadata(folder: Path, text: str) -> None:
    table = pq.read_table(folder / PREDICTIONS_FILE)
    schema = table.schema.set(1, table.schema.field(1).with_metadata({"source": text}))
    pq.write_table(table.cast(schema), folder / PREDICTIONS_FILE)


def in_safetensors(folder: Path, text: str) -> None:
    save_file(load_file(folder / ADAPTER_FILE), folder / ADAPTER_FILE, metadata={"format": "pt", "made": text})


def in_tensor_name(folder: Path, text: str) -> None:
    save_file(load_file(folder / ADAPTER_FILE) | {text: np.zeros(2, np.float32)}, folder / ADAPTER_FILE)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def in_png(compressed: bool):
    def plant(folder: Path, text: str) -> None:
        png = (folder / "plots" / "loss.png").read_bytes()
        words = text.encode()
        new = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(words)) if compressed else chunk(b"tEXt", b"C\0" + words)
        (folder / "plots" / "loss.png").write_bytes(png[:33] + new + png[33:])

    return plant


# Where a text is planted, the file that is then named, and the place in it.
PLACES = [
    (in_json("record.json", "recipe.title"), "record.json", "`recipe.title`"),
    (in_json("tokenizer_config.json", "chat_template"), "tokenizer_config.json", "`chat_template`"),
    (in_json("tokenizer.json", "model.note"), "tokenizer.json", "`model`"),
    (in_escapes, "tokenizer_config.json", "`note`"),
    (in_a_key_that_stands_twice, "adapter_config.json", "`task_type`"),
    (in_yaml, "finance.yaml", "line "),
    (in_card, "README.md", "line "),
    (in_card_entities, "README.md", "line "),
    (in_free_section, "README.md", "line "),
    (in_rows("prompt", 7), PREDICTIONS_FILE, "row 7, column prompt"),
    (in_rows("adapter", 0), PREDICTIONS_FILE, "row 0, column adapter"),
    (in_parquet_metadata, PREDICTIONS_FILE, "schema metadata, pandas"),
    (in_column_metadata, PREDICTIONS_FILE, "metadata of column reference, source"),
    (in_safetensors, ADAPTER_FILE, "__metadata__.made"),
    (in_tensor_name, ADAPTER_FILE, "a tensor's name"),
    (in_png(compressed=False), "plots/loss.png", "its text C"),
    (in_png(compressed=True), "plots/loss.png", "its text Comment"),
]
