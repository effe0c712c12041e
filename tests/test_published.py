"""Publishing and reproducing in small: what is refused, what is found out, what is kept."""

import json
import shutil
from pathlib import Path

import pytest
import short_runs
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from result_files import compare_all

from evaluation import reproduce
from push import publish
from record.predictions import load_predictions
from record.release_files import RECORD_FILE
from record.run_record import load_record

WRITES = {"commit", "preupload", "create"}
PUBLISHED = {
    ".gitattributes", "README.md", "adapter_config.json", "adapter_model.safetensors", "plots/loss.png",
    "plots/scores.png", "plots/verdict.png",
    "predictions.parquet", "finance.yaml", "record.json", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(scored_run, tmp_path_factory):
    return short_runs.copy_of(scored_run, tmp_path_factory.mktemp("runs") / "finance", "published")


def reproduced(capsys, *argv):
    """Exit code and verdict, the last line of the output."""
    code, printed = short_runs.reproduced(capsys, *argv)
    return code, printed.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def adapter(run):
    return f"local-user/{load_record(run).recipe['adapter_name']}", short_runs.publish(run)


def test_publishing_is_one_commit_of_the_listed_files(adapter, run):
    repo_id, commit = adapter
    api = HfApi()
    assert set(api.list_repo_files(repo_id, revision=commit)) == PUBLISHED
    commits = api.list_repo_commits(repo_id)
    assert commits[0].commit_id == commit and len(commits) == 2
    card = ModelCard.load(repo_id)
    card.validate()
    assert card.data.base_model == "google/flan-t5-large" and "miniature" in card.data.tags
    rouge_l = {result.metric_name: result.metric_value for result in card.data.eval_results}["ROUGE-L"]
    assert rouge_l == round(load_record(run).scores.adapter["rougeL"].mean, 4)
    assert api.model_info(repo_id).library_name == "peft"


def test_publishing_again_changes_nothing_and_a_dry_run_uploads_nothing(adapter, run, capsys, hub):
    repo_id, commit = adapter
    assert short_runs.publish(run) == commit
    hub.clear_requests()
    publish.main([str(run), "--dry-run", "--user", "local-user"])
    out = capsys.readouterr().out
    assert "would hold, in one commit" in out and "adapter_model.safetensors" in out and "training_args" not in out
    assert not WRITES & {request["route"] for request in hub.requests()}
    assert len(HfApi().list_repo_commits(repo_id)) == 2


def test_what_people_wrote_on_the_card_survives_and_still_reproduces(adapter, run, capsys):
    repo_id, _ = adapter
    edited = Path(hf_hub_download(repo_id, "README.md")).read_text()
    edited = edited.replace("<!-- free: intended use -->", "<!-- free: intended use -->\nFor classrooms.", 1)
    own = HfApi().upload_file(path_or_fileobj=edited.encode(), path_in_repo="README.md", repo_id=repo_id).oid
    code, line = reproduced(capsys, repo_id, "--revision", own)
    assert (code, line.split()[0]) == (0, "REPRODUCED"), line
    again = short_runs.publish(run)
    assert "For classrooms." in Path(hf_hub_download(repo_id, "README.md", revision=again)).read_text()


def test_a_published_commit_reproduces(adapter, capsys):
    repo_id, commit = adapter
    code, line = reproduced(capsys, repo_id, "--revision", commit[:12])
    assert (
        code == 0
        and line.startswith(f"REPRODUCED (miniature) {repo_id}@{commit} ROUGE-L")
        and "equal token for token" in line
    )


def test_the_scores_leave_in_every_format_under_the_published_name(adapter, run, tmp_path):
    name, commit = adapter
    compare_all(name, tmp_path, load_record(run), load_predictions(run), (name, commit), commit)


def test_a_repository_that_holds_something_else_is_left_alone(run, tmp_path, capsys):
    HfApi().create_repo("local-user/precious", exist_ok=True)
    HfApi().upload_file(path_or_fileobj=b"mine", path_in_repo="thesis.txt", repo_id="local-user/precious")
    folder = tmp_path / "finance"
    shutil.copytree(run, folder)
    record = load_record(folder)
    record.recipe["adapter_name"] = "precious"
    record.save(folder)
    with pytest.raises(SystemExit):
        publish.main([str(folder)])
    assert "holds other things than a release" in capsys.readouterr().err
    assert "thesis.txt" in HfApi().list_repo_files("local-user/precious")


def test_a_release_beside_other_files_is_not_published_anew(run, tmp_path, capsys):
    folder = tmp_path / "finance"
    shutil.copytree(run, folder)
    record = load_record(folder)
    record.recipe["adapter_name"] = "crowded"
    record.save(folder)
    short_runs.publish(folder)
    HfApi().upload_file(path_or_fileobj=b"mine", path_in_repo="team.png", repo_id="local-user/crowded")
    short_runs.publish(folder)
    assert "team.png" in HfApi().list_repo_files("local-user/crowded")
    HfApi().upload_file(path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id="local-user/crowded")
    with pytest.raises(SystemExit):
        publish.main([str(folder)])
    assert "holds notes.txt next to its release" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["local-user/none"], "no such repository"),
        (["google/flan-t5-large"], f"holds no {RECORD_FILE}"),
        (["not an id"], "is not a Hub id"),
        (["local-user/broken"], "KeyError, see above"),
        (["local-user/published", "--revision", "v9"], "no such revision"),
    ],
)
def test_what_cannot_be_checked_is_unchecked(adapter, capsys, argv, told, monkeypatch):
    if "broken" in argv[0]:
        monkeypatch.setattr(reproduce, "_check", lambda *_: {}["a bug of ours"])
    code, line = reproduced(capsys, *argv)
    assert (code, line.split()[0]) == (2, "UNCHECKED") and told in line, line


def half_trained(record: Path) -> None:
    record.write_text(json.dumps(json.loads(record.read_text()) | {"training": None}))


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda run: (run / "record.json").unlink(), "holds no record.json"),
        (lambda run: (run / "record.json").write_text("{}"), "is not a run record"),
        (lambda run: half_trained(run / "record.json"), "is not trained to its end"),
        (lambda run: (run / "adapter_model.safetensors").unlink(), "holds no adapter_model.safetensors"),
        (lambda run: (run / "predictions.parquet").unlink(), "holds no predictions.parquet"),
        (lambda run: (run / "predictions.parquet").write_text("x"), "is not a parquet file"),
        (
            lambda run: (run / "adapter_model.safetensors").write_bytes(b"x"),
            "is not the adapter that its record speaks of",
        ),
        (
            lambda run: (run / "tokenizer_config.json").write_text('{"x": "hf_' + "a" * 34 + '"}'),
            "token or private key",
        ),
    ],
)
def test_a_run_that_is_not_fit_to_publish_is_refused(run, tmp_path, capsys, hub, break_it, told):
    broken = tmp_path / "finance"
    shutil.copytree(run, broken)
    break_it(broken)
    hub.clear_requests()
    with pytest.raises(SystemExit):
        publish.main([str(broken)])
    assert told in capsys.readouterr().err
    assert not WRITES & {request["route"] for request in hub.requests()}
