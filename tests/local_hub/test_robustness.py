"""What a Hub must stand: a full disk, malformed requests, and clients that ask too often."""

import resource
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from client_processes import Clients

from local_hub.testing import Hub, running


def leftovers(root: Path) -> list[str]:
    """Files of the hub that no finished upload has: temporary ones, and large files that were not taken."""
    paths = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    return [str(path) for path in paths if path.parts[0] == "tmp" or path.name.startswith(".") or "lfs" in path.parts]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """An empty hub whose clients use LFS: hf_xet repeats what is refused for minutes."""
    with running(tmp_path / "hub", users=["alice"], xet=False) as started:
        yield started


def test_a_full_disk_is_told_and_nothing_stays_of_the_upload(hub: Hub, clients: Clients) -> None:
    def upload(size: int, binary: bool) -> int:
        import os

        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        try:
            data = os.urandom(size) if binary else os.urandom(size // 2).hex().encode()
            HfApi().upload_file(path_or_fileobj=data, path_in_repo="a.x", repo_id="alice/m")
        except (HfHubHTTPError, RuntimeError) as error:
            # The client wraps what an upload of a large file is refused by.
            cause = error if isinstance(error, HfHubHTTPError) else error.__cause__
            return cause.response.status_code
        return 200

    def create() -> str:
        from huggingface_hub import HfApi

        HfApi().create_repo("alice/m")
        return HfApi().model_info("alice/m").sha

    def head() -> str:
        from huggingface_hub import HfApi

        return HfApi().model_info("alice/m").sha

    commit = clients(create)
    before, process = leftovers(hub.root), hub._process
    # A limit on the size of files is met as a full disk is: the write fails.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    assert clients(upload, 3_000_000, True) == 507
    assert clients(upload, 3_000_000, False) == 507
    assert leftovers(hub.root) == before
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert clients(head) == commit
    assert clients(upload, 3_000_000, True) == 200


BODIES = [b"", b"{", b"[]", b"7", b"[" * 100_000, b"\xff\xfe", b'{"organization": 7, "name": [], "toRepo": null}']
REPO = "/api/models/alice/m/"
LFS = "/alice/m.git/info/lfs/objects/batch"
PLACES = ["/api/repos/create", "/api/repos/move", "/api/repos/delete", "/api/validate-yaml", "/api/collections",
          "/oauth/token", LFS, "/lfs/x/verify", "/lfs/x/complete", *(REPO + end for end in (
              "user-access-request/grant", "preupload/main", "commit/main", "paths-info/main", "tag/main", "branch/x",
              "discussions", "discussions/1/comment", "discussions/1/status", "discussions/9" + "9" * 30))]  # fmt: skip
REQUESTS = [
    *(("POST", path, body) for path in PLACES for body in BODIES),
    ("PUT", f"{REPO}settings", b'{"gated": {}}'),
    ("PUT", f"{REPO}settings", b"7"),
    ("PUT", "/lfs/x/part/1", b""),
    ("POST", f"{REPO}preupload/main", b'{"files": [{}]}'),
    ("POST", f"{REPO}preupload/main", b'{"files": [{"path": 7, "size": "x", "sample": "%"}]}'),
    ("POST", f"{REPO}commit/main", b'{"key": "header"}'),
    ("POST", f"{REPO}commit/main", b'{"key": "file", "value": {"path": 7, "content": "%", "encoding": "base64"}}'),
    ("POST", f"{REPO}tag/main", b'{"tag": []}'),
    ("POST", f"{REPO}branch/y", b'{"startingPoint": 7}'),
    ("POST", f"{REPO}discussions", b'{"title": 7, "pullRequest": "x"}'),
    ("POST", f"{REPO}user-access-request/grant", b'{"user": []}'),
    ("POST", LFS, b'{"operation": "upload", "objects": [7]}'),
    ("POST", LFS, b'{"operation": "upload", "objects": [{"oid": 7, "size": []}]}'),
    ("POST", "/api/validate-yaml", b'{"content": 7, "repoType": []}'),
    ("POST", "/api/collections", b'{"title": {}, "private": "x"}'),
]
QUERIES = [
    "/api/models?limit=x",
    "/api/models?cursor=x",
    "/api/models?limit=-1",
    "/api/models/alice/m/tree/main?cursor=x:y",
    "/api/models/alice/m/tree/main?limit=x",
    "/api/models/alice/m/commits/main?p=x",
    "/api/collections?cursor=%00",
    "/api/models/alice/m/discussions?p=x",
    "/alice/m/resolve/main/%00",
    "/alice/m/resolve/%00/a",
    "/%00/%00",
    "/api/models/%ff/m",
    "/alice/m/resolve/main/%ff",
    "/xet/x/v1/reconstructions/x",
    "/api/models/alice/m/refs?%ff",
]


def test_a_malformed_request_is_refused_and_is_no_failure_of_the_server(hub: Hub) -> None:
    headers = {"Authorization": f"Bearer {hub.token('alice')}", "Content-Type": "application/json"}
    with httpx2.Client(base_url=hub.url, headers=headers, trust_env=False, timeout=30) as client:
        assert client.post("/api/repos/create", json={"name": "m"}).status_code == 200
        requests = [*REQUESTS, *(("GET", path, b"") for path in QUERIES)]
        statuses = {request: client.request(*request[:2], content=request[2]).status_code for request in requests}
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for body in (b"paths=%ff&expand=x", b"\xff"):
            answer = client.post("/api/models/alice/m/paths-info/main", content=body, headers=form)
            statuses["POST", "form", body] = answer.status_code
        assert not {request: status for request, status in statuses.items() if status >= 500}
        assert {400, 404, 422} <= set(statuses.values())
        assert client.get("/api/models/alice/m").status_code == 200


def test_who_asks_too_often_is_told_until_when_to_wait(hub: Hub, clients: Clients) -> None:
    def ask() -> list:
        import time

        from huggingface_hub import HfApi
        from huggingface_hub.utils import get_session, http_backoff, parse_ratelimit_headers

        HfApi().create_repo("alice/m")
        url = f"{HfApi().endpoint}/api/models/alice/m"
        answers = [get_session().get(url)]
        while answers[-1].status_code == 200 and len(answers) < 9:
            answers.append(get_session().get(url))
        infos = [parse_ratelimit_headers(answer.headers) for answer in (answers[0], answers[-1])]
        start = time.monotonic()
        waited = http_backoff("GET", url).status_code
        return [
            [answers[0].status_code, answers[-1].status_code],
            [(info.resource_type, info.remaining, info.limit, info.window_seconds) for info in infos],
            waited,
            time.monotonic() - start > 1,
            get_session().get(f"{HfApi().endpoint}/alice/m/resolve/main/.gitattributes").status_code,
        ]

    hub.limit(api=3, resolvers=9, seconds=4)
    statuses, infos, waited, long, file = clients(ask)
    assert (statuses, waited, long, file) == ([200, 429], 200, True, 200)
    assert [infos[0][0], *infos[0][2:]] == ["api", 3, 4] and infos[1] == ["api", 0, 3, 4]
    hub.clear_limits()
