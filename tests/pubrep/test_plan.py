"""`pubrep plan`: what can be reached, what fits, how long it takes; and training goes as it was foretold."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner
from huggingface_hub import HfApi, snapshot_download

from pubrep.plan import plan
from recipes import environment, summary, train
from recipes.training import forecast
from recipes.training.trainer import AdapterTrainer
from record.release_files import ADAPTER_FILE
from record.run_record import load_record

# The shipped recipe on some of its rows.
FEW = {"train_split": "train[:300]", "test_split": "train[300:350]", "eval_steps": 0.3, "save_steps": 0.3,
       "save_total_limit": 9}  # fmt: skip


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> str:
    keys = yaml.safe_load(Path("recipes/finance.yaml").read_text(encoding="utf-8"))
    path = tmp_path_factory.mktemp("recipe") / "few.yaml"
    left = {key: value for key, value in keys.items() if key not in ("test_size", "expect")}
    path.write_text(yaml.safe_dump(left | FEW))
    return str(path)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """What the command sets for its own process goes with the test."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.delenv("HUB_USER", raising=False)


def planned(recipe: str, *keys: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the command, in this process."""
    answer = CliRunner().invoke(plan, [recipe, *keys])
    if answer.exception and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    return answer.exit_code, answer.stdout, answer.stderr.strip()


def repository(name: str, config: dict) -> str:
    """A copy of the miniature under another name, its configuration changed."""
    folder = Path(snapshot_download("google/flan-t5-large"))
    api = HfApi()
    api.create_repo(name, exist_ok=True)
    api.upload_folder(repo_id=name, folder_path=folder, ignore_patterns=["config.json", ".git*"])
    content = json.loads((folder / "config.json").read_text()) | config
    api.upload_file(repo_id=name, path_in_repo="config.json", path_or_fileobj=json.dumps(content).encode())
    return name


def test_a_plan_says_what_a_run_takes_and_leaves_nothing(recipe, tmp_path):
    run = tmp_path / "run"
    code, lines, errors = planned(recipe, "--output_dir", str(run), "--dtype", "float32")
    assert code == 0 and "error" not in errors and not run.exists()
    for start in ("Base model: google/flan-t5-large@", "Dataset:    gbharti/finance-alpaca@",
                  "Account:    local-user/flan-t5-large-finance ", "Downloads:  ", "Disk:       ", "Memory:     ",
                  "Rate:       ", "Training:   ", "Scoring:    ", "Shorter:    --num_train_epochs 1: "):  # fmt: skip
        assert f"\n{start}" in lines, lines
    assert "tokens in 10 steps: " in lines
    # Nothing of the weights was fetched, unless another test had them.
    environ = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path.cwd())}
    words = [sys.executable, "-m", "pubrep", "plan", recipe]
    offline = subprocess.run(words, capture_output=True, text=True, env=environ)
    assert offline.returncode == 0, offline.stdout + offline.stderr
    assert "Account:    not asked: offline" in offline.stdout and "Downloads:  not asked: offline" in offline.stdout
    counted = [line for line in lines.splitlines() if line.startswith(("Rows:", "Work:", "     ")) and "+" in line]
    assert counted and all(line in offline.stdout for line in counted)


def test_each_thing_that_cannot_be_reached_has_its_line(recipe, hub):
    theirs = HfApi(token=hub.token("alice"))
    theirs.create_repo("alice/gate", repo_type="dataset", exist_ok=True)
    theirs.update_repo_settings("alice/gate", repo_type="dataset", gated="manual")
    before = len(hub.requests())
    code, lines, errors = planned(recipe, "--model_name_or_path", "google/flan-t5-huge", "--dataset_name", "alice/gate",
                                  "--parent_adapter", "alice/nothing")  # fmt: skip
    asked = hub.requests()[before:]
    assert code == 1 and "Account:    local-user/flan-t5-large-finance" in lines
    base, dataset, parent = errors.splitlines()
    assert base.startswith("error: Base model: google/flan-t5-huge: no such repository")
    assert dataset.startswith("error: Dataset: alice/gate: access to the gated repository is not granted: ask for it")
    assert parent.startswith("error: Continues: alice/nothing: no such repository")
    # Nothing is fetched, but for the record of what stands where the run would be published.
    fetched = [request["path"] for request in asked if "/resolve/" in request["path"]]
    assert asked and all(path.startswith("/local-user/flan-t5-large-finance/resolve/") for path in fetched), fetched


def test_an_account_that_cannot_be_written_to_is_told_and_stops_nothing(recipe, hub, monkeypatch):
    from push.account import refuse_unwritable_account
    from record.errors import UserError

    monkeypatch.setenv("HF_TOKEN", hub.token("local-user", role="read"))
    with pytest.raises(UserError, match="the token of local-user may only read: make one that may write"):
        refuse_unwritable_account("mine")
    monkeypatch.setenv("HF_TOKEN", hub.token("alice"))
    monkeypatch.setenv("HUB_USER", "local-user")
    with pytest.raises(UserError, match="local-user is neither that user nor one of their organisations"):
        refuse_unwritable_account("mine")
    monkeypatch.setenv("HF_TOKEN", hub.token("local-user"))
    base = repository("local-user/not-cached", {})
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=500_000))
    code, lines, errors = planned(recipe, "--model_name_or_path", base)
    assert "Account:    cannot be published to: no token: run `hf auth login`" in lines
    # That alone would have stopped nothing; the disk does, before any weights or rows are downloaded.
    assert code == 1 and errors.startswith("error: the disk is too full: ") and "set HF_HOME to a folder" in errors


def test_what_does_not_fit_into_memory_is_refused(recipe, monkeypatch):
    giant = repository("local-user/giant", {"d_model": 32_768, "d_ff": 131_072, "num_heads": 512, "d_kv": 64})
    code, _, errors = planned(recipe, "--model_name_or_path", giant)
    assert code == 1 and "error: memory does not suffice for local-user/giant: its weights alone take " in errors
    free = iter([10**9, 10_000])
    monkeypatch.setattr(environment, "free_memory", lambda: next(free))
    code, lines, errors = planned(recipe)
    assert code == 1 and "Memory:     " in lines and "Training:" not in lines
    assert (
        errors.rpartition("\n")[2].startswith("error: memory does not suffice for training row ")
        and "drop such rows by" in errors
    )


def test_a_limit_of_the_process_counts_as_memory():
    script = ("import resource; from recipes.environment import free_memory; all = free_memory();"
              "resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9)); print(free_memory(), all)")  # fmt: skip
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    free, everything = map(int, answer.stdout.split())
    assert 0 < free < 10**9 and free <= everything


def short_run(recipe: str, run: Path, capsys) -> str:
    train.main(["--config", recipe, "--output_dir", str(run), "--disable_tqdm", "true"])
    return capsys.readouterr().out


def test_training_is_what_was_foretold_and_does_not_notice_it(recipe, tmp_path, capsys, monkeypatch):
    works, passed = [], {"steps": 0, "rows": 0, "targets": 0, "evaluations": 0}
    step, evaluate, count, foretell = (
        AdapterTrainer.training_step, AdapterTrainer.evaluate, forecast.count_work, forecast.measure_rates
    )  # fmt: skip

    def counted_step(self, model, inputs, items=None):
        # What measures before training has no step yet.
        if self.state.max_steps:
            passed["steps"] += 1
            passed["rows"] += len(inputs["numbers"])
            passed["targets"] += inputs["target_tokens"]
        return step(self, model, inputs, items)

    def counted_evaluation(self, *args, **kwargs):
        passed["evaluations"] += 1
        return evaluate(self, *args, **kwargs)

    monkeypatch.setattr(AdapterTrainer, "training_step", counted_step)
    monkeypatch.setattr(AdapterTrainer, "evaluate", counted_evaluation)
    monkeypatch.setattr(forecast, "count_work", lambda trainer: works.append((count(trainer), trainer)) or works[-1][0])
    for module in (summary, forecast):
        monkeypatch.setattr(module, "WORTH_SAYING", 0)
    lines = short_run(recipe, tmp_path / "one", capsys)
    record, (work, trainer) = load_record(tmp_path / "one"), works[0]
    targets = 2 * int(forecast.lengths(trainer.train_dataset)[:, 1].sum())
    assert passed == {"steps": work.steps, "rows": 2 * record.data.train, "targets": targets,
                      "evaluations": work.evaluations}  # fmt: skip
    assert len(list((tmp_path / "one").glob("checkpoint-*"))) == work.checkpoints
    assert record.forecast.tokens == work.tokens == round(record.training.tokens_per_second * record.training.seconds)
    assert record.forecast.ratio == pytest.approx(record.training.seconds / record.forecast.seconds)
    assert "\nForecast:   " in lines and " than foretold\n" in lines
    kept = sum(path.stat().st_size for path in (tmp_path / "one").rglob("*") if path.suffix in (".safetensors", ".pt"))
    assert kept == pytest.approx(forecast.disk_of(trainer, work), rel=0.2)

    monkeypatch.setattr(forecast, "measure_rates", lambda trainer, work: foretell and None)
    lines = short_run(recipe, tmp_path / "two", capsys)
    assert load_record(tmp_path / "two").forecast is None and "the first steps tell" in lines
    adapters = [(tmp_path / name / ADAPTER_FILE).read_bytes() for name in ("one", "two")]
    assert adapters[0] == adapters[1]
