"""A newcomer with nothing but README: a clean folder, its example saved as it says, its commands typed one by one."""

import os
import shutil
import subprocess
import sys

import pytest
from readme_commands import ADAPTER, ROOT, RUN, blocks

# What a clone does not hold.
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".local_hub", "runs", "__pycache__", ".*_cache", "*.pem")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clean folder with the project and README's recipe."""
    folder = tmp_path_factory.mktemp("newcomer") / "clone"
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
    (folder / ".venv").symlink_to(sys.prefix)
    (example,) = blocks(folder / "README.md", "yaml")
    (folder / "recipes" / "sql2text.yaml").write_text(example, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def typed(clone):
    """Every command that is run, in order, with what it printed; stops at the first that fails."""
    # The variables that point this process at its own Hub would point the commands there too.
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    printed = {}
    for command, instead in RUN.items():
        if instead in printed:
            printed[command] = printed[instead]
            continue
        answer = subprocess.run(
            ["bash", "-c", instead or command],
            cwd=clone,
            env=environ,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert answer.returncode == 0, f"{command}\n{answer.stdout[-2000:]}{answer.stderr[-2000:]}"
        printed[command] = answer.stdout
    return printed


def test_the_example_is_trained_scored_published_and_reproduced(typed):
    assert "a miniature" in typed["make train-sql2text HUB=local"]
    published = typed["make publish-sql2text HUB=local"].splitlines()[-1]
    assert published.startswith(f"Published {ADAPTER}@")
    commit = published.partition("@")[2][:40]
    for command in (f"make reproduce ADAPTER={ADAPTER} HUB=local", "make reproduce ADAPTER=owner/name"):
        assert typed[command].splitlines()[-1].startswith(f"REPRODUCED (miniature) {ADAPTER}@{commit} "), command


def test_both_reports_hold_the_adapter(typed, clone):
    assert "Report: .local_hub/runs/report.html (1 adapter, " in typed["make report HUB=local"]
    assert "(2 adapters, " in typed['make report ADAPTERS="owner/name owner/other"']
    page = (clone / ".local_hub" / "runs" / "report.html").read_text(encoding="utf-8")
    assert f"{ADAPTER}</" in page and "What a SQL query asks for" in page


def test_the_clone_is_clean_and_rendered(typed, clone):
    assert "All checks passed!" in typed["make lint"]
    # `make readme` counts the newcomer's own recipe in; all else stays.
    rendered = (clone / "README.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in rendered if "| sql2text |" not in line] == (ROOT / "README.md").read_text(
        encoding="utf-8"
    ).splitlines()
