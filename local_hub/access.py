"""Who may do what: users and their tokens, organisations and their members, private and gated repositories.

``ROOT/users.json`` and ``ROOT/orgs.json`` are the only places, and may gain entries while the server runs. A namespace
belongs to the user or the organisation so named. A member of an organisation reads everything in it; with the role
write or admin, a write token changes everything in it. The real Hub also has the role contributor, who writes to
repositories of their own making; it is not served here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import string
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import durable
from .errors import HubError, repository_not_found
from .store import Repository, split_id

ROLES = ("write", "read")
ORG_ROLES = ("read", "write", "admin")
XET_TOKEN_SECONDS = 3600
# huggingface.co/docs/hub/trusted-publishers: how their tokens begin, and in whose name they write.
PUBLISHER_PREFIX = "hf_jwt_"
PUBLISHER = "[OIDC]"


@dataclass(frozen=True)
class Identity:
    """A signed-in user, the role of the token they came with, and their role in each of their organisations.

    ``only`` names the one repository that a trusted publisher's token is for.
    """

    user: str
    role: str
    orgs: Mapping[str, str] = field(default_factory=dict)
    only: str | None = None


def users(root: Path) -> dict[str, dict[str, str]]:
    """Every user's tokens by role."""
    return durable.read_json(root / "users.json", {})


def add_user(root: Path, user: str) -> dict[str, str]:
    """Create a user where nobody has that name; their tokens by role."""
    split_id(f"{user}/x")
    with durable.locked(root / "users.lock"):
        accounts = users(root)
        if user not in accounts:
            if user in orgs(root):
                raise HubError(409, f"{user} is an organisation")
            # The npm client and secret scanners know a token by its form: hf_ and 34 letters and digits.
            letters = string.ascii_letters + string.digits
            accounts[user] = {role: "hf_" + "".join(secrets.choice(letters) for _ in range(34)) for role in ROLES}
            durable.write_json(root / "users.json", accounts, mode=0o600)
        return accounts[user]


def orgs(root: Path) -> dict[str, dict[str, str]]:
    """Every organisation's members by name, with their roles in it."""
    return durable.read_json(root / "orgs.json", {})


def add_org(root: Path, org: str, members: Mapping[str, str]) -> None:
    """Give an organisation members with a role each, ``read``, ``write`` or ``admin``; create whoever is not there yet.

    Raises HubError for a role that is none, and for a name that a user has.
    """
    split_id(f"{org}/x")
    if unknown := set(members.values()) - set(ORG_ROLES):
        raise HubError(400, f"Not a role in an organisation: {', '.join(sorted(unknown))}")
    if org in users(root):
        raise HubError(409, f"{org} is a user")
    for user in members:
        add_user(root, user)
    with durable.locked(root / "orgs.lock"):
        organizations = orgs(root)
        organizations[org] = {**organizations.get(org, {}), **members}
        durable.write_json(root / "orgs.json", organizations)


def make_private_by_default(root: Path, org: str) -> None:
    """Make an organisation's new repositories private where whoever creates them says nothing of it."""
    with durable.locked(root / "orgs.lock"):
        durable.write_json(
            root / "private_orgs.json", sorted({*durable.read_json(root / "private_orgs.json", []), org})
        )


def private_by_default(root: Path, namespace: str) -> bool:
    """Whether a namespace's new repositories are private where nothing is said of it."""
    return namespace in durable.read_json(root / "private_orgs.json", [])


def authenticate(root: Path, header: str | None) -> Identity | None:
    """Who an ``Authorization`` header stands for; None without one, 401 for a token nobody has."""
    if not header:
        return None
    token = header.removeprefix("Bearer ")
    if token.startswith(PUBLISHER_PREFIX):
        return _publisher(durable.read_json(root / "store.json", {})["secret"], token)
    for user, tokens in users(root).items():
        for role, candidate in tokens.items():
            if hmac.compare_digest(candidate.encode(), token.encode()):
                roles = {org: members[user] for org, members in orgs(root).items() if user in members}
                return Identity(user, role, roles)
    raise HubError(401, "Invalid credentials in Authorization header")


