"""Signatures of releases in the OpenSSF model-signing format, with a local elliptic-curve key or by an identity.

`model.sig` is a Sigstore bundle: an in-toto statement of the sha256 of every signed file, signed with ECDSA
(https://github.com/sigstore/model-transparency). Not signed are `README.md`, whose free sections people may edit (the
signed record states the hash of the rest), and `.gitattributes`, which the Hub writes.
"""

import json
import re
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from pydantic import ValidationError

from hub import identity
from hub.identity import ExpectedIdentity, IdentitySigner
from hub.release import entries_of
from hub.signing_extra import BadSignature, library, use_key
from record.errors import UserError
from record.release_files import RECORD_FILE, SIGNATURE_FILE, UNSIGNED_FILES, largest_size
from record.run_record import Record

# What model-signing lets through when the file is not a bundle: it reads the fields unchecked.
BUNDLE_ERRORS = (ValidationError, json.JSONDecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError,
                 AttributeError)  # fmt: skip


def sign(folder: Path, by: Path | IdentitySigner) -> Path:
    """Signs every file in the release `folder` but `UNSIGNED_FILES`; a signature there that still holds is kept.

    It is kept because ECDSA signatures are random: a new one of the same files would be another commit.

    Parameters:
        by: an identity, or a PEM file of a private key on the curve P-256, P-384 or P-521, without a password.

    Returns:
        The path of `model.sig`.

    Raises:
        `UserError`: model-signing is not installed, the key cannot be used, or nobody certified the identity.
    """
    config, path = library().signing.Config(), folder / SIGNATURE_FILE
    with tempfile.TemporaryDirectory() as temporary:
        expected: Path | ExpectedIdentity
        if isinstance(by, IdentitySigner):
            token = identity.read_token(by)
            expected = ExpectedIdentity(identity.named_by(token), by.trust_config)
            identity.use_signer(config, token, by.trust_config)
        else:
            use_key(
                lambda: config.use_elliptic_key_signer(private_key=by),
                f"{by} is not a private elliptic-curve key without a password: make one with "
                f"`openssl ecparam -name prime256v1 -genkey -noout -out key.pem`",
            )
            expected = write_public_half(by, Path(temporary))
        if path.is_file():
            files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
            try:
                verify(folder, expected, files)
                return path
            except BadSignature:
                path.unlink()
    with identity.signing() if isinstance(by, IdentitySigner) else nullcontext():
        config.set_hashing_config(_hashing()).sign(folder, path)
    return path


def verify(folder: Path, by: Path | ExpectedIdentity, files: list[str]) -> None:
    """Checks that `model.sig` in `folder` was made over exactly `files` and `record.json` as they are now.

    Other files in the folder are not looked at, and symbolic links (the Hub's cache is made of them) are followed.

    Parameters:
        by: who must have signed: an identity, or the PEM file of a public key.
        files: paths that the record lists; `README.md` among them is not signed, its hash in the record is.

    Raises:
        `BadSignature`: somebody else's signature, none at all, or one of other files.
        `UserError`: it cannot be checked: model-signing is not installed, there is no `model.sig`, or the key or the
            trust configuration cannot be used.
    """
    config = library().verifying.Config()
    # A dependency of the library.
    from cryptography.exceptions import InvalidSignature

    _use_verifier(config, by)
    signature = folder / SIGNATURE_FILE
    if not signature.is_file():
        raise UserError(f"there is no {SIGNATURE_FILE} in {folder}: the release is not signed")
    listed = {*files, RECORD_FILE} - set(UNSIGNED_FILES)
    if missing := sorted(name for name in listed if not (folder / name).is_file()):
        raise BadSignature(f"{', '.join(missing)} is missing")
    if isinstance(by, ExpectedIdentity):
        # First: it tells what is wrong in words of ours, of which the format's library has none.
        try:
            identity.verify(signature.read_bytes(), by)
        except BadSignature as error:
            raise BadSignature(f"{SIGNATURE_FILE} does not hold: {error}") from error
    config.set_hashing_config(_hashing().set_allow_symlinks(True)).set_ignore_unsigned_files(True)
    try:
        config.verify(folder, signature)
        covered = _signed_names(signature)
    except InvalidSignature as error:
        name = by.name if isinstance(by, Path) else by.identity.label
        raise BadSignature(f"{SIGNATURE_FILE} was changed, or made with another key than {name}") from error
    except BUNDLE_ERRORS as error:
        raise BadSignature(f"{SIGNATURE_FILE} is not a signature that was made with a key") from error
    except ValueError as error:
        # The text may quote an unverified bundle, whose line breaks would forge lines of our own output.
        reason = "".join(filter(str.isprintable, str(error))).strip()
        # A list of messages, printed as Python prints it: the quotes are escaped where a hash holds one.
        differing = ", ".join(re.findall(r"Hash mismatch for \\?'([^'\\]+)", reason))
        raise BadSignature(f"{differing} is not what was signed" if differing else reason) from error
    if unsigned := sorted(listed - covered):
        raise BadSignature(f"the signature does not cover {', '.join(unsigned)}")
    if unlisted := sorted(covered - listed):
        raise BadSignature(f"the signature covers {', '.join(unlisted)}, which the record does not list")


