"""The commands `serve` and `run`: one server per root, shared, seeded, and gone when it should be."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from client_processes import Clients

from local_hub.server import is_served
from local_hub.testing import running

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A root that no server serves any more when the test is over."""
    folder = tmp_path / "root"
    yield folder
    if is_served(folder):
        os.kill(json.loads((folder / "server.json").read_text())["pid"], signal.SIGKILL)


def start(*arguments: str, **more: str) -> subprocess.Popen[str]:
    """Start `python -m local_hub`."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), **more}
    command = [sys.executable, "-m", "local_hub", *arguments]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, output and errors of a started command."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out.strip(), err.strip()


def run(root: Path, code: str, *options: str, **more: str) -> subprocess.Popen[str]:
    """Start `python -m local_hub run` with a Python program."""
    return start("run", "--no-seed", "--root", str(root), *options, "--", sys.executable, "-c", code, **more)


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_run_gives_the_environment_and_the_exit_status(root: Path, tmp_path: Path) -> None:
    """The command is signed in and has its own cache; its exit status is passed on; the server is gone after it."""
    code = (
        "import os, sys; from huggingface_hub import HfApi; a = HfApi()\n"
        "print(a.whoami()['name'], a.create_repo('carol/x').repo_id, os.environ['HF_HOME'], a.endpoint)\n"
        "sys.exit(7)"
    )
    status, out, err = finish(run(root, code, HUB_USER="carol"))
    name, repository, home, endpoint = out.split()
    assert (status, name, repository, home) == (7, "carol", "carol/x", str(root / "hf_home")), err
    assert endpoint.startswith("http://127.0.0.1:")
    assert not is_served(root)

    other = tmp_path / "other_home"
    status, out, err = finish(run(root, "import os; print(os.environ['HF_HOME'])", "--hf-home", str(other)))
    assert (status, out) == (0, str(other)), err

    code = "import os; print([os.environ.get(n) for n in ('HF_UPDATE_DOWNLOAD_COUNTS', 'HF_HUB_OFFLINE')])"
    assert finish(run(root, code, HF_HUB_OFFLINE="1"))[1] == "['0', None]"


def test_repositories_outlive_the_server(root: Path) -> None:
    """What one run made the next one finds."""
    code = "from huggingface_hub import HfApi; HfApi().create_repo('local-user/kept', exist_ok={})"
    assert finish(run(root, code.format(False)))[0] == 0
    status, _, err = finish(run(root, code.format(False)))
    assert status == 1
    assert "409" in err


def test_concurrent_runs_share_one_server(root: Path) -> None:
    """Three at once have one address; the server stays until the last has ended, and goes then."""
    code = "import os, time; print(os.environ['HF_ENDPOINT'], flush=True); time.sleep({})"
    processes = [run(root, code.format(seconds)) for seconds in (0, 0.5, 2)]
    first, second, last = processes
    addresses = {process.stdout.readline().strip() for process in processes if process.stdout}
    assert len(addresses) == 1
    assert [finish(first)[0], finish(second)[0]] == [0, 0]
    assert is_served(root)
    assert finish(last)[0] == 0
    assert not is_served(root)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_with_the_run(root: Path, number: signal.Signals) -> None:
    """Stopped or killed, a run leaves no server behind; stopped, it stops its command too."""
    process = run(root, "import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    assert process.stdout
    command = int(process.stdout.readline())
    assert is_served(root)
    process.send_signal(number)
    process.wait(timeout=30)
    assert process.returncode == (143 if number == signal.SIGTERM else -9)
    assert wait_for(lambda: not is_served(root))
    with contextlib.suppress(ProcessLookupError):
        os.kill(command, signal.SIGKILL)
        assert number == signal.SIGKILL


def test_serve(root: Path, tmp_path: Path) -> None:
    """The foreground server says where it is, is used by runs, which leave it alone, and ends on Ctrl-C."""
    server = start("serve", "--no-seed", "--root", str(root), "--port", "0")
    assert server.stdout
    line = server.stdout.readline()
    url = line.split()[3]
    assert url.startswith("http://127.0.0.1:")
    assert f"HF_ENDPOINT={url} HF_TOKEN=hf_" in line
    assert finish(run(root, "import os; print(os.environ['HF_ENDPOINT'])"))[1] == url
    assert is_served(root)

    again = finish(start("serve", "--no-seed", "--root", str(root), "--port", "0"))
    assert again == (1, "", f"local_hub: {root} is served already, at {url}")
    port = url.rpartition(":")[2]
    taken = finish(start("serve", "--no-seed", "--root", str(tmp_path / "second"), "--port", port))
    expected = f"local_hub: port {port} is taken: stop what listens there or choose another with --port"
    assert taken == (1, "", expected)

    server.send_signal(signal.SIGINT)
    assert finish(server)[0] == 0
    assert not is_served(root)


def test_a_stale_record_is_not_believed(root: Path) -> None:
    """After a kill another program may have the old port: a run starts a server of its own."""
    server = start("serve", "--no-seed", "--root", str(root), "--port", "0")
    assert server.stdout
    url = server.stdout.readline().split()[3]
    server.kill()
    server.wait()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", int(url.rpartition(":")[2])))
        squatter.listen()
        status, out, err = finish(run(root, "import os; print(os.environ['HF_ENDPOINT'])"))
    assert status == 0, err
    assert out != url


def test_errors_are_one_line(root: Path) -> None:
    """A command that cannot be run, and no command at all."""
    missing = finish(start("run", "--no-seed", "--root", str(root), "--", "no-such-command"))
    assert missing == (127, "", "local_hub: cannot run no-such-command: No such file or directory")
    assert not is_served(root)
    status, _, err = finish(start("run", "--root", str(root)))
    assert status == 2
    assert err.splitlines()[-1].endswith("run needs a command: python -m local_hub run -- COMMAND ...")


def test_help_is_quick_and_the_server_light() -> None:
    """No heavy import: neither for the help nor for the server."""
    start_time = time.monotonic()
    status, out, _ = finish(start("--help"))
    assert (status, "serve" in out) == (0, True)
    assert time.monotonic() - start_time < 1.5
    code = (
        "import sys, local_hub.app, local_hub.server, local_hub.seed\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'numpy', 'hf_xet') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, text=True, capture_output=True)
    assert loaded.stdout.strip() == "[]", loaded.stderr


def test_seeding(tmp_path: Path, home: Path) -> None:
    """The same bytes are the same commits anywhere; a user's commits on top stay; new content is one more commit."""

    def state():
        from pathlib import Path

        from huggingface_hub import HfApi

        api = HfApi()
        return {
            "commits": [item.commit_id for item in api.list_repo_commits("google/tiny")],
            "large": [file.path for file in api.list_repo_tree("google/tiny") if getattr(file, "lfs", None)],
            "config": Path(api.hf_hub_download("google/tiny", "config.json")).read_text(),
            "data": api.list_repo_files("acme/rows", repo_type="dataset"),
            "private": api.model_info("google/tiny").private,
        }

    def content(config: str) -> list[SimpleNamespace]:
        files = {"config.json": config.encode(), "model.safetensors": b"w" * 4000}
        data = {"train.csv": b"a\n1\n"}
        return [
            SimpleNamespace(kind="model", id="google/tiny", files=files),
            SimpleNamespace(kind="dataset", id="acme/rows", files=data),
        ]

    states = []
    for root, config in (("one", "{}"), ("two", "{}"), ("two", "{}"), ("two", '{"new": 1}')):
        with running(tmp_path / root, content(config)) as hub:
            states.append(Clients(hub, home)(state, user=None, home=home / str(len(states))))
    first, second, again, changed = states
    assert first == second == again
    assert len(first["commits"]) == 2
    assert first["large"] == ["model.safetensors"]
    assert first["data"] == [".gitattributes", "train.csv"]
    assert not first["private"]
    assert changed["commits"][1:] == first["commits"]
    assert changed["config"] == '{"new": 1}'
