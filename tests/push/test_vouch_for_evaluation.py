"""Verdicts by others on a release that holds scores alone, of an adapter that was made elsewhere."""

import json
import re
from pathlib import Path

import pytest
import short_runs
from foreign_adapters import BASE, KEYS, adapted, upload
from html_page import Page
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from vouching import broken_arithmetic, signed_in, vouch

from evaluation import check
from hub.vouchers import accepted, read_proposed, read_release, read_vouchers
from model_cards.card import keep_free_sections
from model_cards.overview import read_all, render_overview
from model_cards.vouchers import section_of
from readme.claims import renew_all
from readme.history import render_claims
from record.command_line import run_command
from record.run_record import load_record
from record.vouchers import Contents, agreement, statement, voucher_path

REPO = "local-user/vouched-evaluation"
SOURCE = "local-user/made-elsewhere"


def evaluated(source: str, folder: Path, *words: str) -> Path:
    """The folder of an evaluation-only release of what is published under an id."""
    with pytest.raises(SystemExit) as end:
        run_command(check.command, [source, "--recipe", "finance", "--record", str(folder), *words, *KEYS], "check")
    assert not end.value.code
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    model, tokenizer = adapted()
    model.save_pretrained(folder / "adapter")
    tokenizer.save_pretrained(folder / "adapter")
    return evaluated(upload(SOURCE.partition("/")[2], folder / "adapter"), folder / "release")


@pytest.fixture(scope="module")
def merged(folder, hub):
    """The release after three accounts checked it, of whom one found something else, and its owner merged all."""
    upload(REPO.partition("/")[2], folder)
    with signed_in(hub, "alice"):
        vouch(REPO, "--sample", "12")
    with signed_in(hub, "bob"):
        vouch(REPO, "--level", "score")
    with signed_in(hub, "carol"), broken_arithmetic():
        assert "Proposed: DRIFTED" in vouch(REPO, "--sample", "12")
    listed = vouch(REPO, "--list")
    assert "refused" not in listed and "nobody has vouched for it yet; 3 proposed and not merged" in listed
    for number in (1, 2, 3):
        HfApi().merge_pull_request(REPO, number)
    return HfApi().model_info(REPO).sha


def stated(who: str) -> dict:
    """What a merged file says."""
    (path,) = [name for name in HfApi().list_repo_files(REPO) if name.startswith(f"verdicts/{who}-")]
    return json.loads(Path(hf_hub_download(REPO, path)).read_bytes())


def test_three_verdicts_count_and_the_release_stays_whole(merged, folder, capsys):
    files = read_vouchers(read_release(REPO, merged))
    assert [file.refusal for file in files] == ["", "", ""]
    together = agreement(accepted(files), "local-user")
    assert together.line == "3 accounts checked it: 2 found what is published, 1 did not"
    ((model, names, rows),) = together.parts
    assert (model, names, together.ran, len(rows)) == ("adapter", ["carol"], 2, 6)
    # Who ran the models has read the weights, which lie elsewhere; who did not has none to speak of.
    weights = load_record(folder).evaluated.files["adapter_model.safetensors"]
    assert [stated(who)["predicate"]["pubrep_check"]["verdict"]["adapter_sha256"] for who in ("alice", "bob")] == [
        weights, None,
    ]  # fmt: skip
    for words in (("--sample", "12"), ("--level", "score")):
        code, out = short_runs.reproduced(capsys, REPO, *words)
        assert code == 0 and out.splitlines()[-1].startswith("REPRODUCED (miniature"), out
        assert "the card was not checked" not in out and "the card rendered again: the same" in out
        assert "verdicts by others: 3 accounts checked it: 2 found what is published, 1 did not" in out
        assert "Concern: carol found DRIFTED at level generate on " in out


def test_its_card_shows_them(merged, capsys):
    assert "No verdict by anybody else" in section_of(Path(hf_hub_download(REPO, "README.md")).read_text())
    assert vouch(REPO, "--card").startswith(f"Card: {REPO}: 3 accounts checked it: 2 found")
    assert vouch(REPO, "--card").startswith("Card unchanged")
    card = Path(hf_hub_download(REPO, "README.md")).read_text()
    rows = [line for line in section_of(card).splitlines() if line.startswith("| [")]
    assert [re.match(r"\| \[(\w+)\]\(verdicts/\1-", row)[1] for row in rows] == ["carol", "alice", "bob"]
    assert re.search(r"\| \*\*DRIFTED\*\* \(\w+\) \| generate, 12 rows \| .* \| adapter: \d+, ", rows[0])
    assert "- carol found other outputs of the adapter in rows " in section_of(card)
    code, out = short_runs.reproduced(capsys, REPO, "--level", "score")
    assert code == 0 and "what the card shows" not in out and "the card rendered again: the same" in out
    better = re.sub(r"\*\*DRIFTED\*\* \(\w+\)", "REPRODUCED", card)
    assert better != card
    forged = HfApi().upload_file(path_or_fileobj=better.encode(), path_in_repo="README.md", repo_id=REPO).oid
    code, out = short_runs.reproduced(capsys, REPO, "--level", "score", "--revision", forged)
    assert code == 0 and "Concern: what the card shows of verdicts by others is not what their files beside it" in out
    vouch(REPO, "--card")


