"""A local Hub for a test: a real server process, which the test can look into, break and kill."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import access, oidc, quotas, server
from .seed import Content, seed
from .store import Store


class Hub:
    """A running local Hub: its ``url``, its users, its log and its faults; ``xet`` says what its clients use.

    ``secret`` is what the test hooks ask for, for a test whose client sets faults by itself.
    """

    def __init__(self, root: Path, arguments: list[str], xet: bool):
        self.root = root
        self.url = ""
        self._arguments = arguments
        self.xet = xet
        self.secret = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server: on a free port the first time, later on the same one."""
        port = self.url.rpartition(":")[2] or "0"
        environment = {**os.environ, "LOCAL_HUB_ADMIN_SECRET": self.secret}
        self._process = server.spawn(self.root, ["--port", port, "--while-in-use", *self._arguments], environment)
        self.url = server.wait_until_ready(self.root, self._process, self.root / "server.log")

    def kill(self) -> None:
        """End the server as a power cut would (SIGKILL)."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the server in good order."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def token(self, user: str, role: str = "write") -> str:
        """The user's token with that role; the user is created if there is none."""
        return access.add_user(self.root, user)[role]

    def add_org(self, org: str, members: Mapping[str, str]) -> None:
        """Give an organisation members with the role ``read``, ``write`` or ``admin``; creates whoever is missing."""
        access.add_org(self.root, org, members)

    def make_private_by_default(self, org: str) -> None:
        """Make an organisation's new repositories private where whoever creates them says nothing of it."""
        access.make_private_by_default(self.root, org)

    def trust(self, resource: str, seconds: int = oidc.SECONDS) -> str:
        """An id token of a trusted publisher of one repository, ``namespace/name`` or ``datasets/namespace/name``.

        With ``HF_OIDC_RESOURCE`` and ``HF_OIDC_ID_TOKEN`` in its environment, a client exchanges it for a token that
        writes there for so many seconds. Instead of the second, a job on GitHub Actions has ``GITHUB_ACTIONS=true``,
        ``ACTIONS_ID_TOKEN_REQUEST_URL`` (here the hub's address and ``/id-token``) and
        ``ACTIONS_ID_TOKEN_REQUEST_TOKEN`` (here the id token).
        """
        return oidc.trust(self.root, resource, seconds)

    def quota(self, namespace: str, limit: int | None) -> None:
        """Limit a namespace's private and public storage to so many bytes each; None lifts the limit."""
        quotas.set_limit(self.root, namespace, limit)

    def env(self, home: Path, token: str | None = None, **more: str) -> dict[str, str]:
        """The environment for a client process with its own ``HF_HOME``; without a token it is not signed in."""
        environment = server.client_environment(self.url, token, home, os.environ)
        environment["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        environment["HF_HUB_DISABLE_XET"] = "0" if self.xet else "1"
        return environment | more

    def fault(self, route: str, action: str, **rule: Any) -> None:
        """Put a fault rule in force; see ``faults`` for its fields."""
        self._admin("POST", "faults", {"route": route, "action": action, **rule})

    def clear_faults(self) -> None:
        """Take every fault rule out of force."""
        self._admin("DELETE", "faults")

    def limit(self, api: int, resolvers: int, seconds: int) -> None:
        """Let each user, and each address that is not signed in, ask so often in so many seconds."""
        self._admin("POST", "limits", {"api": api, "resolvers": resolvers, "seconds": seconds})

    def clear_limits(self) -> None:
        """Count no requests any more."""
        self._admin("DELETE", "limits")

    def requests(self) -> list[dict[str, Any]]:
        """The requests seen since the start, oldest first: route, method, path, query, status, user."""
        return self._admin("GET", "requests")

    def clear_requests(self) -> None:
        """Forget the requests seen."""
        self._admin("DELETE", "requests")

    def _admin(self, method: str, what: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(f"{self.url}/__hub__/{what}", json.dumps(body or {}).encode(), method=method)
        request.add_header("X-Local-Hub-Secret", self.secret)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as reply:
            return json.load(reply)


@contextlib.contextmanager
def running(
    root: Path,
    repositories: Iterable[Content] = (),
    users: Iterable[str] = ("local-user",),
    orgs: Mapping[str, Mapping[str, str]] | None = None,
    xet: bool = True,
    page_size: int | None = None,
    lfs_part_size: int | None = None,
) -> Iterator[Hub]:
    """A Hub on a free port with these repositories, users, and organisations with each member's role.

    ``xet=False`` gives clients that use LFS.
    The server ends with this process, however it ends.
    """
    root.mkdir(parents=True, exist_ok=True)
    seed(Store(root), repositories)
    for user in users:
        access.add_user(root, user)
    for org, members in (orgs or {}).items():
        access.add_org(root, org, members)
    arguments = ["--no-seed"]
    arguments += ["--page-size", str(page_size)] if page_size else []
    arguments += ["--lfs-part-size", str(lfs_part_size)] if lfs_part_size else []
    with (root / "in_use.lock").open("a") as in_use:
        fcntl.flock(in_use, fcntl.LOCK_SH)
        hub = Hub(root, arguments, xet)
        try:
            hub.start()
            yield hub
        finally:
            hub.stop()
