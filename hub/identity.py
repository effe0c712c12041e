"""Signatures by identity (https://docs.sigstore.dev): an authority certifies to whom a token names a key that lives for
minutes, and a public log keeps the signature with its time.

Without a trust configuration Sigstore's public instance is meant; with one, nothing but what stands in it is asked.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hub.signing_extra import BadSignature, library
from record.errors import UserError, first_problem, one_line
from record.signers import Identity
from record.signs_of_life import silence

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken

# What the library's reasons hold, and what they mean; in its order of checks.
REASONS = (
    ("validation time", "its certificate was not valid when it was signed"),
    ("certificate chain", "its certificate is not of the authority that is trusted: another instance's, or forged"),
    ("SCT", "its certificate was not shown to the log of certificates that is trusted"),
    ("log entr", "its entry in the log of signatures was changed, or is of another log or signature"),
    ("DSSE", "it was changed after it was signed"),
)


@dataclass(frozen=True)
class IdentitySigner:
    """Signs as whom a token names: that in `token_file`, else that of the CI job, else the browser's.

    `trust_config` is a file in Sigstore's form that describes an instance; None for the public one.
    """

    token_file: Path | None = None
    trust_config: Path | None = None


@dataclass(frozen=True)
class ExpectedIdentity:
    """Who must have signed, certified by the instance that `trust_config` describes; None for the public one."""

    identity: Identity
    trust_config: Path | None = None


def named_identity(name: str, issuer: str) -> Identity:
    """An identity that a person has typed, or a token holds.

    Raises:
        `UserError`: it is none.
    """
    try:
        return Identity(identity=name, issuer=issuer)
    except ValidationError as error:
        raise UserError(f"{name!r} of {issuer!r} is no identity: {first_problem(error)}") from None


def look(signer: IdentitySigner) -> None:
    """Looks, before hours of work, whether there is who signs; errors as of `read_token`.

    Whoever signs in with the browser does so when the signature is due: the token holds for a minute.
    """
    _trust(signer.trust_config)
    if signer.token_file is not None or not sys.stdin.isatty():
        read_token(signer)


def read_token(signer: IdentitySigner) -> "IdentityToken":
    """The token by which the signer signs in now: it holds for some minutes.

    Raises:
        `UserError`: there is none, it cannot be used, or the extra of signatures is not installed.
    """
    library()
    from sigstore.oidc import IdentityToken, Issuer, detect_credential

    with _told():
        if signer.token_file is not None:
            try:
                text = signer.token_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise UserError(f"the token {signer.token_file} cannot be read: {error.strerror}") from error
            except UnicodeDecodeError as error:
                raise UserError(f"{signer.token_file} holds no token: it is no text") from error
        elif (ambient := detect_credential()) is not None:
            text = ambient
        elif sys.stdin.isatty():
            issuer = Issuer(_trust(signer.trust_config).signing_config.get_oidc_url())
            # It waits for what is done in a browser, or typed.
            with silence():
                return issuer.identity_token()
        else:
            raise UserError(
                "there is no identity to sign by: this is no CI job with `id-token: write`, and nobody sits at a "
                "terminal to sign in with the browser; name a file with a token by --identity-token"
            )
        return IdentityToken(text)


def named_by(token: "IdentityToken") -> Identity:
    """Whom a certificate names that is made for a token; errors as of `named_identity`.

    As https://github.com/sigstore/fulcio/blob/main/docs/oidc.md says: for a job of GitHub Actions the workflow's
    address, else the token's own identity.
    """
    import jwt

    workflow = jwt.decode(str(token), options={"verify_signature": False}).get("job_workflow_ref")
    name = f"https://github.com/{workflow}" if workflow else token.identity
    return named_identity(name, token.federated_issuer)


def named_in(bundle: bytes) -> Identity:
    """Whom the certificate in a bundle names: true of a bundle that `verify` finds good.

    Raises:
        `BadSignature`: it is no bundle, or its certificate names nobody.
    """
    return _names(_bundle(bundle).signing_certificate)


def use_signer(config: Any, token: "IdentityToken", trust_config: Path | None) -> None:
    """Lets a signing configuration of model-signing sign by a token; errors as of `read_token`."""
    _trust(trust_config)
    with _told():
        config.use_sigstore_signer(identity_token=str(token), trust_config=trust_config)


def use_verifier(config: Any, expected: ExpectedIdentity) -> None:
    """Lets a verifying configuration of model-signing verify by an identity; errors as of `verify`."""
    _trust(expected.trust_config)
    with _told():
        config.use_sigstore_verifier(
            identity=expected.identity.identity,
            oidc_issuer=expected.identity.issuer,
            trust_config=expected.trust_config,
        )


@contextmanager
def signing() -> Iterator[None]:
    """Turns what goes wrong while authority and log are asked into a `UserError`."""
    with _told():
        yield


def sign_statement(payload: bytes, token: "IdentityToken", trust_config: Path | None) -> bytes:
    """A bundle, as JSON, of a signed in-toto statement; errors as of `read_token`, or authority or log refused."""
    trust = _trust(trust_config)
    from sigstore.dsse import Statement
    from sigstore.sign import SigningContext

    with _told(), SigningContext.from_trust_config(trust).signer(token) as signer:
        return signer.sign_dsse(Statement(payload)).to_json().encode() + b"\n"


def verify(bundle: bytes, expected: ExpectedIdentity) -> bytes:
    """Checks a bundle: certificate, its entry in the log, and signature; needs no network with a trust configuration.

    Returns:
        The statement that was signed.

    Raises:
        `BadSignature`: it does not hold, or another identity signed.
        `UserError`: it cannot be checked: the extra is not installed, or what is trusted cannot be read or fetched.
    """
    trust = _trust(expected.trust_config)
    from sigstore.errors import Error, VerificationError
    from sigstore.verify import Verifier
    from sigstore.verify.policy import Identity as Policy

    class Named:
        """The library asks it once it knows that the certificate is genuine: only then its names may be told."""

        def verify(self, certificate: Any) -> None:
            wanted = expected.identity
            try:
                Policy(identity=wanted.identity, issuer=wanted.issuer).verify(certificate)
            except VerificationError:
                told = _names(certificate).label
                raise BadSignature(f"it is signed by the {told}, not by the {wanted.label}") from None

    with _told():
        verifier = Verifier(trusted_root=trust.trusted_root)
    parsed = _bundle(bundle)
    try:
        _, payload = verifier.verify_dsse(parsed, Named())
    except (Error, ValueError, LookupError, TypeError) as error:
        reason = one_line(str(error), 200)
        raise BadSignature(next((told for part, told in REASONS if part in reason), reason)) from error
    return payload


def _bundle(data: bytes) -> Any:
    library()
    from sigstore.errors import Error
    from sigstore.models import Bundle

    try:
        return Bundle.from_json(data)
    # What the library lets through when the file is not a bundle: it reads the fields unchecked.
    except (Error, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BadSignature("it is not a signature that was made by an identity") from error


def _names(certificate: Any) -> Identity:
    """The e-mail address or URI that a certificate names, and the issuer in its extension 1.3.6.1.4.1.57264.1.1."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        issuer = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")).value
        kinds = (x509.RFC822Name, x509.UniformResourceIdentifier)
        (name,) = [name for kind in kinds for name in names.get_values_for_type(kind)]
        return Identity(identity=name, issuer=issuer.value.decode())
    except (x509.ExtensionNotFound, ValidationError, ValueError) as error:
        raise BadSignature("its certificate names no e-mail address or URI, or no issuer") from error


