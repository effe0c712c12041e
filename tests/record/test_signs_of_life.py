"""What is seen of a command that is silent for a while: on a terminal, in a log, and by a program."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from silences import watch

from record.errors import ON_LOCAL_HUB

ENVIRON = os.environ | {"PYTHONPATH": str(Path.cwd()), "PYTHONUNBUFFERED": ""}
BEGIN = """
import os, subprocess, sys, time
from record.progress import progress
from record.signs_of_life import signs_of_life, silence, waiting_for
"""
WORK = """
with signs_of_life("Loading it"):
    time.sleep(2.6)
    print("one", flush=True)
    waiting_for("Two")
    time.sleep(2.6)
    print("two", file=sys.stderr)
    sys.exit(3)
"""


def words(code: str) -> list[str]:
    return [sys.executable, "-c", BEGIN + code]


def test_on_a_terminal_a_line_is_rewritten_and_leaves_no_trace():
    seen = watch(words(WORK), ENVIRON, terminal=True)
    assert seen.code == 3 and seen.lines == ["one", "two", ""], seen.text
    for what in ("Loading it", "Two"):
        # From the first second on, and then each.
        seconds = [int(number) for number in re.findall(rf"\r{what}, (\d+) s *\r", seen.text)]
        assert len(seconds) >= 2 and seconds == sorted(set(seconds)) and seconds[0] == 0, seen.text


def test_on_the_local_hub_whose_command_is_the_third_process_a_terminal_gets_a_sign_at_once():
    short = words('with signs_of_life("Loading it"): time.sleep(0.4)')
    environ = ENVIRON | {ON_LOCAL_HUB: "1"}
    assert watch(short, environ, terminal=True).text.startswith("\rLoading it, 0 s\r")
    assert watch(short, environ, terminal=False).text == ""


def test_in_a_log_dots_stand_in_a_line_of_their_own():
    seen = watch(words(WORK), ENVIRON, terminal=False)
    assert seen.code == 3 and re.fullmatch(r"Loading it \.+ \d+ s\none\nTwo \.+ \d+ s\ntwo\n", seen.text), seen.text


def test_a_program_that_reads_the_streams_finds_in_them_what_the_command_says_and_no_more():
    answer = subprocess.run(words(WORK), env=ENVIRON, capture_output=True, text=True)
    assert (answer.returncode, answer.stdout, answer.stderr) == (3, "one\n", "two\n")
    answer = subprocess.run(words(WORK), env=ENVIRON | {"RANK": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert answer.stdout == b"one\ntwo\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_after_a_line_that_has_not_ended_nothing_is_shown(terminal):
    code = """
with signs_of_life():
    print("Replace it? [y/N] ", end="", flush=True)
    time.sleep(2.6)
    print("y")
"""
    seen = watch(words(code), ENVIRON, terminal)
    assert seen.text.replace("\r", "") == "Replace it? [y/N] y\n"


def test_a_bar_stays_whole_and_its_time_goes_on():
    code = """
with signs_of_life(), progress(2, "row", "Adapter") as done:
    done(1)
    time.sleep(3.4)
    done(1)
print("end")
"""
    seen = watch(words(code), ENVIRON, terminal=True)
    assert "Working" not in seen.text and len({*re.findall(r"1/2 \[00:(\d\d)<", seen.text)}) >= 3, seen.text
    assert all(line == "end" or not line or "Adapter: 100%" in line for line in seen.lines)


def test_another_process_speaks_alone_and_a_fork_has_no_signs():
    code = """
with signs_of_life():
    with silence():
        subprocess.run([sys.executable, "-c", "import time; time.sleep(2.6); print('child')"])
    if os.fork() == 0:
        print("forked", flush=True)
        time.sleep(2.6)
        os._exit(0)
    os.wait()
"""
    seen = watch(words(code), ENVIRON, terminal=False)
    assert re.fullmatch(r"child\nforked\n\.+ \d+ s\n", seen.text), seen.text


def test_forks_and_threads_that_write_never_wait_for_each_other():
    code = """
import threading
import record.signs_of_life as signs
signs.ON_TERMINAL = signs.LOOK = 0.001
def write():
    for number in range(2_000):
        print(number, flush=True)
with signs_of_life():
    writing = threading.Thread(target=write)
    writing.start()
    for number in range(60):
        if (pid := os.fork()) == 0:
            print("forked", flush=True)
            with signs_of_life("In the fork"):
                time.sleep(0.01)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    writing.join()
"""
    seen = watch(words(code), ENVIRON, terminal=True)
    assert seen.code == 0 and seen.text.count("forked") == 60 and "1999" in seen.text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_what_is_interrupted_or_killed_ends_at_once(number, code):
    stopped = f"""
with signs_of_life("Loading it"):
    try:
        time.sleep(1.2)
        os.kill(os.getpid(), {int(number)})
        time.sleep(60)
    except KeyboardInterrupt:
        print("Interrupted", flush=True)
"""
    seen = watch(words(stopped), ENVIRON, terminal=True)
    assert seen.code == code and sum(silence.seconds for silence in seen.silences) < 60
    assert code or seen.lines == ["Interrupted", ""], seen.text