def test_the_page_of_adapters_shows_them_and_that_it_was_not_trained_here(merged, folder):
    html = render_overview(read_all([REPO]))
    page = Page(re.sub(r"<script.*?</script>|<input[^>]*>", "", html, flags=re.S))
    for text in ("3 accounts checked it: 2 found what is published, 1 did not", "carol: DRIFTED at level generate on",
                 "(today)", "They part: carol, of 2 who ran the models", "It was not trained here.",
                 f"Evaluation only: the adapter {SOURCE} at",
                 "evaluation only, scored on gbharti/finance-alpaca"):  # fmt: skip
        assert text in page.text, text
    # From the folder, before it is published, nobody has checked it.
    assert "accounts checked it" not in render_overview(read_all([str(folder)]))


def test_claims_show_them_and_keep_every_verdict(merged, tmp_path):
    (tmp_path / "claims.yaml").write_text(f"- {{adapter: {REPO}, hub: local, pictures: true}}\n")
    (tmp_path / "README.md").write_text("<!-- rendered: results -->\n<!-- /rendered -->\n")
    assert renew_all(tmp_path, check=True, level="score") == []
    readme = (tmp_path / "README.md").read_text()
    for text in (
        "<br>2 of 3 other accounts agree |",
        f"<br>evaluation only, of {SOURCE}<br>",
        "%) in the recipe's training rows |",
    ):
        assert text in readme, text
    page = Page(render_claims(tmp_path))
    for text in ("REPRODUCED at level score, today, of the commit", "2 of 3 other accounts that checked this release",
                 "carol: other outputs of the adapter in row", "4 verdicts, the newest first",
                 f"Evaluation only: scores of {SOURCE} at"):  # fmt: skip
        assert text in page.text, text


def proposed(hub, source: str, **changes) -> str:
    """Why a file that mallory made of somebody's is refused; empty where it is not."""
    statement_of = stated(source)
    contents = statement_of["predicate"]["pubrep_check"]
    contents["checker"] = "mallory"
    contents["verdict"] |= changes
    path = voucher_path(Contents.model_validate(contents))
    data = json.dumps(statement(contents, statement_of["subject"][0]["digest"]["sha256"])).encode()
    with signed_in(hub, "mallory"):
        info = HfApi().create_commit(REPO, [CommitOperationAdd(path, data)], commit_message="Mine", create_pr=True)
        files = read_proposed(read_release(REPO, HfApi().model_info(REPO).sha))
        HfApi().change_discussion_status(REPO, info.pr_num, "closed")
    (refusal,) = [file.refusal for file in files if file.path == path]
    return refusal


@pytest.mark.parametrize(
    ("source", "changes", "why"),
    [
        ("alice", {}, ""),
        ("alice", {"adapter_sha256": "f" * 64}, "it speaks of another adapter_model.safetensors"),
        ("alice", {"adapter_sha256": None}, "it speaks of another adapter_model.safetensors"),
        ("bob", {"adapter_sha256": "f" * 64}, "it speaks of another adapter_model.safetensors"),
        ("bob", {"predictions_sha256": None}, "it speaks of another predictions.parquet"),
    ],
)
def test_one_about_other_weights_or_outputs_is_refused(source, changes, why, merged, hub):
    refusal = proposed(hub, source, **changes)
    assert why in refusal and bool(why) == bool(refusal)


def test_those_of_a_full_model_count_too(hub, tmp_path):
    AutoModelForSeq2SeqLM.from_pretrained(BASE).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(BASE).save_pretrained(tmp_path / "model")
    source = upload("full-elsewhere", tmp_path / "model")
    repo = upload("vouched-full", evaluated(source, tmp_path / "release", "--model", "--base", BASE))
    with signed_in(hub, "alice"):
        assert "Proposed: REPRODUCED" in vouch(repo, "--sample", "8")
    HfApi().merge_pull_request(repo, 1)
    assert vouch(repo, "--card").endswith("1 account checked it, and found what is published\n")


def test_a_card_from_before_it_had_the_section_says_what_to_do(folder, tmp_path):
    old = (folder / "README.md").read_text().partition("## Verdicts by others")
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "README.md").write_text(keep_free_sections(old[0], old[0]))
    told = vouch(upload("vouched-before", tmp_path), "--card", code=1)
    assert "has no free section 'verdicts by others'" in told and "`pubrep check --record`" in told
