"""Secrets and traces of this machine are found in a release, and what only looks like them is let through."""

import json
import os
import shutil
import socket
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from places import PLACES, in_card, in_free_section, in_json, in_rows
from planted import INNOCENT, TOKENS, shows
from safetensors.numpy import save_file

from push.leaks import refuse_leaks
from push.release import stage
from record.errors import UserError
from record.predictions import load_predictions
from record.redaction import find_secrets, redact
from record.release_files import ADAPTER_FILE, PREDICTIONS_FILE, RECORD_FILE
from record.run_record import Record, load_record


@pytest.mark.parametrize("kind", TOKENS)
def test_a_secret_of_any_kind_is_refused_and_not_repeated(refused, kind):
    line = refused(in_rows("reference", 3), TOKENS[kind])
    assert line.startswith(f"{PREDICTIONS_FILE} holds what looks like a token or private key ({kind.partition(',')[0]}")
    assert "in row 3, column reference: remove it from the dataset" in line and not shows(line, TOKENS[kind])


@pytest.mark.parametrize(("plant", "path", "where"), PLACES)
def test_a_secret_is_found_wherever_it_stands(refused, plant, path, where):
    token = TOKENS["Hugging Face token"]
    line = refused(plant, token)
    assert line.startswith(f"{path} holds what looks like a token or private key (Hugging Face token hf_a…)")
    assert where in line and not shows(line, token)


def test_a_secret_in_a_file_name_is_refused(refused, staged):
    def plant(folder):
        (folder / f"{token}.json").write_text("{}")
        staged[1].files[f"{token}.json"] = "0" * 64

    token = TOKENS["GitHub token"]
    try:
        assert "(GitHub token ghp_…) in its name" in (line := refused(plant))
        assert not shows(line, token)
    finally:
        del staged[1].files[f"{token}.json"]


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "DB_PASSWORD", "my_service_token", "CLIENT_SECRET"])
def test_this_processs_own_secrets_are_known_by_their_values(refused, monkeypatch, name):
    # 40 hexadecimal digits, the form of a key of Weights & Biases, and of a commit.
    secret = "0a1b2c3d4e5f" * 3 + "6789"
    monkeypatch.setenv(name, secret)
    line = refused(in_rows("base", 5), secret)
    assert f"(the value of {name}) in row 5, column base" in line and not shows(line, secret)


def test_the_token_that_would_be_used_is_known_whatever_its_form(refused, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "proxy.anna.42")
    line = refused(in_card, "see proxy.anna.42")
    assert "README.md holds" in line and "the token that this process uses" in line and not shows(line, "proxy.anna.42")


@pytest.mark.parametrize("text", INNOCENT)
def test_what_only_looks_like_a_secret_passes(release, staged, run, text):
    for plant, *_ in (PLACES[0], PLACES[6], PLACES[9]):
        plant(release, text)
    refuse_leaks(release, run, staged[1])
    assert redact(text) == text


