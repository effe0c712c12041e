"""README's own task on a local CSV of many scripts: from training to a release without its rows, and its check."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from result_files import compare_aibom, compare_every_eval_ever, compare_lm_eval, export
from short_runs import SHORT, publish, reproduced

from evaluation import evaluate
from hub.release import pull_parent
from push.release import tree
from recipes import train
from recipes.config import arguments_from_record
from recipes.data.lineage import _trainings
from recipes.data.splits import build_splits
from recipes.data.tokenizer import load_tokens
from record.errors import UserError, one_line
from record.run_record import Pin, load_record
from scoring.baselines import baseline_outputs

REPO = "local-user/flan-t5-base-sql2text"
# Chinese, Arabic, Hindi and emoji; the digits are what the miniature can write of them.
QUESTIONS = ("这里一共有多少匹马 {n} 号?", "كم عدد الخيول في المزرعة {n}؟", "खेत में कितने घोड़े हैं {n}?", "🐎🐎 {n} 🏡❓")


def write_rows(path: Path, rows: int = 48) -> Path:
    lines = [f"SELECT count(*) FROM farm WHERE horse = {n},{QUESTIONS[n % 4].format(n=n)}" for n in range(rows)]
    path.write_text("\n".join(["answer,question", *lines]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("secret-place") / "my farm.csv")


@pytest.fixture(scope="module")
def run(rows, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    example = re.search(r"```yaml\n(title: .*?)```", Path("README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    keys = yaml.safe_load(example) | {"dataset_name": str(rows), "metrics": ["chrf", "rouge"], "test_size": 0.25}
    (folder / "sql2text.yaml").write_text(yaml.safe_dump(keys, allow_unicode=True), encoding="utf-8")
    run = folder / "sql2text"
    train.main(["--config", str(folder / "sql2text.yaml"), "--output_dir", str(run), *SHORT])
    evaluate.main([str(run)])
    return run


@pytest.fixture(scope="module")
def commit(run) -> str:
    with pytest.raises(UserError, match=r"publish-data .* owner/name`, or keep it to yourself by --keep-rows") as line:
        publish(run)
    assert str(line.value) == one_line(str(line.value))
    return publish(run, keep_rows=True)


def test_scores_of_every_script_are_right_and_the_card_warns_of_rouge(run, commit, tmp_path):
    record = load_record(run)
    tokens = load_tokens(record.pins.base_model, [])
    splits = build_splits(arguments_from_record(record.recipe), record.pins.dataset, tokens)
    # The miniature's vocabulary lacks these scripts; the training target of the nearest input is right now and then.
    texts = {"outputs": baseline_outputs(splits, record.contract.seed)["nearest"], "references": splits.test["target"]}
    for name, lines in texts.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "references", "-i", "outputs", "-m", "chrf", "-b", "-w", "6"]
    theirs = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
    score = record.baselines["nearest"].scores["chrf"].mean
    assert f"{100 * score:.6f}" == theirs and float(theirs) > 10
    card = (run / "release" / "README.md").read_text(encoding="utf-8")
    assert f"| the target of the nearest training input | {score:.3f} [" in card
    assert re.search(
        r"ROUGE of words reads a to z and digits only: it cannot see \d\d\.\d % of the", html.unescape(card)
    )


def test_neither_a_row_nor_its_place_is_in_the_release(run, rows, commit):
    release = run / "release"
    texts = "\n".join(path.read_bytes().decode("utf-8", "replace") for path in map(release.joinpath, tree(release)))
    table = pq.read_table(release / "predictions.parquet").to_pydict()
    cells = "\n".join(text for column in table.values() for text in map(str, column))
    for line in rows.read_text(encoding="utf-8").splitlines()[1:]:
        assert not any(cell in texts or cell in cells for cell in line.split(","))
    assert "secret-place" not in texts + cells and {*table["prompt"], *table["reference"]} == {""}
    published, own = load_record(release), load_record(run)
    assert (published.recipe["dataset_name"], own.recipe["dataset_name"]) == ("my-farm.csv", str(rows))
    assert published.pins.dataset == own.pins.dataset and published.pins.dataset.kind == "file"
    card = (release / "README.md").read_text(encoding="utf-8")
    assert f"make reproduce ADAPTER={REPO} DATA=my-farm.csv HUB=local" in card and "datasets:" not in card


def test_no_row_leaves_in_others_formats_and_not_its_place(run, rows, commit, tmp_path):
    record = load_record(run)
    for adapter, own in (REPO, (REPO, commit)), (str(run), ("unpublished/flan-t5-base-sql2text", None)):
        folder = tmp_path / own[0].partition("/")[0]
        compare_every_eval_ever(export(adapter, "every-eval-ever", folder), record, None, own)
        compare_lm_eval(export(adapter, "lm-eval", folder), record, None, own)
        compare_aibom(export(adapter, "aibom", folder), record, own)
    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file())
    for line in rows.read_text(encoding="utf-8").splitlines()[1:]:
        assert not any(cell in written or json.dumps(cell)[1:-1] in written for cell in line.split(","))
    assert "secret-place" not in written and record.pins.dataset.id in written


def test_a_stranger_without_the_rows_is_told_what_was_checked_and_what_not(commit, tmp_path, monkeypatch, capsys):
    # A file of the same name where the check runs is nobody's answer.
    write_rows(tmp_path / "my-farm.csv")
    monkeypatch.chdir(tmp_path)
    code, said = reproduced(capsys, REPO, "--json")
    verdict = json.loads(said)
    assert (code, verdict["verdict"]) == (2, "UNCHECKED")
    assert verdict["reason"].startswith("only its publisher has its rows. Not checked: the test rows, copies of")
    assert verdict["reason"].endswith("checks the rest with --data my-farm.csv")
    outcomes = [(check["part"], check["outcome"]) for check in verdict["checks"]]
    assert outcomes[:4] == [("files", "passed"), ("lineage", "passed"), ("lineage", "passed"), ("data", "passed")]
    assert {part for part, outcome in outcomes if outcome == "not checked"} == {
        "data", "leakage", "scoring", "card", "generation"}  # fmt: skip


def test_a_stranger_with_the_rows_checks_everything_and_trains_again(run, rows, commit, tmp_path, monkeypatch, capsys):
    copy = tmp_path / "from the publisher.csv"
    copy.write_bytes(rows.read_bytes())
    monkeypatch.chdir(tmp_path)
    code, said = reproduced(capsys, REPO, "--level", "train", "--data", str(copy))
    assert code == 0, said
    assert "trained again: the same adapter, bit for bit" in said
    assert said.splitlines()[-1].startswith(f"REPRODUCED (miniature) {REPO}@{commit} chrF2 ")
    assert "all 24 outputs are equal token for token" in said.splitlines()[-1]


def test_what_it_has_seen_nobody_can_tell_and_so_none_continues_it(run, commit):
    pinned = Pin(kind="model", id=REPO, revision=commit)
    pins = load_record(run).pins.model_copy(update={"parent_adapter": pinned})
    for look in (lambda: pull_parent(pinned), lambda: list(_trainings(None, pins))):
        with pytest.raises(UserError, match="was trained on rows that only its publisher has") as line:
            look()
        assert str(line.value) == one_line(str(line.value))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("other.csv", r"is not the my-farm\.csv of this run: its sha256 is .*Ask the publisher"),
        ("rows.tsv", r"holds the right bytes under another kind of name: call it my-farm\.csv"),
        ("absent.csv", "is neither a file of rows"),
    ],
)
def test_a_wrong_file_is_refused_with_one_line(rows, commit, tmp_path, capsys, name, told):
    write_rows(tmp_path / "other.csv", 47)
    (tmp_path / "rows.tsv").write_bytes(rows.read_bytes())
    code, said = reproduced(capsys, REPO, "--level", "score", "--data", str(tmp_path / name))
    assert code == 2 and re.search(f"^UNCHECKED {REPO}@{commit} .*{told}", said.splitlines()[-1])
