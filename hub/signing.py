"""Signatures of releases in the OpenSSF model-signing format, with a local elliptic-curve key.

`model.sig` is a Sigstore bundle: an in-toto statement of the sha256 of every signed file, signed with ECDSA
(https://github.com/sigstore/model-transparency). Not signed are `README.md`, whose free sections people may edit (the
signed record states the hash of the rest), and `.gitattributes`, which the Hub writes.
"""

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from huggingface_hub import hf_hub_download
from pydantic import ValidationError

from hub.release import entries_of
from record.errors import UserError
from record.release_files import RECORD_FILE, SIGNATURE_FILE, UNSIGNED_FILES, largest_size
from record.run_record import Record

# What model-signing lets through when the file is not a bundle: it reads the fields unchecked.
BUNDLE_ERRORS = (ValidationError, json.JSONDecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError,
                 AttributeError)  # fmt: skip


class BadSignature(Exception):
    """The signature does not vouch for the files; the text says why."""


def sign(folder: Path, key: Path) -> Path:
    """Signs every file in the release `folder` but `UNSIGNED_FILES`; a signature there that still holds is kept.

    It is kept because ECDSA signatures are random: a new one of the same files would be another commit.

    Parameters:
        key: PEM file of a private key on the curve P-256, P-384 or P-521, without a password.

    Returns:
        The path of `model.sig`.

    Raises:
        `UserError`: model-signing is not installed, or the key cannot be used.
    """
    config = library().signing.Config()
    use_key(
        lambda: config.use_elliptic_key_signer(private_key=key),
        f"{key} is not a private elliptic-curve key without a password: make one with "
        f"`openssl ecparam -name prime256v1 -genkey -noout -out key.pem`",
    )
    path = folder / SIGNATURE_FILE
    if path.is_file():
        files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        with tempfile.TemporaryDirectory() as temporary:
            try:
                verify(folder, write_public_half(key, Path(temporary)), files)
                return path
            except BadSignature:
                path.unlink()
    config.set_hashing_config(_hashing()).sign(folder, path)
    return path


def verify(folder: Path, key: Path, files: list[str]) -> None:
    """Checks that `model.sig` in `folder` was made with `key` over exactly `files` and `record.json` as they are now.

    Other files in the folder are not looked at, and symbolic links (the Hub's cache is made of them) are followed.

    Parameters:
        key: PEM file of the public key.
        files: paths that the record lists; `README.md` among them is not signed, its hash in the record is.

    Raises:
        `BadSignature`: another key's signature, none at all, or one of other files.
        `UserError`: it cannot be checked: model-signing is not installed, there is no `model.sig`, or the key cannot
            be used.
    """
    config = library().verifying.Config()
    # A dependency of the library.
    from cryptography.exceptions import InvalidSignature

    use_key(
        lambda: config.use_elliptic_key_verifier(public_key=key),
        f"{key} is not a public elliptic-curve key: `openssl pkey -in key.pem -pubout -out public.pem` writes the "
        f"public half of a private one",
    )
    signature = folder / SIGNATURE_FILE
    if not signature.is_file():
        raise UserError(f"there is no {SIGNATURE_FILE} in {folder}: the release is not signed")
    listed = {*files, RECORD_FILE} - set(UNSIGNED_FILES)
    if missing := sorted(name for name in listed if not (folder / name).is_file()):
        raise BadSignature(f"{', '.join(missing)} is missing")
    config.set_hashing_config(_hashing().set_allow_symlinks(True)).set_ignore_unsigned_files(True)
    try:
        config.verify(folder, signature)
        covered = _signed_names(signature)
    except InvalidSignature as error:
        raise BadSignature(f"{SIGNATURE_FILE} was changed, or made with another key than {key.name}") from error
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


def check(adapter: str, commit: str, folder: Path, record: Record, key: Path, cache: Path | None = None) -> None:
    """Downloads the `model.sig` of a published commit to its other files in `folder`, and verifies it.

    Parameters:
        folder: the commit's snapshot folder, with all files that the record lists, as `hub.release.pull` returns it.
        key: PEM file of the public key.
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
    verify(folder, key, list(record.files))


def write_public_half(key: Path, folder: Path) -> Path:
    """Writes the public half of the private key `key` into `folder` as PEM, and returns its path."""
    library()
    from cryptography.hazmat.primitives import serialization

    public = serialization.load_pem_private_key(key.read_bytes(), None).public_key()
    path = folder / "public.pem"
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(public.public_bytes(serialization.Encoding.PEM, form))
    return path


def library() -> ModuleType:
    """model-signing, and what it brings along.

    Raises:
        `UserError`: it is not installed.
    """
    try:
        import model_signing
    except ImportError as error:
        raise UserError(
            f"signatures need more packages: `pip install -r requirements-signing.txt` ({error})"
        ) from error
    return model_signing


def use_key(use: Callable[[], object], otherwise: str) -> None:
    """Calls what reads a key file, and says in one line why it cannot."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        use()
    except OSError as error:
        raise UserError(f"the key {error.filename} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, UnsupportedAlgorithm) as error:
        # No key in the file; one behind a password; RSA and the like; another curve.
        raise UserError(otherwise) from error


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
