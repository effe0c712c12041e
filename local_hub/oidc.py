"""Trusted Publishers: a job's id token against a token that may write to one repository for an hour.

The exchange is RFC 8693 as documented at huggingface.co/docs/hub/trusted-publishers and sent by
``huggingface_hub/_oidc.py``. Instead of a JSON Web Token that an issuer signed, an id token here is a random one that
``trust`` registered in ``ROOT/publishers.json``; ``GET /id-token`` plays the part of GitHub Actions, which gives a job
its id token.

Of what such a token may do, the documentation says: write to the one repository, nothing else, as the user ``[OIDC]``.
``create_repo`` answers 401 to it (``HfApi.create_repo``). Assumed: 401 as well from everything that names no repository
in its address (``whoami``, delete, move, collections), 403 from writes to another repository, and that public
repositories stay readable.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from . import access, durable
from .errors import HubError
from .store import PREFIXES, Store
from .web import answer, base_url, json_body, route, store_of

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
ID_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:id_token"
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"
# The lifetime of the documentation.
SECONDS = 3600


def trust(root: Path, resource: str, seconds: int = SECONDS) -> str:
    """An id token that can be exchanged for one that writes to ``resource`` for some seconds.

    ``resource`` is ``namespace/name`` of a model, or ``datasets/namespace/name``; it need not exist yet.
    """
    id_token = f"id-token-{secrets.token_hex(20)}"
    with durable.locked(root / "publishers.lock"):
        publishers = durable.read_json(root / "publishers.json", {})
        durable.write_json(
            root / "publishers.json", {**publishers, id_token: {"resource": resource, "seconds": seconds}}, mode=0o600
        )
    return id_token


def _exists(store: Store, resource: str) -> bool:
    return any(
        store.find(kind, resource.removeprefix(prefix))
        for kind, prefix in PREFIXES.items()
        if resource.startswith(prefix)
    )


def _refuse(error: str, description: str) -> Response:
    return answer({"error": error, "error_description": description}, 400)


def exchange(request: Request, body: bytes) -> Response:
    """Exchange an id token; all refusals are 400, and as on the real Hub do not say which check failed."""
    payload, store = json_body(body), store_of(request)
    if payload.get("grant_type") != GRANT_TYPE:
        return _refuse("unsupported_grant_type", f"Only {GRANT_TYPE} is served here")
    id_token, resource = payload.get("subject_token"), payload.get("resource")
    if payload.get("subject_token_type") != ID_TOKEN_TYPE or not isinstance(id_token, str):
        return _refuse("invalid_request", "subject_token must be an id token")
    if not isinstance(resource, str) or "/" not in resource:
        return _refuse("invalid_request", "resource must be a repository")
    publisher = durable.read_json(store.root / "publishers.json", {}).get(id_token)
    if publisher is None or publisher["resource"] != resource or not _exists(store, resource):
        return _refuse("invalid_grant", "No trusted publisher matches this token and resource")
    token = access.publisher_token(store.secret, resource, publisher["seconds"])
    return answer(
        {
            "access_token": token,
            "token_type": "bearer",
            "expires_in": publisher["seconds"],
            "issued_token_type": ACCESS_TOKEN_TYPE,
        }
    )


def id_token(request: Request, body: bytes) -> Response:
    """What GitHub Actions answers a job that asks for an id token: here, the very token that the job asks with."""
    if request.query_params.get("audience") != base_url(request):
        raise HubError(400, f"The audience must be {base_url(request)}")
    return answer({"value": request.headers.get("authorization", "").removeprefix("Bearer ")})


routes = [
    route("POST", "/oauth/token", "oauth_token", exchange),
    route("GET", "/id-token", "id_token", id_token),
]
