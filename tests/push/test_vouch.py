"""Verdicts by others on the local Hub: three accounts check one release, its owner merges what they propose, and card,
page and checks say what they found; forged and replayed verdicts are refused."""

import base64
import json
import re
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
import short_runs
from html_page import Page
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from key_pairs import key_pair
from publishers import told
from short_runs import copy_of
from vouching import broken_arithmetic, signed_in, vouch

from hub.dsse import public_half, sign
from hub.vouchers import Wanted, accepted, read_proposed, read_release, read_vouchers
from model_cards.overview import read_all, render_overview
from model_cards.vouchers import section_of
from readme.claims import renew_all
from readme.history import HISTORY_FILE, load_history, render_claims
from record.project import __version__
from record.release_files import may_lie_beside
from record.vouchers import FOLDER, LARGEST, Contents, agreement, statement, voucher_path

NAME = "vouched"
REPO = f"local-user/{NAME}"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return {name: key_pair(folder, name) for name in ("owner", "alice", "mallory")}


@pytest.fixture(scope="module")
def proposed(run, hub, keys, tmp_path_factory):
    """A signed release and its commit, after three accounts proposed what they found: one of them something else."""
    folder = copy_of(run, tmp_path_factory.mktemp("vouched") / "run", NAME)
    commit = short_runs.publish(folder, sign=keys["owner"][0])
    said = {}
    with signed_in(hub, "alice"):
        said["alice"] = vouch(REPO, "--level", "generate", "--sample", "12", "--key", keys["alice"][0])
    with signed_in(hub, "bob"):
        said["bob"] = vouch(REPO, "--level", "score")
    with signed_in(hub, "carol"), broken_arithmetic():
        said["carol"] = vouch(REPO, "--level", "generate", "--sample", "12")
    return folder, commit, said


@pytest.fixture(scope="module")
def files(proposed):
    """The three files as they were proposed, by their checkers."""
    api, files = HfApi(), {}
    for number in (1, 2, 3):
        revision = f"refs/pr/{number}"
        (path,) = [name for name in api.list_repo_files(REPO, revision=revision) if name.startswith(FOLDER)]
        data = Path(hf_hub_download(REPO, path, revision=revision)).read_bytes()
        files[path.partition("/")[2].partition("-")[0]] = path, data
    return files


@pytest.fixture(scope="module")
def merged(proposed, files):
    """The release after its owner merged the three: the new commit."""
    for number in (1, 2, 3):
        HfApi().merge_pull_request(REPO, number)
    return HfApi().model_info(REPO).sha


def release():
    return read_release(REPO, HfApi().model_info(REPO).sha)


def payload(data):
    value = json.loads(data)
    return json.loads(base64.b64decode(value["payload"])) if "payload" in value else value


def test_a_verdict_is_proposed_by_a_pull_request_that_adds_one_file(proposed, files, keys):
    _, commit, said = proposed
    label = public_half(keys["alice"][0]).label
    told = "Proposed: REPRODUCED (miniature, 12 of 343 rows) at level generate by alice, signed by the"
    assert f"{told} {label}: http" in said["alice"]
    assert "at level score by bob, not signed" in said["bob"] and "Proposed: DRIFTED at level" in said["carol"]
    assert not any("verdicts" in name for name in HfApi().list_repo_files(REPO))
    for who, (path, _) in files.items():
        assert re.fullmatch(rf"verdicts/{who}-\d{{8}}T\d{{6}}Z.json", path)
    for who in ("alice", "bob", "carol"):
        stated = payload(files[who][1])
        assert [subject["name"] for subject in stated["subject"]] == [
            f"pkg:huggingface/{REPO}@{commit}#{name}"
            for name in ("record.json", "adapter_model.safetensors", "predictions.parquet")
        ]
    lines = vouch(REPO, "--list", "--verify-key", f"alice={keys['alice'][1]}").splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["DRIFTED", "REPRODUCED", "REPRODUCED"]
    assert "(pull request 3)" in lines[0] and "nobody has vouched for it yet; 3 proposed and not merged" in lines[-1]


