"""Real clients against a real server, one of its own for each test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_processes import Clients

from local_hub.testing import Hub, running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder for a client's ``HF_HOME``, which is also where it runs."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """An empty hub with users alice and bob, whose clients use Xet."""
    with running(tmp_path / "hub", users=["alice", "bob"]) as started:
        yield started


@pytest.fixture(params=["xet", "lfs"])
def either_hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hub]:
    """An empty hub; the test runs once with clients that use Xet and once with clients that use LFS."""
    with running(tmp_path / "hub", users=["alice", "bob"], xet=request.param == "xet") as started:
        yield started


@pytest.fixture
def clients(request: pytest.FixtureRequest, home: Path) -> Clients:
    """Clients of the test's hub."""
    name = "either_hub" if "either_hub" in request.fixturenames else "hub"
    return Clients(request.getfixturevalue(name), home)


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests away from the clients."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUB_", "LOCAL_HUB_", "HUGGING")):
            monkeypatch.delenv(name)
