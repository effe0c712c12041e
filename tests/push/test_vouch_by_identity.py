"""Verdicts signed by an identity: proposed, merged, and held against the instance that certified it."""

import base64
import json
import time
from pathlib import Path

import pytest
import short_runs
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from key_pairs import key_pair
from short_runs import copy_of
from sigstore.errors import TUFError
from sigstore.models import ClientTrustConfig
from sigstore_instance import ISSUER, Instance, token
from vouching import signed_in, vouch

from hub.dsse import sign
from hub.identity import IdentitySigner, named_identity, read_token, sign_statement
from hub.vouchers import Wanted, accepted, read_proposed, read_release, read_vouchers
from record.vouchers import Contents, statement, voucher_path

REPO = "local-user/vouched-by-identity"
ALICE = "alice@example.com"


@pytest.fixture(scope="module")
def instance(tmp_path_factory):
    """A Sigstore instance, and what is trusted of it."""
    instance = Instance()
    return instance, instance.trust_config(tmp_path_factory.mktemp("instance") / "trust.json")


@pytest.fixture(scope="module")
def proposed(run, hub, instance, tmp_path_factory):
    """What was printed, and the file, after Alice proposed her verdict, signed at the second attempt."""
    folder = tmp_path_factory.mktemp("by-identity")
    short_runs.publish(copy_of(run, folder / "run", "vouched-by-identity"))
    running, trust = instance
    (folder / "token").write_text(token(ALICE))
    by_identity = ("--identity", "--identity-token", folder / "token", "--trust-config", trust)
    with signed_in(hub, "alice"), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        running.status["/api/v1/log/entries"] = 503
        failed = vouch(REPO, "--level", "score", *by_identity, code=1)
        running.status.clear()
        (kept,) = folder.glob("alice-*.json")
        said = vouch(REPO, "--file", kept.name, *by_identity)
    return failed, said, json.loads(kept.read_text()), f"verdicts/{kept.name}"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """As where nothing but the local Hub is reached: the public instance is not asked."""

    def fail(**_):
        raise TUFError("Failed to refresh TUF metadata")

    monkeypatch.setattr(ClientTrustConfig, "production", fail)


def wanted(trust, who=ALICE):
    return Wanted({"alice": named_identity(who, ISSUER)}, trust)


def test_a_verdict_is_kept_where_signing_fails_and_signed_by_the_next_attempt(proposed, instance):
    failed, said, _, path = proposed
    assert "the log of signatures refused the entry" in failed
    assert f"--file {path.partition('/')[2]} and what signs it" in failed
    assert f"by alice, signed by the identity {ALICE} ({ISSUER}): http" in said
    line, last = vouch(REPO, "--list", "--trust-config", instance[1]).splitlines()
    assert f"signed by the identity {ALICE} ({ISSUER})" in line and "not checked" not in line
    assert "1 proposed and not merged" in last
    check = ("--list", "--trust-config", instance[1], "--verify-issuer", ISSUER, "--verify-identity")
    assert "REPRODUCED" in vouch(REPO, *check, f"alice={ALICE}")
    refused = vouch(REPO, *check, "alice=bob@example.com")
    assert "refused" in refused and f"is signed by the identity {ALICE} ({ISSUER}), not by the identity bob@" in refused


def test_without_its_instance_a_signature_is_told_as_unchecked(proposed, instance):
    """Nobody else is asked either: it is merely no evidence of who signed."""
    assert "which was not checked: Sigstore cannot be reached" in vouch(REPO, "--list")
    release = read_release(REPO, HfApi().model_info(REPO).sha)
    assert [(file.voucher.verified, file.refusal) for file in read_proposed(release)] == [(False, "")]
    assert [file.voucher.verified for file in read_proposed(release, Wanted(trust_config=instance[1]))] == [True]


