"""Every request of a publish, broken in every way: what stands on the Hub afterwards, and what the publisher says."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fault_worker import FAULTS

# All cases take some 12 minutes on two cores: FAULTS=all asks for them, else every twenty-fourth is tried.
ALL = os.environ.get("FAULTS") == "all"
EVERY = 1 if ALL else 24
# So many publishers at once: most of their time they wait, but each has to start, and loads PyTorch for ten seconds.
WORKERS = 4 if ALL else 1


class Worker:
    """A publisher in a process of its own, with its own Hub."""

    def __init__(self, run: Path, transport: str):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fault_worker.py")), str(run), transport],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        )

    def ask(self, case: dict) -> dict:
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def try_all(workers: list[Worker], cases: list[dict]) -> list[dict]:
    """What came of each case."""
    waiting, found = queue.Queue(), []
    for case in cases:
        waiting.put(case)

    def work(worker):
        with contextlib.suppress(queue.Empty):
            while True:
                case = waiting.get_nowait()
                try:
                    found.append(worker.ask(case))
                except ValueError:
                    found.append(case | {"died": True})
                    return

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def wrong(found: dict) -> str | None:
    """What is wrong with the outcome of a case; None if nothing is."""
    if found.get("died"):
        return "the publisher died"
    state, last, whole = found["state"], found["last"], {"commits": 2, "release": True, "tags": ["v1"]}

    def is_whole(state):
        return {key: state[key] for key in whole} == whole

    if not found["broken"] and "the time limit" not in last:
        return "nothing was broken"
    if found["trace"]:
        return "a traceback"
    if found["code"] == 0:
        return None if is_whole(state) and last.startswith(("Published", "Unchanged")) else "not published, but says so"
    untouched = state["commits"] <= 1 and set(state["files"]) <= {".gitattributes"} and not state["tags"]
    if not (untouched or (state["release"] and state["commits"] == 2)):
        return "half published"
    if found["code"] != 1 or not last.startswith("error: "):
        return "no error line"
    if found["route"] == "whoami":
        return None if untouched else "half published"
    told = {"is committed, but not checked": state["release"], "no file of a release was changed": untouched,
            "is not known": found["fault"] == "500 always" and found["route"] == "info"}  # fmt: skip
    if [truth for words, truth in told.items() if words in last] != [True]:
        return "the last line does not tell the truth"
    if found["again"]["code"] or not is_whole(found["then"]):
        return "the next run does not complete it"
    if found["fault"] not in ("500 always", "412"):
        return "gives up on what passes"
    return None


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("transport", ["xet", "lfs"])
def test_a_broken_request_leaves_the_repository_untouched_or_released(run, transport):
    workers = [Worker(run, transport) for _ in range(WORKERS)]
    try:
        # The second time the Hub knows most bytes and the client the base model, as in every case after.
        requests = [worker.ask({"number": number})["requests"] for number in (0, 1) for worker in workers][-1]
        kinds = list(dict.fromkeys(map(tuple, requests)))
        places = [(*kind, skip) for kind in kinds for skip in sorted({0, requests.count(list(kind)) - 1})]
        cases = [
            {"number": number, "route": route, "method": method, "skip": skip, "fault": fault}
            for number, (fault, (route, method, skip)) in enumerate(
                ((fault, place) for fault in FAULTS for place in places), start=2
            )
        ]
        found = try_all(workers, cases[::EVERY])
    finally:
        for worker in workers:
            worker.end()
    if path := os.environ.get("FAULTS_TO"):
        Path(f"{path}.{transport}.json").write_text(json.dumps(found))
    assert {"commit", "preupload", "create", "tag", "resolve", "info", "validate_yaml"} <= {route for route, _ in kinds}
    bad = [(reason, {key: one.get(key) for key in ("route", "method", "skip", "fault", "code", "last", "state")})
           for one in found if (reason := wrong(one))]  # fmt: skip
    assert not bad, "\n".join(map(str, bad))
    assert len(found) == len(cases[::EVERY])