def test_the_file_is_what_in_toto_s_own_library_reads(files):
    from google.protobuf import json_format
    from in_toto_attestation.predicates.vsa.v1 import vsa_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    for who, result in (("alice", "PASSED"), ("bob", "PASSED"), ("carol", "FAILED")):
        stated = payload(files[who][1])
        Statement.copy_from_pb(json_format.ParseDict(stated, statement_pb2.Statement())).validate()
        # Its schema has one text where the specification has a list of levels; the field that is ours SLSA allows.
        (level,) = stated["predicate"].pop("verifiedLevels")
        assert (level == "FAILED") == (result == "FAILED")
        summary = json_format.ParseDict(stated["predicate"], vsa_pb2.VerificationSummary(), ignore_unknown_fields=True)
        assert (summary.verification_result, summary.verifier.id) == (result, f"https://huggingface.co/{who}")
        assert stated["predicate"]["verifier"]["version"] == {"pubrep": __version__}
        assert stated["predicateType"] == "https://slsa.dev/verification_summary/v1"


def forged(files, key=None, signer=None, spoil=None, checker="mallory", **changes):
    """A file that `checker` made of bob's: all follows from what he changed, but for what `spoil` does at the end."""
    contents = payload(files["bob"][1])["predicate"]["pubrep_check"]
    sha256 = changes.pop("record_sha256", None) or payload(files["bob"][1])["subject"][0]["digest"]["sha256"]
    contents |= {"checker": checker, "signer": signer.model_dump() if signer else None}
    # A second of its own for each, after which the file is named.
    contents["verdict"] |= {"date": now(seconds=-next(SECONDS))} | changes
    path, stated = voucher_path(Contents.model_validate(contents)), statement(contents, sha256)
    if spoil:
        spoil(stated)
    data = json.dumps(stated).encode()
    return path, sign(data, key) if key else data


SECONDS = count()


def now(**later):
    return (datetime.now(UTC) + timedelta(**later)).isoformat(timespec="seconds")


def signature_kept(files):
    """Alice's envelope, of which the payload was changed and the signature kept."""
    path, data = files["alice"]
    envelope = json.loads(data)
    changed = base64.b64decode(envelope["payload"]).replace(b'"sample": 12', b'"sample": 343')
    return path, json.dumps(envelope | {"payload": base64.b64encode(changed).decode()}).encode()


def say_failed(stated):
    stated["predicate"]["verificationResult"] = "FAILED"


def say_more(stated):
    stated["predicate"]["pubrep_check"]["verdict"]["trust"] = "me"


def forgeries(files, keys):
    """What mallory proposes: the files, and why each is refused."""
    mallory, alice = keys["mallory"][0], public_half(keys["alice"][0])
    return [
        (forged(files, revision="0" * 40), "which is not in the history of local-user/vouched"),
        (forged(files, adapter_sha256="f" * 64), "it speaks of another adapter_model.safetensors"),
        (forged(files, record_sha256="f" * 64), "it speaks of another record"),
        (forged(files, adapter="local-user/other"), "it speaks of local-user/other, not of local-user/vouched"),
        (forged(files, date=now(days=1)), "is in the future"),
        (forged(files, date=now(days=-9)), "is before the commit that it speaks of"),
        (forged(files, level="train"), "at level train nothing is reproduced by numbers"),
        (forged(files, spoil=say_failed), "it states what its verdict does not give"),
        (forged(files, spoil=say_more), "trust: Extra inputs are not permitted"),
        ((forged(files)[0], b'{"_type": []}'), "it is no statement as `pubrep vouch` writes it"),
        ((forged(files)[0], b'{"a": 1, "a": 2}'), "it holds the key 'a' twice"),
        ((forged(files)[0], b" " * (LARGEST + 1)), "it has 1,048,577 bytes, more than 1,048,576"),
        (forged(files, checker="bob"), "it is said to be bob's, and was brought by mallory"),
        ((forged(files)[0], files["bob"][1]), "its name is not that of its checker and date, verdicts/bob-"),
        (forged(files, key=mallory, signer=alice), "it was changed after it was signed, or another key than the key"),
        (forged(files, key=mallory), "it has a signature, and does not say whose"),
        (forged(files), ""),
    ]


def refusals(hub, user, *operations):
    """Why each file that a user proposes is refused, by its path; the pull request is closed again."""
    with signed_in(hub, user):
        info = HfApi().create_commit(REPO, operations, commit_message="Verdict", create_pr=True)
        try:
            return {file.path: file.refusal for file in read_proposed(release()) if file.pull_request == info.pr_num}
        finally:
            HfApi().change_discussion_status(REPO, info.pr_num, "closed")


def test_forged_and_replayed_verdicts_are_refused(files, keys, hub):
    told = forgeries(files, keys)
    found = refusals(hub, "mallory", *(CommitOperationAdd(path, data) for (path, data), _ in told))
    assert len(found) == len(told) == 17
    for (path, _), why in told:
        assert why in found[path] and bool(why) == bool(found[path]), (found[path], why)
    # Alice's own, who may have lost her key's password, or her account.
    path, data = files["alice"]
    for changed, why in (
        (signature_kept(files)[1], "it was changed after it was signed"),
        (base64.b64decode(json.loads(data)["payload"]), "it promises a signature and has none"),
    ):
        assert why in refusals(hub, "alice", CommitOperationAdd(path, changed))[path]


