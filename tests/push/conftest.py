"""Fixtures import what imports the Hub's client themselves: pytest may load this file before the Hub has started."""

import shutil

import pytest

from record.errors import UserError

# The rest is imported by those who use it: pytest reads this file before it starts the Hub, whose address the clients
# read when they are imported.


@pytest.fixture(scope="session")
def run(scored_run, tmp_path_factory):
    return shutil.copytree(scored_run, tmp_path_factory.mktemp("runs") / "finance")


@pytest.fixture(scope="session")
def staged(run, tmp_path_factory):
    from push.release import stage

    folder = tmp_path_factory.mktemp("staged") / "release"
    return folder, stage(run, "local-user/flan-t5-large-finance", None, folder)


@pytest.fixture
def release(staged, tmp_path):
    folder = tmp_path / "release"
    shutil.copytree(staged[0], folder)
    return folder


@pytest.fixture
def refused(release, staged, run):
    """Plants something into a copy of the release; returns the one line that refuses it."""
    from push.leaks import refuse_leaks

    def plant(planting, *arguments) -> str:
        planting(release, *arguments)
        with pytest.raises(UserError) as error:
            refuse_leaks(release, run, staged[1])
        line = str(error.value)
        assert "\n" not in line and ": " in line
        return line

    return plant
