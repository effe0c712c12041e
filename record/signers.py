"""Who signs releases and verdicts: a key, or an identity that an issuer vouches for."""

import base64
import hashlib
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from record.field_types import ONE_LINE, Section


def _der(pem: str) -> bytes:
    """What stands between the lines of a PEM file."""
    return base64.b64decode("".join(pem.splitlines()[1:-1]), validate=True)


def _pem(text: str) -> str:
    _der(text)
    return text


class Key(Section):
    """A public key, as PEM, by which a verdict says that it is signed."""

    key: Annotated[
        str,
        StringConstraints(
            max_length=1_000,
            pattern=r"^-----BEGIN PUBLIC KEY-----\n[A-Za-z0-9+/=\n]+\n-----END PUBLIC KEY-----\n$",
        ),
        AfterValidator(_pem),
    ]

    @property
    def label(self) -> str:
        """By what people tell two keys apart: the beginning of the sha256 of its DER, as openssl gives it."""
        return f"key {hashlib.sha256(_der(self.key)).hexdigest()[:12]}"


class Identity(Section):
    """An e-mail address or a workflow's URI, and the issuer (a URL) that says so: both as a certificate has them."""

    identity: Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=ONE_LINE)]
    issuer: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=ONE_LINE)]

    @property
    def label(self) -> str:
        """Both, in words."""
        return f"identity {self.identity} ({self.issuer})"
