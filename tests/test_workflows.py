"""The workflows: what each may do, that make takes their lines, and that the weekly history is kept by real git."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = {path.stem: path for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}
HISTORY = "docs/claims/a--first/history.json"
# What only the history's commit may change.
OTHERS = ("README.md", "docs/claims/a--first/claim.json")


def jobs(name):
    return yaml.safe_load(WORKFLOWS[name].read_text(encoding="utf-8"))["jobs"]


def steps_of(job):
    return [(step, step.get("run", "")) for step in job["steps"]]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_only_the_job_that_commits_may_write_and_it_installs_nothing(name):
    workflow = yaml.safe_load(WORKFLOWS[name].read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for title, job in workflow["jobs"].items():
        if (name, title) == ("claims", "keep"):
            assert job["permissions"] == {"contents": "write"}
            assert {line.split()[0] for _, run in steps_of(job) for line in run.splitlines()} == {"git", "if"}
        else:
            assert "permissions" not in job
        assert job["timeout-minutes"] <= 120
        # A tag of GitHub's own actions; nobody else's.
        assert all(step["uses"].startswith("actions/") for step, _ in steps_of(job) if "uses" in step)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_make_takes_every_line(name):
    lines = [line for job in jobs(name).values() for _, run in steps_of(job) for line in run.splitlines()]
    called = [line for line in lines if line.startswith("make ")]
    assert called
    for line in called:
        words = ["make", "--dry-run", *shlex.split(line)[1:]]
        answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr


def test_what_was_found_is_handed_on_whether_the_check_passed_or_not():
    check, keep = jobs("claims")["check"], jobs("claims")["keep"]
    place = next(n for n, (_, run) in enumerate(steps_of(check)) if run.startswith("make claims"))
    # The step is stopped before the job, of which nothing more would run.
    assert check["steps"][place]["timeout-minutes"] < check["timeout-minutes"]
    assert all(step["if"] == "always()" for step in check["steps"][place + 1 :])
    assert keep["if"] == "always()" and keep["needs"] == "check"
    uploads = [step["with"] for step in check["steps"] if "upload" in step.get("uses", "")]
    (download,) = [step["with"] for step in keep["steps"] if "download" in step.get("uses", "")]
    # An artifact's paths begin at the first wildcard.
    assert {"name": download["name"], "path": f"{download['path']}/*/history.json"} in uploads


@pytest.mark.parametrize(("found", "code"), [("REPRODUCED", 0), ("DRIFTED", 1)])
def test_a_week_with_drift_is_red(found, code, tmp_path):
    (line,) = [run for step, run in steps_of(jobs("claims")["check"]) if step.get("name", "").endswith("drifted")]
    folder = tmp_path / "docs/claims/a--first"
    folder.mkdir(parents=True)
    (folder / "claim.json").write_text(f'{{\n "verdict": {{\n  "verdict": "{found}"\n }}\n}}\n')
    assert bash(line, tmp_path).returncode == code


def git(folder, *words):
    author = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    answer = subprocess.run(
        ["git", *words], cwd=folder, env=os.environ | author, capture_output=True, text=True, check=True
    )
    return answer.stdout.strip()


def bash(lines, folder, **environment):
    """As a runner of GitHub runs them."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", lines]
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def write(folder, path, text):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)


@pytest.fixture
def remote(tmp_path):
    """A repository on a server, with one adapter's history."""
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    for path in (HISTORY, *OTHERS):
        write(folder, path, "old\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "First")
    git(tmp_path, "clone", "--quiet", "--bare", "work", "remote.git")
    return tmp_path / "remote.git"


@pytest.fixture
def checkout(remote, tmp_path):
    """As actions/checkout makes it: the last commit alone."""
    git(tmp_path, "clone", "--quiet", "--depth", "1", remote.as_uri(), "checkout")
    return tmp_path / "checkout"


def keep(checkout):
    """Runs what the job that keeps the history runs after the download of the artifact."""
    step, lines = steps_of(jobs("claims")["keep"])[-1]
    return bash(lines, checkout, **step["env"], GITHUB_REF="refs/heads/main")


def committed(remote):
    """The files that the last commit changed, and its author."""
    names = git(remote, "show", "--format=", "--name-only", "main").splitlines()
    return sorted(names), git(remote, "show", "--no-patch", "--format=%an", "main")


def elsewhere(remote, tmp_path, path):
    """Somebody commits something to main while the check runs."""
    folder = tmp_path / "elsewhere"
    git(tmp_path, "clone", "--quiet", str(remote), folder.name)
    write(folder, path, "theirs\n")
    git(folder, "commit", "--quiet", "--all", "--message", "Theirs")
    git(folder, "push", "--quiet")
    return git(remote, "rev-parse", "main")


def test_the_history_is_committed_and_the_next_week_starts_from_it(remote, checkout, tmp_path):
    new = "docs/claims/a--second/history.json"
    for path in (HISTORY, new):
        write(checkout, path, "this week\n")
    answer = keep(checkout)
    assert answer.returncode == 0, answer.stderr
    assert committed(remote) == ([HISTORY, new], "github-actions[bot]")
    git(tmp_path, "clone", "--quiet", str(remote), "next")
    assert (tmp_path / "next" / HISTORY).read_text() == "this week\n"


def test_nothing_new_is_no_commit(remote, checkout):
    before = git(remote, "rev-parse", "main")
    answer = keep(checkout)
    assert (answer.returncode, answer.stdout) == (0, "No verdict is new\n")
    assert git(remote, "rev-parse", "main") == before


def test_what_main_got_meanwhile_stays(remote, checkout, tmp_path):
    theirs = elsewhere(remote, tmp_path, "README.md")
    write(checkout, HISTORY, "this week\n")
    answer = keep(checkout)
    assert answer.returncode == 0, answer.stderr
    assert committed(remote)[0] == [HISTORY] and git(remote, "rev-parse", "main^") == theirs


def test_another_history_that_main_got_meanwhile_is_not_overwritten(remote, checkout, tmp_path):
    theirs = elsewhere(remote, tmp_path, HISTORY)
    write(checkout, HISTORY, "this week\n")
    assert keep(checkout).returncode != 0
    assert git(remote, "rev-parse", "main") == theirs


@pytest.mark.parametrize("path", [*OTHERS, "docs/claims/a--first/more/history.json"])
def test_nothing_else_is_committed_whatever_the_artifact_holds(path, remote, checkout):
    before = git(remote, "rev-parse", "main")
    write(checkout, path, "forged\n")
    assert "No verdict is new" in keep(checkout).stdout and git(remote, "rev-parse", "main") == before
