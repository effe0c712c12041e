"""Server processes: start one, find the one that serves a root, share it, and stop it when nobody uses it any more.

Three lock files in the root, released by the kernel however a process ends:

    server.lock   held by the server while it lives: a root has one server
    in_use.lock   held, shared, by every command that uses a server; one started on demand stops when nobody holds it
    start.lock    held while a server is looked for, started or stopped, so that these never overlap
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

START_SECONDS = 120
WATCH_SECONDS = 0.3

# Settings of the user that would mix accounts or caches, or keep the clients from asking at all.
LEFT_OUT = frozenset(
    [
        *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_STORED_TOKENS_PATH"),
        *("HF_OIDC_RESOURCE", "HF_OIDC_ID_TOKEN"),
        *("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE", "HF_DATASETS_CACHE"),
        *("HF_MODULES_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"),
    ]
)


class CannotServe(Exception):
    """The server cannot run; the message says why in one line."""


# A server's life in order: lock, listen, seed, announce, serve.
def serve(
    root: Path,
    port: int,
    users: list[str],
    seeded: bool = True,
    while_in_use: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Serve a root on 127.0.0.1 until told to stop; ``port`` 0 takes a free one. Raises CannotServe."""
    import uvicorn

    from . import access, app, durable, protocol, seed
    from .store import Store
    from .web import Settings

    root.mkdir(parents=True, exist_ok=True)
    lock = (root / "server.lock").open("a")
    if not _try_lock(lock):
        raise CannotServe(f"{root} is served already, at {_recorded(root).get('url', 'an unknown address')}")
    listener = _listen(port)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    store = Store(root)
    for user in users:
        access.add_user(root, user)
    if seeded:
        seed.seed_miniatures(store)
    secret = os.environ.get("LOCAL_HUB_ADMIN_SECRET")
    config = uvicorn.Config(
        app.build(store, Settings(admin_secret=secret, **(settings or {}))),
        http=protocol.Protocol,
        loop="asyncio",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        # Longer than the clients keep one (5 s), or a POST, which they do not repeat, may meet a closing connection.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    if while_in_use:
        threading.Thread(target=_stop_when_unused, args=(root, server), daemon=True).start()
    durable.write_json(root / "server.json", {"url": url, "pid": os.getpid(), "while_in_use": while_in_use})
    if users:
        token = access.users(root)[users[0]]["write"]
        print(
            f"Local Hub at {url} (for clients: HF_ENDPOINT={url} HF_TOKEN={token} HF_HOME={root / 'hf_home'})",
            flush=True,
        )
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    # A server that was killed a moment ago leaves its port in TIME_WAIT.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise CannotServe(f"port {port} is taken: stop what listens there or choose another with --port") from None
    return listener


def _try_lock(file: IO[str], kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stop_when_unused(root: Path, server: Any) -> None:
    # Files stay open, and so locked, until the process has ended: nobody can start using a server that is going away.
    while True:
        time.sleep(WATCH_SECONDS)
        start, in_use = (root / "start.lock").open("a"), (root / "in_use.lock").open("a")
        if _try_lock(start) and _try_lock(in_use):
            server.should_exit = True
            threading.Event().wait()
        start.close()
        in_use.close()


def _recorded(root: Path) -> dict[str, Any]:
    try:
        return json.loads((root / "server.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}


def is_served(root: Path) -> bool:
    """Whether a server of this root lives, ready or not."""
    if not (root / "server.lock").exists():
        return False
    with (root / "server.lock").open("a") as lock:
        return not _try_lock(lock)


def _answers(root: Path, url: str) -> bool:
    # Our server, and not another one that came to have its old port, knows the id of the store in this root.
    try:
        store = json.loads((root / "store.json").read_text())["id"]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{url}/__hub__/health", timeout=5) as reply:
            return json.load(reply)["store"] == store
    except (OSError, ValueError, KeyError):
        return False


def _stop(root: Path) -> None:
    # Whoever uses a server last stops it, and returns when it is gone; it may be another command's child.
    with contextlib.suppress(ProcessLookupError):
        os.kill(_recorded(root)["pid"], signal.SIGTERM)
    with (root / "server.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def wait_until_ready(root: Path, process: subprocess.Popen[bytes] | None, log: Path) -> str:
    """Wait until the server of a root answers; its address. Raises CannotServe if it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        url = _recorded(root).get("url")
        if url and is_served(root) and _answers(root, url):
            return url
        if process is not None and process.poll() is not None:
            break
        time.sleep(0.05)
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    raise CannotServe(f"the local Hub did not start: {lines[-1] if lines else f'no answer after {START_SECONDS} s'}")


def spawn(root: Path, arguments: list[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a server process for a root; what it prints goes to ``ROOT/server.log``."""
    package_parent = str(Path(__file__).resolve().parents[1])
    environment = dict(os.environ if environment is None else environment)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package_parent, environment.get("PYTHONPATH")]))
    (root / "server.json").unlink(missing_ok=True)
    with (root / "server.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "local_hub", "serve", "--root", str(root), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A Ctrl-C at the terminal is for the command; the server stops after it, when nobody uses it any more.
            start_new_session=True,
        )


@contextlib.contextmanager
def using(root: Path, arguments: list[str]) -> Iterator[str]:
    """A server for a root, as its address: the one that serves it, else one started for as long as anybody uses it."""
    root.mkdir(parents=True, exist_ok=True)
    process = None
    with (root / "start.lock").open("a") as start, (root / "in_use.lock").open("a") as in_use:
        fcntl.flock(start, fcntl.LOCK_EX)
        fcntl.flock(in_use, fcntl.LOCK_SH)
        if not is_served(root):
            process = spawn(root, ["--port", "0", "--while-in-use", *arguments])
        try:
            url = wait_until_ready(root, process, root / "server.log")
        except BaseException:
            if process is not None:
                process.kill()
                process.wait()
            raise
        fcntl.flock(start, fcntl.LOCK_UN)
        try:
            yield url
        finally:
            fcntl.flock(start, fcntl.LOCK_EX)
            fcntl.flock(in_use, fcntl.LOCK_UN)
            if is_served(root) and _recorded(root).get("while_in_use") and _try_lock(in_use):
                _stop(root)
                if process is not None:
                    process.wait()


def client_environment(url: str, token: str | None, hf_home: Path, base: Mapping[str, str]) -> dict[str, str]:
    """``base`` with what makes the unmodified clients use the Hub at ``url`` and nothing else."""
    environment = {key: value for key, value in base.items() if key not in LEFT_OUT}
    direct = [part for part in base.get("NO_PROXY", base.get("no_proxy", "")).split(",") if part]
    no_proxy = ",".join(dict.fromkeys([*direct, "127.0.0.1", "localhost"]))
    environment |= {
        "HF_ENDPOINT": url,
        "HF_HOME": str(hf_home),
        # Without it datasets reports each load to s3.amazonaws.com.
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        # Without it transformers opens a pull request, from a thread, on a repository without safetensors.
        "DISABLE_SAFETENSORS_CONVERSION": "1",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
    }
    if token:
        environment["HF_TOKEN"] = token
    return environment
