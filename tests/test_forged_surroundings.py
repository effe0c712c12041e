"""Forgeries beside the release: other commits of what it pins, tags, downloads, signatures; and what is honest."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from forger import (
    check,
    config,
    copy_of,
    edit_record,
    elsewhere,
    file,
    flattered,
    found_out,
    predictions,
    publish,
    published_as,
    record,
    rehash,
    staged,
    text,
    unlisted,
)
from huggingface_hub import CommitOperationAdd, HfApi, constants, hf_hub_download
from near_ties import rounded_otherwise
from safetensors.torch import load_file, save_file

import evaluation.retrain
from evaluation import reproduce
from hub.signing import sign

REPO = "local-user/forged-around"


@pytest.fixture(scope="module")
def finance(scored_on_few_rows, tmp_path_factory):
    return published_as("forged-around", scored_on_few_rows, tmp_path_factory.mktemp("runs") / "finance")


def sabotaged(folder):
    """The base model with its head's rows turned by one."""
    path = hf_hub_download("google/flan-t5-large", "model.safetensors")
    tensors = load_file(path)
    tensors["lm_head.weight"] = tensors["lm_head.weight"].roll(1, 0)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder / "model.safetensors"


def other_rows(folder):
    """The dataset's file with other answers."""
    name = next(
        name for name in HfApi().list_repo_files("gbharti/finance-alpaca", repo_type="dataset") if "json" in name
    )
    path = Path(hf_hub_download("gbharti/finance-alpaca", name, repo_type="dataset"))
    rows = [row | {"output": row["output"].replace("a", "o")} for row in json.loads(path.read_text())]
    (folder / name).write_text(json.dumps(rows))
    return folder / name


def pinned_to(base=None, dataset=None):
    """Pins another commit, in the adapter's own configuration too."""

    def forge(run, repo_id):
        if base:
            config("adapter_config.json", revision=base)(run, repo_id)
            return record(pins__base_model__revision=base)(run, repo_id)
        return record(pins__dataset__revision=dataset)(run, repo_id)

    return forge


@pytest.mark.parametrize("by", ["the-owner", "anybody"])
@pytest.mark.parametrize("what", ["base", "dataset"])
def test_a_pin_to_other_bytes_of_the_same_repository_is_found(finance, hub, tmp_path, what, by):
    repo_id, kind = {"base": ("google/flan-t5-large", "model"), "dataset": ("gbharti/finance-alpaca", "dataset")}[what]
    path = {"base": sabotaged, "dataset": other_rows}[what](tmp_path)
    api = HfApi(token=hub.token(repo_id.partition("/")[0]) if by == "the-owner" else None)
    if by == "the-owner":
        api.create_branch(repo_id, branch="other", repo_type=kind)
    where = {"revision": "other"} if by == "the-owner" else {"create_pr": True}
    commit = api.create_commit(
        repo_id, [CommitOperationAdd(path.name, path)], commit_message="Other", repo_type=kind, **where
    ).oid
    verdict = check(REPO, finance, pinned_to(**{what: commit}), tmp_path)
    part, told = {
        ("base", "the-owner"): ("generation", "base outputs differ"),
        ("dataset", "the-owner"): ("data", "gives other rows than the record states"),
    }.get((what, by), ("lineage", "stands on no branch"))
    found_out(verdict, part, told)


def test_a_moved_tag_is_found_and_a_commit_stays_what_it_is(finance, tmp_path):
    run, commit = finance
    HfApi().create_tag(REPO, tag="stable", revision=commit)
    assert reproduce.reproduce(REPO, "stable", "score")[0].revision == commit
    forged = predictions(flattered, scored_in=elsewhere)(copy_of(run, tmp_path / "forged"), REPO)
    moved = HfApi().model_info(REPO, revision=publish(REPO, commit, run / "release", forged)).sha
    HfApi().delete_tag(REPO, tag="stable")
    HfApi().create_tag(REPO, tag="stable", revision=moved)
    verdict, _ = reproduce.reproduce(REPO, "stable")
    found_out(verdict, "weights", "nats")
    assert verdict.revision == moved
    assert reproduce.reproduce(REPO, commit, "score")[0].verdict == "REPRODUCED"


