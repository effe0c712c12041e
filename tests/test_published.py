"""Publishing and reproducing in small: what is refused, what is found out, what is kept."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, hf_hub_download
from short_runs import train_short

from evaluation import reproduce, score
from push import publish
from recipes import train
from recipes.record import RECORD_FILE, load_record, sha256_file, sha256_published

WRITES = {"commit", "preupload", "create"}
PUBLISHED = {
    ".gitattributes", "README.md", "adapter_config.json", "adapter_model.safetensors", "plots/loss.png",
    "plots/scores.png",
    "predictions.parquet", "finance.yaml", "record.json", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = train_short(tmp_path_factory.mktemp("runs") / "finance")
    score.main([str(folder)])
    return folder


def reproduced(capsys, *argv):
    """Exit code and verdict, the last line of the output."""
    code = 0
    try:
        reproduce.main(list(argv))
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().out.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def adapter(run):
    return f"local-user/{load_record(run).recipe['adapter_name']}", publish.publish(run, None)


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
    assert publish.publish(run, None) == commit
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
    again = publish.publish(run, None)
    assert "For classrooms." in Path(hf_hub_download(repo_id, "README.md", revision=again)).read_text()


def test_a_published_commit_reproduces(adapter, capsys):
    repo_id, commit = adapter
    code, line = reproduced(capsys, repo_id, "--revision", commit[:12])
    assert code == 0 and line.startswith(f"REPRODUCED {repo_id}@{commit} ROUGE-L") and "equal token for token" in line


def forged(repo_id, commit, name, change):
    """A pull request of the release in which one file was changed; its revision."""
    data = change(Path(hf_hub_download(repo_id, name, revision=commit)).read_bytes())
    return (
        HfApi()
        .create_commit(
            repo_id,
            [CommitOperationAdd(name, data)],
            commit_message="forged",
            parent_commit=commit,
            create_pr=True,
            revision="main",
        )
        .pr_revision
    )


def edit_record(**changes):
    def change(data):
        record = json.loads(data)
        for path, value in changes.items():
            *parents, last = path.split("__")
            target = record
            for parent in parents:
                target = target[parent]
            target[last] = value
        return json.dumps(record).encode()

    return change


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("adapter_model.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "adapter_model.safetensors"),
        ("predictions.parquet", lambda data: data[:-1] + b"?", "predictions.parquet"),
        ("README.md", lambda data: data.replace(b"ROUGE-1 | 0.", b"ROUGE-1 | 1."), "README.md"),
        ("record.json", edit_record(scores__adapter__rougeL__mean=0.99), "score rougeL"),
        ("record.json", edit_record(scores__base__rouge1__low=0.0), "score rouge1"),
        ("record.json", edit_record(data__test_sha256="0" * 64), "other rows than the record states"),
        ("record.json", edit_record(pins__base_model__id="google/flan-t5-base"), "another base model"),
    ],
)
def test_a_forged_file_is_drift(adapter, capsys, name, change, told):
    repo_id, commit = adapter
    code, line = reproduced(capsys, repo_id, "--revision", forged(repo_id, commit, name, change))
    assert (code, line.split()[0]) == (1, "DRIFTED") and told in line, line


@pytest.mark.parametrize(
    ("forge", "told"),
    [
        (lambda card, mean: card.replace(f"**{mean}**", "**0.9900**"), "other numbers for ROUGE-L"),
        (lambda card, mean: card.replace(f"value: {float(mean)}", "value: 0.99"), "scores in the card's metadata"),
    ],
)
def test_a_card_made_to_flatter_with_its_hash_made_to_fit_is_drift(adapter, run, capsys, tmp_path, forge, told):
    repo_id, commit = adapter
    record = json.loads(Path(hf_hub_download(repo_id, "record.json", revision=commit)).read_text())
    card = Path(hf_hub_download(repo_id, "README.md", revision=commit)).read_text()
    forged_card = tmp_path / "README.md"
    forged_card.write_text(forge(card, f"{record['scores']['adapter']['rougeL']['mean']:.4f}"))
    assert forged_card.read_text() != card
    record["files"]["README.md"] = sha256_published(forged_card)
    files = {"README.md": forged_card.read_bytes(), "record.json": json.dumps(record).encode()}
    operations = [CommitOperationAdd(name, data) for name, data in files.items()]
    pull_request = HfApi().create_commit(
        repo_id, operations, commit_message="forged", parent_commit=commit, create_pr=True
    )
    code, line = reproduced(capsys, repo_id, "--revision", pull_request.pr_revision)
    assert (code, line.split()[0]) == (1, "DRIFTED") and told in line, line


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


def test_other_weights_with_a_record_made_to_fit_are_found_by_generating(run, tmp_path, capsys):
    import torch
    from safetensors.torch import load_file, save_file

    forgery = tmp_path / "forgery"
    shutil.copytree(run, forgery)
    weights = load_file(forgery / train.ADAPTER_FILE)
    save_file({name: torch.randn_like(tensor) for name, tensor in weights.items()}, forgery / train.ADAPTER_FILE)
    record = load_record(forgery)
    record.training.adapter_sha256 = sha256_file(forgery / train.ADAPTER_FILE)
    record.recipe["adapter_name"] = "forgery"
    record.save(forgery)
    publish.publish(forgery, None)
    code, line = reproduced(capsys, "local-user/forgery")
    assert (
        (code, line.split()[0]) == (1, "DRIFTED") and "adapter outputs differ" in line and "base outputs" not in line
    ), line


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["local-user/none"], "no such repository"),
        (["google/flan-t5-large"], f"holds no {RECORD_FILE}"),
        (["not an id"], "is not a Hub id"),
        (["local-user/broken"], "KeyError, see above"),
        (["local-user/flan-t5-large-finance", "--revision", "v9"], "no such revision"),
    ],
)
def test_what_cannot_be_checked_is_unchecked(adapter, capsys, argv, told, monkeypatch):
    if "broken" in argv[0]:
        monkeypatch.setattr(reproduce, "reproduce", lambda *_: {}["a bug of ours"])
    code, line = reproduced(capsys, *argv)
    assert (code, line.split()[0]) == (2, "UNCHECKED") and told in line, line


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda run: (run / "record.json").unlink(), "holds no record.json"),
        (lambda run: (run / "record.json").write_text("{}"), "is not a run record"),
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
