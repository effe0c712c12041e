"""Programs, each in a fork of one process that has loaded what huggingface_hub loads, but never huggingface_hub itself.

A client reads its environment when it is imported, so each needs a process of its own; two thirds of what that takes to
start is the same for all.

    python preloaded.py    # requests from stdin, one JSON object a line; exit codes to stdout
"""

import atexit
import gc
import json
import os
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

LOADED = ("anyio.streams.tls", "anyio.to_thread", "asyncio", "filelock", "fsspec", "httpcore2", "httpx2", "tqdm.auto",
          "truststore", "typing_extensions", "yaml")  # fmt: skip


def run(code: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """What a Python program printed in a folder, and its exit code."""
    out, err = folder / "stdout", folder / "stderr"
    request = {"code": code, "environment": environment, "cwd": str(folder), "out": str(out), "err": str(err)}
    process = _preloaded()
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    ended = int(process.stdout.readline())
    return subprocess.CompletedProcess([], ended, out.read_text(), err.read_text())


@cache
def _preloaded() -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    # It ends when its input does, at the latest with this process.
    atexit.register(process.communicate)
    return process


def main() -> None:
    for name in LOADED:
        import_module(name)
    gc.freeze()
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            request = json.loads(line)
            _become(request)
            exec(request["code"], {"__name__": "__main__"})
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(request: dict) -> None:
    """What differs between two clients: environment, folder, and where they print."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.path[0] = ""
    for number, name, mode in ((0, os.devnull, "r"), (1, request["out"], "w"), (2, request["err"], "w")):
        with open(name, mode) as file:  # noqa: PTH123
            os.dup2(file.fileno(), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    main()