def damaged_and_then_whole(commit, name):
    """What arrived damaged is named, says nothing about the adapter, and is downloaded anew by the next check."""
    verdict = reproduce.reproduce(REPO, commit, "score")[0]
    assert verdict.verdict == "UNCHECKED" and f"{name} of {REPO} arrived damaged" in verdict.line, verdict.line
    assert reproduce.reproduce(REPO, commit, "score")[0].verdict == "REPRODUCED"


def test_a_corrupted_download_of_the_same_size_is_found(finance, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", tmp_path / "cache")
    hub.fault("resolve", "corrupt", method="GET", path="finance.yaml")
    damaged_and_then_whole(finance[1], "finance.yaml")


@pytest.mark.parametrize("name", ["predictions.parquet", "adapter_config.json"])
def test_a_file_changed_in_the_cache_is_found(finance, tmp_path, monkeypatch, name):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", tmp_path / "cache")
    assert reproduce.reproduce(REPO, finance[1], "score")[0].verdict == "REPRODUCED"
    blob = Path(hf_hub_download(REPO, name, revision=finance[1])).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b" ")
    damaged_and_then_whole(finance[1], name)


def key_pair(folder, name):
    private, public = folder / f"{name}.pem", folder / f"{name}-public.pem"
    for arguments in (("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private),
                      ("pkey", "-in", private, "-pubout", "-out", public)):  # fmt: skip
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
    return private, public


@pytest.mark.parametrize(("by", "told"), [("nobody", "record.json is not what was signed"), ("mallory", "public key")])
def test_a_hashed_forgery_of_a_signed_release_is_found(finance, tmp_path, by, told):
    pytest.importorskip("model_signing", reason="needs pip install -r requirements-signing.txt")
    (private, public), (mallory, _) = (key_pair(tmp_path, name) for name in ("own", "mallory"))
    run = copy_of(finance[0], tmp_path / "run")
    sign(run / "release", private)
    signed = publish(REPO, finance[1], finance[0] / "release", run / "release")
    assert reproduce.reproduce(REPO, signed, "score", signed_by=public)[0].verdict == "REPRODUCED"
    signature = (run / "release" / "model.sig").read_bytes()
    release = record(training__seconds=1.0)(run, REPO)
    (release / "model.sig").write_bytes(signature)
    if by == "mallory":
        (release / "model.sig").unlink()
        sign(release, mallory)
    forged = publish(REPO, finance[1], finance[0] / "release", release)
    found_out(reproduce.reproduce(REPO, forged, "score", signed_by=public)[0], "signature", told)
    # Seconds follow from nothing: without the key nobody could tell.
    assert reproduce.reproduce(REPO, forged, "score")[0].verdict == "REPRODUCED"


@pytest.mark.parametrize(
    ("change", "how", "evidence"),
    [
        pytest.param(
            unlisted(".gitattributes", b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.x -text\n"),
            {"level": "score"},
            "numbers",
            id="gitattributes",
        ),
        pytest.param(record(contract__batch_size=7), {}, "tokens", id="another-batch-size"),
        pytest.param(record(scored_in=elsewhere), {"sample": 20}, "tokens", id="a-sample-of-the-same-tokens-elsewhere"),
        pytest.param(record(training__seconds=1.0), {"level": "train"}, "tokens", id="trained-again"),
    ],
)
def test_what_is_honest_reproduces(finance, tmp_path, monkeypatch, change, how, evidence):
    monkeypatch.setattr(evaluation.retrain, "RETRAINED", tmp_path / "retrained")
    verdict = check(REPO, finance, change, tmp_path, **how)
    assert (verdict.verdict, verdict.evidence) == ("REPRODUCED", evidence), verdict.line


@pytest.mark.parametrize("beams", [1, 2])
def test_what_few_rows_cannot_tell_is_unchecked_and_says_how_many_could(finance, tmp_path, beams):
    verdict = check(REPO, finance, rounded_otherwise(0.005, beams, "bfloat16"), tmp_path)
    assert (verdict.verdict, verdict.evidence, verdict.moved) == ("UNCHECKED", "statistics", None), verdict.line
    told = r"too few rows \(90\) to tell .* than 0\.01\d; about [\d,]+ test rows would decide"
    assert re.search(told, verdict.line), verdict.line
    assert verdict.checks[-1].outcome == "not checked" and reproduce.EXIT_CODES[verdict.verdict] == 2


def test_a_moved_main_leaves_a_named_commit_as_it_is_and_the_command_says_so(finance, tmp_path, capsys):
    run, commit = finance
    forged = file("README.md", text("**0.", "**1."))(copy_of(run, tmp_path / "forged"), REPO)
    HfApi().upload_file(path_or_fileobj=forged / "README.md", path_in_repo="README.md", repo_id=REPO)
    assert reproduce.reproduce(REPO, commit, "score")[0].verdict == "REPRODUCED"
    with pytest.raises(SystemExit) as stop:
        reproduce.main([REPO, "--level", "score"])
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert stop.value.code == 1 and last.startswith(f"DRIFTED {REPO}@") and "README.md" in last


def with_a_card(change, renderer=None):
    """A release whose card was changed, by another renderer's record if one is named."""

    def forge(run, repo_id):
        release = run / "release"
        path = release / "README.md"
        before = path.read_text()
        path.write_text(change(before))
        assert path.read_text() != before
        if renderer:
            edit_record(release, rendered__code=renderer)
        return rehash(release)

    return forge


def boasting(card):
    """A card from top to bottom another, its true tables in a comment."""
    front, _, body = card.partition("\n# ")
    return f"{front}\n# Finance\n\nTrained on 10,000 rows, right in 99.1 % of the cases.\n\n<!--\n{body}\n-->\n"


def in_free_text(written):
    return with_a_card(lambda card: card.replace("<!-- free: limits -->", f"<!-- free: limits -->\n{written}\n", 1))


def test_a_card_rewritten_under_another_renderers_name_is_found(finance, tmp_path):
    # The comment ends where the first free text does: the first table that is seen is then that of the clean rows.
    found_out(check(REPO, finance, with_a_card(boasting, "0" * 64), tmp_path, level="score"), "card", "for ROUGE-1")


def test_what_nobody_could_compare_on_a_card_stands_outside_of_the_word(finance, tmp_path):
    def boast(card):
        return card.replace(
            "\n## Results\n", "\nTrained on 10,000 rows, right in 99.1 % of the cases.\n\n## Results\n", 1
        )

    verdict = check(REPO, finance, with_a_card(boast, "0" * 64), tmp_path, level="score")
    assert verdict.line.startswith(f"REPRODUCED (miniature, scores; the card was not checked) {REPO}@")
    assert "another version rendered the card, and " in verdict.line and "states 99.1 %" in verdict.line


@pytest.mark.parametrize(
    ("written", "told"),
    [("```", "opens a code block"), ("<details>", "opens <details>"), ("## Results", "has the heading 'Results'")],
)
def test_a_free_text_that_hides_or_imitates_what_was_measured_is_found(finance, tmp_path, written, told):
    found_out(check(REPO, finance, in_free_text(written), tmp_path, level="score"), "card", told)


def test_a_free_text_that_states_another_score_is_a_concern(finance, tmp_path):
    verdict = check(REPO, finance, in_free_text("Its ROUGE-L is 0.99."), tmp_path, level="score")
    assert verdict.verdict == "REPRODUCED"
    assert (
        "in `limits` of the card, 'Its ROUGE-L is 0.99.' states 0.99, which is none of the scores" in verdict.concerns
    )


def test_a_verdict_that_contradicts_the_record_is_found(finance, tmp_path):
    verdict, _ = reproduce.reproduce(REPO, finance[1], "score")
    said = verdict.model_copy(update={"reason": "ROUGE-L 0.9912: checked by the Hub team"})

    def forge(run, repo_id):
        (run / "verdict.json").write_text(said.model_dump_json())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("push.release.why_unrelated", lambda *_: None)
            return staged(run, repo_id)

    found_out(check(REPO, finance, forge, tmp_path, level="score"), "card", "the verdict states ROUGE-L 0.9912")
