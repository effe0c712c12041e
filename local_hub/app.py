"""The Hub's HTTP application: every route over one store."""

from __future__ import annotations

import errno
import traceback

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from . import (
    collection_routes,
    discussion_routes,
    faults,
    oidc,
    repo_routes,
    revision_routes,
    upload_routes,
    xet_routes,
)
from .errors import HubError, Moved
from .store import Store
from .web import Settings, on_error, on_moved, refusal, route

# A full disk, a full quota of the user's, and a limit on the size of files.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


def home(request: Request, body: bytes) -> Response:
    """What this address is, for people who open it in a browser."""
    return PlainTextResponse("A local Hub. Point clients at it with HF_ENDPOINT.\n")


async def _not_found(request: Request, error: Exception) -> Response:
    return refusal(HubError(404, "Sorry, we can't find the page you are looking for."))


async def _malformed(request: Request, error: Exception) -> Response:
    # What a handler stumbles over is what it was sent; a bug of its own is seen in the log.
    traceback.print_exception(error)
    return refusal(HubError(400, f"Malformed request: {type(error).__name__}: {error}"))


async def _no_room(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    if error.errno not in FULL:
        raise error
    return refusal(HubError(507, "Insufficient storage: the disk of this Hub is full, nothing was kept"))


async def _client_gone(request: Request, error: Exception) -> Response:
    # Nobody reads this; without it a client that breaks off an upload looks like a bug in the log.
    return Response(status_code=400)


def build(store: Store, settings: Settings) -> ASGIApp:
    """The application that serves ``store``."""
    routes = [
        route("GET", "/", "home", home),
        *faults.routes,
        *oidc.routes,
        *collection_routes.routes,
        *upload_routes.routes,
        *xet_routes.routes,
        *discussion_routes.routes,
        *revision_routes.routes,
        *repo_routes.routes,
    ]
    handlers = {HubError: on_error, Moved: on_moved, ClientDisconnect: _client_gone, OSError: _no_room, 404: _not_found}
    app = Starlette(routes=routes, exception_handlers={**handlers, **dict.fromkeys(MALFORMED, _malformed)})
    # Clients add no slashes, and a redirect would hide which route a request met.
    app.router.redirect_slashes = False
    app.state.store = store
    app.state.settings = settings
    app.state.faults = faults.Faults()
    return faults.Front(app, routes, app.state.faults, store.root)