def test_an_honest_one_is_refused_where_its_pull_request_changes_more(files, hub):
    path, data = forged(files)
    more = [CommitOperationAdd(path, data), CommitOperationAdd("README.md", b"# Mine")]
    assert refusals(hub, "mallory", *more) == {path: "its pull request also changes README.md"}


def test_three_vouchers_count_once_merged_and_the_release_stays_whole(proposed, merged, files, keys, capsys):
    _, commit, _ = proposed
    assert merged != commit
    found = read_vouchers(release())
    assert [file.refusal for file in found] == ["", "", ""]
    together = agreement(accepted(found), "local-user")
    assert together.line == "3 accounts checked it: 2 found what is published, 1 did not"
    ((model, names, rows),) = together.parts
    assert (model, names, together.ran) == ("adapter", ["carol"], 2) and len(rows) == 6
    for options in (("--sample", "12"), ("--level", "score", "--verify-key", keys["owner"][1])):
        code, out = short_runs.reproduced(capsys, REPO, *map(str, options))
        assert code == 0 and out.splitlines()[-1].startswith("REPRODUCED (miniature"), out
        assert "verdicts by others: 3 accounts checked it: 2 found what is published, 1 did not" in out
        assert "Concern: carol found DRIFTED at level generate on " in out
    # A key that is not hers, and a signature that he never made.
    for who in ("alice", "bob"):
        (refused,) = [f for f in read_vouchers(release(), Wanted({who: public_half(keys["mallory"][0])})) if f.refusal]
        assert f"/{who}-" in refused.path and re.search("not by the key|should be by the key", refused.refusal)


def test_card_and_page_show_who_agrees_on_what_and_where_they_part(merged, files, capsys):
    assert vouch(REPO, "--card").startswith(f"Card: {REPO}: 3 accounts checked it: 2 found")
    assert vouch(REPO, "--card").startswith("Card unchanged")
    card = Path(hf_hub_download(REPO, "README.md")).read_text()
    section = section_of(card)
    rows = [line for line in section.splitlines() if line.startswith("| [")]
    assert [re.match(r"\| \[(\w+)\]\((.*?)\)", row).groups() for row in rows] == [
        (who, files[who][0]) for who in ("carol", "alice", "bob")
    ]
    assert re.search(r"\| \*\*DRIFTED\*\* \(\w+\) \| generate, 12 rows \| .* \| adapter: \d+, ", rows[0])
    assert "| no model was run |" in rows[2] and "- carol found other outputs of the adapter in rows " in section
    code, out = short_runs.reproduced(capsys, REPO, "--level", "score")
    assert code == 0 and "what the card shows" not in out
    page = render_overview(read_all([REPO]))
    for text in ("3 accounts checked it: 2 found what is published, 1 did not", "carol: DRIFTED at level generate on",
                 "(today)", "They part: carol, of 2 who ran the models"):  # fmt: skip
        assert text in page, text


def test_claims_count_them_and_keep_every_verdict(merged, tmp_path, capsys):
    (tmp_path / "claims.yaml").write_text(f"- {{adapter: {REPO}, hub: local}}\n")
    (tmp_path / "README.md").write_text("<!-- rendered: results -->\n<!-- /rendered -->\n")
    assert "Whether others vouch for it" not in render_claims(tmp_path)
    for _ in range(2):
        assert renew_all(tmp_path, check=True, level="score") == []
        # Two checks are at least a second apart.
        time.sleep(1)
    assert "<br>2 of 3 other accounts agree |" in (tmp_path / "README.md").read_text()
    (folder,) = (tmp_path / "docs/claims").iterdir()
    history = load_history(folder)
    by = [past.checker for past in history.verdicts]
    assert by[:2] == ["", ""] and sorted(by[2:]) == ["alice", "bob", "carol"]
    assert [past.verdict for past in history.verdicts if past.checker == "carol"] == ["DRIFTED"]
    assert (folder / HISTORY_FILE).stat().st_size < 10_000
    page = Page(render_claims(tmp_path))
    for text in ("REPRODUCED at level score, today, of the commit", "2 of 3 other accounts that checked this release",
                 "carol: other outputs of the adapter in row", "5 verdicts, the newest first"):  # fmt: skip
        assert text in page.text, text


