"""make is a contract: what it does not know it refuses, what it is not told it does not do."""

import os
import subprocess
import sys

import pytest

# Names that a shell or a CI may have set.
AROUND = {"PUBLISH": "true", "FORCE": "1", "PR": "7", "ORG": "acme", "PRIVATE": "1", "DRY_RUN": "1", "LEVEL": "score",
          "HUB": "local", "REVISION": "dev", "ADAPTER": "a/b", "FORMAT": "int8", "ARGS": "--overwrite abcdefg",
          "HOST": "0.0.0.0", "RUNS": "elsewhere", "SPACE": "acme/page", "CHECK": "1", "VENV": "/none"}  # fmt: skip
TARGETS = ["plan-finance", "train-finance", "evaluate-finance", "publish-finance", "publish", "export-finance",
           "reproduce", "vouch", "retrain", "check", "serve", "space", "publish-space", "report", "compare",
           "claims", "readme", "hub", "bench", "demo"]  # fmt: skip


@pytest.fixture(scope="module")
def venv(tmp_path_factory):
    """An environment whose Python prints the words that it was called with, and what it would read of the others."""
    folder = tmp_path_factory.mktemp("venv")
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.write_text('#!/bin/bash\nprintf "[%s]" "$@"\necho " runs=$PUBREP_RUNS user=$HUB_USER"\n')
    python.chmod(0o755)
    for mark in (".ready", ".ready-space", ".ready-extras"):
        (folder / mark).touch()
    return folder


def make(*words: str, **environ: str) -> subprocess.CompletedProcess:
    # Not as a part of the make that runs the tests.
    own = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *words], env=own | environ, capture_output=True, text=True)


SLIPS = {
    ("publish-finance", "DRYRUN=1"): "make knows no variable DRYRUN: did you mean DRY_RUN?",
    ("publish-finance", "Dry_Run=1"): "make knows no variable Dry_Run",
    ("publish", "ORGANISATION=acme"): "make knows no variable ORGANISATION",
    ("reproduce", "ADAPTOR=a/b"): "did you mean ADAPTER?",
    ("train-finance", "ARG=--max_steps 2"): "did you mean ARGS?",
    ("publish-finance", "DRY_RUN=yes"): "DRY_RUN is 1 or 0, not yes",
    ("publish-finance", "PR=7"): "PR is 1 or 0, not 7",
    ("export-finance", "FORCE=true"): "FORCE is 1 or 0, not true",
    ("publish-finance", "HUB=locl"): "HUB is local or real, not locl",
    ("evaluate-finance", "DRY_RUN=1"): "make evaluate-finance does not take DRY_RUN",
    ("reproduce", "ADAPTER=a/b", "PUBLISH=1"): "make reproduce does not take PUBLISH",
    ("retrain", "ADAPTER=a/b", "LEVEL=score"): "make retrain does not take LEVEL",
    ("demo", "HUB=local"): "make demo does not take HUB",
    ("lint", "ARGS=--fix"): "make lint does not take ARGS",
    ("help", "ARGS=x"): "make help does not take ARGS",
    ("reproduce",): "no adapter was named",
    ("serve",): "no adapter was named",
    ("publish-data", "ROWS=rows.csv"): "name a run, file or folder and a repository",
    ("export", "FORMAT=int8"): "no adapter was named",
    ("export-results", "ADAPTER=a/b", "FORMAT=lm-eval"): "name an adapter and a folder",
    ("export-results", "ADAPTER=a/b", "INTO=x", "PUBLISH=1"): "make export-results does not take PUBLISH",
    ("sweep-finance",): "no settings were named",
}


@pytest.mark.parametrize("slip", SLIPS, ids=" ".join)
def test_a_slip_is_one_line_and_does_nothing(slip, venv):
    answer = make(*slip, f"VENV={venv}")
    assert answer.returncode == 2 and SLIPS[slip] in answer.stdout + answer.stderr
    lines = [line for line in (answer.stdout + answer.stderr).splitlines() if not line.startswith("make: ***")]
    assert len(lines) == 1 and "[pubrep]" not in lines[0]


