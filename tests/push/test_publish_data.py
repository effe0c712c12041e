"""A task on one's own CSV: trained and scored from the file, its rows put on the Hub, published, checked."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import HfApi
from readme_commands import ROOT, blocks
from short_runs import SHORT, publish, train_short

from evaluation import evaluate, reproduce
from push import publish_data
from recipes import train
from record.errors import UserError, one_line
from record.run_record import load_record

REPO, ADAPTER = "local-user/own-rows", "local-user/own-rows-adapter"


def write_rows(path: Path) -> Path:
    rows = [f"What is number {n} called?,It is called {n} as NA is" for n in range(40)]
    path.write_text("\n".join(["question,answer", *rows, "Who is missing?,NA"]))
    return path


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    # On the Hub, datasets would take the rows of a file of this name for the split `test`.
    return write_rows(tmp_path_factory.mktemp("rows") / "my test.csv")


@pytest.fixture(scope="module")
def run(rows, tmp_path_factory) -> Path:
    """A run of the recipe in AGENTS.md, on other rows."""
    run = tmp_path_factory.mktemp("runs") / "own"
    (recipe,) = blocks(ROOT / "AGENTS.md", "yaml")
    (run.parent / "mine.yaml").write_text(recipe)
    train.main(["--config", str(run.parent / "mine.yaml"), "--output_dir", str(run), "--dataset_name", str(rows),
                "--adapter_name", "own-rows-adapter", *SHORT, "--max_steps", "2"])  # fmt: skip
    evaluate.main([str(run)])
    return run


def test_a_run_on_a_file_is_scored_refused_and_published_once_its_rows_are_on_the_hub(run, rows, capsys):
    record, before = load_record(run), (run / "record.json").read_bytes()
    pinned = record.pins.dataset
    assert (pinned.kind, pinned.id, record.data.loaded) == ("file", "my-test.csv", 41) and record.scores.rows == 5
    assert str(rows.parent) not in str(pinned)
    with pytest.raises(UserError, match=f"which nobody else has.*pubrep publish-data {run} owner/name.*--keep-rows"):
        publish(run)
    answer = CliRunner().invoke(publish_data.command, [str(run), REPO], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    info = HfApi().dataset_info(REPO)
    assert info.private and f"dataset_name: {REPO}\ndataset_revision: {info.sha}\n" in answer.output
    after = load_record(run)
    assert (after.pins.dataset.id, after.pins.dataset.revision) == (REPO, info.sha)
    assert after.recipe["dataset_name"] == after.leakage[0].dataset == REPO
    assert (after.data, after.scores) == (record.data, record.scores)
    with pytest.raises(UserError, match="are on the Hub, as local-user/own-rows: leave out --keep-rows"):
        publish(run, keep_rows=True)
    publish(run)
    reproduce.main([ADAPTER])
    assert f"REPRODUCED (miniature) {ADAPTER}@" in capsys.readouterr().out
    # Interrupted before the record was saved, the same command finishes: nothing is sent again.
    (run / "record.json").write_bytes(before)
    assert publish_data.publish_data(run, REPO).revision == info.sha
    assert load_record(run).pins.dataset == after.pins.dataset


def test_a_file_that_has_changed_is_refused_with_one_line(rows, tmp_path):
    run = tmp_path / "run"
    other = write_rows(tmp_path / "rows.csv")
    train_short(run, "--adapter_name", "other", "--dataset_name", str(other), "--prompt", "{question}", "--target",
                "{answer}", "--length_rules", "drop words(prompt) > 50", "--max_steps", "1")  # fmt: skip
    other.write_text(other.read_text() + "\nOne more?,Yes")
    for refused in (lambda: evaluate.evaluate(run), lambda: publish_data.publish_data(run, "local-user/changed")):
        with pytest.raises(UserError, match=r"rows\.csv has changed since .*: restore it, or train again") as line:
            refused()
        assert str(line.value) == one_line(str(line.value))
    assert not HfApi().repo_exists("local-user/changed", repo_type="dataset")


def test_rows_go_only_where_they_are_meant_to_go(rows):
    HfApi().create_repo("local-user/public-rows", repo_type="dataset", private=False)
    with pytest.raises(UserError, match="local-user/public-rows exists and is public: make it private"):
        publish_data.publish_data(rows, "local-user/public-rows")
    assert publish_data.publish_data(rows, "local-user/public-rows", public=True).kind == "dataset"
    other = write_rows(rows.with_name("other.csv"))
    with pytest.raises(UserError, match=r"local-user/public-rows exists and holds my test\.csv: choose another name"):
        publish_data.publish_data(other, "local-user/public-rows", public=True)
