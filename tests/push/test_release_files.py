"""A release holds plain, whole files of its own kinds and the pinned base model, and nothing else."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from places import chunk, in_json
from planted import PEM
from safetensors.numpy import save_file

from push import leaks
from push.release import stage
from record.errors import UserError
from record.release_files import ADAPTER_FILE, PREDICTIONS_FILE, RECORD_FILE


def written(name: str, content: bytes):
    def plant(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return plant


def cut(name: str):
    def plant(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-20])

    return plant


def appended(name: str, content: bytes):
    def plant(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes() + content)

    return plant


def huge(name: str, size: int):
    def plant(folder: Path) -> None:
        with (folder / name).open("r+b") as file:
            file.truncate(size)

    return plant


def linked(name: str, to: str):
    def plant(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(to)

    return plant


def a_fifo(folder: Path) -> None:
    (folder / "finance.yaml").unlink()
    os.mkfifo(folder / "finance.yaml")


def bytes_as_weights(folder: Path) -> None:
    save_file({"x": np.frombuffer(PEM.encode(), np.uint8)}, folder / ADAPTER_FILE)


def another_chunk(folder: Path) -> None:
    png = (folder / "plots" / "loss.png").read_bytes()
    (folder / "plots" / "loss.png").write_bytes(png[:33] + chunk(b"eXIf", b"II*\0") + png[33:])


PICKLE, ZIP = b"\x80\x04\x95\x10\x00\x00\x00", b"PK\x03\x04\x14\x00"


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        *((written(f"x.{kind}", b"x"), f"x.{kind} is of no kind that a release holds") for kind in
          ("bin", "pt", "pth", "pkl", "ckpt", "npy", "npz", "py", "sh", "zip")),
        (written("notes", b"x"), "notes is of no kind"),
        (written(".env", b"x"), ".env is of no kind"),
        (written("more.json", b"{}"), "more.json is not listed in record.json"),
        (lambda folder: (folder / "finance.yaml").unlink(), "the release lacks finance.yaml"),
        (written(ADAPTER_FILE, PICKLE), f"{ADAPTER_FILE} begins like a pickle"),
        (written(ADAPTER_FILE, ZIP), f"{ADAPTER_FILE} begins like a zip archive"),
        (written("tokenizer.json", PICKLE), "tokenizer.json begins like a pickle"),
        (written("plots/loss.png", ZIP), "plots/loss.png begins like a zip archive"),
        (written("plots/loss.png", b"\x93NUMPY\x01\x00"), "plots/loss.png begins like a numpy array"),
        (written("plots/loss.png", b"GIF89a" + b"x" * 50), "plots/loss.png is no whole .png file"),
        (written("tokenizer.json", b'{"a": 1'), "tokenizer.json is no whole .json file"),
        (written("tokenizer.json", b"[" * 10**5), "tokenizer.json is no whole .json file"),
        (written("README.md", b"\xff\xfe"), "README.md is no whole .md file"),
        (written("finance.yaml", b"a: [b"), "finance.yaml is no whole .yaml file"),
        (written(PREDICTIONS_FILE, b"PAR1" + b"x" * 50), f"{PREDICTIONS_FILE} is no whole .parquet file"),
        (written(PREDICTIONS_FILE, b""), f"{PREDICTIONS_FILE} is empty"),
        (written("README.md", b""), "README.md is empty"),
        (cut(ADAPTER_FILE), f"{ADAPTER_FILE} is no whole .safetensors file"),
        (cut(PREDICTIONS_FILE), f"{PREDICTIONS_FILE} is no whole .parquet file"),
        (cut("plots/scores.png"), "plots/scores.png is no whole .png file"),
        (appended(ADAPTER_FILE, b"more"), f"{ADAPTER_FILE} is no whole .safetensors file"),
        (appended("plots/loss.png", ZIP), "plots/loss.png is no whole .png file (6 bytes stand behind its end)"),
        (another_chunk, "it has a chunk b'eXIf', which no plot has"),
        (bytes_as_weights, f"{ADAPTER_FILE} is no whole .safetensors file (it holds U8 values"),
        (huge(ADAPTER_FILE, leaks.MAX_FILE_BYTES + 1), f"{ADAPTER_FILE} has 5,000,000,001 bytes, more than"),
        (huge("tokenizer.json", 2**26 + 1), "tokenizer.json has 67,108,865 bytes, more than the 67,108,864"),
        (huge(PREDICTIONS_FILE, 2**28 + 1), f"{PREDICTIONS_FILE} has 268,435,457 bytes, more than the 268,435,456"),
        (linked("finance.yaml", "/etc/hostname"), "finance.yaml is a symbolic link"),
        (linked("finance.yaml", "README.md"), "finance.yaml is a symbolic link"),
        (linked("more", "/etc"), "more is a symbolic link"),
        (a_fifo, "finance.yaml is no plain file (a fifo"),
        (written("plots/x\N{RIGHT-TO-LEFT OVERRIDE}gnp.json", b"{}"), r"'plots/x\u202egnp.json' is no plain file name"),
        (written("record\N{ZERO WIDTH SPACE}.json", b"{}"), r"'record\u200b.json' is no plain file name"),
        (lambda folder: (folder / "a\x07b").mkdir(), r"'a\x07b' is no plain file name"),
    ],
)  # fmt: skip
def test_anything_but_the_files_of_a_release_is_refused(refused, plant, told):
    assert told in refused(plant)


def test_a_release_that_is_too_large_in_all_is_refused(refused, monkeypatch):
    monkeypatch.setattr(leaks, "MAX_RELEASE_BYTES", 1000)
    assert "the release is larger than 1e-06 GB" in refused(lambda folder: None)


@pytest.mark.parametrize(
    ("plant", "text", "told"),
    [
        (in_json("adapter_config.json", "base_model_name_or_path"), "bases/flan",
         "adapter_config.json states `base_model_name_or_path: bases/flan`, the record pins google/flan-t5-large"),
        (in_json("adapter_config.json", "revision"), "main", "adapter_config.json states `revision: main`, the record"),
        (in_json("tokenizer_config.json", "name_or_path"), "./flan", "tokenizer_config.json states `name_or_path: ./f"),
        (in_json("tokenizer_config.json", "tokenizer_file"), "cache/t.json", "states `tokenizer_file: cache/t.json`"),
        (lambda folder, text: (folder / "finance.yaml").write_text(text), "model_name_or_path: flan",
         "finance.yaml states `model_name_or_path: flan`"),
        (lambda folder, text: (folder / "README.md").write_text(text), "---\nbase_model: ../flan\n---\n",
         "README.md states `base_model: ../flan`"),
        (lambda folder, text: (folder / "adapter_config.json").write_text(text), "[]", "adapter_config.json states"),
    ],
)  # fmt: skip
def test_another_base_model_than_the_pinned_one_is_refused(refused, plant, text, told):
    assert told in refused(plant, text)


def outside(path: Path) -> Path:
    """The file, moved out of its folder."""
    there = path.parent.parent / f"outside-{path.name}"
    return path.rename(there)


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda run: (run / "tokenizer.json").symlink_to(outside(run / "tokenizer.json")), "a symbolic link out of"),
        (lambda run: ((run / PREDICTIONS_FILE).unlink(), os.mkfifo(run / PREDICTIONS_FILE)), "is no plain file"),
        (lambda run: (run / "release").symlink_to(run.parent), "is no folder of its own"),
        (lambda run: (run / "release").write_text("x"), "is no folder of its own"),
        (
            lambda run: (run / RECORD_FILE).write_text(
                (run / RECORD_FILE).read_text().replace('"name": "finance"', '"name": "../finance"', 1)
            ),
            "is not a run record",
        ),
    ],
)
@pytest.mark.timeout(30)
def test_a_run_of_other_than_plain_files_of_its_own_is_refused(run, tmp_path, break_it, told):
    folder = tmp_path / "runs" / "finance"
    shutil.copytree(run, folder)
    break_it(folder)
    with pytest.raises(UserError, match=told):
        stage(folder, "local-user/x", None, folder / "release")
    assert not list(tmp_path.rglob("README.md")) or not (folder / "release" / "README.md").exists()


def test_links_that_stay_inside_pass_and_so_do_hard_links_and_a_linked_run(run, tmp_path):
    folder = tmp_path / "finance"
    shutil.copytree(run, folder)
    kept = folder / "checkpoint-6" / "tokenizer.json"
    kept.parent.mkdir(exist_ok=True)
    (folder / "tokenizer.json").replace(kept)
    (folder / "tokenizer.json").symlink_to("checkpoint-6/tokenizer.json")
    os.link(folder / PREDICTIONS_FILE, tmp_path / "another name")
    (folder / "checkpoint-99").symlink_to("/tmp")
    (tmp_path / "link").symlink_to(folder)
    stage(tmp_path / "link", "local-user/x", None, tmp_path / "link" / "release")
    assert (folder / "release" / "tokenizer.json").read_bytes() == kept.read_bytes()
    assert not (folder / "release" / "tokenizer.json").is_symlink()
