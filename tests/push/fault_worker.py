"""One publisher and its own Hub, which breaks a request of each publish: reads cases and prints what came of them.

    python fault_worker.py RUN xet|lfs < cases, one JSON object a line

A case names the request (route, method, how many like it go before) and the fault; a case without a route is a publish
in peace, which lists the requests it made.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

FAULTS = {
    "500 once": {"action": "status", "code": 500},
    "500 always": {"action": "status", "code": 500, "times": -1},
    "429 with wait": {"action": "status", "code": 429, "headers": {"Retry-After": "1"}},
    "cut mid-body": {"action": "cut"},
    "reply lost": {"action": "lose_reply"},
    "corrupted": {"action": "corrupt"},
    "412": {"action": "status", "code": 412},
    "30 s stall": {"action": "delay", "seconds": 30},
}
# Minutes. Long enough for every fault that passes, short enough for those that do not.
LIMITS = {"500 always": 0.1, "30 s stall": 1.2}


def main(run: Path, xet: bool) -> None:
    from local_hub.miniatures import repositories
    from local_hub.testing import running

    # Tests beside this one measure times.
    os.nice(5)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        base = [content for content in repositories() if content.id == "google/flan-t5-large"]
        with running(root / "hub", base, xet=xet) as hub:
            # Silence is noticed after two seconds, so that a stall of thirty is one.
            os.environ |= hub.env(root / "home", hub.token("local-user"), HF_HUB_DOWNLOAD_TIMEOUT="2")
            from hub import retry

            retry.SILENCE = 2.0
            for line in sys.stdin:
                print(json.dumps(publish(hub, run, root, json.loads(line))), flush=True)


def publish(hub, run: Path, root: Path, case: dict) -> dict:
    """Publishes the run under a name of its own while the case's fault is in force, then once more in peace."""
    from push import publish
    from record.run_record import load_record

    name = f"case-{case['number']}"
    folder = root / name
    shutil.copytree(run, folder)
    record = load_record(folder)
    record.recipe["adapter_name"] = name
    record.save(folder)
    if "route" in case:
        limit = LIMITS.get(case["fault"], 1)
        hub.fault(case["route"], method=case["method"], skip=case["skip"], **FAULTS[case["fault"]])
    else:
        limit = 1
        hub.clear_requests()

    def run_once(limit: float):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                publish.main([str(folder), "--time-limit", str(limit)])
                code = 0
            except SystemExit as stop:
                code = stop.code
        last = (out if code == 0 else err).getvalue().strip().splitlines()[-1]
        return {"code": code, "last": last, "trace": "Traceback" in err.getvalue()}

    found = case | run_once(limit)
    requests = hub.requests()
    found["broken"] = sum("fault" in request for request in requests)
    if "route" not in case:
        found["requests"] = [[request["route"], request["method"]] for request in requests]
    hub.clear_faults()
    hub.clear_requests()
    found["state"] = state(f"local-user/{name}", folder / "release")
    if found["code"]:
        found["again"] = run_once(2)
        found["then"] = state(f"local-user/{name}", folder / "release")
    shutil.rmtree(folder)
    return found


def state(repo_id: str, release: Path) -> dict:
    """What the repository holds: its commits, and whether the newest is the release, and its tags."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    from push.repository import holds

    api = HfApi()
    try:
        info = api.model_info(repo_id)
    except RepositoryNotFoundError:
        return {"commits": 0, "files": [], "release": False, "tags": []}
    return {
        "commits": len(api.list_repo_commits(repo_id)),
        "files": sorted(sibling.rfilename for sibling in info.siblings),
        "release": holds(api, repo_id, info.sha, release),
        "tags": [tag.name for tag in api.list_repo_refs(repo_id).tags],
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "xet")