def check(
    adapter: str, commit: str, folder: Path, record: Record, by: Path | ExpectedIdentity, cache: Path | None = None
) -> None:
    """Downloads the `model.sig` of a published commit to its other files in `folder`, and verifies it.

    Parameters:
        folder: the commit's snapshot folder, with all files that the record lists, as `hub.release.pull` returns it.
        by: who must have signed: an identity, or the PEM file of a public key.
        cache: the cache in which the snapshot lies; the Hub's usual one unless given.

    Raises:
        `BadSignature`, `UserError`: see `verify`.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    entries = entries_of(adapter, [SIGNATURE_FILE], commit)
    if SIGNATURE_FILE not in entries:
        raise UserError(f"{adapter}@{commit} is not signed: it holds no {SIGNATURE_FILE}")
    # A signature takes some 250 bytes a file; one from the Hub is untrusted.
    if entries[SIGNATURE_FILE].size > (most := largest_size(SIGNATURE_FILE)):
        raise BadSignature(f"{SIGNATURE_FILE} is larger than {most:,} bytes: it is not read")
    hf_hub_download(adapter, SIGNATURE_FILE, revision=commit, cache_dir=cache)
    verify(folder, by, list(record.files))


def expected_of(by: Path | IdentitySigner, signed: Path, folder: Path) -> Path | ExpectedIdentity:
    """By whom a release that was just signed is verified.

    Parameters:
        signed: the folder of the release, with `model.sig`.
        folder: where the public half of a key may be written.
    """
    if isinstance(by, IdentitySigner):
        return ExpectedIdentity(identity.named_in((signed / SIGNATURE_FILE).read_bytes()), by.trust_config)
    return write_public_half(by, folder)


def write_public_half(key: Path, folder: Path) -> Path:
    """Writes the public half of the private key `key` into `folder` as PEM, and returns its path."""
    library()
    from cryptography.hazmat.primitives import serialization

    public = serialization.load_pem_private_key(key.read_bytes(), None).public_key()
    path = folder / "public.pem"
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(public.public_bytes(serialization.Encoding.PEM, form))
    return path


def _use_verifier(config: Any, by: Path | ExpectedIdentity) -> None:
    if isinstance(by, ExpectedIdentity):
        identity.use_verifier(config, by)
        return
    use_key(
        lambda: config.use_elliptic_key_verifier(public_key=by),
        f"{by} is not a public elliptic-curve key: `openssl pkey -in key.pem -pubout -out public.pem` writes the "
        f"public half of a private one",
    )


def _hashing() -> Any:
    from model_signing.hashing import Config

    return Config().set_ignored_paths(paths=UNSIGNED_FILES)  # type: ignore[no-untyped-call]


def _signed_names(signature: Path) -> set[str]:
    """The files that a signature covers: its maker may have left out any.

    The bundle is parsed by what verified it: of two readings of one file, one would be unverified.
    """
    from sigstore_models.bundle.v1 import Bundle

    envelope = Bundle.from_dict(json.loads(signature.read_text(encoding="utf-8"))).dsse_envelope
    if envelope is None:
        raise BadSignature(f"{SIGNATURE_FILE} holds no statement")
    return {resource["name"] for resource in json.loads(envelope.payload)["predicate"]["resources"]}
