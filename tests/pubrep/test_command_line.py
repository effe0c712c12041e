"""The front door: help in an instant, and a slip that ends in one line and does nothing."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from pubrep.__main__ import VERBS, main
from record.command_line import RUNS

HEAVY = {"torch", "transformers", "datasets", "trl", "peft", "evaluate", "matplotlib.pyplot"}
# `python -m pubrep`, which says at its end which modules it has loaded.
TELLING = """
import atexit, runpy, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
runpy.run_module("pubrep", run_name="__main__", alter_sys=True)
"""


def pubrep(*words: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess:
    environ = os.environ | {"PYTHONPATH": str(Path.cwd())} | environ
    command = [sys.executable, "-m", "pubrep", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=cwd, stdin=subprocess.DEVNULL)


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """Runs a command line in this process, in an empty folder: its exit code, output and errors."""

    def run(*words: str, **environ: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        with patch.dict(os.environ, environ):
            try:
                main(list(words))
                code = 0
            except SystemExit as end:
                code = end.code
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_comes_within_a_second_with_an_example_and_imports_nothing_heavy(verb):
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", TELLING, *verb.split(), "--help"]
        answers.append(subprocess.run(command, capture_output=True, text=True))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # The processor's time: other tests keep the cores busy.
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    answers = []
    assert any(seconds() < 1 for _ in range(3))
    answer = answers[0]
    assert answer.returncode == 0 and max(map(len, answer.stdout.splitlines())) <= 80, answer.stdout + answer.stderr
    assert f"pubrep {verb}".rstrip() in answer.stdout.partition("Examples:" if verb else "Verbs:")[2 if verb else 0]
    imported = set(answer.stderr.split())
    assert "click" in imported and not imported & HEAVY


SLIPS = {
    "publsh finance": "did you mean publish?",
    "reproduce": "Missing argument 'ADAPTER'",
    "reproduce a/b --level sore": "'sore' is not one of 'score', 'prefill', 'generate', 'train'",
    "reproduce a/b --sampel 3": "Did you mean '--sample'?",
    "reproduce a/b --sample many": "'many' is not a valid integer",
    "reproduce a/b c/d": "unexpected extra argument",
    "reproduce a/b --hub loacl": "'loacl' is not one of 'real', 'local'",
    "retrain a/b --level score": "No such option '--level'",
    "publish": "Name the runs to publish, or --all.",
    "publish finance --all": "Name the runs to publish, or --all.",
    "publish finance --dryrun": "Did you mean '--dry-run'?",
    "publish finance --user me --org acme": "exclude each other",
    "publish finance --time-limit soon": "'soon' is not a valid float",
    "evaluate": "Missing argument 'RUN'",
    "evaluate finance text2sql": "unexpected extra argument",
    "evaluate finance --force": "No such option '--force'",
    "plan": "Missing argument 'RECIPE'",
    "plan finanse": "There is no recipe 'finanse'",
    "plan finance seed=1": "is not an override: write --KEY VALUE",
    "train": "Missing argument 'RECIPE'",
    "train finanse": "There is no recipe 'finanse'",
    "train finance learning_rate=1": "is not an override: write --KEY VALUE",
    "train finance --accelerate none.yaml": "'none.yaml' does not exist",
    "sweep finance": "Missing option '--set'",
    "sweep finance --set seed=1": "a single combination is no sweep",
    "sweep finanse --set seed=1,2": "There is no recipe 'finanse'",
    "sweep finance --set seed=1,2 --limit 1": "1 is not in the range",
    "help trin": "did you mean train?",
    "--json train": "--json stands before `help` alone",
    "export finance": "Missing option '--format'",
    "export finance --format int4": "'int4' is not one of",
    "export-results a/b --into x --format xml": "'xml' is not one of 'eval-results', 'every-eval-ever'",
    "export-results a/b --format lm-eval": "Missing option '--into'",
    "serve": "Missing argument 'ADAPTER...'",
    "serve a/b --port http": "'http' is not a valid integer",
    "space a/b --private": "No such option '--private'",
    "publish-data rows.csv": "Missing argument 'OWNER/NAME'",
    "publish-space": "Missing argument 'ADAPTER'",
    "claims --level train": "'train' is not one of 'score', 'prefill', 'generate'",
    "hub --port 99999": "99999 is not in the range",
    "bench --only speed": "'speed' is not one of",
    "compare --into": "requires an argument",
    "readme now": "unexpected extra argument",
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_one_line_and_does_nothing(slip, typed, tmp_path):
    code, printed, errors = typed(*slip.split())
    assert (code, printed) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith("error: ") and SLIPS[slip] in line
    assert list(tmp_path.iterdir()) == []


def test_a_slip_in_an_override_is_one_line_through_the_launcher_too(tmp_path):
    answer = pubrep("train", "finance", "--learning_rat", "1e-4", cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == "error: recipe finance: unknown key `learning_rat`: did you mean `learning_rate`?\n"
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_named_by_its_folder_or_its_recipe(typed):
    for words, environ, said in (
        (["evaluate", "finance"], {}, "runs/finance holds no record.json"),
        (["evaluate", "finance"], {RUNS: "elsewhere"}, "elsewhere/finance holds no record.json"),
        (["evaluate", "other/finance"], {}, "other/finance holds no record.json"),
        (["publish", "--all"], {}, "runs/finance holds no record.json"),
    ):
        code, _, errors = typed(*words, **environ)
        assert code == 1 and said in errors, errors


def test_help_for_programs_holds_every_verb_with_its_options_and_exit_codes(typed):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = pubrep("--json", "help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert answer.returncode == 0, answer.stderr
    # The modules of all verbs are loaded.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    verbs = json.loads(answer.stdout)["command"]["commands"]
    assert list(verbs) == list(VERBS)
    for verb, info in verbs.items():
        assert info["usage"].startswith(f"Usage: pubrep {verb} ") and info["examples"][0].startswith("pubrep "), verb
        assert info["help"] and "\b" not in info["help"] and info["exit_codes"].keys() >= {"0", "1", "2"}
        # What people read holds the same options.
        told = typed(verb, "--help")[1] if verb in ("train", "reproduce", "serve") else None
        for option in [param for param in info["params"] if param["param_type_name"] == "option"]:
            assert option["help"] and (told is None or option["opts"][0] in told), (verb, option["name"])
    reproduce = verbs["reproduce"]
    (level,) = [param for param in reproduce["params"] if param["name"] == "level"]
    assert (level["default"], level["type"]["choices"]) == ("generate", ["score", "prefill", "generate", "train"])
    assert reproduce["exit_codes"]["1"].startswith("DRIFTED") and verbs["train"]["exit_codes"]["2"].startswith("a slip")
    one = json.loads(typed("--json", "help", "train")[1])["command"]
    assert one == verbs["train"]


def test_the_shell_completes_verbs_and_options():
    environ = {"_PUBREP_COMPLETE": "bash_complete", "COMP_CWORD": "1", "COMP_WORDS": "pubrep re"}
    assert {"plain,reproduce", "plain,retrain", "plain,report"} <= set(pubrep(**environ).stdout.split())
    environ |= {"COMP_CWORD": "3", "COMP_WORDS": "pubrep reproduce a/b --le"}
    assert "plain,--level" in pubrep(**environ).stdout.split()


def test_every_verb_has_a_make_target():
    listed = subprocess.run(["make", "help"], capture_output=True, text=True, check=True).stdout
    assert max(map(len, listed.splitlines())) <= 80
    assert set(VERBS) <= set(re.findall(r"^([a-z-]+?)(?:-R)? ", listed, re.MULTILINE))