def test_a_card_that_shows_other_verdicts_than_its_files_is_told(merged, files, capsys):
    card = Path(hf_hub_download(REPO, "README.md")).read_text()
    better = re.sub(r"\*\*DRIFTED\*\* \(\w+\)", "REPRODUCED", card)
    assert better != card
    commit = HfApi().upload_file(path_or_fileobj=better.encode(), path_in_repo="README.md", repo_id=REPO).oid
    code, out = short_runs.reproduced(capsys, REPO, "--level", "score", "--revision", commit)
    assert code == 0 and "Concern: what the card shows of verdicts by others is not what their files beside it" in out
    vouch(REPO, "--card")


def test_those_of_an_earlier_version_say_nothing_of_a_new_one(proposed, merged, run, keys, tmp_path, capsys):
    """Last of those that look at the release: it is another one afterwards."""
    folder, _, _ = proposed
    code, line = told(capsys, folder, "--sign", keys["owner"][0])
    assert code == 0 and line.startswith("Unchanged"), line
    newer = copy_of(run, tmp_path / "run", NAME, seconds=1)
    code, line = told(capsys, newer)
    assert code == 0 and "(v2)" in line, line
    card = Path(hf_hub_download(REPO, "README.md")).read_text()
    assert "No verdict by anybody else lies in this repository yet" in section_of(card)
    assert vouch(REPO, "--list").count("it speaks of the commit") == 3
    assert "2 found what is published" in vouch(REPO, "--list", "--revision", merged)


def test_a_dataset_of_verdicts_and_one_that_was_kept_after_a_failure(proposed, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with signed_in(hub, "keeper"):
        HfApi().create_repo("keeper/verdicts", repo_type="dataset")
    with signed_in(hub, "dave"):
        hub.fault("commit", "status", code=403, times=1)
        said = vouch(REPO, "--level", "score", "--dataset", "keeper/verdicts", code=1)
        (kept,) = tmp_path.glob("dave-*.json")
        assert f"The verdict is kept: pubrep vouch {REPO} --file {kept.name}" in said
        assert "Proposed: REPRODUCED" in vouch(REPO, "--dataset", "keeper/verdicts", "--file", kept.name)
        # Proposed once: the same command finds it again.
        again = vouch(REPO, "--dataset", "keeper/verdicts", "--file", kept.name)
        assert "/discussions/1\n" in again
    with signed_in(hub, "erin"):
        assert "it is dave's, and you are erin" in vouch(REPO, "--file", kept.name, code=1)
    with signed_in(hub, "keeper"):
        HfApi().merge_pull_request("keeper/verdicts", 1, repo_type="dataset")
    (file,) = HfApi().list_repo_files("keeper/verdicts", repo_type="dataset")[1:] or ["none"]
    assert file == f"verdicts/local-user--vouched/{kept.name}"
    assert "1 account checked it, and found what is published" in vouch(REPO, "--list", "--dataset", "keeper/verdicts")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--card", "--list"], "check and send nothing"),
        (["--verify-key", "alice=a.pem"], "--verify-key is for --list"),
        (["--list", "--verify-key", "a.pem"], "names no key: write it as alice=alice.pem"),
        (["--card", "--dataset", "a/b"], "leave out --dataset"),
        (["--file", "none.json"], "cannot read none.json"),
        (["--key", "none.pem"], "the key none.pem cannot be read"),
        (["--verify-identity", "alice=a@b.c", "--verify-issuer", "https://b.c"], "--verify-identity is for --list"),
        (["--list", "--verify-identity", "alice=a@b.c"], "--verify-identity and --verify-issuer go together"),
        (["--list", "--verify-identity", "a@b.c", "--verify-issuer", "https://b.c"], "write it as alice=alice@example"),
        (["--key", "key.pem", "--identity"], "a verdict has one signature"),
        (["--identity-token", "token"], "--identity-token is for --identity"),
        (["--trust-config", "trust.json"], "--trust-config is for --identity, --list and --card"),
    ],
)
def test_what_has_no_effect_is_refused(proposed, options, told):
    assert told in vouch(REPO, *options, code=1)


def test_only_files_named_as_verdicts_may_lie_beside_a_release():
    assert may_lie_beside("verdicts/a-b-20261126T120000Z.json")
    for path in ("verdicts/a.json", "verdicts/a-20261126T120000Z.py", "a-20261126T120000Z.json",
                 "verdicts/x/a-20261126T120000Z.json", "verdicts/../a-20261126T120000Z.json"):  # fmt: skip
        assert not may_lie_beside(path)
