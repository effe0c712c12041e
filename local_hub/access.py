"""Who may do what: users, their tokens with a read or a write role, private and gated repositories.

``ROOT/users.json`` is the only place, and may gain users while the server runs. A namespace belongs to the user so
named.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import time
from dataclasses import dataclass
from pathlib import Path

from . import durable
from .errors import HubError, repository_not_found
from .store import Repository, split_id

ROLES = ("write", "read")
XET_TOKEN_SECONDS = 3600


@dataclass(frozen=True)
class Identity:
    """A signed-in user, and the role of the token they came with."""

    user: str
    role: str


def users(root: Path) -> dict[str, dict[str, str]]:
    """Every user's tokens by role."""
    return durable.read_json(root / "users.json", {})


def add_user(root: Path, user: str) -> dict[str, str]:
    """Create a user where there is none of that name; their tokens by role."""
    split_id(f"{user}/x")
    with durable.locked(root / "users.lock"):
        known = users(root)
        if user not in known:
            # The npm client and secret scanners know a token by its form: hf_ and 34 letters and digits.
            letters = string.ascii_letters + string.digits
            known[user] = {role: "hf_" + "".join(secrets.choice(letters) for _ in range(34)) for role in ROLES}
            durable.write_json(root / "users.json", known, mode=0o600)
        return known[user]


def authenticate(root: Path, header: str | None) -> Identity | None:
    """Who an ``Authorization`` header stands for; None without one, 401 for a token nobody has."""
    if not header:
        return None
    token = header.removeprefix("Bearer ")
    for user, tokens in users(root).items():
        for role, known in tokens.items():
            if hmac.compare_digest(known.encode(), token.encode()):
                return Identity(user, role)
    raise HubError(401, "Invalid credentials in Authorization header")


def owns(identity: Identity | None, repository: Repository) -> bool:
    """Whether a repository is in the user's own namespace."""
    return identity is not None and split_id(repository.id)[0] == identity.user


def check_read(identity: Identity | None, repository: Repository) -> None:
    """Raise RepoNotFound where the repository is private and not the user's."""
    if repository.facts["private"] and not owns(identity, repository):
        raise repository_not_found(anonymous=identity is None)


def check_content(identity: Identity | None, repository: Repository) -> None:
    """Raise GatedRepo where the repository's files are closed to the user; what it is and lists stays open to all."""
    facts = repository.facts
    if not facts["gated"] or owns(identity, repository):
        return
    if identity is None:
        raise HubError(401, f"Access to {repository.kind} {repository.id} is restricted: sign in", "GatedRepo")
    if identity.user not in facts.get("granted", []):
        message = f"Access to {repository.kind} {repository.id} is restricted and you are not in the authorized list."
        raise HubError(403, message, "GatedRepo")


def check_token_writes(identity: Identity | None) -> Identity:
    """Raise 401 where nobody is signed in and 403 where the token may only read."""
    if identity is None:
        raise HubError(401, "Invalid username or password.")
    if identity.role != "write":
        raise HubError(403, "Your token is read-only: you need a token with the write role")
    return identity


def check_write(identity: Identity | None, repository: Repository) -> Identity:
    """Raise 401 or 403 where the user may not change the repository."""
    identity = check_token_writes(identity)
    if not owns(identity, repository):
        raise HubError(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
    return identity


def sign(secret: str, *parts: str | int) -> str:
    """A signature of these parts, for links that need no token."""
    return hmac.new(secret.encode(), "\n".join(map(str, parts)).encode(), hashlib.sha256).hexdigest()


def check_signature(secret: str, signature: str, *parts: str | int) -> None:
    """Raise 403 where ``signature`` is not the one of these parts."""
    if not hmac.compare_digest(signature, sign(secret, *parts)):
        raise HubError(403, "Invalid signature")


def xet_token(secret: str, role: str) -> tuple[str, int]:
    """A short-lived token for Xet storage and when it expires, in seconds since 1970."""
    expires = int(time.time()) + XET_TOKEN_SECONDS
    return f"xet.{role}.{expires}.{sign(secret, 'xet', role, expires)}", expires


def check_xet_token(secret: str, header: str | None, role: str) -> None:
    """Raise 401 where the header carries no valid Xet token, and 403 where it may not do what ``role`` names."""
    parts = (header or "").removeprefix("Bearer ").split(".")
    if len(parts) != 4 or not hmac.compare_digest(parts[3], sign(secret, "xet", parts[1], parts[2])):
        raise HubError(401, "Invalid Xet token")
    if int(parts[2]) < time.time():
        raise HubError(401, "The Xet token has expired")
    if role == "write" and parts[1] != "write":
        raise HubError(403, "This Xet token may only read")
