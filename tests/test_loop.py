"""The loop in small, through the entry points, in this process: a few steps, short outputs, the real Hub's clients."""

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
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, hf_hub_download

from evaluation import reproduce, score
from evaluation.predictions import load_predictions
from push import publish
from recipes import train
from recipes.record import RECORD_FILE, load_record, sha256_file
from recipes.training import AdapterTrainer

SHORT = ("--max_steps", "6", "--max_new_tokens", "12", "--logging_steps", "1", "--per_device_eval_batch_size", "64",
         "--disable_tqdm", "true")  # fmt: skip
PUBLISHED = {
    ".gitattributes", "README.md", "adapter_config.json", "adapter_model.safetensors", "plots/loss.png",
    "plots/scores.png",
    "predictions.parquet", "recipe.yaml", "record.json", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


def train_short(run, *overrides):
    train.main(["--config", "recipes/finance.yaml", "--output_dir", str(run), *SHORT, *overrides])
    return run


def last_line(capsys):
    return capsys.readouterr().out.strip().splitlines()[-1]


def reproduced(capsys, *argv):
    """Exit code and the line of the verdict, which is the last one but for progress bars."""
    code = 0
    try:
        reproduce.main(list(argv))
    except SystemExit as stop:
        code = stop.code
    streams = capsys.readouterr()
    verdict = streams.err if code == 2 else streams.out
    return code, verdict.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = train_short(tmp_path_factory.mktemp("runs") / "finance")
    score.main([str(folder)])
    return folder


@pytest.fixture(scope="module")
def adapter(run):
    return f"local-user/{load_record(run).recipe['adapter_name']}", publish.publish(run, None)


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
    process.wait()
    assert load_record(folder).training is None
    train_short(folder)
    record = load_record(folder)
    assert record.training.resumed_from >= {"record.json": 0, "checkpoint-5/optimizer.pt": 4}.get(moment, 1)
    assert record.training.adapter_sha256 == load_record(run).training.adapter_sha256
    assert [point.step for point in record.training.history if point.loss is not None] == [1, 2, 3, 4, 5, 6]


def test_memory_shrinks_the_micro_batch_and_never_the_effective_one(run, tmp_path, monkeypatch, capsys):
    # What a GPU says when its memory is full, above 16 rows in training and above 8 in evaluation.
    full = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    training_step, prediction_step = AdapterTrainer.training_step, AdapterTrainer.prediction_step

    def train_up_to_16(self, model, inputs, *args, **kwargs):
        if len(inputs["labels"]) > 16:
            raise full
        return training_step(self, model, inputs, *args, **kwargs)

    def evaluate_up_to_8(self, model, inputs, *args, **kwargs):
        if len(inputs["labels"]) > 8:
            raise full
        return prediction_step(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(AdapterTrainer, "training_step", train_up_to_16)
    monkeypatch.setattr(AdapterTrainer, "prediction_step", evaluate_up_to_8)
    folder = train_short(tmp_path / "tight", "--auto_find_batch_size", "true")
    batch, told = load_record(folder).batch, capsys.readouterr().out
    assert (batch.per_device, batch.accumulation, batch.too_large) == (16, 4, [64, 32])
    assert "Memory does not suffice for 64 rows at once: 32 rows, 2 times" in told
    assert "Memory does not suffice to evaluate 16 rows at once: 8" in told
    # The recipe's own cut is 16 rows 4 times: the same steps, hence the same adapter.
    assert sha256_file(folder / train.ADAPTER_FILE) == sha256_file(run / train.ADAPTER_FILE)


def test_training_ends_early_when_the_validation_loss_stays(tmp_path):
    folder = train_short(tmp_path / "still", "--learning_rate", "0", "--early_stopping_patience", "2", "--max_steps",
                         "30", "--eval_steps", "2", "--save_steps", "2")  # fmt: skip
    training = load_record(folder).training
    assert (training.steps, training.best_step) == (6, 2)


def test_choosing_on_the_test_rows_is_possible_and_told(tmp_path):
    folder = train_short(tmp_path / "as-published", "--select_on_test", "true", "--max_steps", "2")
    record = load_record(folder)
    assert record.data.validation == 0
    score.main([str(folder)])
    publish.main([str(folder), "--user", "local-user", "--dry-run"])
    card = (folder / "release" / "README.md").read_text()
    assert "**on which the published step was also chosen**" in card and "training never saw" not in card


@pytest.mark.parametrize("strict", [False, True])
def test_a_missed_expectation_is_told_and_stops_a_strict_run(tmp_path, capsys, strict):
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
    score.main([str(run)])
    assert "is scored already" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        train_short(run, "--learning_rate", "5e-4")
    assert "holds a run of another recipe (learning_rate: 0.001 there, 0.0005 now)" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in run.iterdir() if path.name != "release"}


def test_publishing_is_one_commit_of_the_listed_files(adapter, run):
    repo_id, commit = adapter
    api = HfApi()
    assert set(api.list_repo_files(repo_id, revision=commit)) <= PUBLISHED | {"special_tokens_map.json"}
    assert set(api.list_repo_files(repo_id, revision=commit)) >= PUBLISHED
    commits = api.list_repo_commits(repo_id)
    assert commits[0].commit_id == commit and len(commits) == 2
    card = ModelCard.load(repo_id)
    card.validate()
    assert card.data.base_model == "google/flan-t5-large" and "miniature" in card.data.tags
    rouge_l = {result.metric_name: result.metric_value for result in card.data.eval_results}["ROUGE-L"]
    assert rouge_l == round(load_record(run).scores.adapter["rougeL"].mean, 4)
    assert api.model_info(repo_id).library_name == "peft"


def test_publishing_again_changes_nothing_and_a_dry_run_uploads_nothing(adapter, run, capsys, hub):
    repo_id, commit = adapter
    assert publish.publish(run, None) == commit
    hub.clear_requests()
    publish.main([str(run), "--dry-run", "--user", "local-user"])
    out = capsys.readouterr().out
    assert "would hold, in one commit" in out and "adapter_model.safetensors" in out and "training_args" not in out
    assert {request["method"] for request in hub.requests()} <= {"GET", "HEAD"}
    assert len(HfApi().list_repo_commits(repo_id)) == 2


def test_what_people_wrote_on_the_card_survives_and_still_reproduces(adapter, run, capsys):
    repo_id, _ = adapter
    edited = Path(hf_hub_download(repo_id, "README.md")).read_text()
    edited = edited.replace("<!-- free: intended use -->", "<!-- free: intended use -->\nFor classrooms.", 1)
    own = HfApi().upload_file(path_or_fileobj=edited.encode(), path_in_repo="README.md", repo_id=repo_id).oid
    code, line = reproduced(capsys, repo_id, "--revision", own)
    assert (code, line.split()[0]) == (0, "REPRODUCED"), line
    again = publish.publish(run, None)
    assert "For classrooms." in Path(hf_hub_download(repo_id, "README.md", revision=again)).read_text()


def test_a_published_commit_reproduces(adapter, capsys):
    repo_id, commit = adapter
    code, line = reproduced(capsys, repo_id, "--revision", commit[:12])
    assert code == 0 and line.startswith(f"REPRODUCED {repo_id}@{commit} ROUGE-L") and "equal token for token" in line


def forged(repo_id, commit, name, change):
    """A pull request of the release in which one file was changed; its revision."""
    data = change(Path(hf_hub_download(repo_id, name, revision=commit)).read_bytes())
    return (
        HfApi()
        .create_commit(
            repo_id,
            [CommitOperationAdd(name, data)],
            commit_message="forged",
            parent_commit=commit,
            create_pr=True,
            revision="main",
        )
        .pr_revision
    )


def edit_record(**changes):
    def change(data):
        record = json.loads(data)
        for path, value in changes.items():
            *parents, last = path.split("__")
            target = record
            for parent in parents:
                target = target[parent]
            target[last] = value
        return json.dumps(record).encode()

    return change


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("adapter_model.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "adapter_model.safetensors"),
        ("predictions.parquet", lambda data: data[:-1] + b"?", "predictions.parquet"),
        ("README.md", lambda data: data.replace(b"ROUGE-1 | 0.", b"ROUGE-1 | 1."), "README.md"),
        ("record.json", edit_record(scores__adapter__rougeL__mean=0.99), "score rougeL"),
        ("record.json", edit_record(scores__base__rouge1__low=0.0), "score rouge1"),
        ("record.json", edit_record(data__test_sha256="0" * 64), "other rows than the record states"),
        ("record.json", edit_record(pins__base_model__id="google/flan-t5-base"), "another base model"),
    ],
)
def test_a_forged_file_is_drift(adapter, capsys, name, change, told):
    repo_id, commit = adapter
    code, line = reproduced(capsys, repo_id, "--revision", forged(repo_id, commit, name, change))
    assert (code, line.split()[0]) == (1, "DRIFTED") and told in line, line


