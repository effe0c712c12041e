"""What signatures by keys and by identities share: the packages of their extra, and how a bad one is told."""

from collections.abc import Callable
from types import ModuleType

from record.errors import UserError


class BadSignature(Exception):
    """The signature does not vouch for the files; the text says why."""


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
