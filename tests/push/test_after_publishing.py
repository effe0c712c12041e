"""What a Hub and its community do to a published release: it is no drift, and hinders no later release."""

import subprocess
import sys
from pathlib import Path

from huggingface_hub import HfApi
from publishers import told
from short_runs import copy_of, train_short

from evaluation import reproduce
from record.run_record import load_record

RESULT = b"- dataset: {id: cais/hle, task_id: default}\n  value: 41.2\n"


def reproduced(adapter, revision="main"):
    """Name and reason of a check that must reproduce, and what it says of each part."""
    verdict, _ = reproduce.reproduce(adapter, revision, "score")
    assert verdict.verdict == "REPRODUCED", verdict.line
    return f"{verdict.verdict} {verdict.adapter}@{verdict.revision} {verdict.reason}", [
        check.detail for check in verdict.checks
    ]


def newer(folder):
    """Makes a run another release of the same adapter."""
    record = load_record(folder)
    record.training.seconds += 1
    record.save(folder)
    return folder


def merge_result(hub, repo_id):
    """Merges another user's pull request with a result of theirs, as bots open them."""
    request = HfApi(token=hub.token("a-bot")).upload_file(
        path_or_fileobj=RESULT, path_in_repo=".eval_results/hle.yaml", repo_id=repo_id, create_pr=True
    )
    HfApi().merge_pull_request(repo_id, int(request.pr_num))


def test_a_merged_result_and_pictures_are_no_drift_and_stay_in_the_next_release(run, tmp_path, capsys, hub):
    folder, repo_id, api = copy_of(run, tmp_path / "run", "with-results"), "local-user/with-results", HfApi()
    assert told(capsys, folder)[0] == 0
    merge_result(hub, repo_id)
    api.upload_file(path_or_fileobj=b"\x89PNG", path_in_repo="shot.png", repo_id=repo_id)
    attributes = Path(api.hf_hub_download(repo_id, ".gitattributes")).read_bytes() + b"*.x -text\n"
    api.upload_file(path_or_fileobj=attributes, path_in_repo=".gitattributes", repo_id=repo_id)
    assert "also in the repository: .eval_results/hle.yaml, shot.png" in reproduced(repo_id)[1]
    code, line = told(capsys, folder)
    assert code == 0 and line.startswith("Unchanged: "), line
    # The Hub does not always say which commit brought a file.
    hub.fault("paths_info", "omit", field="lastCommit", times=-1)
    try:
        code, line = told(capsys, newer(folder))
    finally:
        hub.clear_faults()
    assert code == 0 and line.startswith("Published ") and "(v2)" in line, line
    assert {".eval_results/hle.yaml", "shot.png"} <= set(api.list_repo_files(repo_id))
    reproduced(repo_id)


def test_what_a_library_loads_is_drift_still(run, tmp_path, capsys):
    folder, repo_id, names = copy_of(run, tmp_path / "run", "with-code"), "local-user/with-code", []
    assert told(capsys, folder)[0] == 0
    for name in (".eval_results/x.py", "adapter_model.bin", "modeling.py", "other.safetensors"):
        names.append(name)
        HfApi().upload_file(path_or_fileobj=b"x", path_in_repo=name, repo_id=repo_id)
        verdict, _ = reproduce.reproduce(repo_id, level="score")
        assert (verdict.verdict, verdict.moved) == ("DRIFTED", "files") and ", ".join(names) in verdict.reason
    code, line = told(capsys, newer(folder))
    assert code == 1 and ", ".join(names) in line


def test_an_adapter_that_was_renamed_is_checked_and_published_under_its_new_name(run, tmp_path, capsys):
    folder, old, new = copy_of(run, tmp_path / "run", "an-old-name"), "local-user/an-old-name", "local-user/New"
    assert told(capsys, folder)[0] == 0
    HfApi().move_repo(old, new)
    for name in (old, "Local-User/NEW"):
        line, _ = reproduced(name)
        assert line.startswith(f"REPRODUCED {new}@")
        assert line.endswith(f"; published as {old}, which the Hub calls {new} now")
    code, line = told(capsys, newer(folder))
    assert code == 0 and line.startswith(f"Published {new}@"), line
    assert old not in reproduced(old)[0]
    card = (folder / "release" / "README.md").read_text()
    assert f"ADAPTER={new} HUB=local\n" in card and old not in card


