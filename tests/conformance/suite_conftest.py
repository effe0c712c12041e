"""The fixtures that huggingface_hub's own tests ask for: its source distribution comes without them.

Copied next to those tests as their ``conftest.py``. HF_ENDPOINT names the local Hub, which takes the place of the
staging Hub that they are written for.
"""

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Protocol
from unittest.mock import patch

import pytest
from huggingface_hub import HfApi, RepoUrl, constants
from huggingface_hub.utils import SoftTemporaryDirectory, _auth

from . import testing_constants
from .testing_utils import repo_name

testing_constants.ENDPOINT_STAGING = os.environ["HF_ENDPOINT"]


class RepoFactory(Protocol):
    """Makes a repository that is deleted after the test."""

    def __call__(
        self, repo_type: str = "model", *, repo_id: str | None = None, token: str = ..., **options: Any
    ) -> RepoUrl: ...


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Gives each test caches and stored tokens of its own."""
    with SoftTemporaryDirectory() as home:
        for name in ("HF_HUB_CACHE", "HF_XET_CACHE", "HF_ASSETS_CACHE", "HF_TOKEN_PATH", "HF_STORED_TOKENS_PATH"):
            monkeypatch.setattr(constants, name, f"{home}/{name.lower()}")
        monkeypatch.setattr(constants, "HF_HOME", home)
        monkeypatch.setattr(_auth, "_OAUTH_REFRESH_CACHE", None)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_EXPERIMENTAL_WARNING", True)
        yield
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(autouse=True)
def xet_mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads by Xet where a test is about it; the others run as the library is installed."""
    if request.node.get_closest_marker("no_xet") and find_spec("hf_xet"):
        pytest.skip("runs without hf_xet only")
    if request.node.get_closest_marker("xet"):
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)


@pytest.fixture(autouse=True)
def expected_warning(request: pytest.FixtureRequest) -> Iterator[None]:
    """Expects the warnings about functions that a test marks as deprecated."""
    marker = request.node.get_closest_marker("deprecated")
    if marker is None:
        yield
        return
    with pytest.warns(FutureWarning):
        yield


@pytest.fixture(scope="module")
def api() -> HfApi:
    """The client of the tests' user."""
    return HfApi(endpoint=testing_constants.ENDPOINT_STAGING, token=testing_constants.TOKEN)


@pytest.fixture
def api_prod() -> HfApi:
    """A client of the real Hub."""
    return HfApi(endpoint=testing_constants.ENDPOINT_PRODUCTION)


@pytest.fixture
def repo_factory() -> Iterator[RepoFactory]:
    """Makes repositories of the tests' user, or of the owner of another token."""
    made: list[tuple[HfApi, RepoUrl]] = []

    def make(
        repo_type: str = "model",
        *,
        repo_id: str | None = None,
        token: str = testing_constants.TOKEN,
        **options: Any,
    ) -> RepoUrl:
        client = HfApi(endpoint=testing_constants.ENDPOINT_STAGING, token=token)
        if repo_type == "space":
            options.setdefault("space_sdk", "static")
        url = client.create_repo(repo_id or repo_name(), repo_type=repo_type, **options)
        made.append((client, url))
        return url

    yield make
    for client, url in made:
        client.delete_repo(url.repo_id, repo_type=url.repo_type, missing_ok=True)


@pytest.fixture
def new_repo_id(api: HfApi) -> Iterator[str]:
    """A name for a model that the test makes; it is deleted after it."""
    name = f"{testing_constants.USER}/{repo_name()}"
    yield name
    api.delete_repo(name, missing_ok=True)


@pytest.fixture(autouse=True)
def production(request: pytest.FixtureRequest) -> Iterator[None]:
    """Turns a test that is written for the real Hub to it."""
    if request.node.get_closest_marker("production") is None:
        yield
        return
    with (
        patch.object(constants, "ENDPOINT", testing_constants.ENDPOINT_PRODUCTION),
        patch.object(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            testing_constants.ENDPOINT_PRODUCTION_URL_SCHEME,
        ),
    ):
        yield
