"""The fingerprint covers all that a card's text and pictures depend on."""

import ast
import inspect
import json
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

from model_cards import card, escape, fingerprint, plots
from model_cards.fingerprint import LIBRARIES, MODULES, TEXTS, renderer
from recipes import expectations
from record import cache, hashes, scores, verdict
from scoring import concerns

ROOT = Path(__file__).parents[2]
# Modules that a card's rendering imports, and that cannot change it.
WITHOUT_INFLUENCE = {
    "model_cards.card_check": "compares cards",
    "model_cards.free_text": "looks at what people wrote",
    "model_cards.rendered": "reads cards",
    "model_cards.statements": "compares cards",
    "model_cards.vouchers": "fills a free section, which is compared with the files beside the card",
    "model_cards.fingerprint": "names what renders",
    "recipes.quantization": "lets bitsandbytes be imported",
    "record.cache": "stores plots under keys of their own",
    "record.errors": "texts of errors",
    "record.parquet_size": "refuses files",
    "record.published_recipe": "refuses recipes, whose values the record holds as they are",
    "record.redaction": "blanks secrets in what errors print",
    "record.signers": "as model_cards.vouchers",
    "record.vouchers": "as model_cards.vouchers",
    "record.whole_file": "writes files whole",
    "scoring.sql.databases": "only the number of databases is shown, which counts",
    "scoring.sql.expressions": "makes rows",
    "scoring.sql.literals": "makes rows",
}
# Libraries that the covered modules import, and that cannot change a card.
LIBRARIES_WITHOUT_INFLUENCE = {
    "pyarrow": "gives a file's texts and numbers as they are",
    "pydantic": "refuses values",
}


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (scores, '"ROUGE-L"', '"Rouge-L"'),
        (scores, "5e-5", "5e-4"),
        (verdict, "computed again from", "computed anew from"),
        (expectations, "figure[:12]", "figure[:10]"),
        (hashes, "<!-- free:", "<!-- own:"),
        (concerns, "FEW_ROWS = 100", "FEW_ROWS = 99"),
        (card, "SAMPLES = 5", "SAMPLES = 6"),
        (escape, "SAMPLE_CHARACTERS = 300", "SAMPLE_CHARACTERS = 200"),
        (plots, "linewidth=1.8", "linewidth=1.9"),
        (plots, "no check published here yet", "not checked yet"),
    ],
)
def test_each_line_of_the_code_counts(monkeypatch, tmp_path, module, old, new):
    before, source = renderer(), inspect.getsource(module)
    assert old in source
    (tmp_path / "copy.py").write_text(source.replace(old, new, 1))
    monkeypatch.setattr(module, "__file__", str(tmp_path / "copy.py"))
    assert renderer().code != before.code


@pytest.mark.parametrize(("name", "old"), [("card.md.jinja", "## Leakage"), ("citations.bib", "year")])
def test_each_line_of_the_texts_counts(monkeypatch, tmp_path, name, old):
    before = renderer()
    for text in TEXTS:
        shutil.copy(fingerprint.FOLDER / text, tmp_path)
    monkeypatch.setattr(fingerprint, "FOLDER", tmp_path)
    assert renderer() == before
    changed = (tmp_path / name).read_text()
    assert old in changed
    (tmp_path / name).write_text(changed.replace(old, old + "s", 1))
    assert renderer().code != before.code


@pytest.mark.parametrize("library", ["Jinja2", "MarkupSafe", "huggingface_hub", "PyYAML", "numpy", "pillow"])
def test_each_library_counts(monkeypatch, library):
    before = renderer()
    monkeypatch.setattr(cache, "version", lambda name: "0.1" if name == library else version(name))
    assert renderer().code != before.code


def test_matplotlib_counts_in_its_own_field(monkeypatch):
    before = renderer()
    monkeypatch.setattr(fingerprint, "version", lambda name: "0.1")
    assert renderer() == before.model_copy(update={"matplotlib": "0.1"}) != before


def test_the_number_of_databases_counts(monkeypatch):
    before = renderer()
    monkeypatch.setattr(fingerprint, "KINDS", fingerprint.KINDS | {2: fingerprint.KINDS[2][1:]})
    assert renderer().code != before.code


# Which modules of this project the rendering and the check of a card import.
IMPORT = """
import json, os, sys
import model_cards.card, model_cards.card_check, model_cards.plots
files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
rooms = tuple(f"{os.getcwd()}/{room}/" for room in sys.argv[1:])
print(json.dumps([name for name, file in files.items() if file.startswith(rooms) and not file.endswith("__init__.py")]))
"""
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


def imports_of(module):
    """The full names of the modules that a module imports, inside of functions, too."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in sys.modules else node.module


def test_no_module_is_forgotten():
    command = [sys.executable, "-c", IMPORT, *ROOMS]
    printed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    covered = {module.__name__ for module in MODULES}
    assert not covered & WITHOUT_INFLUENCE.keys()
    assert set(json.loads(printed)) == covered | WITHOUT_INFLUENCE.keys()
    lazy = {name for module in MODULES for name in imports_of(module) if name.partition(".")[0] in ROOMS}
    assert lazy <= covered | WITHOUT_INFLUENCE.keys()


def test_no_library_is_forgotten():
    imported = {name.partition(".")[0] for module in MODULES for name in imports_of(module)}
    names = packages_distributions()
    libraries = {names[name][0] for name in imported - {*ROOMS, *sys.stdlib_module_names}}
    assert libraries - {"matplotlib", *LIBRARIES} == LIBRARIES_WITHOUT_INFLUENCE.keys()


def test_every_python_renders_the_same_prompt():
    # A letter of 1993, and an emoji of 2022, which Python 3.11 does not know and escapes by itself.
    assert escape.python("é \N{GREEK SMALL LETTER ALPHA} \U0001fae8 'x'") == "\"é α \\U0001fae8 'x'\""
    # One of 2010, which each Python knows.
    assert escape.python("\U0001f600") == "'\\U0001f600'"