def test_a_copy_under_another_name_says_whose_it_is(run, tmp_path, capsys):
    folder, api = copy_of(run, tmp_path / "run", "copied"), HfApi()
    assert told(capsys, folder)[0] == 0
    api.create_repo("local-user/a-copy")
    api.upload_folder(repo_id="local-user/a-copy", folder_path=folder / "release")
    line, _ = reproduced("local-user/a-copy")
    assert line.endswith("; its card names local-user/copied, of which this is a copy")


def test_base_and_dataset_may_be_renamed_after_publishing(run, tmp_path, capsys, hub):
    folder = copy_of(run, tmp_path / "run", "of-moved")
    assert told(capsys, folder)[0] == 0
    moves = [("google/flan-t5-large", "model"), ("gbharti/finance-alpaca", "dataset")]
    try:
        for old, kind in moves:
            HfApi(token=hub.token(old.partition("/")[0])).move_repo(old, f"{old}-now", repo_type=kind)
        reproduced("local-user/of-moved")
        # The record pins what the recipe names; either may be from before the move.
        code, line = told(capsys, newer(folder))
        assert code == 0, line
        reproduced("local-user/of-moved")
    finally:
        for old, kind in moves:
            HfApi(token=hub.token(old.partition("/")[0])).move_repo(f"{old}-now", old, repo_type=kind)


def test_ids_typed_in_another_case_are_recorded_as_the_hub_has_them(tmp_path, capsys):
    typed = ("--model_name_or_path", "Google/FLAN-T5-large", "--dataset_name", "GBHARTI/finance-alpaca",
             "--max_steps", "1")  # fmt: skip
    folder = train_short(tmp_path / "run", *typed)
    record = load_record(folder)
    assert (record.pins.base_model.id, record.pins.dataset.id) == ("google/flan-t5-large", "gbharti/finance-alpaca")
    assert record.recipe["model_name_or_path"] == "google/flan-t5-large"
    assert record.recipe["dataset_name"] == "gbharti/finance-alpaca"
    capsys.readouterr()
    train_short(folder, *typed)
    assert "is trained already" in capsys.readouterr().out


def test_an_owner_is_published_to_as_the_hub_has_the_name(run, tmp_path, capsys):
    folder = copy_of(run, tmp_path / "run", "of-local-user")
    code, line = told(capsys, folder, "--user", "LOCAL-user")
    assert code == 0 and line.startswith("Published local-user/of-local-user@")


def test_an_organisation_that_is_private_by_default_is_told(run, tmp_path, capsys, hub, monkeypatch):
    hub.add_org("Acme-Private", {"carol": "write"})
    monkeypatch.setenv("HF_TOKEN", hub.token("carol"))
    hub.make_private_by_default("Acme-Private")
    folder = copy_of(run, tmp_path / "run", "kept-private")
    from push import publish

    publish.main([str(folder), "--org", "acme-private"])
    out = capsys.readouterr().out
    assert out.count("is private, though --private was not given") == 1
    assert f"{hub.url}/Acme-Private/kept-private/settings" in out
    assert HfApi().model_info("Acme-Private/kept-private").private


def test_a_check_waits_out_429_on_every_route(run, tmp_path, capsys, hub):
    folder = copy_of(run, tmp_path / "run", "asked-often")
    assert told(capsys, folder)[0] == 0
    routes = ["info", "paths_info", "tree", "refs", "commits", "resolve", "xet_read_token", "xet_reconstruction"]
    for route in routes:
        hub.fault(route, "status", code=429, headers={"Retry-After": "0"}, times=2)
    hub.clear_requests()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "evaluation.reproduce", "local-user/asked-often", "--level", "score"],
            env=hub.env(tmp_path / "home"), text=True, capture_output=True, timeout=300,
        )  # fmt: skip
    finally:
        hub.clear_faults()
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 0 and last.startswith("REPRODUCED") and "local-user/asked-often@" in last, done.stderr
    seen = hub.requests()
    assert {entry["route"] for entry in seen} - {"xet_data", "unknown"} <= set(routes)
    refused = {entry["route"] for entry in seen if entry["status"] == 429}
    assert {"info", "paths_info", "tree", "refs", "resolve"} <= refused
