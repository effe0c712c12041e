"""What `pip install` gives a stranger: all files that the code reads, the pins of the requirement files, and the
command that checks numbers without a clone, make, torch or transformers."""

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from short_runs import copy_of, publish

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# benchmarks measures a clone.
ROOMS = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks", "tests"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT], check=True
    )
    (path,) = folder.glob("publish_and_reproduce-*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def pins(text: str) -> set[str]:
    """The pins of a requirement file or of a part of one, as pip compares names."""
    lines = re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)
    return {f"{re.sub('[-_.]+', '-', name).lower()}=={version}" for name, version in lines}


def test_every_room_is_shipped_with_all_its_files_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    there = {
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == there
    # What no import would miss.
    assert {
        "recipes/finance.yaml",
        "recipes/accelerate/cpu.yaml",
        "model_cards/card.md.jinja",
        "record/schemas/record-1.json",
        "serving/space/page/requirements.txt",
        "local_hub/miniatures/weights/large.safetensors",
    } <= shipped


def test_every_pin_is_that_of_the_requirement_files(metadata):
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    parts = {part.partition(":")[0]: pins(part) for part in re.split(r"^# (?=\w+: )", text, flags=re.MULTILINE)[1:]}
    assert set().union(*parts.values()) == pins(text)
    base, train = parts.pop("base"), parts["train"]
    for path in ROOT.glob("requirements-*.txt"):
        if path.name != "requirements-benchmarks.txt":
            parts[path.stem.removeprefix("requirements-")] = pins(path.read_text(encoding="utf-8"))
    assert set(metadata.get_all("Provides-Extra")) == parts.keys()
    for extra in ("serve", "space", "energy", "ctranslate2"):
        parts[extra] |= train
    parts["dev"] = set().union(*parts.values())
    stated = {extra: set() for extra in (None, *parts)}
    for requirement in map(Requirement, metadata.get_all("Requires-Dist")):
        extra = re.search(r'extra == "(\w+)"', str(requirement.marker))
        stated[extra and extra[1]].add(f"{requirement.name}{requirement.specifier}")
    assert stated == {None: base, **parts}


def test_python_is_stated_as_it_is_tested(metadata):
    matrix = re.search(r"python: (\[.*\])", (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))[1]
    versions = [int(minor) for minor in re.findall(r"3\.(\d+)", matrix)]
    wanted = f">=3.{min(versions)},<3.{max(versions) + 1}"
    assert PROJECT["project"]["requires-python"] == wanted
    assert f'# requires-python = "{wanted}"' in (ROOT / "recipes/hf_job.py").read_text(encoding="utf-8")
    assert set(metadata["Requires-Python"].split(",")) == set(wanted.split(","))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A stranger's folder."""
    return tmp_path_factory.mktemp("stranger")


def pip_of(home: Path) -> list[str]:
    """This environment's pip, for the stranger's."""
    return [sys.executable, "-m", "pip", "--python", str(home / "venv")]


@pytest.fixture(scope="module")
def stranger(wheel, home, hub):
    """Runs the installed package in an environment of its own: an empty folder, an empty cache, no clone."""
    venv.create(home / "venv")
    # Compiled is what is imported, when it is: a tenth of what is installed.
    subprocess.run([*pip_of(home), "install", "--quiet", "--no-compile", wheel], check=True)
    # The environment lies in a repository of the stranger's own.
    git = ["git", "-C", home, "-c", "user.name=s", "-c", "user.email=s@example.com"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "mine"], check=True)
    environ = {**hub.env(home / "cache"), "PYTHONNOUSERSITE": "1"}
    environ.pop("PYTHONPATH", None)

    def run(*words: str, **more: str) -> subprocess.CompletedProcess:
        program = home / "venv/bin" / words[0]
        return subprocess.run(
            [program, *words[1:]], cwd=home, env={**environ, **more}, capture_output=True, text=True, check=False
        )

    return run


def test_a_stranger_checks_numbers_without_clone_torch_or_transformers(stranger, home, scored_run, tmp_path):
    commit = publish(copy_of(scored_run, tmp_path / "finance", "packaged"))
    listed = [*pip_of(home), "list", "--format", "freeze"]
    installed = subprocess.run(listed, check=True, capture_output=True, text=True).stdout
    assert "publish-and-reproduce==" in installed
    assert not re.search(r"^(torch|transformers|peft|accelerate|trl)==", installed, re.MULTILINE)
    answer = stranger("pubrep", "reproduce", "local-user/packaged", "--level", "score", "--report", "page.html")
    assert answer.returncode == 0, answer.stdout[-500:] + answer.stderr[-2000:]
    assert answer.stdout.splitlines()[-1].startswith(f"REPRODUCED (miniature) local-user/packaged@{commit} ")
    # With a model it cannot be checked here; that is said in one line.
    answer = stranger("pubrep", "reproduce", "local-user/packaged")
    last = answer.stdout.splitlines()[-1]
    assert answer.returncode == 2 and last.startswith("UNCHECKED") and "`train`" in last and "--level score" in last
    assert "Traceback" not in answer.stderr


def test_what_is_installed_names_no_foreign_commit(stranger):
    code = "from recipes.environment import _code; print(_code())"
    assert stranger("python", "-c", code).stdout.strip() == "(None, False)"


def test_no_python_file_has_more_than_400_lines():
    rooms = ROOMS | {"benchmarks", "tests"}
    lengths = {path: len(path.read_text().splitlines()) for room in rooms for path in (ROOT / room).rglob("*.py")}
    assert len(lengths) > 200 and {path: lines for path, lines in lengths.items() if lines > 400} == {}