@pytest.mark.parametrize("target", TARGETS)
def test_the_environment_changes_nothing(target, venv):
    words = [target, f"VENV={venv}", *(["ADAPTER=owner/name"] if target in ADAPTERS else [])]
    assert make(*words, **AROUND).stdout == make(*words).stdout != ""


ADAPTERS = ("reproduce", "vouch", "retrain", "check", "serve", "space", "publish-space")


@pytest.mark.parametrize("target", [target for target in TARGETS if target != "demo"])
def test_args_are_passed_on(target, venv):
    words = [target, f"VENV={venv}", *(["ADAPTER=owner/name"] if target in ADAPTERS else [])]
    assert "[--one][two words]" in make(*words, "ARGS=--one 'two words'").stdout


@pytest.mark.parametrize(
    "value", ["a title", "it's", "$(touch made)", "`touch made`", "a; touch made", "$HOME", 'a "b"']
)
def test_a_value_arrives_as_it_was_typed(value, venv, tmp_path):
    answer = make("publish-finance", f"COLLECTION={value}", f"VENV={venv}")
    assert f"[--collection][{value}]" in answer.stdout and not os.path.exists("made")  # noqa: PTH110


def test_what_is_said_is_passed_on(venv):
    for words, called in (
        (["publish-finance", "DRY_RUN=0"], "[-m][pubrep][publish][runs/finance] "),
        (["publish-finance", "DRY_RUN=1", "ORG=acme", "PRIVATE=1"], "[--org][acme][--private][--dry-run] "),
        (["publish", "HUB=local", "HUB_USER=me"], "[--user][me][--hub][local] runs=.local_hub/runs user=me"),
        (["evaluate-finance", "RUNS=mine"], "[evaluate][mine/finance] runs=mine"),
        (["export-finance", "FORMAT=merged int8"], "[export][runs/finance][--format][merged][--format][int8] "),
        (["export", "ADAPTER=a/b", "FORMAT=ct2", "PUBLISH=1"], "[--format][ct2]"),
        (["reproduce", "ADAPTER=a/b", "LEVEL=score", "SAMPLE=5"], "[reproduce][a/b][--level][score][--sample][5] "),
        (["check", "ADAPTER=a/b", "RECIPE=finance", "CLAIM=rougeL=0.2 rouge1=0.3", "MODEL=1"],
         "[check][a/b][--recipe][finance][--claim][rougeL=0.2][--claim][rouge1=0.3][--model] "),
        (["serve", "ADAPTER=a/b c/d@v2", "PORT=1"], "[serve][a/b][c/d@v2][--port][1] "),
        (["report", "RECIPES=finance text2sql"], "[report][runs/finance][runs/text2sql] "),
        (["plan-finance", "ARGS=--seed 1"], "[plan][finance][--seed][1] "),
        (["train-finance", "ACCELERATE=x.yaml"], "[train][finance][--accelerate][x.yaml] "),
        (["publish-data", "ROWS=my rows.csv", "DATASET=a/b"], "[publish-data][my rows.csv][a/b] "),
        (["sweep-finance", "SET=seed=1,2 lora_r=8"], "[sweep][finance][--set][seed=1,2][--set][lora_r=8] "),
        (["export-results", "ADAPTER=a/b", "FORMAT=lm-eval", "INTO=my folder", "REVISION=v2"],
         "[export-results][a/b][--format][lm-eval][--into][my folder][--revision][v2] "),
        (["claims", "CHECK=1"], "[claims][--check] "),
    ):  # fmt: skip
        answer = make(*words, f"VENV={venv}")
        assert answer.returncode == 0 and called in answer.stdout, answer.stdout + answer.stderr


def test_python_is_the_one_that_is_named(tmp_path):
    answer = make("-n", "install", f"VENV={tmp_path}/new", f"PYTHON={sys.executable}")
    assert f'"{sys.executable}" -m venv' in answer.stdout
