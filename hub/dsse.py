"""Signatures of verdicts by others: DSSE envelopes, signed with a local key by securesystemslib, or by an identity."""

import json
from pathlib import Path
from typing import Any

from hub import identity
from hub.signing_extra import BadSignature, library, use_key
from record.signers import Identity, Key
from record.vouchers import PAYLOAD_TYPE, Voucher, payload_of

NO_PRIVATE = (
    "is not a private key without a password: make one with `openssl ecparam -name prime256v1 -genkey -noout -out "
    "key.pem`"
)
NO_PUBLIC = "is not a public key: `openssl pkey -in key.pem -pubout -out public.pem` writes that of a private one"


def public_half(private: Path) -> Key:
    """The public half of a private key, after a look whether it signs.

    Raises:
        `UserError`: the file holds none, or the extra of signatures is not installed.
    """
    sign(b"", private)
    return _as_pem(_serialization().load_pem_private_key(private.read_bytes(), None).public_key())


def read_public(path: Path) -> Key:
    """The public key in a PEM file; errors as of `public_half`."""
    serialization, keys = _serialization(), []
    use_key(lambda: keys.append(_as_pem(serialization.load_pem_public_key(path.read_bytes()))), f"{path} {NO_PUBLIC}")
    return keys[0]


def sign(payload: bytes, private: Path) -> bytes:
    """A DSSE envelope, as JSON, of an in-toto statement; errors as of `public_half`."""
    serialization = _serialization()
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner

    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    use_key(
        lambda: envelope.sign(CryptoSigner(serialization.load_pem_private_key(private.read_bytes(), None))),
        f"{private} {NO_PRIVATE}",
    )
    return json.dumps(envelope.to_dict(), indent=1).encode() + b"\n"


def verify(voucher: Voucher, wanted: Key | Identity | None = None, trust_config: Path | None = None) -> None:
    """Checks that a signed voucher's envelope is signed by whom it names, and by `wanted` where that is given.

    Parameters:
        trust_config: describes the Sigstore instance that certifies identities; the public one unless given.

    Raises:
        `BadSignature`: it is not, or it has no signature where one is wanted.
        `UserError`: it cannot be checked: the extra of signatures is not installed, or Sigstore cannot be reached.
    """
    signer, envelope = voucher.contents.signer, voucher.envelope
    if signer is None or envelope is None:
        raise BadSignature("it is not signed" + (f", and should be by the {wanted.label}" if wanted else ""))
    if wanted is not None and signer.label != wanted.label:
        raise BadSignature(f"it is signed by the {signer.label}, not by the {wanted.label}")
    if isinstance(signer, Identity):
        signed = identity.verify(voucher.bundle or b"", identity.ExpectedIdentity(signer, trust_config))
        # Two readers of one file: what was verified must be what is believed.
        if signed != payload_of(envelope):
            raise BadSignature("it was changed after it was signed")
        return
    serialization = _serialization()
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import Error
    from securesystemslib.signer import SSlibKey

    try:
        public = SSlibKey.from_crypto(serialization.load_pem_public_key(signer.key.encode()))
        Envelope.from_dict(envelope.model_dump()).verify([public], 1)
    except (Error, ValueError, LookupError, TypeError) as error:
        raise BadSignature(f"it was changed after it was signed, or another key than the {signer.label} did") from error


def _serialization() -> Any:
    library()
    from cryptography.hazmat.primitives import serialization

    return serialization


def _as_pem(public: Any) -> Key:
    serialization = _serialization()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return Key(key=public.public_bytes(serialization.Encoding.PEM, form).decode())
