"""Where a release may go, what it may replace, and what the publisher says when it may not."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, get_collection, hf_hub_download
from publishers import told
from short_runs import copy_of

from push import publish, repository
from record.predictions import load_predictions
from record.run_record import load_record

WRITES = {"create", "preupload", "commit", "xet_write_token", "xet_xorb", "xet_shard", "lfs_batch", "lfs_put", "tag"}


def read_card(repo_id: str) -> str:
    return Path(hf_hub_download(repo_id, "README.md")).read_text()


def edit_card(repo_id: str, old: str, new: str) -> str:
    card = read_card(repo_id)
    assert old in card
    edited = card.replace(old, new, 1).encode()
    return HfApi().upload_file(path_or_fileobj=edited, path_in_repo="README.md", repo_id=repo_id).oid


def tags(repo_id: str) -> dict[str, str]:
    return {tag.name: tag.target_commit for tag in HfApi().list_repo_refs(repo_id).tags}


def test_each_release_has_its_tag_and_what_is_there_already_is_not_sent_again(run, tmp_path, capsys, hub):
    folder, repo_id = copy_of(run, tmp_path / "one", "tagged"), "local-user/tagged"
    code, line = told(capsys, folder)
    first = HfApi().model_info(repo_id).sha
    assert code == 0 and line.startswith(f"Published {repo_id}@{first} (v1)")
    hub.clear_requests()
    code, line = told(capsys, folder)
    assert code == 0 and line.startswith(f"Unchanged: {repo_id}@{first} (v1)")
    assert not WRITES & {request["route"] for request in hub.requests()}
    edited = edit_card(repo_id, "<!-- free: limits -->", "<!-- free: limits -->\nNot for advice.")
    code, line = told(capsys, folder)
    assert code == 0 and line.startswith(f"Unchanged: {repo_id}@{edited} (v1)") and tags(repo_id) == {"v1": first}
    record = load_record(folder)
    record.training.seconds += 1
    record.save(folder)
    code, line = told(capsys, folder)
    second = HfApi().model_info(repo_id).sha
    assert code == 0 and f"{repo_id}@{second} (v2)" in line and tags(repo_id) == {"v1": first, "v2": second}
    assert "Not for advice." in (folder / "release" / "README.md").read_text()


def test_an_organisation_a_private_repository_a_branch_and_a_collection(run, tmp_path, capsys, hub):
    hub.add_org("acme", {"local-user": "write"})
    hub.add_org("watchers", {"local-user": "read"})
    folder, api = copy_of(run, tmp_path / "one", "in-org"), HfApi()
    code, line = told(capsys, folder, "--org", "nobody-there")
    assert code == 1 and "you are not a member of the organisation nobody-there (yours: acme, watchers)" in line
    code, line = told(capsys, folder, "--org", "watchers")
    assert code == 1 and "the token may not do this" in line and 'under the namespace "watchers"' in line
    code, line = told(capsys, folder, "--org", "acme", "--private", "--collection", "Adapters of ours")
    assert code == 0 and line.startswith("Published acme/in-org@"), line
    assert api.model_info("acme/in-org").private
    (collection,) = api.list_collections(owner="acme")
    collection = get_collection(collection.slug)
    assert collection.title == "Adapters of ours" and collection.private
    assert [(item.item_id, item.note) for item in collection.items] == [
        ("acme/in-org", f"ROUGE-L {load_record(folder).scores.adapter['rougeL'].mean:.3f} on 343 test rows")
    ]
    assert told(capsys, folder, "--org", "acme", "--collection", "Adapters of ours")[0] == 0
    assert len(get_collection(collection.slug).items) == 1 and len(list(api.list_collections(owner="acme"))) == 1
    hub.fault("collection_create", "status", code=403)
    code, line = told(capsys, folder, "--org", "acme", "--collection", "Another")
    hub.clear_faults()
    assert code == 1 and "published, but not put into 'Another': " in line
    main = api.model_info("acme/in-org").sha
    record = load_record(folder)
    record.training.seconds += 1
    record.save(folder)
    code, line = told(capsys, folder, "--org", "acme", "--revision", "next")
    assert code == 0 and api.model_info("acme/in-org").sha == main and "(v" not in line
    assert api.model_info("acme/in-org", revision="next").sha in line
    code, line = told(capsys, copy_of(run, tmp_path / "two", "public"))
    assert code == 0
    code, line = told(capsys, tmp_path / "two", "--private")
    assert code == 1 and "local-user/public exists and is public" in line


def test_a_pull_request_holds_the_release_once_and_leaves_the_branch_alone(run, tmp_path, capsys):
    folder, repo_id, api = copy_of(run, tmp_path / "one", "proposed"), "local-user/proposed", HfApi()
    code, line = told(capsys, folder, "--pr")
    assert code == 1 and "has no branch main to propose anything to" in line
    assert not api.repo_exists(repo_id)
    told(capsys, folder)
    main = api.model_info(repo_id).sha
    record = load_record(folder)
    record.training.seconds += 1
    record.save(folder)
    for _ in range(2):
        code, line = told(capsys, folder, "--pr")
        assert code == 0 and line.startswith(f"Proposed {repo_id}@") and "as pull request 1;" in line
    assert api.model_info(repo_id).sha == main and tags(repo_id) == {"v1": main}
    assert repository.holds(api, repo_id, "refs/pr/1", folder / "release")
    assert len(list(api.get_repo_discussions(repo_id))) == 1


def test_a_card_edited_outside_its_free_sections_is_not_overwritten_unasked(run, tmp_path, capsys, monkeypatch):
    folder, repo_id = copy_of(run, tmp_path / "one", "edited"), "local-user/edited"
    told(capsys, folder)
    head = edit_card(repo_id, "\n## Use it", "\nWe like it.\n\n## Use it")
    code, line = told(capsys, folder)
    assert code == 1 and "was written or edited outside its free sections (local-user, " in line
    assert f"OVERWRITE={head[:12]}" in line and HfApi().model_info(repo_id).sha == head
    code, line = told(capsys, folder, "--overwrite", "0" * 12)
    assert code == 1 and HfApi().model_info(repo_id).sha == head
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert told(capsys, folder)[0] == 1
    code, line = told(capsys, folder, "--overwrite", head[:12])
    assert code == 0 and "We like it." not in read_card(repo_id)
    edit_card(repo_id, "\n## Use it", "\nWe like it.\n\n## Use it")
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert told(capsys, folder)[0] == 0


def test_a_card_written_by_hand_in_an_empty_repository_is_not_overwritten_unasked(run, tmp_path, capsys):
    folder, repo_id, api = copy_of(run, tmp_path / "one", "by-hand"), "local-user/by-hand", HfApi()
    api.create_repo(repo_id)
    card = b"---\nlicense: apache-2.0\n---\nSoon.\n<!-- free: limits -->\nMine.\n<!-- /free -->\n"
    head = api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo_id).oid
    code, line = told(capsys, folder)
    assert code == 1 and "written or edited" in line and api.model_info(repo_id).sha == head
    assert told(capsys, folder, "--overwrite", head)[0] == 0
    assert "\nMine.\n" in read_card(repo_id)


def test_somebody_elses_release_is_not_replaced_unasked(run, tmp_path, capsys, hub, monkeypatch):
    hub.add_org("pair", {"local-user": "write", "bob": "write"})
    folder, repo_id = copy_of(run, tmp_path / "one", "shared"), "pair/shared"
    other = copy_of(run, tmp_path / "two", "shared", seconds=1)
    assert told(capsys, folder, "--org", "pair")[0] == 0
    monkeypatch.setenv("HF_TOKEN", hub.token("bob"))
    assert told(capsys, folder, "--org", "pair")[0] == 0
    head = HfApi().model_info(repo_id).sha
    code, line = told(capsys, other, "--org", "pair")
    assert code == 1 and "is somebody else's (local-user, " in line and HfApi().model_info(repo_id).sha == head
    code, line = told(capsys, other, "--org", "pair", "--overwrite", head)
    assert code == 0 and "(v2)" in line


def test_a_card_edited_while_the_release_is_on_its_way_keeps_the_edit(run, tmp_path, capsys, hub):
    folder, repo_id = copy_of(run, tmp_path / "one", "on-its-way"), "local-user/on-its-way"
    told(capsys, folder)
    record = load_record(folder)
    record.training.seconds += 1
    record.save(folder)
    commit, edited = repository.commit, []

    def edit_first(*arguments):
        if not edited:
            edited.append(edit_card(repo_id, "<!-- free: limits -->", "<!-- free: limits -->\nIn between."))
        return commit(*arguments)

    repository.commit = edit_first
    try:
        code, line = told(capsys, folder)
    finally:
        repository.commit = commit
    assert code == 0 and "(v2)" in line
    assert [one.commit_id for one in HfApi().list_repo_commits(repo_id)][1] == edited[0]
    assert "In between." in read_card(repo_id)


def test_every_run_is_published_after_its_parent_and_a_failure_stops_no_other(run, tmp_path, capsys):
    child = copy_of(run, tmp_path / "a-child", "the-child")
    parent, torn = copy_of(run, tmp_path / "b-parent", "the-parent"), copy_of(run, tmp_path / "c-torn", "the-torn")
    unscored = copy_of(run, tmp_path / "d-unscored", "the-unscored")
    unreadable = copy_of(run, tmp_path / "e-unreadable", "the-unreadable")
    record = load_record(child)
    record.pins.parent_adapter = record.pins.base_model.model_copy(update={"id": "local-user/the-parent"})
    assert publish.in_chain_order([child, torn, parent]).index(parent) < 3
    record.save(child)
    order = publish.in_chain_order([child, torn, parent])
    assert order.index(parent) < order.index(child)
    record.pins.parent_adapter = None
    record.save(child)
    (torn / "predictions.parquet").unlink()
    record = load_record(unscored)
    record.scores = None
    record.save(unscored)
    (unreadable / "record.json").write_text("{")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        publish.main([str(folder) for folder in (child, parent, torn, unscored, unreadable)])
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and err.strip().splitlines()[-1] == "error: 2 of 5 runs failed: see above"
    assert "c-torn: " in err and "holds no predictions.parquet" in err and "e-unreadable: " in err
    rows = {line.split()[0]: line for line in out.splitlines() if line.split() and line.split()[0] in
            {"a-child", "b-parent", "c-torn", "d-unscored", "e-unreadable"}}  # fmt: skip
    assert "published" in rows["a-child"] and "v1" in rows["b-parent"] and "FAILED" in rows["c-torn"]
    assert "not scored yet" in rows["d-unscored"]
    assert HfApi().repo_exists("local-user/the-child") and not HfApi().repo_exists("local-user/the-torn")
    twins = [copy_of(run, tmp_path / name, "the-twins") for name in ("f", "g")]
    code, line = told(capsys, *twins)
    assert code == 1 and "would both be published as the-twins" in line


def test_a_trusted_publisher_needs_no_token_of_a_user(run, tmp_path, capsys, hub, monkeypatch):
    folder, repo_id = copy_of(run, tmp_path / "one", "by-robot"), "local-user/by-robot"
    token = hub.trust(repo_id)
    assert told(capsys, folder)[0] == 0
    record = load_record(folder)
    record.training.seconds += 1
    record.save(folder)
    monkeypatch.delenv("HF_TOKEN")
    assert told(capsys, folder) == (1, "error: no token: run `hf auth login` or set HF_TOKEN, or add HUB=local to try "
                                       "on the local Hub")  # fmt: skip
    monkeypatch.setenv("HF_OIDC_RESOURCE", repo_id)
    monkeypatch.setenv("HF_OIDC_ID_TOKEN", token)
    code, line = told(capsys, folder)
    assert code == 0 and line.startswith(f"Published {repo_id}@") and "(v2)" in line, line
    code, line = told(capsys, copy_of(run, tmp_path / "two", "by-robot-anew"))
    assert code == 1 and "publish once with a user's token" in line


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda hub, patch: patch.setenv("HF_TOKEN", "hf_" + "x" * 34), "the token is not valid or has expired"),
        (lambda hub, patch: patch.setenv("HF_TOKEN", hub.token("local-user", "read")), "use one that may write"),
        (lambda hub, patch: patch.setenv("HF_TOKEN", hub.token("eve")), "rights to create a model under the namespace"),
        (lambda hub, patch: hub.quota("local-user", 1000), "storage on the Hub is full"),
        (lambda hub, patch: hub.fault("commit", "status", code=402), "storage on the Hub is full"),
        (lambda hub, patch: hub.fault("preupload", "status", code=413), "storage on the Hub is full"),
        (lambda hub, patch: hub.fault("create", "status", code=400), "it refuses the request as invalid"),
        (lambda hub, patch: hub.fault("commit", "status", code=403), "the token may not do this"),
        (lambda hub, patch: hub.fault("validate_yaml", "status", code=404), "answered 404"),
    ],
)
def test_each_refusal_has_its_line(run, tmp_path, capsys, hub, monkeypatch, prepare, said):
    folder = copy_of(run, tmp_path / "one", f"refused-{tmp_path.name.rpartition('_')[2]}")
    prepare(hub, monkeypatch)
    try:
        code, line = told(capsys, folder, "--user", "local-user", "--time-limit", "0.5")
    finally:
        hub.clear_faults()
        hub.quota("local-user", None)
    assert code == 1 and said in line and "no file of a release was changed" in line, line
    assert "hf_" not in line


def test_an_adapter_that_writes_something_else_is_not_called_published(run, tmp_path, capsys):
    folder, repo_id = copy_of(run, tmp_path / "one", "other-words"), "local-user/other-words"
    predictions = load_predictions(folder)
    predictions.adapter_tokens[0] = predictions.adapter_tokens[0][::-1]
    predictions.save(folder)
    code, line = told(capsys, folder)
    assert code == 1 and "does not write what it wrote: the adapter output of the first test row is another one" in line
    assert f"{repo_id}@{HfApi().model_info(repo_id).sha} is committed, but not checked to its end" in line
    assert tags(repo_id) == {}


def test_a_token_in_the_hubs_own_words_is_not_printed(run, tmp_path, capsys, hub):
    token = hub.token("local-user")
    hub.fault("validate_yaml", "status", code=403, message=f"not with {token}")
    folder = copy_of(run, tmp_path / "one", "secretive")
    with pytest.raises(SystemExit):
        publish.main([str(folder)])
    hub.clear_faults()
    out, err = capsys.readouterr()
    assert "not with [" in err and token not in out + err


def test_a_name_that_is_taken_or_impossible_is_told(run, tmp_path, capsys, hub, monkeypatch):
    folder = copy_of(run, tmp_path / "one", "taken")
    hub.add_org("guild", {"bob": "write", "local-user": "read"})
    monkeypatch.setenv("HF_TOKEN", hub.token("bob"))
    HfApi().create_repo("guild/taken", private=True)
    monkeypatch.setenv("HF_TOKEN", hub.token("local-user"))
    hub.add_org("guild", {"bob": "write"})
    code, line = told(capsys, folder, "--user", "guild")
    assert code == 1 and ("is taken" in line or "may not do this" in line), line
    code, line = told(capsys, folder, "--user", "no such owner")
    assert code == 1 and "not a Hub id" in line
    code, line = told(capsys, copy_of(run, tmp_path / "two", "name.git"))
    assert code == 1 and ("not a Hub id" in line or "Invalid name" in line), line
    code, line = told(capsys, folder, "--time-limit", "0")
    assert code == 1 and "a number of minutes above 0" in line
