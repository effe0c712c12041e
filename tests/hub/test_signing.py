"""Signatures: what they cover, what breaks them, and a signed release from the Hub, checked by two programs."""

import base64
import hashlib
import json
import shutil
import subprocess
import sys

import pytest
import short_runs
from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download
from key_pairs import key_pair, openssl
from sigstore_instance import ISSUER, Instance, token

from evaluation import reproduce
from hub.release import pull
from hub.signing import check, sign, verify
from hub.signing_extra import BadSignature
from push import delivery, publish
from record.errors import UserError

FILES = ["README.md", "adapter_model.safetensors", "plots/loss.png"]
WRITES = {"commit", "preupload", "create"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return key_pair(tmp_path_factory.mktemp("keys"), "own")


def write_release(folder, weights="weights"):
    (folder / "plots").mkdir(parents=True)
    contents = {"adapter_model.safetensors": weights, ".gitattributes": "*.safetensors filter=lfs"}
    for name in (*FILES, "record.json", ".gitattributes"):
        (folder / name).write_text(contents.get(name, name))
    return folder


@pytest.fixture
def release(tmp_path, keys):
    folder = write_release(tmp_path / "release")
    sign(folder, keys[0])
    return folder


def statement(signature):
    return json.loads(base64.b64decode(json.loads(signature.read_text())["dsseEnvelope"]["payload"]))


def test_every_file_is_signed_but_the_card_and_the_hubs_own(release, keys):
    names = [resource["name"] for resource in statement(release / "model.sig")["predicate"]["resources"]]
    assert names == ["adapter_model.safetensors", "plots/loss.png", "record.json"]
    verify(release, keys[1], FILES)
    (release / "README.md").write_text("edited")
    (release / ".gitattributes").unlink()
    (release / "left from an older release").write_text("not listed by the record: none of its files")
    verify(release, keys[1], FILES)


def test_a_snapshot_of_symbolic_links_is_verified_by_what_they_point_to(release, keys, tmp_path):
    snapshot = tmp_path / "snapshot"
    for path in [path for path in release.rglob("*") if path.is_file()]:
        link = snapshot / path.relative_to(release)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    verify(snapshot, keys[1], FILES)
    (release / "plots/loss.png").write_text("other bytes")
    with pytest.raises(BadSignature, match=r"plots/loss.png is not what was signed"):
        verify(snapshot, keys[1], FILES)


@pytest.mark.parametrize("curve", ["secp384r1", "secp521r1"])
def test_the_other_curves_of_the_format_work_too(release, tmp_path, curve):
    private, public = key_pair(tmp_path, "own", "ecparam", "-name", curve, "-genkey", "-noout")
    sign(release, private)
    verify(release, public, FILES)


def change_a_byte(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def change_to_a_hash_with_quotes(folder):
    quotes = ("'", '"')
    text = next(
        text
        for text in map(str, range(10**6))
        if all(quote.encode() in hashlib.sha256(text.encode()).digest() for quote in quotes)
    )
    (folder / "adapter_model.safetensors").write_text(text)


def edit_bundle(change):
    def edit(folder):
        bundle = json.loads((folder / "model.sig").read_text())
        change(bundle)
        (folder / "model.sig").write_text(json.dumps(bundle))

    return edit


def edit_payload(bundle):
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b"plots", b"blots")
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (change_a_byte, "adapter_model.safetensors is not what was signed"),
        (change_to_a_hash_with_quotes, "adapter_model.safetensors is not what was signed"),
        (lambda folder: (folder / "record.json").write_text("{}"), "record.json is not what was signed"),
        (lambda folder: (folder / "plots/loss.png").unlink(), "plots/loss.png is missing"),
        (edit_bundle(edit_payload), "model.sig was changed, or made with another key than own-public.pem"),
        (edit_bundle(lambda bundle: bundle["dsseEnvelope"]["signatures"].clear()), "is not a signature"),
        (edit_bundle(lambda bundle: bundle.update(verificationMaterial={})), "is not a signature"),
        (edit_bundle(lambda bundle: bundle["dsseEnvelope"].update(payloadType="a\n\x1bREPRODUCED")), "got aREPRODUCED"),
        (lambda folder: (folder / "model.sig").write_bytes(b""), "is not a signature"),
        (lambda folder: (folder / "model.sig").write_bytes(b"\xff\xfe\x00"), "is not a signature"),
        (lambda folder: (folder / "model.sig").write_text("[]"), "is not a signature"),
        (lambda folder: (folder / "model.sig").write_text("[" * 100_000), "is not a signature"),
    ],
)
def test_what_was_changed_after_signing_is_told(release, keys, spoil, told):
    spoil(release)
    with pytest.raises(BadSignature, match=told) as bad:
        verify(release, keys[1], FILES)
    assert str(bad.value).isprintable()


