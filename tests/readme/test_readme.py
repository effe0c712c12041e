"""README says what is so: its tables are those of the records and recipes, and its commands exist."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from readme_commands import ALONE, OPTIONS, PAGES, READ, RUN, commands, scripts

from readme.render import ROOT, kept_records, listed, pages, recipes, rendered

README = Path("README.md").read_text(encoding="utf-8")


def test_the_tables_are_the_rendered_ones():
    holding = pages(ROOT)
    assert {ROOT / "README.md", ROOT / "benchmarks" / "README.md"} <= set(holding)
    for page in holding:
        text = page.read_text(encoding="utf-8")
        assert rendered(text) == text, f"{page}: run `make readme`"


def test_every_recipe_and_every_reference_score_stands_in_the_table():
    for name, (_, keys) in recipes().items():
        line = next(line for line in README.splitlines() if line.startswith(f"| {name} |") and "make train-" in line)
        for scores in (keys.get("expect", {}).get("published", {}).get(who, {}) for who in ("base", "adapter")):
            for value in scores.values():
                assert f"{value:.4f}".lstrip("0") in line
        if name not in {record.name for record in kept_records() if not record.miniature}:
            assert "not yet run" in line


def test_every_listed_adapter_has_its_line_and_no_local_one_passes_for_real():
    for entry in listed(ROOT):
        line = next(line for line in README.splitlines() if entry.adapter in line and line.startswith("| "))
        assert ("https://huggingface.co/" in line) == (entry.hub == "real")
    said = "No adapter is published on the real Hub yet." in README
    assert said == all(entry.hub == "local" for entry in listed(ROOT))


def test_every_make_target_and_file_that_readme_names_exists():
    targets = set(re.findall(r"`?make ([a-z][\w-]*)", README))
    listed = subprocess.run(["make", "help"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"^([a-z-]+)(?:-R)? ", listed, re.MULTILINE))
    for target in targets - {"itself"}:
        step, _, recipe = target.partition("-")
        assert target in known or (step in known and recipe in {*recipes(), "R", "sql2text"}), target
    folders = (Path(), Path("recipes"), Path("recipes/accelerate"))
    for name in re.findall(r"`([\w-]+\.yaml)`", README):
        assert name == "recipe.yaml" or any((folder / name).exists() for folder in folders), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\(((?!http)[^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}, link


def test_every_command_is_tested():
    told = {command for page in PAGES for command in commands(page)}
    assert told == RUN.keys() | ALONE.keys() | READ.keys() | OPTIONS.keys(), "add it to tests/readme_commands.py"


@pytest.mark.parametrize("command", ALONE)
def test_what_has_a_test_of_its_own_stands_in_it(command):
    assert ", ".join(f'"{word}"' for word in command.split()) in Path(ALONE[command]).read_text(encoding="utf-8")


@pytest.mark.parametrize("command", READ)
def test_what_is_too_slow_to_run_is_a_target_with_such_arguments(command):
    assert Path(READ[command]).is_file()
    answer = subprocess.run(
        [*shlex.split(command), "-n", f"VENV={sys.prefix}"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0 and answer.stdout.strip(), answer.stderr


@pytest.mark.parametrize("command", OPTIONS)
def test_others_programs_know_the_options(command):
    program, *words = shlex.split(OPTIONS[command])
    found = shutil.which(program, path=f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}")
    answer = subprocess.run([found, *words], capture_output=True, text=True, check=True)
    for option in re.findall(r"--[\w-]+", command):
        assert option in answer.stdout, option


def test_scripts_are_bash():
    found = [script for page in PAGES for script in scripts(page)]
    assert found
    for script in found:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_job_script_carries_the_projects_pins():
    header = re.search(r"# /// script\n(.*?)# ///", Path("recipes/hf_job.py").read_text(), re.DOTALL)[1]
    job = tomllib.loads(re.sub(r"^# ?", "", header, flags=re.MULTILINE))["dependencies"]
    needed = Path("requirements.txt").read_text().partition("# serve:")[0]
    assert job == [line.split("#")[0].strip() for line in needed.splitlines() if "==" in line]