def refusals(hub, trust, *files):
    """Why each file that mallory proposes is refused, by its path."""
    release = read_release(REPO, HfApi().model_info(REPO).sha)
    with signed_in(hub, "mallory"):
        operations = [CommitOperationAdd(path, data) for path, data in files]
        info = HfApi().create_commit(REPO, operations, commit_message="Verdict", create_pr=True)
        try:
            found = read_proposed(release, Wanted(trust_config=trust))
            return {file.path: file.refusal for file in found if file.pull_request == info.pr_num}
        finally:
            HfApi().change_discussion_status(REPO, info.pr_num, "closed")


def test_forged_signatures_are_refused(proposed, instance, hub, tmp_path):
    _, trust = instance
    kept = proposed[2]
    numbers = iter(range(1, 99))

    def payload(signer=ALICE):
        contents = kept["predicate"]["pubrep_check"] | {"checker": "mallory", "signer": None}
        # A second of its own for each, after which the file is named.
        date = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + next(numbers)))
        contents["verdict"] = contents["verdict"] | {"date": date}
        contents["signer"] = named_identity(signer, ISSUER).model_dump()
        stated = statement(contents, kept["subject"][0]["digest"]["sha256"])
        return voucher_path(Contents.model_validate(contents)), json.dumps(stated).encode()

    def signed(trusted=trust, who=ALICE, spoil=lambda bundle, entry: None, signer=ALICE):
        path, data = payload(signer)
        (tmp_path / "token").write_text(token(who))
        by = IdentitySigner(tmp_path / "token", trusted)
        bundle = json.loads(sign_statement(data, read_token(by), trusted))
        spoil(bundle, bundle["verificationMaterial"]["tlogEntries"][0])
        return path, json.dumps(bundle).encode()

    def other_time(_, entry):
        entry["integratedTime"] = str(int(entry["integratedTime"]) + 9)

    def other_payload(bundle, _):
        value = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(value, indent=2).encode()).decode()

    def other_field(bundle, _):
        bundle["trust"] = "me"

    elsewhere = Instance().trust_config(tmp_path / "elsewhere.json")
    key_path, key_data = payload()
    forgeries = [
        (signed(who="mallory@example.com"), "it is signed by the identity mallory@example.com"),
        (signed(elsewhere), "its certificate is not of the authority that is trusted"),
        (signed(spoil=other_time), "its entry in the log of signatures was changed"),
        (signed(spoil=other_payload), "it was changed after it was signed"),
        (signed(spoil=other_field), "trust: Extra inputs are not permitted"),
        (payload(), "it promises a signature and has none"),
        ((key_path, sign(key_data, key_pair(tmp_path, "own")[0])), "signed it, and has a signature of another kind"),
        # Her own name under her own verdict: nothing is wrong with it.
        (signed(who="mallory@example.com", signer="mallory@example.com"), ""),
    ]
    found = refusals(hub, trust, *(file for file, _ in forgeries))
    assert len(found) == len(forgeries)
    for (path, _), why in forgeries:
        assert why in found[path] and bool(why) == bool(found[path]), (found[path], why)
    # Replayed under another account.
    data = Path(hf_hub_download(REPO, proposed[3], revision="refs/pr/1")).read_bytes()
    replayed = refusals(hub, trust, (proposed[3], data))
    assert "it is said to be alice's, and was brought by mallory" in replayed[proposed[3]]


def test_once_merged_it_counts_and_a_check_with_the_instance_says_so(proposed, instance, capsys):
    """Last: it merges."""
    _, trust = instance
    HfApi().merge_pull_request(REPO, 1)
    release = read_release(REPO, HfApi().model_info(REPO).sha)
    (voucher,) = accepted(read_vouchers(release, wanted(trust)))
    assert voucher.checker == "alice" and voucher.signed_by == f"identity {ALICE} ({ISSUER})"
    assert not accepted(read_vouchers(release, wanted(trust, "bob@example.com")))
    said = vouch(REPO, "--card", "--trust-config", trust)
    assert said.startswith(f"Card: {REPO}: 1 account checked it, and found what is published")
    code, out = short_runs.reproduced(capsys, REPO, "--level", "score")
    assert code == 0 and "verdicts by others: 1 account checked it, and found what is published" in out