def test_other_weights_with_a_record_made_to_fit_are_found_by_generating(run, tmp_path, capsys):
    import torch
    from safetensors.torch import load_file, save_file

    forgery = tmp_path / "forgery"
    shutil.copytree(run, forgery)
    weights = load_file(forgery / train.ADAPTER_FILE)
    save_file({name: torch.randn_like(tensor) for name, tensor in weights.items()}, forgery / train.ADAPTER_FILE)
    record = load_record(forgery)
    record.training.adapter_sha256 = sha256_file(forgery / train.ADAPTER_FILE)
    record.recipe["adapter_name"] = "forgery"
    record.save(forgery)
    publish.publish(forgery, None)
    code, line = reproduced(capsys, "local-user/forgery")
    assert (
        (code, line.split()[0]) == (1, "DRIFTED") and "adapter outputs differ" in line and "base outputs" not in line
    ), line


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["local-user/none"], "no such repository"),
        (["google/flan-t5-large"], f"holds no {RECORD_FILE}"),
        (["not an id"], "is not a Hub id"),
        (["local-user/flan-t5-large-finance", "--revision", "v9"], "no such revision"),
    ],
)
def test_what_cannot_be_checked_is_unchecked(adapter, capsys, argv, told):
    code, line = reproduced(capsys, *argv)
    assert (code, line.split()[0]) == (2, "UNCHECKED") and told in line, line


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["--dataset_revision", "v9"], "no such revision"),
        (["--dataset_name", "nobody/nothing"], "no such repository"),
        (["--model_name_or_path", "./local"], "is not a Hub id"),
        (["--dataset_splits", "train", "dev"], "has no split `dev`, but train"),
        (["--prompt", "{question}"], "has no column `question`, but instruction, input, output, text"),
        (["--length_rules", "drop words(answer) > 3"], "has no column `answer`"),
        (["--length_rules", "drop characters(output) >= 0"], "keep 0 of"),
        (["--lora_target_modules", "none"], "the adapter cannot be made"),
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


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda run: (run / "record.json").unlink(), "holds no record.json"),
        (lambda run: (run / "record.json").write_text("{}"), "is not a run record"),
        (lambda run: (run / "predictions.parquet").unlink(), "holds no predictions.parquet"),
        (lambda run: (run / "predictions.parquet").write_text("x"), "is not a parquet file"),
        (
            lambda run: (run / "adapter_model.safetensors").write_bytes(b"x"),
            "is not the adapter that its record speaks of",
        ),
        (
            lambda run: (run / "tokenizer_config.json").write_text('{"x": "hf_' + "a" * 34 + '"}'),
            "token or private key",
        ),
    ],
)
def test_a_run_that_is_not_fit_to_publish_is_refused(run, tmp_path, capsys, hub, break_it, told):
    broken = tmp_path / "finance"
    shutil.copytree(run, broken)
    break_it(broken)
    hub.clear_requests()
    with pytest.raises(SystemExit):
        publish.main([str(broken)])
    assert told in capsys.readouterr().err
    assert not [request for request in hub.requests() if request["method"] == "POST"]
