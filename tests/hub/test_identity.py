"""Signatures by identity: the real client of Sigstore signs with an instance in this process, verifies without."""

import base64
import io
import json
import shutil
import subprocess
import sys
import threading
import time
import webbrowser
from urllib.request import urlopen

import pytest
from key_pairs import key_pair
from sigstore_instance import ISSUER, Instance, token

from hub.identity import ExpectedIdentity, IdentitySigner, look, named_identity, named_in
from hub.signing import sign, verify
from hub.signing_extra import BadSignature
from record.errors import UserError

FILES = ["adapter_model.safetensors"]
WORKFLOW = "owner/name/.github/workflows/publish.yml@refs/heads/main"
FULCIO, REKOR = "/api/v2/signingCert", "/api/v1/log/entries"


class Signing:
    """An instance, what is trusted of it, and who signs there."""

    def __init__(self, folder):
        self.folder, self.instance = folder, Instance()
        self.trust = self.instance.trust_config(folder / "trust.json")

    def signer(self, *who, text=None, **claims):
        text = text or token(*(who or ("alice@example.com",)), **claims) + "\n"
        path = self.folder / f"token-{len(list(self.folder.iterdir()))}"
        path.write_text(text)
        return IdentitySigner(path, self.trust)

    def expected(self, who="alice@example.com", issuer=ISSUER):
        return ExpectedIdentity(named_identity(who, issuer), self.trust)


def write_release(folder, weights="weights"):
    folder.mkdir()
    for name, text in (("adapter_model.safetensors", weights), ("record.json", "{}"), ("README.md", "card")):
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def sigstore(tmp_path_factory):
    return Signing(tmp_path_factory.mktemp("instance"))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Another instance: its authority and logs have keys of their own."""
    return Signing(tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(scope="module")
def signed(sigstore, tmp_path_factory):
    folder = write_release(tmp_path_factory.mktemp("signed") / "release")
    sign(folder, sigstore.signer())
    return folder


@pytest.fixture
def release(signed, tmp_path):
    return shutil.copytree(signed, tmp_path / "release")


def test_who_signed_is_verified_without_a_network(signed, tmp_path):
    own = Signing(tmp_path)
    folder = write_release(tmp_path / "release")
    sign(folder, own.signer())
    own.instance.stop()
    verify(folder, own.expected(), FILES)
    assert named_in((folder / "model.sig").read_bytes()) == own.expected().identity
    # The format's own command, as docs/publishing.md has it.
    for who, code in (("alice@example.com", 0), ("bob@example.com", 1)):
        command = [sys.executable, "-m", "model_signing", "verify", "sigstore", str(folder), "--identity", who,
                   "--identity_provider", ISSUER, "--signature", str(folder / "model.sig"),
                   "--trust_config", str(own.trust)]  # fmt: skip
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == code and ("Verification succeeded" in ran.stdout) == (not code), ran.stderr


def test_signing_again_keeps_a_signature_that_holds_and_replaces_anothers(release, sigstore):
    was = (release / "model.sig").read_bytes()
    assert sign(release, sigstore.signer()).read_bytes() == was
    assert sign(release, sigstore.signer("bob@example.com")).read_bytes() != was
    verify(release, sigstore.expected("bob@example.com"), FILES)


@pytest.fixture
def nobody(monkeypatch):
    """No CI job, and nobody at the terminal."""
    for name in ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL", "GITHUB_ACTIONS", "GITLAB_CI",
                 "BUILDKITE", "CIRCLECI"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())


def test_a_job_of_github_is_named_by_its_workflow(release, sigstore, nobody, monkeypatch):
    instance, job = sigstore.instance, IdentitySigner(None, sigstore.trust)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    with pytest.raises(UserError, match=r"the identity's token cannot be used .*ID_TOKEN_REQUEST_TOKEN"):
        look(job)
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of the job")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{instance.url}/job")
    instance.token = token("repo:owner/name:ref:refs/heads/main", job_workflow_ref=WORKFLOW)
    was = sign(release, job).read_bytes()
    verify(release, sigstore.expected(f"https://github.com/{WORKFLOW}"), FILES)
    assert sign(release, job).read_bytes() == was


def test_who_sits_at_a_terminal_signs_in_with_the_browser(release, sigstore, nobody, monkeypatch):
    visited = []

    def browse(address):
        # As a browser does: it follows where the client and the identity provider send it, while the client waits.
        threading.Thread(target=lambda: visited.append(urlopen(address).status)).start()
        return True

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(webbrowser, "open", browse)
    sigstore.instance.token = token("carol@example.com")
    look(IdentitySigner(None, sigstore.trust))
    assert visited == []
    sign(release, IdentitySigner(None, sigstore.trust))
    assert visited == [200]
    verify(release, sigstore.expected("carol@example.com"), FILES)


def edit(change):
    def spoil(folder):
        bundle = json.loads((folder / "model.sig").read_text())
        change(bundle, bundle["verificationMaterial"]["tlogEntries"][0])
        (folder / "model.sig").write_text(json.dumps(bundle))

    return spoil


def other_payload(bundle, _):
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b"sha256", b"sha512")
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()


def other_body(_, entry):
    body = json.loads(base64.b64decode(entry["canonicalizedBody"]))
    body["spec"]["payloadHash"]["value"] = "0" * 64
    entry["canonicalizedBody"] = base64.b64encode(json.dumps(body).encode()).decode()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / FILES[0]).write_text("others"), "adapter_model.safetensors is not what was signed"),
        (edit(other_payload), "does not hold: it was changed after it was signed"),
        (edit(other_body), "does not hold: its entry in the log of signatures was changed"),
        (edit(lambda _, entry: entry["inclusionProof"].update(rootHash=base64.b64encode(b"0" * 32).decode())),
         "its entry in the log of signatures was changed"),
        (edit(lambda _, entry: entry.update(integratedTime=str(int(entry["integratedTime"]) + 9))),
         "its entry in the log of signatures was changed"),
        (edit(lambda _, entry: entry.update(integratedTime=str(int(time.time()) + 3600))),
         "its certificate was not valid when it was signed"),
        (edit(lambda bundle, _: bundle["verificationMaterial"].update(tlogEntries=[])),
         "not a signature that was made by"),
        (edit(lambda bundle, _: bundle["verificationMaterial"]["certificate"].update(rawBytes="AAAA")),
         "not a signature that was made by"),
        (lambda folder: (folder / "model.sig").write_bytes(b"\xff"), "not a signature that was made by an identity"),
        (lambda folder: (folder / "model.sig").write_text("[" * 100_000), "not a signature that was made by an ident"),
    ],
)  # fmt: skip
def test_what_was_changed_after_signing_is_told(release, sigstore, spoil, told):
    spoil(release)
    with pytest.raises(BadSignature, match=told) as bad:
        verify(release, sigstore.expected(), FILES)
    assert str(bad.value).isprintable()


def test_another_identity_issuer_or_instance_is_told(release, sigstore, elsewhere):
    for who, told in (
        (("bob@example.com",), "is signed by the identity alice@example.com .*not by the identity bob@example.com"),
        (("alice@example.com", "https://other.example"), r"\(https://accounts.example\), not by .*other.example\)"),
    ):
        with pytest.raises(BadSignature, match=told):
            verify(release, sigstore.expected(*who), FILES)
    # Somebody who runs an instance of his own certifies himself as whom he likes.
    sign(release, elsewhere.signer())
    verify(release, elsewhere.expected(), FILES)
    with pytest.raises(BadSignature, match="its certificate is not of the authority that is trusted"):
        verify(release, sigstore.expected(), FILES)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("certificates", "its certificate was not shown to the log of certificates that is trusted"),
        ("log_key", "its entry in the log of signatures was changed, or is of another log"),
    ],
)
def test_a_log_that_is_not_trusted_is_told(release, sigstore, elsewhere, tmp_path, key, told):
    """The authority is the trusted one, and one of the logs is not."""
    trusted = json.loads(sigstore.trust.read_text())
    other = json.loads(elsewhere.trust.read_text())
    logs = {"certificates": "ctlogs", "log_key": "tlogs"}[key]
    trusted["trustedRoot"][logs] = other["trustedRoot"][logs]
    path = tmp_path / "trust.json"
    path.write_text(json.dumps(trusted))
    with pytest.raises(BadSignature, match=told):
        verify(release, ExpectedIdentity(sigstore.expected().identity, path), FILES)


def test_a_signature_after_the_certificate_has_expired_is_told(release, sigstore):
    """The log's clock says when: the key may have been stolen meanwhile."""
    (release / "model.sig").unlink()
    sigstore.instance.log_delay = 3600
    try:
        sign(release, sigstore.signer())
    finally:
        sigstore.instance.log_delay = 0
    with pytest.raises(BadSignature, match="its certificate was not valid when it was signed"):
        verify(release, sigstore.expected(), FILES)


