"""Ctrl-C in the middle of training, and the line that a log gets."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import record.progress
from record.progress import progress


def test_ctrl_c_and_sigterm_end_in_a_line_and_leave_a_checkpoint(tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "pubrep", "train", "finance", "--output_dir", run, "--save_steps", "1",
               "--eval_steps", "1", "--max_steps", "5000"]  # fmt: skip
    # A process group of its own, as a terminal gives one: all in it receive the signal.
    training = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    while training.poll() is None and not (run / "checkpoint-2").exists():
        time.sleep(0.1)
    os.killpg(training.pid, signal.SIGINT)
    printed, _ = training.communicate(timeout=60)
    assert training.returncode != 0
    assert printed.splitlines()[-1] == "Interrupted: run the same command again to go on."
    assert "Traceback" not in printed
    last = max(int(path.name.partition("-")[2]) for path in run.glob("checkpoint-*"))
    # As Slurm sends it, before it takes the machine away.
    training = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while training.poll() is None and not (run / f"checkpoint-{last + 2}").exists():
        time.sleep(0.1)
    training.terminate()
    printed, _ = training.communicate(timeout=30)
    assert training.returncode == 0, printed
    stopped = re.fullmatch(
        r"Stopped by SIGTERM after step ([\d,]+): run the same command again to go on", printed.splitlines()[-1]
    )
    assert f"Continuing from {run}/checkpoint-" in printed
    assert json.loads((run / f"checkpoint-{stopped[1]}" / "trainer_state.json").read_text())["global_step"] > last


def test_a_log_gets_a_line_now_and_then(capsys, monkeypatch):
    with progress(1_200, "row", "Adapter") as finished:
        finished(300)
        # Less than half a minute has passed.
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(record.progress, "EVERY", 0)
        finished(300)
    assert capsys.readouterr().err == "Adapter: 600 of 1,200 rows, 00:00 left\n"