def test_short_and_simple_values_paths_and_published_names_in_variables_are_no_secrets(
    release, staged, run, monkeypatch
):
    for name, value in {
        "SSH_KEY": "/home/anna/.ssh/id_ed25519",
        "A_PASSWORD": "changeme",
        "B_TOKEN": "a" * 40,
        "MODEL_KEY": "google/flan-t5-large",
    }.items():
        monkeypatch.setenv(name, value)
        in_rows("prompt", 0)(release, value)
    refuse_leaks(release, run, staged[1])


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with a telling user, host, home and git identity."""

    def settle(user="jdoe", host="gpu-node-17", home="/home/jdoe", name="Jane Doe", email="jane@doe.example"):
        for key, value in {"LOGNAME": user, "USER": user, "HOME": home}.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setattr(socket, "gethostname", lambda: host)
        (tmp_path / "gitconfig").write_text(f"[user]\n name = {name}\n email = {email}\n")
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))

    return settle


TRACES = [
    "/home/anna/models/flan", "/Users/anna/flan", r"C:\Users\anna\flan", "C:/Users/anna/flan", "file:///srv/flan",
    "/root/.cache/huggingface", "/tmp/run-17", "/content/drive/MyDrive/x", "~/models/flan", "/workspace/runs/finance",
]  # fmt: skip


@pytest.mark.parametrize("trace", TRACES)
def test_a_local_path_in_metadata_is_refused_and_in_a_datasets_text_passes(refused, release, staged, run, trace):
    in_rows("prompt", 0)(release, trace)
    in_rows("base", 4)(release, f"({trace})")
    in_free_section(release, f"It was trained in {trace}.")
    in_json("tokenizer.json", "model.note")(release, trace)
    # The example on the card that shows the first row.
    in_card(release, f"| {trace.replace(':', '&#58;').replace('~', '&#126;')} | |")
    refuse_leaks(release, run, staged[1])
    line = refused(in_json("adapter_config.json", "auto_mapping"), f"see {trace}")
    assert line.startswith("adapter_config.json holds a local path (") and "in `auto_mapping`, which tells" in line


@pytest.mark.parametrize(("plant", "path", "where"), [*PLACES[:2], *PLACES[3:8], *PLACES[11:]])
def test_a_local_path_is_found_in_all_metadata(refused, plant, path, where):
    line = refused(plant, "/home/anna/flan/x")
    assert line.startswith(f"{path} holds a local path (/home/anna/flan/x) in ") and where in line


def test_this_runs_own_folder_is_refused_in_a_datasets_text_too(refused, run):
    line = refused(in_rows("prompt", 2), f"read {run}/rows.json")
    assert f"{PREDICTIONS_FILE} holds a local path ({run})" in line and "row 2, column prompt" in line


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("jdoe@gpu-node-17", "user and host"),
        ("made by jdoe@cluster", "user name"),
        ("scratch/jdoe/finance", "user name"),
        ("../jdoe/finance", "user name"),
        ("on gpu-node-17", "host name"),
        ("http://GPU-node-17:8080", "host name"),
        ("(c) Jane  Doe", "git's user.name"),
        ("write to jane@doe.example", "git's user.email"),
    ],
)
def test_a_name_of_this_machine_in_metadata_is_refused(refused, release, staged, run, machine, text, found):
    machine()
    in_rows("prompt", 1)(release, text)
    in_free_section(release, text)
    refuse_leaks(release, run, staged[1])
    line = refused(in_json("adapter_config.json", "auto_mapping"), text)
    assert line.startswith("adapter_config.json holds ") and found in line and "`auto_mapping`" in line
    assert "gpu" not in line.lower() and "doe" not in line.lower()


@pytest.mark.parametrize(
    "names",
    [
        {"user": "root", "home": "/root", "host": "vm"},
        {"user": "user", "home": "/home/user", "host": "localhost"},
        {"user": "finance", "home": "/home/finance", "host": "finance", "name": "Finance"},
        {"user": "ubuntu", "home": "/home/ubuntu", "host": "google"},
        {"user": "local-user", "home": "/home/local-user", "host": "flan-t5-large"},
        {"user": "google", "home": "/home/google", "host": "flan-t5-large-finance", "name": "Financial question"},
        {"user": "question", "home": "/question", "host": "answering", "name": "question answering"},
        {"user": "gbharti", "home": "/home/gbharti", "host": "linux", "name": "gbharti"},
        {"user": "loss", "home": "/plots", "host": "plots"},
    ],
)
def test_a_name_that_is_a_word_of_the_release_does_not_hinder_it(run, tmp_path, machine, names):
    machine(**names)
    record = stage(run, "local-user/flan-t5-large-finance", None, tmp_path / "release")
    assert RECORD_FILE not in record.files and "README.md" in record.files


@pytest.mark.parametrize("name", ["root", "ubuntu", "local-user", "me"])
def test_names_that_many_machines_share_tell_nothing(release, staged, run, machine, name):
    machine(user=name, host="localhost")
    in_card(
        release, f"{name}@example.org, {name}@localhost, http://localhost:8080, runs/{name}/finance, http://{name}:80"
    )
    refuse_leaks(release, run, staged[1])
    machine(user="anybody", host=name)
    refuse_leaks(release, run, staged[1])


def test_the_authors_id_on_the_hub_may_be_the_users_name(release, staged, run, machine):
    machine()
    in_card(release, "jdoe/flan-t5-large-finance, https://huggingface.co/jdoe/x/tree/main, datasets/jdoe/rows, by jdoe")
    refuse_leaks(release, run, staged[1])


def test_staging_refuses_a_leak(run, tmp_path):
    folder = tmp_path / "finance"
    shutil.copytree(run, folder)
    in_rows("prompt", 9)(folder, TOKENS["npm token"])
    with pytest.raises(UserError, match=r"\(npm token npm_…\) in row 9, column prompt"):
        stage(folder, "local-user/x", None, tmp_path / "release")


def test_a_release_of_true_size_is_checked_in_a_second(release, staged, run):
    # finance at true size: 4,827 test rows and 9,437,184 trainable parameters in float32.
    predictions = load_predictions(release)
    rows = len(predictions.prompt)
    predictions.take([row % rows for row in range(4827)]).save(release)
    save_file({"x": np.zeros(9_437_184, np.float32)}, release / ADAPTER_FILE)
    start = time.perf_counter()
    refuse_leaks(release, run, staged[1])
    # 0.2 s on two busy cores.
    assert time.perf_counter() - start < 1


@pytest.mark.skipif("REAL_DATA" not in os.environ, reason="REAL_DATA names no folder of real rows")
def test_real_rows_hold_nothing_that_is_taken_for_a_secret():
    real = Path(os.environ["REAL_DATA"])
    texts = [path.read_text() for path in (*real.rglob("*.json*"), *real.glob("rouge/*.txt"))]
    for path in real.rglob("*.parquet"):
        texts += [value for row in pq.read_table(path).to_pylist() for value in row.values()]
    assert sum(map(len, texts)) > 5_000_000
    assert [text[secret.start : secret.end] for text in texts for secret in find_secrets(text, {})] == []


@pytest.mark.skipif("REAL_DATA" not in os.environ, reason="REAL_DATA names no folder of real rows")
def test_a_release_of_real_rows_passes(release, staged, run):
    real = Path(os.environ["REAL_DATA"]) / "hub" / "datasets"
    finance = json.loads((real / "gbharti/finance-alpaca/Cleaned_date.json").read_bytes())
    sql = json.loads((real / "b-mc2/sql-create-context/sql_create_context_v4.json").read_bytes())
    news = [row for path in real.rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    pairs = [
        *((f"{row['instruction']} {row['input']}", row["output"]) for row in finance),
        *((f"{row['context']} {row['question']}", row["answer"]) for row in sql),
        *((row["article"], row["highlights"]) for row in news),
    ]
    predictions = load_predictions(release).take([0] * len(pairs))
    predictions.prompt, predictions.reference = map(list, zip(*pairs, strict=True))
    predictions.base = predictions.adapter = predictions.reference
    predictions.save(release)
    refuse_leaks(release, run, staged[1])


def test_the_record_that_is_published_speaks_of_nothing_here(staged, run):
    published = Record.model_validate_json((staged[0] / RECORD_FILE).read_bytes())
    assert published.files.keys() >= load_record(run).files.keys() and str(run) not in published.to_bytes().decode()
