"""Training on several processes: the same rows, the same steps, the same adapter as on one."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download
from two_hosts import kill, skip_where_none, start, two_hosts

from record.run_record import Record, load_record

CONFIGS = sorted(Path("recipes/accelerate").glob("*.yaml"))


@pytest.fixture(scope="module")
def base_without_dropout():
    """The miniature with its dropout off: each process draws masks of its own, which would drown the comparison."""
    folder = Path(snapshot_download("google/flan-t5-large"))
    config = json.loads((folder / "config.json").read_text()) | {"dropout_rate": 0.0}
    HfApi().create_repo("local-user/no-dropout", exist_ok=True)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".gitattributes"}
    files["config.json"] = json.dumps(config).encode()
    operations = [CommitOperationAdd(name, data) for name, data in files.items()]
    HfApi().create_commit("local-user/no-dropout", operations, commit_message="The miniature without dropout")
    return "local-user/no-dropout"


def training(run: Path, base: str, save_steps: int = 5) -> list[str]:
    """The module that trains five steps into `run`, and its words."""
    recipe = ["-m", "recipes.train", "--config", "recipes/finance.yaml", "--output_dir", str(run)]
    overrides = {"model_name_or_path": base, "lora_dropout": 0, "validation_size": 0.0195, "max_steps": 5,
                 "logging_steps": 1, "eval_steps": save_steps, "save_steps": save_steps,
                 "disable_tqdm": True}  # fmt: skip
    return [*recipe, *(word for key, value in overrides.items() for word in (f"--{key}", str(value)))]


def launched(run: Path, config: str, base: str) -> Record:
    """The record of a run launched by accelerate."""
    launch = ["-m", "accelerate.commands.launch", "--quiet", "--config_file", f"recipes/accelerate/{config}.yaml"]
    command = [sys.executable, *launch, "--main_process_port", "0", *training(run, base)]
    answer = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-2000:]
    assert answer.stdout.count("Trained: ") == 1
    return load_record(run)


@pytest.fixture(scope="module")
def one(base_without_dropout, tmp_path_factory):
    """What one process trains."""
    return launched(tmp_path_factory.mktemp("one") / "one", "cpu", base_without_dropout)


def losses(record: Record) -> list[float]:
    points = [point for point in record.training.history if point.loss is not None]
    assert [point.step for point in points] == [1, 2, 3, 4, 5]
    return [point.loss for point in points]


def test_two_processes_train_what_one_trains(one, base_without_dropout, tmp_path):
    two = launched(tmp_path / "two", "ddp-cpu", base_without_dropout)
    assert (one.batch.processes, one.batch.per_device) == (1, 64)
    assert (two.batch.processes, two.batch.per_device) == (2, 32)
    assert one.batch.effective == two.batch.effective == 64
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    # 61 validation rows do not divide by two processes nor by the batch: none is left out, none counted twice.
    assert one.data.validation == two.data.validation == 61
    evals = [next(point.eval_loss for point in r.training.history if point.eval_loss) for r in (one, two)]
    assert evals[1] == pytest.approx(evals[0], rel=1e-4)


def test_two_hosts_train_what_one_process_does_and_go_on_after_one_was_lost(one, base_without_dropout, hub, tmp_path):
    skip_where_none()
    run = tmp_path / "hosts"
    words = training(run, base_without_dropout, save_steps=1)
    with two_hosts(hub.url) as names:
        first, second = (start(name, rank, *words) for rank, name in enumerate(names))
        while first.poll() is None and not (run / "checkpoint-1" / "trainer_state.json").exists():
            time.sleep(0.02)
        kill(names[1])
        printed, errors = first.communicate(timeout=300)
        second.communicate()
        assert first.returncode == 1 and "Trained: " not in printed, printed + errors
        assert errors.startswith("error: ") and errors.count("\n") == 1 and "run the same command again" in errors
        again = [start(name, rank, *words) for rank, name in enumerate(names)]
        printed, errors = again[0].communicate(timeout=900)
        silent = again[1].communicate(timeout=300)
    assert (again[0].returncode, again[1].returncode, *silent) == (0, 0, "", ""), errors
    assert f"Continuing from {run}/checkpoint-" in printed
    record = load_record(run)
    assert record.batch.processes == record.environment.processes == 2 and record.training.resumed_from >= 1
    assert losses(record) == pytest.approx(losses(one), rel=1e-4)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_the_configuration(path):
    config = load_config_from_file(str(path))
    assert path.read_text().startswith("#")
    assert config.mixed_precision == "no" and config.num_processes >= 1
    assert config.distributed_type == ("NO" if path.stem in ("cpu", "gpu") else "MULTI_GPU")
    if path.stem == "ddp-multinode":
        assert config.num_machines > 1
