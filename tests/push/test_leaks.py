"""What must not leave this machine is found in a release, and what only looks like it is let through."""

import json
import os
import re
import shutil
import socket
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from short_runs import train_short

from evaluation import score
from evaluation.predictions import PREDICTIONS_FILE, load_predictions
from push import leaks
from push.leaks import refuse_leaks
from push.release import stage
from recipes.errors import UserError
from recipes.pins import ADAPTER_FILE
from recipes.record import RECORD_FILE, Record, load_record
from recipes.redaction import find_secrets, redact

LETTERS = "aB3dE5gH1jK7mN9pQ2sT4vW6xY8z"


def mixed(length: int) -> str:
    """Letters and digits as a token has them, made here so that no scanner takes this file for a leak."""
    return (LETTERS * 8)[:length]


PEM = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEowIBAAKCAQEA" + mixed(48)
TOKENS = {
    "Hugging Face token": "hf_" + mixed(34),
    "Hugging Face organization token": "api_org_" + mixed(34),
    "private key": PEM,
    "AWS key id": "AKIA" + "QWERTY234567ZXCV",
    "AWS secret key": "aws_secret_access_key = " + mixed(38) + "/+",
    "Google API key": "AIza" + mixed(35),
    "Google service account": '{"type": "service_account", "project_id": "p"}',
    "Google OAuth token": "ya29." + mixed(60),
    "Azure storage key": "AccountKey=" + mixed(86) + "==",
    "GitHub token": "ghp_" + mixed(36),
    "GitHub token, fine-grained": "github_pat_" + mixed(22) + "_" + mixed(59),
    "GitLab token": "glpat-" + mixed(20),
    "OpenAI key": "sk-proj-" + mixed(74) + "T3Blbk" + "FJ" + mixed(74),
    "OpenAI key, old": "sk-" + mixed(20) + "T3Blbk" + "FJ" + mixed(20),
    "Anthropic key": "sk-ant-api03-" + mixed(93) + "AA",
    "Slack token": "xoxb-" + "123456789012-123456789012-" + mixed(24),
    "Slack webhook": "hooks.slack.com/services/" + "T01234567/B0123456789/" + mixed(24),
    "Discord webhook": "discord.com/api/webhooks/" + "1" * 18 + "/" + mixed(68),
    "Stripe key": "sk_live_" + mixed(24),
    "SendGrid key": "SG." + mixed(22) + "." + mixed(43),
    "npm token": "npm_" + mixed(36),
    "PyPI token": "pypi-" + "AgEIcHlwaS5vcmc" + mixed(80),
    "JSON web token": "eyJ" + mixed(20) + ".eyJ" + mixed(30) + "." + mixed(43),
    "Authorization header": "Authorization: Bearer " + mixed(40),
    "password in a URL": "https://anna:" + "Sommer-2031" + "@models.example.org/x",
    "netrc line": "machine huggingface.co login anna password " + "Sommer-2031",
}
INNOCENT = [
    "sha256 " + "0123456789abcdef" * 4,
    "a commit 0613663d0d48ea86ba8cb3d7a44f0f65dc596a2a",
    "hf_hub_download and hf_transfer_enabled_by_default_everywhere",
    "set HF_TOKEN=hf_" + "x" * 34,
    "hf_… tokens begin with hf_, GitHub's with ghp_, OpenAI's with sk-proj-",
    "AKIA" + "IOSFODNN7EXAMPLE",
    "a key begins with -----BEGIN PRIVATE KEY----- and ends likewise.",
    "postgresql://user:password@localhost:5432/db",
    "https://user:<password>@example.org and https://$USER:$PASSWORD@example.org and redis://:***@cache:6379",
    "http://127.0.0.1:8000/path and mailto:me@example.org, see https://example.org/a:b@c",
    "machine learning: login with your name and password",
    "SELECT sk_test_result, rk_live_status FROM risk_test_measurements",
    "Authorization: Bearer YOUR_ACCESS_TOKEN_GOES_HERE",
    "eyJhbGciOi is how a JSON web token begins",
    "the service_account role; type service_account",
    "a" * 200 + "/" + "Zm9vYmFy" * 20,
    "npm_package_config_with_a_really_long_variable_name",
    "Cut along the dashed line ----- and keep it; task-ant-api is not sk-ant-api",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = train_short(tmp_path_factory.mktemp("runs") / "finance")
    score.main([str(folder)])
    return folder


@pytest.fixture(scope="module")
def staged(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("staged") / "release"
    return folder, stage(run, "local-user/flan-t5-large-finance", None, folder)


@pytest.fixture
def release(staged, tmp_path):
    folder = tmp_path / "release"
    shutil.copytree(staged[0], folder)
    return folder


@pytest.fixture
def refused(release, staged, run):
    """Plants something into a copy of the release; returns the one line that refuses it."""

    def plant(planting, *arguments) -> str:
        planting(release, *arguments)
        with pytest.raises(UserError) as error:
            refuse_leaks(release, run, staged[1])
        line = str(error.value)
        assert "\n" not in line and ": " in line
        return line

    return plant


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
    (in_json("tokenizer.json", "model.note"), "tokenizer.json", "`model.note`"),
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


def shows(line: str, secret: str) -> bool:
    """Whether a line holds eight characters of a secret, or of one of its parts, behind the first two."""
    parts = [part for part in re.split(r"[\s:@]+", secret) if len(part) > 10 and re.search(r"\d", part)]
    return any(part[start : start + 8] in line for part in parts for start in range(2, len(part) - 8))


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


def test_short_and_simple_values_and_paths_of_variables_are_no_secrets(release, staged, run, monkeypatch):
    for name, value in {"SSH_KEY": "/home/anna/.ssh/id_ed25519", "A_PASSWORD": "changeme", "B_TOKEN": "a" * 40}.items():
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


def test_the_authors_id_on_the_hub_may_be_the_users_name(release, staged, run, machine):
    machine()
    in_card(release, "jdoe/flan-t5-large-finance, https://huggingface.co/jdoe/x/tree/main, datasets/jdoe/rows, by jdoe")
    refuse_leaks(release, run, staged[1])


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
            "is no file name",
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


@pytest.mark.parametrize("kind", TOKENS)
def test_a_printed_line_loses_its_secrets(kind):
    secret = TOKENS[kind]
    line = redact(f"the Hub answered 401 for {secret} (try again)")
    assert line.startswith("the Hub answered 401 for ") and line.endswith("(try again)")
    assert not shows(line, secret)


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("GET https://cdn.example/x/y?X-Amz-Algorithm=A&X-Amz-Signature=0a1b&x=1 failed",
         "GET https://cdn.example/x/y?[redacted] failed"),
        ("(https://cdn.example/f?Expires=1&Policy=eyJ&Signature=ab~c_&Key-Pair-Id=K1)",
         "(https://cdn.example/f?[redacted])"),
        ("'https://account.blob.example/f?sv=2030&sig=a%2Bb'", "'https://account.blob.example/f?[redacted]'"),
        ("http://h/api?revision=main&limit=5 not found", "http://h/api?revision=main&limit=5 not found"),
        ("https://anna:Sommer-2031@proxy.example:8080 refused", "https://[redacted]@proxy.example:8080 refused"),
        ("headers: {'authorization': 'Bearer proxy.anna.42.abcd'}", "headers: {'authorization': 'Bearer [redacted]'}"),
        ("error: google/flan-t5-large@0613663d0d48ea86ba8cb3d7a44f0f65dc596a2a holds no config.json",
         "error: google/flan-t5-large@0613663d0d48ea86ba8cb3d7a44f0f65dc596a2a holds no config.json"),
    ],
)  # fmt: skip
def test_a_printed_line_loses_signatures_and_keeps_the_rest(line, left):
    assert redact(line) == left


def test_a_printed_line_loses_this_processs_own_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "proxy.anna.42")
    monkeypatch.setenv("WANDB_API_KEY", "0a1b2c3d4e5f6789" * 2)
    line = redact(f"proxy.anna.42 and {'0a1b2c3d4e5f6789' * 2} are not valid")
    assert line == "[redacted] and [redacted] are not valid"


def test_the_record_that_is_published_speaks_of_nothing_here(staged, run):
    published = Record.model_validate_json((staged[0] / RECORD_FILE).read_bytes())
    assert published.files.keys() >= load_record(run).files.keys() and str(run) not in published.to_bytes().decode()
