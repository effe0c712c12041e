"""Who may ask, and what is written of it: keys, the id of a request, one line of the log for each."""

import logging
import re
import secrets
import time
from pathlib import Path

from prometheus_client import Counter
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from record.errors import UserError, one_line
from serving.requests import Refused, refusal

log = logging.getLogger("serving")

# A client's own id of a request is taken where it cannot disturb a log.
REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)


class Logged:
    """Writes one line a request, without the prompt's text, and counts it; gives it an `x-request-id`.

    Parameters:
        paths: those that are counted by name.
    """

    def __init__(self, app: ASGIApp, requests: Counter, paths: set[str]):
        self.app, self.requests, self.paths = app, requests, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status = time.monotonic(), 500
        own = Headers(scope=scope).get("x-request-id", "")
        number = own if REQUEST_ID.fullmatch(own) else f"req-{secrets.token_hex(12)}"

        async def sending(message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = number
            await send(message)

        scope["state"] = {"note": ""}
        try:
            await self.app(scope, receive, sending)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.requests.labels(path, status).inc()
            line = one_line(f"{scope['method']} {scope['path']}", 200)
            log.info("%s %s %.3fs id=%s%s", line, status, time.monotonic() - start, number, scope["state"]["note"])


class Keys:
    """Lets a request for a path below `/v1/` through if it bears one of the keys: `Authorization: Bearer KEY`."""

    def __init__(self, app: ASGIApp, keys: list[str]):
        self.app, self.keys = app, [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/") and not self._known(scope):
            refused = Refused(
                401, "no valid key: send `Authorization: Bearer KEY`", None, "invalid_api_key",
                WWW_Authenticate="Bearer",
            )  # fmt: skip
            return await refusal(refused)(scope, receive, send)
        await self.app(scope, receive, send)

    def _known(self, scope: Scope) -> bool:
        kind, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        # All are compared, each in a time that tells nothing of where they differ.
        same = [secrets.compare_digest(key.strip().encode(), one) for one in self.keys]
        return kind.lower() == "bearer" and any(same)


def read_keys(path: Path) -> list[str]:
    """The keys in a file, one a line.

    Raises:
        `UserError`: it cannot be read, holds none, or one that no header can bear.
    """
    try:
        keys = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the keys in {path} cannot be read: {error}") from None
    check_keys(keys, str(path))
    if not keys:
        raise UserError(f"{path} holds no key: write one a line")
    return keys


def check_keys(keys: list[str], where: str) -> None:
    """Refuses keys that no client could send.

    Raises:
        `UserError`.
    """
    for key in keys:
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise UserError(f"{where}: a key is made of letters, digits and signs of ASCII, without spaces")
