"""A published adapter, a run that was not published and adds a token, and services that answer with them."""

import shutil

import pytest
from short_runs import SHORT, publish, train_short

from benchmarks.load import Process, running
from evaluation import score
from recipes import train
from recipes.record import load_record


@pytest.fixture(scope="session")
def finance(tmp_path_factory):
    run = train_short(tmp_path_factory.mktemp("serving") / "finance", "--learning_rate", "0.01")
    score.main([str(run)])
    publish(run)
    return "local-user/flan-t5-large-finance"


@pytest.fixture(scope="session")
def text2sql(tmp_path_factory):
    run = tmp_path_factory.mktemp("serving") / "text2sql"
    train.main(["--config", "recipes/text2sql.yaml", "--output_dir", str(run), *SHORT])
    return run


@pytest.fixture(scope="session")
def tight(finance):
    """A service with one slot, and two seconds for an answer."""
    process = Process([finance], "--slots", "1", "--queue", "64", "--timeout", "2")
    process.start()
    yield process
    process.end()


@pytest.fixture(scope="session")
def service(finance, text2sql, tight):
    # `tight` starts at the same time.
    with running([f"{finance}@main", str(text2sql)], "--slots", "8") as process:
        yield process


@pytest.fixture(scope="session")
def run_on_another_base(text2sql, tmp_path_factory):
    """A copy of a run whose record names another commit of the base model."""
    folder = tmp_path_factory.mktemp("serving") / "other"
    shutil.copytree(text2sql, folder)
    record = load_record(folder)
    record.pins.base_model.revision = "0" * 40
    record.save(folder)
    return folder
