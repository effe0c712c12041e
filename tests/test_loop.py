"""Training and scoring in small, through the entry points, in this process."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi, hf_hub_download
from short_runs import SHORT, train_short

from evaluation import evaluate
from push import publish
from recipes import train
from recipes.training.trainer import AdapterTrainer
from record.hashes import sha256_file
from record.predictions import load_predictions
from record.run_record import Record, load_record


def last_line(capsys):
    return capsys.readouterr().out.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def run(scored_run, tmp_path_factory):
    return shutil.copytree(scored_run, tmp_path_factory.mktemp("runs") / "finance")


def test_the_record_tells_the_run(run):
    record = load_record(run)
    assert record.miniature and record.name == "finance"
    data = record.data
    assert data.loaded == sum(data.dropped.values()) + data.train + data.validation + data.test
    assert all(dropped > 0 for dropped in data.dropped.values())
    assert data.test == -(-(data.loaded - sum(data.dropped.values())) // 10)
    assert record.pins.dataset.revision == HfApi().dataset_info("gbharti/finance-alpaca").sha
    config = json.loads((run / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (
        "google/flan-t5-large",
        record.pins.base_model.revision,
    )
    assert [point.step for point in record.training.history if point.loss is not None] == [1, 2, 3, 4, 5, 6]
    assert any(point.eval_loss for point in record.training.history)
    assert record.batch.effective == 64 and record.training.adapter_sha256 == sha256_file(run / train.ADAPTER_FILE)
    assert record.scores.rows == data.test == len(load_predictions(run).prompt)


def test_the_same_run_gives_the_same_bytes_and_another_seed_does_not(run, tmp_path):
    again = train_short(tmp_path / "again")
    other = train_short(tmp_path / "other", "--seed", "7")
    assert sha256_file(again / train.ADAPTER_FILE) == sha256_file(run / train.ADAPTER_FILE)
    assert sha256_file(other / train.ADAPTER_FILE) != sha256_file(run / train.ADAPTER_FILE)


@pytest.mark.parametrize(
    "moment",
    [
        "record.json",
        "checkpoint-2/adapter_model.safetensors",
        "checkpoint-2/trainer_state.json",
        "checkpoint-5/optimizer.pt",
    ],
)
def test_a_killed_run_continues_to_the_same_adapter(run, tmp_path, moment):
    folder = tmp_path / "killed"
    launch = [sys.executable, "-m", "recipes.train", "--config", "recipes/finance.yaml", "--output_dir", str(folder)]
    process = subprocess.Popen([*launch, *SHORT], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not (folder / moment).exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert load_record(folder).training is None
    train_short(folder)
    record = load_record(folder)
    assert record.training.resumed_from >= {"record.json": 0, "checkpoint-5/optimizer.pt": 4}.get(moment, 1)
    assert record.training.adapter_sha256 == load_record(run).training.adapter_sha256
    assert [point.step for point in record.training.history if point.loss is not None] == [1, 2, 3, 4, 5, 6]


def test_memory_shrinks_the_micro_batch_and_never_the_effective_one(run, tmp_path, monkeypatch, capsys):
    # What a GPU says when its memory is full, above some tokens in training and above 8 rows in evaluation.
    whole = load_record(run).batch.tokens
    interrupted = []
    full = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    training_step, prediction_step = AdapterTrainer.training_step, AdapterTrainer.prediction_step

    def train_up_to_a_third(self, model, inputs, *args, **kwargs):
        if any(part["input_ids"].numel() + part["labels"].numel() > whole // 3 for part, _ in inputs["micro_batches"]):
            raise full
        if self.state.global_step == 3 and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        return training_step(self, model, inputs, *args, **kwargs)

    def evaluate_up_to_8(self, model, inputs, *args, **kwargs):
        if len(inputs["numbers"]) > 8:
            raise full
        return prediction_step(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(AdapterTrainer, "training_step", train_up_to_a_third)
    monkeypatch.setattr(AdapterTrainer, "prediction_step", evaluate_up_to_8)
    with pytest.raises(SystemExit, match="130"):
        train_short(tmp_path / "tight")
    told = capsys.readouterr().out
    assert f"Memory does not suffice for {whole:,} tokens at once: {whole // 2:,}" in told
    assert "Memory does not suffice to evaluate 16 rows at once: 8" in told
    folder = train_short(tmp_path / "tight")
    batch, told = load_record(folder).batch, capsys.readouterr().out
    assert (batch.effective, batch.tokens, batch.too_large) == (64, whole // 4, [whole, whole // 2])
    assert "Continuing from" in told and f"for {whole:,} tokens at once" not in told
    # The same steps as with that budget from the start, hence the same adapter.
    fixed = train_short(tmp_path / "fixed", "--tokens_per_micro_batch", str(whole // 4))
    assert sha256_file(folder / train.ADAPTER_FILE) == sha256_file(fixed / train.ADAPTER_FILE)


def test_training_ends_early_when_the_validation_loss_stays(tmp_path):
    folder = train_short(tmp_path / "still", "--learning_rate", "0", "--early_stopping_patience", "2", "--max_steps",
                         "30", "--eval_steps", "2", "--save_steps", "2")  # fmt: skip
    training = load_record(folder).training
    assert (training.steps, training.best_step) == (6, 2)


def test_choosing_on_the_test_rows_is_possible_and_told(tmp_path):
    folder = train_short(tmp_path / "as-published", "--select_on_test", "true", "--max_steps", "2")
    record = load_record(folder)
    assert record.data.validation == 0
    evaluate.main([str(folder)])
    publish.main([str(folder), "--user", "local-user", "--dry-run"])
    card = (folder / "release" / "README.md").read_text()
    assert "**on which the published step was also chosen**" in card and "held out from training" not in card


@pytest.mark.parametrize("strict", [False, True])
def test_a_missed_expectation_is_told_and_stops_a_strict_run(tmp_path, capsys, monkeypatch, strict):
    # A miniature's figures are compared with nothing.
    monkeypatch.setattr(Record, "miniature", False)
    recipe = tmp_path / "finance.yaml"
    keys = yaml.safe_load(Path("recipes/finance.yaml").read_text())
    recipe.write_text(yaml.safe_dump(keys | {"expect": {"test_rows": 5, "trainable_parameters": 49_152}}))
    folder = tmp_path / "run"
    argv = ["--config", str(recipe), "--output_dir", str(folder), *SHORT, "--max_steps", "1", "--strict", str(strict)]
    if strict:
        with pytest.raises(SystemExit):
            train.main(argv)
        told = capsys.readouterr()
        assert "does not meet the recipe's `expect` (test_rows)" in told.err and not folder.exists()
    else:
        train.main(argv)
        told = capsys.readouterr()
        verdicts = {item.name: item.verdict for item in load_record(folder).expectations}
        assert verdicts == {"test_rows": "missed", "trainable_parameters": "met"}
    assert told.out.count("Expected by the recipe:") == 1 and "missed" in told.out


def test_a_gated_base_is_one_line(tmp_path, monkeypatch, capsys, hub):
    files = hf_hub_download("google/flan-t5-large", "config.json")
    HfApi().create_repo("local-user/gated", exist_ok=True)
    HfApi().upload_folder(repo_id="local-user/gated", folder_path=Path(files).parent)
    HfApi().update_repo_settings("local-user/gated", gated="manual")
    monkeypatch.setenv("HF_TOKEN", hub.token("somebody-else"))
    with pytest.raises(SystemExit):
        train_short(tmp_path / "run", "--model_name_or_path", "local-user/gated")
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(told) == 1 and "gated" in told[0] and not (tmp_path / "run").exists()


def test_a_finished_run_is_left_alone_and_another_recipe_is_refused(run, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    train_short(run)
    assert "is trained already" in last_line(capsys)
    evaluate.main([str(run)])
    assert "is scored already" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        train_short(run, "--learning_rate", "5e-4")
    assert "holds a run of another recipe (learning_rate: 0.001 there, 0.0005 now)" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in run.iterdir() if path.name != "release"}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["--dataset_revision", "v9"], "no such revision"),
        (["--dataset_name", "nobody/nothing"], "no such repository"),
        (["--model_name_or_path", "./local"], "is not a Hub id"),
        (["--dataset_splits", "train", "dev"], "has no split `dev`, but train"),
        (["--prompt", "{question}"], "has no column `question`, but instruction, input, output, text"),
        (["--length_rules", "drop words(answer) > 3"], "has no column `answer`"),
        (["--length_rules", "drop characters(output) >= 0"], "0 of 3600 rows of"),
        (["--lora_target_modules", "none"], "the adapter cannot be made"),
        (["--report_to", "carrier-pigeon"], "`report_to: carrier-pigeon` is not an installed tracker"),
    ],
)
def test_a_recipe_that_does_not_fit_ends_with_one_line_and_leaves_nothing(tmp_path, capsys, overrides, told):
    with pytest.raises(SystemExit) as stop:
        train_short(tmp_path / "run", *overrides)
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert stop.value.code == 1 and len(err) == 1 and told in err[0], err
    assert not (tmp_path / "run").exists()


def test_an_unreachable_hub_is_one_line(tmp_path):
    environ = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    command = [
        sys.executable,
        "-m",
        "recipes.train",
        "--config",
        "recipes/finance.yaml",
        "--output_dir",
        str(tmp_path / "run"),
    ]
    answer = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert answer.returncode == 1 and "Traceback" not in answer.stderr
    assert answer.stderr.strip().splitlines()[-1].startswith("error: http://127.0.0.1:9 cannot be reached"), (
        answer.stderr
    )