def test_a_listed_file_that_is_not_covered_is_an_error_and_so_is_the_reverse(release, keys):
    (release / "chat_template.jinja").write_text("added after signing")
    with pytest.raises(BadSignature, match=r"does not cover chat_template.jinja"):
        verify(release, keys[1], [*FILES, "chat_template.jinja"])
    with pytest.raises(BadSignature, match=r"covers plots/loss.png, which the record does not list"):
        verify(release, keys[1], FILES[:2])


def test_a_signature_that_was_told_to_leave_out_the_weights_does_not_cover_them(release, keys):
    """The format lets the signer ignore files, and verifying ignores them too."""
    weights = release / "adapter_model.safetensors"
    command = ["sign", "key", str(release), "--signature", str(release / "model.sig"), "--private_key", str(keys[0])]
    ran = model_signing(*command, "--ignore-paths", str(weights), "--ignore-paths", str(release / "README.md"))
    assert ran.returncode == 0, ran.stderr
    weights.write_text("anything")
    ran = model_signing(
        "verify", "key", str(release), "--signature", str(release / "model.sig"), "--public_key", str(keys[1])
    )
    assert ran.returncode == 0, ran.stderr
    with pytest.raises(BadSignature, match=r"does not cover adapter_model.safetensors"):
        verify(release, keys[1], FILES)


def test_another_key_and_the_signature_of_another_release_fail(release, keys, tmp_path):
    _, other = key_pair(tmp_path, "other")
    with pytest.raises(BadSignature, match=r"[Kk]ey"):
        verify(release, other, FILES)
    another = write_release(tmp_path / "another", weights="other weights")
    shutil.copyfile(sign(another, keys[0]), release / "model.sig")
    with pytest.raises(BadSignature, match=r"adapter_model.safetensors is not what was signed"):
        verify(release, keys[1], FILES)


def test_signing_again_keeps_a_signature_that_holds_and_replaces_one_that_does_not(release, keys, tmp_path):
    was = (release / "model.sig").read_bytes()
    assert sign(release, keys[0]).read_bytes() == was
    (release / "added").write_text("")
    now = sign(release, keys[0]).read_bytes()
    assert now != was
    verify(release, keys[1], [*FILES, "added"])
    private, public = key_pair(tmp_path, "other")
    assert sign(release, private).read_bytes() != now
    verify(release, public, [*FILES, "added"])


def test_keys_that_cannot_be_used_are_one_clear_line(release, keys, tmp_path):
    private, public = keys
    rsa, rsa_public = key_pair(tmp_path, "rsa", "genpkey", "-algorithm", "RSA")
    bitcoin, bitcoin_public = key_pair(tmp_path, "k1", "ecparam", "-name", "secp256k1", "-genkey", "-noout")
    sm2, sm2_public = key_pair(tmp_path, "sm2", "ecparam", "-name", "SM2", "-genkey", "-noout")
    locked = tmp_path / "locked.pem"
    openssl("pkey", "-in", str(private), "-aes256", "-passout", "pass:secret", "-out", str(locked))
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"\xff no key")
    for key in (public, rsa, bitcoin, sm2, locked, garbage):
        with pytest.raises(UserError, match=f"{key.name} is not a private elliptic-curve key without a password"):
            sign(release, key)
    for key in (private, rsa_public, bitcoin_public, sm2_public, garbage):
        with pytest.raises(UserError, match=f"{key.name} is not a public elliptic-curve key"):
            verify(release, key, FILES)
    for use in (lambda key: sign(release, key), lambda key: verify(release, key, FILES)):
        with pytest.raises(UserError, match=r"none.pem cannot be read: No such file"):
            use(tmp_path / "none.pem")
        with pytest.raises(UserError, match=r"cannot be read: Is a directory"):
            use(tmp_path)
    (release / "model.sig").unlink()
    with pytest.raises(UserError, match=r"no model.sig .* not signed"):
        verify(release, public, FILES)


