"""Disks that are full and places that may not be written to: one line, and the run goes on where it stopped."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from short_runs import SHORT, train_short
from tokenizers import Tokenizer, models

from record.errors import UserError, explanation
from record.run_record import load_record

# As a full disk does, a limit of the process fails a write in its middle; Python ignores the signal.
MOST = 150_000
LIMITED = f"""
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({MOST}, {MOST}))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
TWO_STEPS = ("--max_steps", "2")
WRITERS = {
    "a file": lambda path: path.write_text("x" * 200_000),
    "safetensors": lambda path: save_file({"a": torch.zeros(100_000)}, path),
    "torch": lambda path: torch.save({"a": torch.zeros(100_000)}, path),
    "tokenizers": lambda path: Tokenizer(models.WordLevel({"x" * n: n for n in range(1, 1_000)}, unk_token="x")).save(
        str(path)
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_each_writer_s_error_is_one_line(writer, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST, before[1]))
    try:
        with pytest.raises(Exception) as error:
            WRITERS[writer](tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert explanation(error.value).startswith("the disk, or your share of it, is full: free some space")


def test_a_full_disk_at_a_checkpoint_is_one_line_and_the_run_goes_on(hub, tmp_path):
    train_short(tmp_path / "whole", *TWO_STEPS)
    command = [
        "recipes.train",
        "--config",
        "recipes/finance.yaml",
        "--output_dir",
        str(tmp_path / "run"),
        *SHORT,
        *TWO_STEPS,
    ]
    # With the data of the run before in its cache, nothing else is as large as the checkpoint.
    answer = subprocess.run([sys.executable, "-c", LIMITED, *command], capture_output=True, text=True)
    assert answer.returncode == 1 and "Traceback" not in answer.stderr, answer.stderr
    last = answer.stderr.splitlines()[-1]
    assert last.startswith("error: the disk, or your share of it, is full: free some space, then run it again"), last
    record = load_record(train_short(tmp_path / "run", *TWO_STEPS))
    assert record.training.adapter_sha256 == load_record(tmp_path / "whole").training.adapter_sha256


def test_a_cache_that_cannot_be_written_is_one_line(hub, tmp_path):
    (tmp_path / "file").touch()
    environ = os.environ | {"HF_HOME": str(tmp_path / "file" / "home"), "HF_HUB_CACHE": "", "HF_DATASETS_CACHE": ""}
    environ = {name: value for name, value in environ.items() if value}
    code = (
        "from record.errors import one_line_errors\nwith one_line_errors():\n    import huggingface_hub\n"
        "    huggingface_hub.hf_hub_download('google/flan-t5-large', 'config.json')"
    )
    answer = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert answer.stderr.splitlines()[-1].startswith("error: the cache cannot be written: set HF_HOME"), answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "file").touch()
    for folder in ("file/run", "file"):
        with pytest.raises((UserError, SystemExit)):
            train_short(tmp_path / folder)
        said = capsys.readouterr()
        assert "choose another folder" in said.err and "Asking the Hub" not in said.out
    assert Path(tmp_path / "file").read_bytes() == b""
