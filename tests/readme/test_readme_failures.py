"""Each line of docs/failures.md is what the program says, word for word, when that happens."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from readme_commands import ROOT, blocks, failures
from short_runs import train_short

from evaluation import evaluate
from push import publish
from recipes import train
from record.release_files import ADAPTER_FILE

LINES = failures()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = train_short(tmp_path_factory.mktemp("runs") / "finance", "--max_steps", "2", "--max_new_tokens", "2")
    evaluate.main([str(folder)])
    assert (folder / ADAPTER_FILE).is_file()
    return folder


def no_python(run, tmp_path, hub, monkeypatch):
    # A machine whose only programs are make and its shell.
    words = [shutil.which("make"), "demo", f"VENV={tmp_path / 'none'}"]
    subprocess.run(words, env={**os.environ, "PATH": str(tmp_path)}, check=True)


def no_network(run, tmp_path, hub, monkeypatch):
    # Nothing listens there. A process of its own: clients read the address when they are imported.
    environ = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "model_cards.overview", "owner/name", "--into", str(tmp_path / "page.html")]
    subprocess.run(command, env=environ, check=True)


def no_repository(run, tmp_path, hub, monkeypatch):
    train_short(tmp_path / "run", "--dataset_name", "gbharti/finance-alpacca")


def a_slip(run, tmp_path, hub, monkeypatch):
    recipe = tmp_path / "sql2text.yaml"
    (example,) = blocks(ROOT / "README.md", "yaml")
    recipe.write_text(example.replace("learning_rate:", "learning_rat:"))
    train.main(["--config", str(recipe), "--output_dir", str(tmp_path / "run")])


def no_column(run, tmp_path, hub, monkeypatch):
    train_short(tmp_path / "run", "--prompt", "{question}")


def half_precision(run, tmp_path, hub, monkeypatch):
    train_short(tmp_path / "run", "--dtype", "float16")


def another_recipe(run, tmp_path, hub, monkeypatch):
    train_short(run, "--max_steps", "2", "--max_new_tokens", "2", "--learning_rate", "5e-4")


def not_trained(run, tmp_path, hub, monkeypatch):
    evaluate.main([str(tmp_path)])


def no_token(run, tmp_path, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    publish.main([str(run)])


def a_token_that_only_reads(run, tmp_path, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token("local-user", "read"))
    publish.main([str(run)])


HAPPENINGS = [
    no_python,
    no_network,
    no_repository,
    a_slip,
    no_column,
    half_precision,
    another_recipe,
    not_trained,
    no_token,
    a_token_that_only_reads,
]


def test_there_are_ten_of_them():
    assert len(LINES) == len(HAPPENINGS) == 10


@pytest.mark.parametrize("place", range(len(HAPPENINGS)), ids=[happen.__name__ for happen in HAPPENINGS])
def test_the_line_is_what_the_program_says(place, run, tmp_path, hub, monkeypatch, capfd):
    capfd.readouterr()
    with pytest.raises((SystemExit, subprocess.CalledProcessError)):
        HAPPENINGS[place](run, tmp_path, hub, monkeypatch)
    said = capfd.readouterr()
    wanted = ".*".join(map(re.escape, LINES[place].split("…")))
    assert any(re.fullmatch(wanted, told) for told in said.err.splitlines()), said.err[-2000:]
    assert "Traceback" not in said.err
