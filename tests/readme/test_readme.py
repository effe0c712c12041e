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
from readme_commands import ALONE, INSTALLED, OPTIONS, PAGES, READ, RUN, commands, scripts

from readme.render import FOUR, ROOT, block, kept_records, listed, pages, recipes, rendered

README = Path("README.md").read_text(encoding="utf-8")


def test_the_tables_are_the_rendered_ones():
    holding = pages(ROOT)
    named = ("README.md", "benchmarks/README.md", "docs/speed.md", "docs/exports.md", "docs/serving.md")
    assert {ROOT / name for name in named} <= set(holding)
    for page in holding:
        text = page.read_text(encoding="utf-8")
        assert rendered(text) == text, f"{page}: run `make readme`"


def test_readme_is_read_in_some_minutes():
    # What adapters and recipes add is not counted.
    written = re.sub(r"(<!-- rendered: .*?-->).*?(<!-- /rendered -->)", "", README, flags=re.DOTALL)
    assert len(written.splitlines()) <= 150


def test_tables_are_as_wide_as_a_page():
    # A page of GitHub has room for five columns; the rest it hides behind a bar.
    widths = [line.count("|") - 1 for line in README.splitlines() if re.fullmatch(r"\|[-:| ]+\|", line)]
    assert len(widths) >= 3 and max(widths) <= 5


def test_every_recipe_and_every_reference_score_stands_in_the_table():
    (table,) = re.findall(r"<!-- rendered: recipes -->\n(.*?)<!-- /rendered -->", README, re.DOTALL)
    run = {record.name for record in kept_records() if not record.miniature}
    for name, (_, keys) in recipes().items():
        line = next(line for line in table.splitlines() if line.startswith(f"| {name} |"))
        assert keys["dataset_name"] in line and keys["model_name_or_path"].partition("/")[2] in line
        for scores in (keys.get("expect", {}).get("published", {}).get(who, {}) for who in ("base", "adapter")):
            for value in scores.values():
                assert f"{value:.4f}".lstrip("0") in line
        assert (f"\n- {name}, run here on the real model: " in table) == (name in run)
    assert ("No recipe has been run here on the real model yet" in table) == (not run)


def test_a_recipe_that_was_run_here_has_its_scores_and_another_kind_of_hardware_its_words():
    four = dict(zip(FOUR, (0.1, 0.2, 0.3, 0.4), strict=True))
    recipe = {"name": "x", "yaml": {"model_name_or_path": "a/b", "dataset_name": "c/d"}, "hardware": "not stated",
              "time": "2 hours", "ours": {"base": four, "adapter": four}}  # fmt: skip
    lines = block("recipes", recipes=lambda: [recipe, {**recipe, "name": "y", "ours": {}}]).splitlines()
    assert "| x | b | c/d |  | not stated |" in lines and "Time of x: 2 hours." in lines
    figures = ".1000 / .2000 / .3000 / .4000"
    assert [line for line in lines if "run here" in line] == [f"- x, run here on the real model: {figures} → {figures}"]


def test_the_map_is_the_law_that_lint_checks():
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    rooms = [set(re.findall(r"\w+", layer)) for layer in reversed(project["contracts"][0]["layers"])]
    table = README.partition("| room |")[2].partition("\n\n")[0].splitlines()[2:]
    assert [set(re.findall(r"\[`(\w+)/`\]", line)) for line in table] == rooms
    (law,) = re.findall(r"^    (record < .*)$", Path("CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [set(re.findall(r"\w+", part)) for part in law.split("<")] == rooms


def test_the_reading_order_is_about_1500_lines_of_what_is_there():
    rows = re.findall(r"^\| \[`(.+?)`\]\(\1\) \| (\d+) \|", README, re.MULTILINE)
    counts = [len(Path(name).read_text(encoding="utf-8").splitlines()) for name, _ in rows]
    assert [int(lines) for _, lines in rows] == counts and 1_300 <= sum(counts) <= 1_700
    assert f"| together | {sum(counts):,} | |" in README


def test_every_listed_adapter_has_its_line_and_no_local_one_passes_for_real():
    for entry in listed(ROOT):
        line = next(line for line in README.splitlines() if entry.adapter in line and line.startswith("| "))
        assert ("https://huggingface.co/" in line) == (entry.hub == "real")
    said = "No adapter is published on the real Hub yet." in README
    assert said == all(entry.hub == "local" for entry in listed(ROOT))


@pytest.fixture(scope="module")
def known():
    """The targets that `make help` lists."""
    listed = subprocess.run(["make", "help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^([a-z-]+)(?:-R)? ", listed, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_and_file_that_is_named_exists(page, known):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^)make ([a-z][\w-]*)", text, re.MULTILINE):
        step, _, recipe = target.partition("-")
        assert target in known or (step in known and recipe in {*recipes(), "R", "NAME", "sql2text", "mine"}), target
    folders = (Path(), Path("recipes"), Path("recipes/accelerate"))
    for name in re.findall(r"`([\w-]+\.yaml)`", text):
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
    assert told == RUN.keys() | ALONE.keys() | READ.keys() | INSTALLED.keys() | OPTIONS.keys(), (
        "add it to tests/readme_commands.py"
    )


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


@pytest.mark.parametrize("command", INSTALLED)
def test_what_needs_an_installed_package_is_run_from_one(command):
    words = [word for word in command.partition("ADDRESS ")[2].split() if word != "owner/name"]
    run = Path(INSTALLED[command]).read_text(encoding="utf-8")
    assert re.search(
        r", [^,]+, ".join([", ".join(f'"{word}"' for word in words[:2]), ", ".join(f'"{word}"' for word in words[2:])]),
        run,
    )


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
