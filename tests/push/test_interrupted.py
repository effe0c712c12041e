"""Publishers that are killed, that meet, and that go on for long."""

import gc
import os
import random
import resource
import tempfile
import time
from pathlib import Path

import pytest
import short_runs
from huggingface_hub import HfApi
from publishers import publisher
from short_runs import copy_of

from push import delivery, repository
from record.run_record import load_record

# One in each equal part of a publish.
MOMENTS = 20 if os.environ.get("FAULTS") == "all" else 8
# A thousand take some 20 minutes: ROUNDS=1000 asks for them.
WARM, ROUNDS = 5, int(os.environ.get("ROUNDS", "10"))


def finish(process) -> int:
    process.join(120)
    return process.exitcode


def commits(repo_id: str) -> int:
    return len(HfApi().list_repo_commits(repo_id)) if HfApi().repo_exists(repo_id) else 0


@pytest.mark.timeout(600)
def test_killed_at_any_moment_it_is_untouched_or_released_and_the_next_run_completes_it(run, tmp_path):
    peace = publisher(copy_of(run, tmp_path / "peace", "in-peace"), tmp_path / "peace.log")
    peace.start()
    assert finish(peace) == 0, (tmp_path / "peace.log").read_text()
    began = time.monotonic()
    again = publisher(copy_of(run, tmp_path / "again", "in-peace-again"), tmp_path / "again.log")
    again.start()
    assert finish(again) == 0
    whole = time.monotonic() - began
    moments = random.Random(5)
    found = {"untouched": 0, "released": 0}
    for number in range(MOMENTS):
        folder = copy_of(run, tmp_path / f"run-{number}", f"killed-{number}")
        repo_id, log = f"local-user/killed-{number}", tmp_path / f"{number}.log"
        process = publisher(folder, log)
        process.start()
        time.sleep((number + moments.random()) / MOMENTS * whole)
        process.kill()
        process.join()
        # The files first: a commit that was under way when its publisher died may still land.
        there = set(HfApi().list_repo_files(repo_id)) if commits(repo_id) else set()
        if commits(repo_id) <= 1:
            assert there <= {".gitattributes"}
            found["untouched"] += 1
        else:
            assert commits(repo_id) == 2 and repository.holds(HfApi(), repo_id, "main", folder / "release")
            found["released"] += 1
        completing = publisher(folder, log)
        completing.start()
        assert finish(completing) == 0, log.read_text()
        assert log.read_text().splitlines()[-1].startswith(("Published", "Unchanged"))
        assert commits(repo_id) == 2 and repository.holds(HfApi(), repo_id, "main", folder / "release")
        assert [tag.name for tag in HfApi().list_repo_refs(repo_id).tags] == ["v1"]
        assert not list(folder.glob(f"{delivery.CHECKED}*"))
    assert min(found.values()) > 0, found


@pytest.mark.parametrize("before", ["nothing", "a release"])
def test_of_two_publishers_at_once_one_wins_and_the_other_is_told(run, tmp_path, hub, before):
    name = f"contested-{before.replace(' ', '-')}"
    repo_id, api = f"local-user/{name}", HfApi()
    if before == "a release":
        short_runs.publish(copy_of(run, tmp_path / "old", name))
    # Both have looked before either commits.
    hub.fault("create" if before == "nothing" else "preupload", "delay", seconds=3, times=2)
    runs = [copy_of(run, tmp_path / f"{seconds}", name, seconds) for seconds in (1, 2)]
    logs = [tmp_path / f"{number}.log" for number in range(2)]
    processes = [publisher(*pair) for pair in zip(runs, logs, strict=True)]
    for process in processes:
        process.start()
    codes = [finish(process) for process in processes]
    hub.clear_faults()
    told = [log.read_text() for log in logs]
    assert sorted(codes) == [0, 1], told
    winner, loser = codes.index(0), codes.index(1)
    assert repository.holds(api, repo_id, "main", runs[winner] / "release")
    assert commits(repo_id) == (2 if before == "nothing" else 3)
    line = told[loser].splitlines()[-1]
    assert line.startswith(f"error: local-user published {repo_id}@") and "no file of a release was changed" in line


def test_one_run_is_published_by_one_process_at_a_time(run, tmp_path, hub):
    folder = copy_of(run, tmp_path / "run", "one-at-a-time")
    hub.fault("preupload", "delay", seconds=4)
    first = publisher(folder, tmp_path / "first.log")
    first.start()
    while not (folder / "release" / "README.md").is_file():
        time.sleep(0.05)
    second = publisher(folder, tmp_path / "second.log")
    second.start()
    assert finish(second) == 1 and "is being published by another process" in (tmp_path / "second.log").read_text()
    assert finish(first) == 0, (tmp_path / "first.log").read_text()


@pytest.mark.timeout(600 + 10 * ROUNDS)
def test_many_releases_leave_no_memory_files_or_folders_behind(run, tmp_path, monkeypatch):
    folder, temporary = copy_of(run, tmp_path / "run", "many"), tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    def release() -> None:
        record = load_record(folder)
        record.training.seconds += 1
        record.save(folder)
        short_runs.publish(folder)

    def footprint() -> dict[str, object]:
        gc.collect()
        return {
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "temporary": sorted(path.name for path in temporary.iterdir()),
            "run": sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")),
        }

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    for _ in range(WARM):
        release()
    before, memory = footprint(), resident()
    for _ in range(ROUNDS):
        release()
    after = footprint()
    # The client's connections come and go.
    assert after.pop("descriptors") <= before.pop("descriptors") + 5
    assert after == before
    grown = resident() - memory
    print(f"{ROUNDS} releases: {grown / 2**20:.1f} MiB more")
    # What a hundred bytes of tag and commit a release come to, and the allocator's play.
    assert grown < 2**20 * (40 + ROUNDS / 20)
    assert commits("local-user/many") == 1 + WARM + ROUNDS
    assert repository.holds(HfApi(), "local-user/many", "main", folder / "release")