def publisher_token(secret: str, resource: str, seconds: int) -> str:
    """A token that writes to one repository, for some seconds."""
    claims = json.dumps({"resource": resource, "expires": time.time() + seconds})
    payload = base64.urlsafe_b64encode(claims.encode()).decode()
    return f"{PUBLISHER_PREFIX}{payload}.{sign(secret, 'publisher', payload)}"


def _publisher(secret: str, token: str) -> Identity:
    payload, _, signature = token.removeprefix(PUBLISHER_PREFIX).partition(".")
    if not hmac.compare_digest(signature.encode(), sign(secret, "publisher", payload).encode()):
        raise HubError(401, "Invalid credentials in Authorization header")
    claims = json.loads(base64.urlsafe_b64decode(payload))
    if claims["expires"] < time.time():
        raise HubError(401, "The access token has expired: exchange a new id token for another one")
    return Identity(PUBLISHER, "write", only=claims["resource"])


def role_in(identity: Identity | None, namespace: str) -> str | None:
    """The user's role in a namespace, ``admin`` in their own; None for somebody else's."""
    if identity is None:
        return None
    return "admin" if namespace == identity.user else identity.orgs.get(namespace)


def own_name(identity: Identity, namespace: str) -> str:
    """The name, as the Hub has it, of the user or of one of their organisations that is asked for in any case."""
    names = (identity.user, *identity.orgs)
    return next((name for name in names if name.lower() == namespace.lower()), namespace)


def may_read_all(identity: Identity | None, repository: Repository) -> bool:
    """Whether a repository is open to the user also when it is private or gated: it is theirs, or a colleague's."""
    if identity is not None and identity.only:
        return identity.only == repository.resource
    return role_in(identity, split_id(repository.id)[0]) is not None


def check_namespace(identity: Identity, namespace: str, action: str) -> None:
    """Raise 403 where the user has no right to ``action`` ("create a model") in a namespace."""
    if role_in(identity, namespace) not in ("write", "admin"):
        raise HubError(403, f'You don\'t have the rights to {action} under the namespace "{namespace}"')


def check_read(identity: Identity | None, repository: Repository) -> None:
    """Raise RepoNotFound where the repository is private and closed to the user."""
    if repository.facts["private"] and not may_read_all(identity, repository):
        raise repository_not_found(anonymous=identity is None)


def check_content(identity: Identity | None, repository: Repository) -> None:
    """Raise GatedRepo where the repository's files are closed to the user; what it is and lists stays open to all."""
    facts = repository.facts
    if not facts["gated"] or may_read_all(identity, repository):
        return
    if identity is None:
        raise HubError(401, f"Access to {repository.kind} {repository.id} is restricted: sign in", "GatedRepo")
    if identity.user not in facts.get("granted", []):
        message = f"Access to {repository.kind} {repository.id} is restricted and you are not in the authorized list."
        raise HubError(403, message, "GatedRepo")


def check_token_writes(identity: Identity | None, repository: Repository | None = None) -> Identity:
    """Raise 401 where nobody is signed in, and 403 where the token may only read.

    A trusted publisher's token is for writing to its own ``repository``: 403 for another one, 401 for anything else.
    """
    if identity is None or (identity.only and repository is None):
        raise HubError(401, "Invalid username or password.")
    if identity.only and repository and identity.only != repository.resource:
        raise HubError(403, f"This token may only write to {identity.only}")
    if identity.role != "write":
        raise HubError(403, "Your token is read-only: you need a token with the write role")
    return identity


def check_write(identity: Identity | None, repository: Repository) -> Identity:
    """Raise 401 or 403 where the user may not change the repository."""
    identity = check_token_writes(identity, repository)
    if not identity.only and role_in(identity, split_id(repository.id)[0]) not in ("write", "admin"):
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
