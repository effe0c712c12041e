"""An adapter with an added token, exported in each format, published, pulled into an empty cache and run as its card
says."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from short_runs import publish, train_short

from evaluation import evaluate
from recipes.training.model import load_adapter, load_base
from record.errors import UserError
from record.hashes import sha256_file
from record.predictions import load_predictions
from record.run_record import load_record
from record.scores import Interval
from serving.export import make
from serving.export.export_record import EXPORT_FILE, load_export
from serving.export.formats import FORMATS, load
from serving.export.publish import lay_out

ADAPTER = "local-user/exported"
PROMPT = "Answer the financial question. What is a bond?"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trained for six steps, with a row of its own for `<`, and published."""
    folder = train_short(
        tmp_path_factory.mktemp("runs") / "finance", "--adapter_name", "exported", "--added_tokens", "<"
    )
    evaluate.main([str(folder)])
    publish(folder)
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The exports of the published adapter, by format, published."""
    into = tmp_path_factory.mktemp("exports")
    make.main(["--adapter", ADAPTER, *(f"--format={form}" for form in FORMATS), "--into", str(into), "--publish"])
    (folder,) = into.iterdir()
    return {form: folder / form for form in FORMATS}


def refused(capsys, *argv) -> str:
    """The one line on standard error of a refused command."""
    with pytest.raises(SystemExit) as end:
        make.main([*map(str, argv)])
    assert end.value.code == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line


def test_the_merged_checkpoint_is_the_adapter(run, exported):
    found = load_export(exported["merged"])
    predictions = load_predictions(run)
    assert found.parity.rows == found.parity.of == len(predictions.prompt) and found.parity.equal == 1
    assert found.parity.difference["rougeL"] == Interval(mean=0, low=0, high=0)
    record = load_record(run)
    recipe = make.Source(run, record, run)
    merged, pin = load("merged", exported["merged"]), record.pins.base_model
    config = export_config(recipe)
    adapter = load_adapter(load_base(pin, config), run, pin)
    row = adapter.get_input_embeddings().token_adapter.token_indices["default"][0]
    ids = torch.tensor([[5, 17, row, 1]])
    with torch.inference_mode():
        ours, theirs = (
            model(input_ids=ids, decoder_input_ids=torch.tensor([[0, row, 9]])).logits for model in (merged, adapter)
        )
    # Greedy tokens do not tell whether the outputs are scaled: logits do. Merging rounds them by some 1e-6.
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-4) and theirs.std() > 0.1
    assert not torch.equal(merged.lm_head.weight, merged.shared.weight)
    bare = load_base(pin, config)
    assert not torch.allclose(merged.lm_head.weight[row], bare.lm_head.weight[row])


def export_config(source):
    from recipes.config import recipe_from_record

    config = recipe_from_record(source.record.name, source.record.recipe).model
    config.dtype = "float32"
    return config


@pytest.fixture(scope="module")
def stranger(exported, hub, tmp_path_factory):
    """By format: the release in an empty cache, and what its card's snippet prints with that."""
    home = tmp_path_factory.mktemp("stranger")
    pulled = {form: Path(snapshot_download(f"{ADAPTER}-{form}", cache_dir=home / "hub")) for form in FORMATS}
    cards = [(folder / "README.md").read_text() for folder in pulled.values()]
    snippets = [re.search(r"```python\n(.*?)```", card, re.DOTALL)[1] for card in cards]
    # One process for all: importing takes the longest.
    code = f"for snippet in {snippets!r}:\n    exec(snippet, {{}})"
    answer = subprocess.run(
        [sys.executable, "-c", code], env=hub.env(home), capture_output=True, text=True, cwd=home
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    return {form: (pulled[form], line) for form, line in zip(FORMATS, lines, strict=True)}


@pytest.mark.parametrize("form", FORMATS)
def test_its_card_runs_in_an_empty_cache(form, run, stranger):
    pulled, answer = stranger[form]
    record = load_export(pulled)
    assert {path: sha256_file(pulled / path) for path in record.files} == record.files
    assert not [path for path in pulled.rglob("*") if path.suffix in (".pt", ".pkl", ".pth")]
    card = HfApi().model_info(f"{ADAPTER}-{form}").card_data
    assert card["base_model_relation"] == ("merge" if form == "merged" else "quantized")
    bases = card["base_model"]
    assert ADAPTER in ([bases] if isinstance(bases, str) else bases)
    # In 8 bits a near-tie may fall to another token.
    assert answer == load_predictions(run).adapter[0] or "int8" in form
    assert record.parity.equal > 0.5 and record.speed.tokens_per_second > 0


def test_the_card_says_what_was_measured(exported):
    for form, folder in exported.items():
        card, found = (folder / "README.md").read_text(), load_export(folder)
        moved = found.parity.difference["rougeL"]
        assert f"{moved.mean:+.4f} [{moved.low:+.4f},&nbsp;{moved.high:+.4f}]" in card
        assert f"**{100 * found.parity.equal:.1f} %** of the outputs" in card
        ratio = found.speed.tokens_per_second / found.adapter_speed.tokens_per_second
        (line,) = (line for line in card.splitlines() if line.startswith("| tokens/s at batch 1"))
        assert line.endswith(f"| {ratio:.2f} |")
        assert found.bytes == sum((folder / path).stat().st_size for path in found.files), form


def test_int8_halves_the_files_at_least(exported):
    sizes = {form: sum(path.stat().st_size for path in folder.glob("*.[sb]*")) for form, folder in exported.items()}
    # The miniature's embedding, which stays in float32, is a third of its numbers.
    assert sizes["int8"] < 0.55 * sizes["merged"] and sizes["ct2-int8"] < 0.4 * sizes["ct2"]


def test_int8_begins_aligned_so_that_wide_models_are_read_without_a_copy(exported):
    with next(exported["int8"].glob("*.safetensors")).open("rb") as file:
        assert (8 + int.from_bytes(file.read(8), "little")) % 64 == 0


@pytest.mark.parametrize("form", FORMATS)
def test_the_card_of_an_unpublished_export_names_no_repository(form, run, exported, tmp_path, monkeypatch, capsys):
    shutil.copytree(exported[form], tmp_path / form)
    source = make.Source(run, load_record(run), tmp_path)
    card = lay_out(source, form, None).read_text()
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    assert f'-{form}"' not in snippet and "snapshot_download" not in snippet and "It is not published" in card
    monkeypatch.chdir(tmp_path / form)
    exec(snippet, {})
    assert capsys.readouterr().out.strip()


def test_the_adapters_card_names_each_once_and_stays_whole(run, exported):
    from hub.release import pull

    card = Path(hf_hub_download(ADAPTER, "README.md")).read_text()
    for form in FORMATS:
        assert card.count(f"`{ADAPTER}-{form}`") == 1
    assert pull(ADAPTER, HfApi().model_info(ADAPTER).sha).differing == []


def test_the_service_names_what_to_serve_instead(exported):
    from serving.loading import find

    for name in (f"{ADAPTER}-int8", str(exported["merged"])):
        with pytest.raises(UserError, match="is an export, and the service takes adapters"):
            find(name)


def test_publishing_again_sends_nothing(exported, capsys, hub):
    before = HfApi().model_info(f"{ADAPTER}-int8").sha
    argv = ["--adapter", ADAPTER, "--revision", load_export(exported["int8"]).adapter.revision]
    make.main([*argv, "--format", "int8", "--into", str(exported["int8"].parents[1]), "--publish"])
    said = capsys.readouterr().out
    assert "is made and scored already" in said and f"Unchanged: {ADAPTER}-int8@{before}" in said


def test_an_export_that_lost_is_refused_unless_forced(run, exported, capsys, monkeypatch):
    folder = exported["ct2-int8"]
    found = load_export(folder)
    kept = found.model_copy(deep=True)
    found.parity.difference["rougeL"] = Interval(mean=-0.02, low=-0.03, high=-0.0051)
    found.save(folder)
    argv = ["--adapter", ADAPTER, "--revision", found.adapter.revision, "--format", "ct2-int8", "--into",
            folder.parents[1]]  # fmt: skip
    line = refused(capsys, *argv, "--publish")
    assert "moved by -0.0200 [-0.0300, -0.0051], a loss of more than 0.005" in line and "FORCE=1" in line
    make.main([*map(str, argv), "--force"])
    assert "**This export is worse" in (folder / "README.md").read_text()
    for low, high, verdict in ((-0.03, -0.004, "open"), (-0.005, 0.01, "kept"), (0.01, 0.02, "kept")):
        found.parity.difference["rougeL"] = Interval(mean=0, low=low, high=high)
        assert found.verdict == verdict
    kept.save(folder)


def test_what_is_wrong_is_said_in_one_line(run, tmp_path, capsys):
    assert "name a scored run's folder" in refused(capsys, "--format", "merged")
    assert "one of them" in refused(capsys, run, "--adapter", ADAPTER, "--format", "merged")
    assert "number of rows from 1 on, not 0" in refused(capsys, run, "--format", "merged", "--sample", 0)
    assert "holds no record.json" in refused(capsys, tmp_path, "--format", "merged")
    assert "no such repository" in refused(capsys, "--adapter", "local-user/none", "--format", "ct2")
    (tmp_path / EXPORT_FILE).write_text(json.dumps({"format": "onnx"}))
    with pytest.raises(Exception, match="is not the record of an export: format"):
        load_export(tmp_path)


def test_a_run_that_is_not_published_is_exported_but_not_published(run, tmp_path, capsys):
    import shutil

    folder = shutil.copytree(run, tmp_path / "run")
    record = load_record(folder)
    record.recipe["adapter_name"] = "unpublished"
    record.save(folder)
    line = refused(capsys, folder, "--format", "merged", "--sample", 8, "--publish")
    assert "local-user/unpublished is not on the Hub" in line and "make publish-finance" in line
    assert load_export(folder / "exports" / "merged").parity.rows == 8
