"""Scoring, reproducing and checking on two processes, on two hosts where there can be any: as on one."""

import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from short_runs import copy_of
from two_hosts import skip_where_none, start, two_hosts

from record.release_files import PREDICTIONS_FILE
from record.run_record import load_record
from scoring.decoding.processes import deal

TWO = "recipes/accelerate/ddp.yaml"
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def test_rows_are_dealt_so_that_work_is_equal():
    hands = deal([3, 9, 1, 9, 5], 2)
    assert hands == [[1, 4, 2], [3, 0]]
    assert deal([], 2) == [[], []] and deal([4], 2) == [[0], []]


@pytest.mark.parametrize("where", ["hosts", "processes"])
def test_two_score_reproduce_and_check_what_one_does(where, trained_on_few_rows, scored_on_few_rows, hub, tmp_path):
    run, script = copy_of(trained_on_few_rows, tmp_path / "finance", "together"), "tests/scored_together.py"
    if where == "hosts":
        skip_where_none()
        with two_hosts(hub.url) as names:
            # The second host sees neither the run nor the first one's cache.
            first = start(names[0], 0, script, str(run))
            second = start(names[1], 1, script, "elsewhere", HF_HOME=str(tmp_path / "home"))
            printed, errors = first.communicate(timeout=900)
            silent = second.communicate(timeout=300)
        assert (second.returncode, *silent) == (0, "", "")
    else:
        if os.geteuid() == 0:
            pytest.skip("two hosts show it, and more")
        launch = ["-m", "recipes.launch", "--config_file", TWO, "--main_process_port", "0", script, str(run)]
        environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ".:tests"}
        first = subprocess.Popen([sys.executable, *launch], **PIPES, env=environ)
        printed, errors = first.communicate(timeout=900)
    assert first.returncode == 0, errors
    one, two = load_record(scored_on_few_rows), load_record(run)
    assert (one.scored_in.processes, two.scored_in.processes) == (1, 2)
    assert (run / PREDICTIONS_FILE).read_bytes() == (scored_on_few_rows / PREDICTIONS_FILE).read_bytes()
    generated, read, checked = printed.splitlines()[-3:]
    assert generated.startswith("REPRODUCED") and "equal token for token" in generated
    assert read.startswith("REPRODUCED") and "are the likeliest" in read
    assert float(checked) == one.scores.adapter["rougeL"].mean


def test_one_process_killed_ends_all_in_one_line(trained_on_few_rows, tmp_path):
    run = shutil.copytree(trained_on_few_rows, tmp_path / "finance")
    command = [sys.executable, "-m", "pubrep", "evaluate", str(run), "--accelerate", TWO]
    scoring = subprocess.Popen(command, **PIPES)
    second = None
    while second is None and scoring.poll() is None:
        time.sleep(0.1)
        below = psutil.Process(scoring.pid).children(recursive=True)
        second = next((one for one in below if one.environ().get("RANK") == "1"), None)
    second.send_signal(signal.SIGKILL)
    printed, errors = scoring.communicate(timeout=300)
    line = "error: process 1 of this run has ended with SIGKILL, and so have the others: run the same command again\n"
    assert (scoring.returncode, printed, errors) == (1, "", line)
    assert load_record(run).scores is None and not (run / PREDICTIONS_FILE).exists()
