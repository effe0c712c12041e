"""Faults on purpose, and the log of requests: what a test needs to break the Hub and to see what a client did.

A rule is a JSON object:

    route    name of a route ("commit", "preupload", "lfs_put", "resolve", "tree", "info", "xet_shard", ...:
             the third word of each entry in the ``routes`` lists), or "*"
    method   only this HTTP method (optional)
    path     only addresses that contain this text (optional)
    user     only requests of this user (optional); storage links are signed, and have none
    action   "status"      answer ``code`` with ``headers`` and ``message`` (both optional) and do nothing else
             "delay"       wait ``seconds``, then answer normally
             "stall"       answer, but wait ``seconds`` after half of the body
             "cut"         answer, but close the connection after half of the body
             "omit"        answer, with null for every ``field`` in the JSON
             "corrupt"     answer with a body of the same size and other bytes: all of them, or the one at ``offset``
             "drop"        close the connection without an answer, and do nothing of what is asked
             "lose_reply"  do what is asked, then close the connection without an answer
    skip     let the first so many matching requests pass (default 0)
    times    how many to break after that (default 1; -1: all)

The first rule that matches and is not used up acts. A file is asked for by HEAD and then by GET: a rule about its body
names the method. "corrupt", "cut" and "stall" act on the part that a request with ``Range`` gets.

Limits are set at ``/__hub__/limits`` (POST one, DELETE): ``{"api": 500, "resolvers": 3000, "seconds": 300}`` lets each
user, and each address that is not signed in, ask so often in so many seconds, and says in every answer what is left
(https://huggingface.co/docs/hub/rate-limits); what is above is answered by 429. Without it nothing is counted.

Rules are set at ``/__hub__/faults`` (POST one, DELETE all), and the log is read at ``/__hub__/requests`` (GET, DELETE),
with the header ``X-Local-Hub-Secret``. Both exist only where the server was started with that secret in
``LOCAL_HUB_ADMIN_SECRET``.
"""

from __future__ import annotations

import asyncio
import collections
import hmac
import json
import math
import threading
import time
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import access
from .errors import HubError
from .web import answer, json_body, refusal, request_id, route, settings_of, store_of

# Each action, with the fields that it needs.
ACTIONS = {"status": {"code"}, "delay": {"seconds"}, "stall": {"seconds"}, "omit": {"field"}} | {
    action: set[str]() for action in ("cut", "corrupt", "drop", "lose_reply")
}
FILTERS = {"route", "method", "path", "user", "skip", "times"}
FIELDS = FILTERS | {"action", "code", "headers", "message", "seconds", "offset", "field"}
LOG_SIZE = 20_000


class Faults:
    """The rules in force and the requests seen."""

    def __init__(self) -> None:
        self.rules: list[dict[str, Any]] = []
        self.limits: dict[str, int] = {}
        self.windows: dict[tuple[str, str | None], tuple[float, int]] = {}
        self.log: collections.deque[dict[str, Any]] = collections.deque(maxlen=LOG_SIZE)
        self._lock = threading.Lock()

    def add(self, rule: dict[str, Any]) -> None:
        """Put a rule in force; raises 400 where it is none."""
        needed = ACTIONS.get(rule.get("action", ""))
        if needed is None or not rule.get("route") or not needed <= rule.keys() <= FIELDS:
            raise HubError(400, f"Not a fault rule: {rule}")
        with self._lock:
            self.rules.append({"skip": 0, "times": 1, **rule})

    def limit(self, limits: dict[str, int]) -> None:
        """Put limits in force, all windows being new; raises 400 where they are none."""
        if limits.keys() not in ({"api", "resolvers", "seconds"}, set()) or not all(map(_is_count, limits.values())):
            raise HubError(400, f"Not limits: {limits}")
        with self._lock:
            self.limits = limits
            self.windows.clear()

    def count(self, name: str, user: str | None) -> tuple[dict[str, str], bool]:
        """Count a request: the headers that say what is left, and whether it is one too many."""
        if not (limits := self.limits):
            return {}, False
        group, now = "resolvers" if name in ("resolve", "raw") else "api", time.monotonic()
        with self._lock:
            start, asked = self.windows.get((group, user), (now, 0))
            if now - start >= limits["seconds"]:
                start, asked = now, 0
            self.windows[group, user] = start, asked + 1
        left, seconds = limits[group] - asked - 1, math.ceil(start + limits["seconds"] - now)
        policy = f'"fixed window";"{group}";q={limits[group]};w={limits["seconds"]}'
        return {"RateLimit": f'"{group}";r={max(left, 0)};t={seconds}', "RateLimit-Policy": policy}, left < 0

    def match(self, name: str, method: str, path: str, user: str | None) -> dict[str, Any] | None:
        """The rule that breaks this request, counted as used; None where none does."""
        with self._lock:
            for rule in self.rules:
                if rule["route"] not in ("*", name) or rule["times"] == 0:
                    continue
                if rule.get("method", method) != method or rule.get("path", "") not in path:
                    continue
                if rule.get("user", user) != user:
                    continue
                if rule["skip"] > 0:
                    rule["skip"] -= 1
                    continue
                if rule["times"] > 0:
                    rule["times"] -= 1
                return rule
        return None