@lru_cache(maxsize=1)
def _public_instance() -> "ClientTrustConfig | UserError":
    """What the public instance publishes, or why it cannot be fetched: asked once, however many verdicts need it."""
    from sigstore.models import ClientTrustConfig

    try:
        with _told():
            return ClientTrustConfig.production()
    except UserError as error:
        return error


def _trust(path: Path | None) -> "ClientTrustConfig":
    """What is trusted: an instance's description, or what the public instance publishes today.

    Raises:
        `UserError`: it cannot be read or fetched, or the extra is not installed.
    """
    library()
    from sigstore.errors import Error
    from sigstore.models import ClientTrustConfig

    if path is None:
        if isinstance(public := _public_instance(), UserError):
            raise public
        return public
    try:
        trust = ClientTrustConfig.from_json(path.read_text(encoding="utf-8"))
        # Read when they are asked for: a configuration that lacks one is found here.
        _ = trust.trusted_root, trust.signing_config
        return trust
    except OSError as error:
        raise UserError(f"the trust configuration {path} cannot be read: {error.strerror}") from error
    except (Error, ValueError) as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else one_line(str(error), 200)
        raise UserError(f"{path} is no trust configuration in Sigstore's form (ClientTrustConfig): {reason}") from error


@contextmanager
def _told() -> Iterator[None]:
    """Turns what Sigstore's client raises where an instance cannot be reached or refuses into one line."""
    from requests import RequestException
    from sigstore._internal.fulcio.client import ExpiredCertificate, FulcioClientError
    from sigstore._internal.rekor import RekorClientError
    from sigstore.errors import Error, NetworkError, TUFError
    from sigstore.oidc import ExpiredIdentity, IdentityError, IssuerError

    again = "sign in once more, or get a new token: it holds for some minutes"
    try:
        yield
    except (ExpiredIdentity, ExpiredCertificate) as error:
        raise UserError(f"the identity's token or certificate has expired: {again}") from error
    except IdentityError as error:
        raise UserError(f"the identity's token cannot be used ({_reason(error)}): {again}") from error
    except (NetworkError, TUFError, IssuerError) as error:
        raise UserError(f"Sigstore cannot be reached ({_reason(error)}): try again with a network, or name an instance "
                        f"by --trust-config") from error  # fmt: skip
    except FulcioClientError as error:
        raise UserError(f"the certificate authority refused the identity: {_reason(error)}") from error
    except RekorClientError as error:
        raise UserError(f"the log of signatures refused the entry: {_reason(error)}") from error
    except RequestException as error:
        raise UserError(f"Sigstore cannot be reached: {_reason(error)}") from error
    except Error as error:
        raise UserError(f"Sigstore's answer cannot be used: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """An error and what caused it, in one line: the client keeps the cause for itself."""
    texts = [one_line(str(error), 120), one_line(str(error.__cause__ or ""), 160)]
    return ": ".join(text for text in texts if text) or type(error).__name__