def test_a_key_is_no_identity_and_the_reverse(release, sigstore, tmp_path):
    private, public = key_pair(tmp_path, "own")
    with pytest.raises(BadSignature, match="is not a signature that was made with a key"):
        verify(release, public, FILES)
    sign(release, private)
    verify(release, public, FILES)
    with pytest.raises(BadSignature, match="is not a signature that was made by an identity"):
        verify(release, sigstore.expected(), FILES)


def test_who_cannot_sign_is_told_in_one_line(sigstore, tmp_path, nobody):
    folder = write_release(tmp_path / "release")
    broken = tmp_path / "broken.json"
    broken.write_text('{"mediaType": "none"}')
    token_file = sigstore.signer().token_file
    for signer, told in (
        (IdentitySigner(None, sigstore.trust), "there is no identity to sign by: .*--identity-token"),
        (IdentitySigner(tmp_path / "none", sigstore.trust), "none cannot be read: No such file"),
        (sigstore.signer(text="no token"), "the identity's token cannot be used .*new token"),
        (sigstore.signer("a@example.com", seconds=-60), "the identity's token cannot be used .*new token"),
        (IdentitySigner(token_file, broken), "broken.json is no trust configuration in Sigstore's form"),
        (IdentitySigner(token_file, tmp_path / "none"), "none cannot be read: No such file"),
    ):  # fmt: skip
        for use in (look, lambda by: sign(folder, by)):
            with pytest.raises(UserError, match=told) as error:
                use(signer)
            assert "\n" not in str(error.value)
    assert not (folder / "model.sig").exists()


@pytest.mark.parametrize(
    ("path", "told"),
    [(FULCIO, "the certificate authority refused the identity"), (REKOR, "the log of signatures refused the entry")],
)
def test_an_authority_or_a_log_that_refuses_is_told(sigstore, tmp_path, path, told):
    folder = write_release(tmp_path / "release")
    sigstore.instance.status[path] = 403
    try:
        with pytest.raises(UserError, match=f"{told}: .*403") as error:
            sign(folder, sigstore.signer())
    finally:
        sigstore.instance.status.clear()
    assert "\n" not in str(error.value) and not (folder / "model.sig").exists()


def test_no_network_is_told(tmp_path):
    own = Signing(tmp_path)
    signer = own.signer()
    own.instance.stop()
    with pytest.raises(UserError, match="Sigstore cannot be reached") as error:
        sign(write_release(tmp_path / "release"), signer)
    assert "\n" not in str(error.value)