class Front:
    """The outermost layer: names the route, logs the request, and lets a fault rule act.

    It also gives routing the path as sent: an encoded slash is part of a name (``refs%2Fpr%2F1``), not a separator.
    """

    def __init__(self, app: ASGIApp, routes: list[Route], faults: Faults, root: Path):
        self.app = app
        self.routes = routes
        self.faults = faults
        self.root = root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["path"] = scope["raw_path"].decode("ascii")
        scope["route_name"] = name = route_name(self.routes, scope)
        if name.startswith("hub_"):
            await self.app(scope, receive, send)
            return
        entry = {"route": name, "method": scope["method"], "path": scope["path"], "status": None}
        entry |= {"query": scope["query_string"].decode("ascii"), "user": _user(self.root, scope)}
        if requested := Headers(scope=scope).get("range"):
            entry["range"] = requested
        self.faults.log.append(entry)
        counted, too_many = self.faults.count(name, entry["user"])
        rule = None if too_many else self.faults.match(name, scope["method"], scope["path"], entry["user"])

        async def log_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry["status"] = message["status"]
                message["headers"].append((b"x-request-id", request_id(Headers(scope=scope)).encode()))
                message["headers"] += [(key.lower().encode(), value.encode()) for key, value in counted.items()]
            await send(message)

        if too_many:
            await Request(scope, receive).body()
            await refusal(HubError(429, "Too many requests: see the header RateLimit"))(scope, receive, log_status)
        elif rule is None:
            await self.app(scope, receive, log_status)
        else:
            entry["fault"] = rule["action"]
            await _act(rule, self.app, scope, receive, log_status)


def route_name(routes: list[Route], scope: Scope) -> str:
    """The name of the route that serves a request; ``unknown`` where none does."""
    for candidate in routes:
        if candidate.matches(scope)[0] is Match.FULL:
            return candidate.name
    return "unknown"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def _user(root: Path, scope: Scope) -> str | None:
    try:
        identity = access.authenticate(root, Headers(scope=scope).get("authorization"))
    except HubError:
        return None
    return identity.user if identity else None


async def _act(rule: dict[str, Any], app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    action = rule["action"]
    if action in ("status", "drop"):
        # The body is read first: an early end would break the connection under a client that is still sending.
        await Request(scope, receive).body()
        if action == "drop":
            await _hang_up(scope, receive)
            return
        headers = {key: str(value) for key, value in rule.get("headers", {}).items()}
        message = rule.get("message", f"Fault: status {rule['code']}")
        await refusal(HubError(rule["code"], message, headers=headers))(scope, receive, send)
        return
    if action == "delay":
        await asyncio.sleep(rule["seconds"])
        await app(scope, receive, send)
        return
    messages: list[Message] = []

    async def hold(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, hold)
    if action == "lose_reply":
        await _hang_up(scope, receive)
        return
    body = b"".join(message.get("body", b"") for message in messages)
    if action == "omit":
        value = json.loads(body, object_hook=lambda found: found | dict.fromkeys({rule["field"]} & found.keys()))
        await JSONResponse(value, messages[0]["status"])(scope, receive, send)
        return
    if action == "corrupt":
        changed = range(len(body)) if "offset" not in rule else [rule["offset"]] if rule["offset"] < len(body) else []
        other = bytearray(body)
        for position in changed:
            other[position] ^= 0xFF
        await send(messages[0])
        await send({"type": "http.response.body", "body": bytes(other)})
        return
    half = len(body) // 2
    await send(messages[0])
    await send({"type": "http.response.body", "body": body[:half], "more_body": True})
    if action == "stall":
        await asyncio.sleep(rule["seconds"])
        await send({"type": "http.response.body", "body": body[half:]})
        return
    await _hang_up(scope, receive)


async def _hang_up(scope: Scope, receive: Receive) -> None:
    # ``close`` and not ``abort``: what was sent before still arrives.
    scope["state"]["transport"].close()
    while (await receive())["type"] != "http.disconnect":
        pass


def _check_secret(request: Request) -> Faults:
    secret = settings_of(request).admin_secret
    if not secret or not hmac.compare_digest(secret, request.headers.get("x-local-hub-secret", "")):
        raise HubError(404, "Sorry, we can't find the page you are looking for.")
    return request.app.state.faults


def set_fault(request: Request, body: bytes) -> Response:
    """Put one rule in force."""
    _check_secret(request).add(json_body(body))
    return answer({})


def clear_faults(request: Request, body: bytes) -> Response:
    """Take every rule out of force."""
    _check_secret(request).rules.clear()
    return answer({})


def set_limits(request: Request, body: bytes) -> Response:
    """Put limits in force, or take them out of it."""
    _check_secret(request).limit(json_body(body) if request.method == "POST" else {})
    return answer({})


def get_log(request: Request, body: bytes) -> Response:
    """The requests seen, oldest first."""
    return JSONResponse(list(_check_secret(request).log))


def clear_log(request: Request, body: bytes) -> Response:
    """Forget the requests seen."""
    _check_secret(request).log.clear()
    return answer({})


def health(request: Request, body: bytes) -> Response:
    """Which store this server serves: how a command knows that a live server is the one it looks for."""
    return answer({"store": store_of(request).id})


routes: list[Route] = [
    route("GET", "/__hub__/health", "hub_health", health),
    route("POST", "/__hub__/faults", "hub_faults", set_fault),
    route("DELETE", "/__hub__/faults", "hub_faults", clear_faults),
    route("POST", "/__hub__/limits", "hub_limits", set_limits),
    route("DELETE", "/__hub__/limits", "hub_limits", set_limits),
    route("GET", "/__hub__/requests", "hub_requests", get_log),
    route("DELETE", "/__hub__/requests", "hub_requests", clear_log),
]