@pytest.mark.parametrize("package", ["model_signing", "OpenSSL"])
def test_without_its_packages_signing_says_what_to_install(release, keys, monkeypatch, package):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("model_signing", package)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    for use in (lambda: sign(release, keys[0]), lambda: verify(release, keys[1], FILES)):
        with pytest.raises(UserError, match=r"`pip install -r requirements-signing.txt`"):
            use()


# From here on: a run, published signed with the real publish on the local Hub.


def model_signing(*arguments, cwd=None):
    """The command line of model-signing itself, as a stranger runs it."""
    return subprocess.run([sys.executable, "-m", "model_signing", *arguments], cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def run(scored_run, tmp_path_factory):
    return short_runs.copy_of(scored_run, tmp_path_factory.mktemp("runs") / "finance", "signed")


@pytest.fixture(scope="module")
def published(run, keys):
    return "local-user/signed", short_runs.publish(run, sign=keys[0])


def check_from_hub(repo_id, revision, key, cache):
    commit = HfApi().model_info(repo_id, revision=revision).sha
    pulled = pull(repo_id, commit, cache=cache)
    check(repo_id, commit, pulled.folder, pulled.record, key, cache)
    return pulled


def test_a_signed_release_is_verified_from_the_hub(published, keys, tmp_path):
    repo_id, commit = published
    record = check_from_hub(repo_id, commit, keys[1], tmp_path).require_whole().record
    assert "model.sig" not in record.files
    there = set(HfApi().list_repo_files(repo_id, revision=commit))
    assert there == {*record.files, "record.json", "model.sig", ".gitattributes"}
    assert len(HfApi().list_repo_commits(repo_id)) == 2


def test_a_file_and_its_recorded_hash_changed_together_break_the_signature(published, keys, tmp_path):
    repo_id, commit = published
    record = pull(repo_id, commit).record
    record.training.seconds += 1
    operations = [CommitOperationAdd("record.json", record.to_bytes())]
    forged = HfApi().create_commit(repo_id, operations, commit_message="forged", parent_commit=commit, create_pr=True)
    with pytest.raises(BadSignature, match=r"record.json is not what was signed"):
        check_from_hub(repo_id, forged.pr_revision, keys[1], tmp_path)


def test_publishing_does_not_end_well_where_another_key_signed_what_came_back(published, tmp_path):
    with pytest.raises(UserError, match="came back with a signature that fails: Key mismatch"):
        delivery.verify(*published, tmp_path, key_pair(tmp_path, "other")[0])


def test_publishing_again_with_the_same_key_makes_no_commit(published, run, keys):
    assert short_runs.publish(run, sign=keys[0]) == published[1]


def test_a_dry_run_lists_the_signature_and_a_bad_key_uploads_nothing(published, run, keys, capsys, hub, tmp_path):
    hub.clear_requests()
    publish.main([str(run), "--dry-run", "--sign", str(keys[0])])
    out = capsys.readouterr().out
    assert "model.sig" in out and "pem" not in out and "deleted" not in out
    within = run / "key.pem"
    shutil.copyfile(keys[0], within)
    for key, told in [
        (tmp_path / "none.pem", "none.pem cannot be read: No such file"),
        (keys[1], "is not a private elliptic-curve key"),
        (within, "lies in the run's folder"),
    ]:
        with pytest.raises(SystemExit):
            publish.main([str(run), "--sign", str(key)])
        err = capsys.readouterr().err
        assert told in err and err.startswith("error:") and err.count("\n") == 1, err
    within.unlink()
    assert not WRITES & {request["route"] for request in hub.requests()}


def test_the_formats_own_command_verifies_what_was_downloaded(published, keys, tmp_path):
    """README's commands: a plain download, and a snapshot in the Hub's cache."""
    repo_id, commit = published
    snapshot_download(repo_id, revision=commit, local_dir=tmp_path / "release")
    command = ["verify", "key", "release", "--signature", "release/model.sig", "--public_key", str(keys[1])]
    ran = model_signing(*command, "--ignore-paths", "release/.cache", cwd=tmp_path)
    assert (ran.returncode, ran.stdout.strip()) == (0, "Verification succeeded"), ran.stderr
    weights = tmp_path / "release/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    ran = model_signing(*command, "--ignore-paths", "release/.cache", cwd=tmp_path)
    assert ran.returncode == 1 and "Hash mismatch" in ran.stderr and weights.name in ran.stderr

    snapshot = snapshot_download(repo_id, revision=commit, cache_dir=tmp_path / "cache")
    command = ["verify", "key", snapshot, "--signature", f"{snapshot}/model.sig", "--public_key", str(keys[1])]
    ran = model_signing(*command, "--allow_symlinks")
    assert (ran.returncode, ran.stdout.strip()) == (0, "Verification succeeded"), ran.stderr


def test_publishing_without_a_key_removes_the_signature(published, run, keys, tmp_path):
    """Last: it changes what the tests above look at."""
    repo_id, _ = published
    commit = short_runs.publish(run)
    assert "model.sig" not in HfApi().list_repo_files(repo_id, revision=commit)
    with pytest.raises(UserError, match=r"is not signed: it holds no model.sig"):
        check_from_hub(repo_id, commit, keys[1], tmp_path)


def test_a_release_signed_by_identity_is_reproduced_with_that_identity_and_no_other(run, capsys, tmp_path):
    """After the last of those that look at the release of the key; the instance is gone when it is checked."""
    repo_id, instance = "local-user/signed", Instance()
    trust = instance.trust_config(tmp_path / "trust.json")
    (tmp_path / "token").write_text(token("alice@example.com"))
    by_identity = [str(run), "--sign-identity", "--trust-config", str(trust), "--identity-token"]
    shutil.copyfile(tmp_path / "token", run / "token")
    with pytest.raises(SystemExit):
        publish.main([*by_identity, str(run / "token")])
    assert "lies in the run's folder" in capsys.readouterr().err
    (run / "token").unlink()
    publish.main([*by_identity, str(tmp_path / "token"), "--dry-run"])
    assert "Not signed in a dry run" in capsys.readouterr().out
    assert "model.sig" not in HfApi().list_repo_files(repo_id)
    publish.main([*by_identity, str(tmp_path / "token")])
    commit = HfApi().model_info(repo_id).sha
    assert "model.sig" in HfApi().list_repo_files(repo_id)
    # Again: the signature that holds is kept, so nothing is sent.
    publish.main([*by_identity, str(tmp_path / "token")])
    assert HfApi().model_info(repo_id).sha == commit
    instance.stop()

    capsys.readouterr()
    check = [repo_id, "--level", "score", "--trust-config", str(trust), "--verify-identity"]
    for who, issuer, code, told in (
        ("alice@example.com", ISSUER, 0, f"signed by the identity alice@example.com ({ISSUER})"),
        ("bob@example.com", ISSUER, 1, "not by the identity bob@example.com"),
        ("alice@example.com", "https://other.example", 1, "(https://other.example)"),
    ):
        ended, out = short_runs.reproduced(capsys, *check, who, "--verify-issuer", issuer)
        assert ended == code and told in out, out
        assert out.splitlines()[-1].startswith(("REPRODUCED (miniature", "DRIFTED")[code]), out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--verify-identity", "alice@example.com"], "--verify-identity and --verify-issuer go together"),
        (["--verify-issuer", ISSUER], "--verify-identity and --verify-issuer go together"),
        (["--trust-config", "trust.json"], "--trust-config is for --verify-identity"),
        (["--verify-key", "a", "--verify-identity", "b", "--verify-issuer", ISSUER], "exclude each other"),
        (["--verify-identity", "x" * 600, "--verify-issuer", ISSUER], "is no identity"),
    ],
)
def test_what_has_no_effect_on_a_check_is_refused(capsys, options, told):
    with pytest.raises(SystemExit) as end:
        reproduce.main(["local-user/signed", *options])
    err = capsys.readouterr().err
    assert end.value.code == 2 and told in err and err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--sign", "key.pem", "--sign-identity"], "--sign and --sign-identity exclude each other"),
        (["--identity-token", "token"], "are for --sign-identity"),
        (["--trust-config", "trust.json"], "are for --sign-identity"),
    ],
)
def test_what_has_no_effect_on_publishing_is_refused(capsys, options, told):
    with pytest.raises(SystemExit) as end:
        publish.main(["finance", *options])
    assert end.value.code == 2 and told in capsys.readouterr().err
