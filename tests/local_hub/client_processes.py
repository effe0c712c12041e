"""Client processes: the tests' clients run in processes of their own, since they read their environment on import."""

import inspect
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import preloaded

from local_hub.testing import Hub


class Clients:
    """Runs functions in client processes that use one hub, with one ``HF_HOME`` for all of a test's clients."""

    def __init__(self, hub: Hub, home: Path):
        self.hub = hub
        self.home = home

    def __call__(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        user: str | None = "alice",
        role: str = "write",
        home: Path | None = None,
        **environment: str,
    ) -> Any:
        """What ``function`` returns in a client process, through JSON; ``user`` None is not signed in.

        The function's source is all that the process gets: it imports what it needs, and sees no variable of the test.
        """
        done = preloaded.run(*self._program(function, arguments, user, role, home, environment), self.home)
        return self._result(done.returncode, done.stdout, done.stderr)

    def start(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        user: str | None = "alice",
        role: str = "write",
        home: Path | None = None,
        **environment: str,
    ) -> subprocess.Popen[str]:
        """Start a client process that the test can look at and kill."""
        code, variables = self._program(function, arguments, user, role, home, environment)
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env=variables,
            cwd=self.home,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def _program(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        user: str | None,
        role: str,
        home: Path | None,
        environment: dict[str, str],
    ) -> tuple[str, dict[str, str]]:
        source = textwrap.dedent(inspect.getsource(function))
        call = f"{function.__name__}(*json.loads({json.dumps(arguments)!r}))"
        code = f"import json\n{source}\nprint('\\nRESULT' + json.dumps({call}))"
        token = self.hub.token(user, role) if user else None
        return code, self.hub.env(home or self.home, token, **environment)

    def _result(self, code: int, out: str, err: str) -> Any:
        assert code == 0, err + (self.hub.root / "server.log").read_text(errors="replace")
        return json.loads(out.rpartition("\nRESULT")[2])

    def command(
        self, *argv: str, user: str | None = "alice", role: str = "write", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the ``hf`` command line."""
        token = self.hub.token(user, role) if user else None
        program = str(Path(sys.executable).with_name("hf"))
        environment = self.hub.env(self.home, token, **environment)
        return subprocess.run(
            [program, *argv], env=environment, cwd=self.home, text=True, capture_output=True, timeout=120
        )
