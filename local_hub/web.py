"""What every route shares: how a request finds its repository and user, and how an answer or a refusal is written."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import access, history
from .errors import HubError, Moved, repository_not_found
from .store import KINDS, RESERVED, Repository, Store


@dataclass
class Settings:
    """How a server is set up: entries per page, bytes per part of an LFS upload, and the secret of its test hooks."""

    page_size: int = 1000
    lfs_part_size: int = 64 << 20
    admin_secret: str | None = None


Handler = Callable[[Request, bytes], Response]


def route(methods: str, path: str, name: str, handler: Handler) -> Route:
    """A route whose handler gets the request and its whole body, and may block: it runs in a thread."""

    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(handler, request, await request.body())

    return Route(path, endpoint, methods=methods.split(), name=name)


def store_of(request: Request) -> Store:
    """The store that this server serves."""
    return request.app.state.store


def settings_of(request: Request) -> Settings:
    """The settings of this server."""
    return request.app.state.settings


def identity_of(request: Request) -> access.Identity | None:
    """Who sent the request; None if nobody is signed in, 401 for a token nobody has."""
    return access.authenticate(store_of(request).root, request.headers.get("authorization"))


def param(request: Request, name: str) -> str:
    """A part of the path, decoded; an encoded slash stays inside its part until here."""
    return unquote(request.path_params[name])


def base_url(request: Request) -> str:
    """The address that the client used for this server, without a slash at the end."""
    return str(request.base_url).rstrip("/")


def page_url(repository: Repository, request: Request) -> str:
    """The address of a repository's page."""
    return f"{base_url(request)}/{repository.resource}"


def repository_of(request: Request) -> Repository:
    """The repository that the path names, which the user may see; raises RepoNotFound, or Moved."""
    kind = KINDS.get(request.path_params.get("types", "models"))
    if kind is None:
        raise HubError(404, "Sorry, we can't find the page you are looking for.")
    if param(request, "namespace") in RESERVED:
        # As in /datasets/NAME/resolve/…: an id without a namespace.
        raise repository_not_found(anonymous=False)
    id = f"{param(request, 'namespace')}/{param(request, 'name')}"
    identity = identity_of(request)
    return find(request, kind, id, identity)


def find(request: Request, kind: str, id: str, identity: access.Identity | None) -> Repository:
    """A repository that the user may see; raises RepoNotFound, or Moved."""
    store = store_of(request)
    repository = store.find(kind, id)
    if repository is None:
        if true_id := store.true_id(kind, id):
            raise Moved(true_id)
        raise repository_not_found(anonymous=identity is None)
    access.check_read(identity, repository)
    return repository


def revision_of(request: Request) -> str:
    """The revision in the path, ``main`` where it has none."""
    return param(request, "revision") if "revision" in request.path_params else history.DEFAULT_BRANCH


def split_revision(rest: str) -> tuple[str, str]:
    """Still encoded ``revision/path`` in its two parts, decoded.

    The npm client leaves the slashes of ``refs/pr/1`` as they are (``src/lib/list-files.ts``): such a name has three
    parts.
    """
    parts = rest.split("/")
    length = 3 if parts[0] == "refs" and len(parts) >= 3 else 1
    return unquote("/".join(parts[:length])), unquote("/".join(parts[length:]))


def json_body(body: bytes) -> Any:
    """The request's JSON object; raises 400."""
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        raise HubError(400, "The body is not JSON") from None
    if not isinstance(value, dict):
        raise HubError(400, "The body is not a JSON object")
    return value


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> JSONResponse:
    """A JSON answer; dates of a card's YAML become text."""
    return JSONResponse(json.loads(json.dumps(value, default=str)), status, headers)


def next_page(request: Request, **query: str | int) -> dict[str, str]:
    """The ``Link`` header that leads to the next page: this request's query with some values replaced."""
    url = request.url.include_query_params(**query)
    path = request.scope["path"]
    return {"Link": f'<{base_url(request)}{path}?{url.query}>; rel="next"'}


def refusal(error: HubError) -> Response:
    """The answer that tells a client about an error, as ``hf_raise_for_status`` reads it."""
    headers = {"X-Error-Message": quote(error.message, safe=" !\"#$&'()*+,/:;<=>?@[]^_`{|}~"), **error.headers}
    if error.code:
        headers["X-Error-Code"] = error.code
    return JSONResponse({"error": error.message}, error.status, headers)


async def on_error(request: Request, error: Exception) -> Response:
    """Turn a refusal raised in a route into its answer."""
    assert isinstance(error, HubError)
    return refusal(error)


async def on_moved(request: Request, error: Exception) -> Response:
    """Send the client to a repository's own id; the path stays relative so that the token goes along."""
    assert isinstance(error, Moved)
    old = f"{request.path_params['namespace']}/{request.path_params['name']}"
    path = request.scope["path"].replace(old, error.id, 1)
    query = f"?{request.url.query}" if request.url.query else ""
    return Response(status_code=307, headers={"Location": path + query})


def request_id(headers: Headers) -> str:
    """The id in ``X-Request-Id``, which clients print with an error: the one they sent, or a fresh one with theirs."""
    if own := headers.get("x-request-id"):
        return own
    fresh, trace = f"Root=1-{uuid.uuid4().hex[:8]}-{uuid.uuid4().hex[:24]}", headers.get("x-amzn-trace-id")
    return f"{fresh};{trace}" if trace else fresh


def api_path(rest: str) -> str:
    """The path of a repository's API route."""
    return f"/api/{{types}}/{{namespace}}/{{name}}{rest}"
