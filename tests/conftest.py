"""Every test process has a local Hub of its own, seeded with the miniatures; nothing else can be reached."""

import contextlib
import ipaddress
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

HUB = pytest.StashKey()
CLEANUP = pytest.StashKey()
# Files of a minute or more on two cores (`--durations`).
LONGEST = (
    "test_every_recipe.py", "test_fault_matrix.py", "test_interrupted.py", "test_scoring_processes.py",
    "test_forgeries.py", "test_vouch.py", "test_demo.py", "test_newcomer.py", "test_real_data.py", "test_sweep.py",
    "test_results.py", "test_settings.py", "test_every_family.py", "test_clients.py", "test_forgeries_generated.py",
)  # fmt: skip


def pytest_configure(config):
    """Starts the Hub before any test module imports a client: clients read HF_ENDPOINT and HF_HOME at import."""
    config.stash[CLEANUP] = cleanup = contextlib.ExitStack()
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    from local_hub.miniatures import repositories
    from local_hub.testing import running

    root = Path(tempfile.mkdtemp(prefix="hub-"))
    cleanup.callback(shutil.rmtree, root, ignore_errors=True)
    config.stash[HUB] = hub = cleanup.enter_context(running(root, repositories()))
    # The tests compare bits and losses on the CPU; a GPU's own rounding would only blur them.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # Several processes share the cores; threads that wait for each other would spin.
    os.environ["OMP_NUM_THREADS"] = "1"
    # Hundreds of processes load this project's modules: they are compiled for the first alone.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.update(hub.env(root / "home", hub.token("local-user")))
    _only_loopback()


def pytest_xdist_auto_num_workers(config):
    """Half as many again as there are cores: a good part of the tests' time is waiting, for a process or a server."""
    return 3 * (os.cpu_count() or 1) // 2


def pytest_unconfigure(config):
    config.stash[CLEANUP].close()


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker waits for one at the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def _only_loopback():
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = "127.0.0.1" if address[0] == "localhost" else address[0]
            try:
                loopback = ipaddress.ip_address(host).is_loopback
            except ValueError:
                loopback = False
            assert loopback, f"a test tried to reach {address}"
        return connect(self, address)

    socket.socket.connect = guarded


@pytest.fixture(scope="session")
def hub(request):
    """The local Hub that this process's clients talk to."""
    return request.config.stash[HUB]


@pytest.fixture(scope="session")
def scored_run(hub, tmp_path_factory):
    """A short run of recipes/finance.yaml, trained and scored once a process: whoever changes it copies it."""
    from short_runs import train_short

    from evaluation import evaluate

    folder = train_short(tmp_path_factory.mktemp("scored") / "finance")
    evaluate.main([str(folder)])
    return folder


@pytest.fixture(scope="session")
def trained_on_few_rows(hub, tmp_path_factory):
    """A run of a quarter of the rows: a check of it takes a second. Whoever changes it copies it."""
    from short_runs import FEW_ROWS, train_short

    return train_short(tmp_path_factory.mktemp("few") / "finance", "--per_device_train_batch_size", "4", *FEW_ROWS)


@pytest.fixture(scope="session")
def scored_on_few_rows(trained_on_few_rows, tmp_path_factory):
    """The same, scored."""
    from evaluation import evaluate

    folder = shutil.copytree(trained_on_few_rows, tmp_path_factory.mktemp("few") / "finance")
    evaluate.main([str(folder)])
    return folder
