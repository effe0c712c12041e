"""Reading: files and ranges of them, trees page by page, paths, commits, branches and tags."""

from pathlib import Path

import pytest
from client_processes import Clients

from local_hub.testing import Hub, running


def test_ranges_and_headers(either_hub: Hub, clients: Clients) -> None:
    """HEAD names commit, ETag and size; a range is 206 with exactly its bytes, and one past the end is 416."""

    def client(url):
        import base64

        from huggingface_hub import CommitOperationAdd, HfApi, get_hf_file_metadata, get_token, hf_hub_url
        from huggingface_hub.utils import get_session

        api = HfApi()
        api.create_repo("alice/r")
        files = [CommitOperationAdd("a.txt", b"0123456789"), CommitOperationAdd("w.bin", bytes(range(256)) * 40)]
        commit = api.create_commit("alice/r", files, commit_message="x").oid
        found = {"commit": commit}
        for name in ("a.txt", "w.bin"):
            address = hf_hub_url("alice/r", name)
            metadata = get_hf_file_metadata(address)
            found[name] = {"metadata": [metadata.commit_hash, metadata.etag, metadata.size]}
            for wanted in ("bytes=2-4", "bytes=-3", "bytes=5-", "bytes=0-999999", "bytes=99999-", "nonsense"):
                headers = {"Range": wanted, "Authorization": f"Bearer {get_token()}"}
                answer = get_session().get(address, headers=headers)
                body = base64.b64encode(answer.content).decode() if answer.is_success else None
                found[name][wanted] = [answer.status_code, answer.headers.get("content-range"), body]
        return found

    import base64
    import hashlib

    found = clients(client, either_hub.url)
    for name, data in (("a.txt", b"0123456789"), ("w.bin", bytes(range(256)) * 40)):
        size = len(data)
        etag = hashlib.sha256(data).hexdigest() if name == "w.bin" else hashlib.sha1(b"blob 10\0" + data).hexdigest()
        encoded = {
            "bytes=2-4": [206, f"bytes 2-4/{size}", data[2:5]],
            "bytes=-3": [206, f"bytes {size - 3}-{size - 1}/{size}", data[-3:]],
            "bytes=5-": [206, f"bytes 5-{size - 1}/{size}", data[5:]],
            "bytes=0-999999": [206, f"bytes 0-{size - 1}/{size}", data],
            "bytes=99999-": [416, f"bytes */{size}", None],
            "nonsense": [200, None, data],
        }
        assert found[name].pop("metadata") == [found["commit"], etag, size]
        assert found[name] == {
            key: [status, header, None if body is None else base64.b64encode(body).decode()]
            for key, (status, header, body) in encoded.items()
        }


def test_the_file_system_reads_parts(either_hub: Hub, clients: Clients) -> None:
    """HfFileSystem, under datasets' streaming and pandas, seeks in a file."""

    def client():
        import random

        from huggingface_hub import HfApi, HfFileSystem

        data = random.Random(1).randbytes(300_000)
        api = HfApi()
        api.create_repo("alice/fs", repo_type="dataset")
        api.upload_file(repo_id="alice/fs", repo_type="dataset", path_or_fileobj=data, path_in_repo="d/w.bin")
        fs = HfFileSystem()
        with fs.open("datasets/alice/fs/d/w.bin", block_size=1000) as file:
            file.seek(123_456)
            part = file.read(777) == data[123_456:124_233]
        whole = fs.cat("datasets/alice/fs/d/w.bin") == data
        return [part, whole, fs.ls("datasets/alice/fs/d", detail=False)]

    assert clients(client) == [True, True, ["datasets/alice/fs/d/w.bin"]]
    assert any(request.get("range") for request in either_hub.requests())


def test_tree_pages(tmp_path: Path, home: Path) -> None:
    """A long folder comes in pages, and they all show the same commit even if somebody commits in between."""

    def write():
        from huggingface_hub import CommitOperationAdd, HfApi

        files = [CommitOperationAdd(f"{number:02}/f.txt", b"%d" % number) for number in range(25)]
        api = HfApi()
        api.create_repo("alice/long")
        api.create_commit("alice/long", files, commit_message="x")

    def read():
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi()
        recursive = [entry.path for entry in api.list_repo_tree("alice/long", recursive=True)]
        flat = [entry.path for entry in api.list_repo_tree("alice/long")]
        pages = api.list_repo_tree("alice/long", recursive=True)
        torn = [next(pages).path]
        files = [CommitOperationAdd(f"new{number}.txt", b"new") for number in range(9)]
        api.create_commit("alice/long", files, commit_message="in between")
        torn += [entry.path for entry in pages]
        return {"recursive": recursive, "flat": flat, "torn": torn, "commits": len(api.list_repo_commits("alice/long"))}

    with running(tmp_path / "hub", users=["alice"], page_size=10) as hub:
        clients = Clients(hub, home)
        clients(write)
        hub.clear_requests()
        found = clients(read)
        # 26 entries are 3 pages, 51 are 6; the client prefetches nothing.
        assert [request["route"] for request in hub.requests()].count("tree") == 6 + 3 + 6
    folders = [f"{number:02}" for number in range(25)]
    everything = sorted([".gitattributes", *folders, *(f"{folder}/f.txt" for folder in folders)])
    assert found["recursive"] == everything
    assert found["flat"] == sorted([".gitattributes", *folders])
    assert found["torn"] == everything
    assert found["commits"] == 3


def test_commits_come_in_pages(tmp_path: Path, home: Path) -> None:
    """The whole history is listed, newest first, whatever the size of a page."""

    def client():
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo("alice/h")
        made = [api.upload_file(repo_id="alice/h", path_or_fileobj=b"%d" % n, path_in_repo="n").oid for n in range(7)]
        return [made, [commit.commit_id for commit in api.list_repo_commits("alice/h", formatted=True)]]

    with running(tmp_path / "hub", users=["alice"], page_size=3) as hub:
        made, listed = Clients(hub, home)(client)
        assert [request["route"] for request in hub.requests()].count("commits") == 3
    assert listed[:-1] == made[::-1]


def test_what_is_not_there(hub: Hub, clients: Clients) -> None:
    """Each absence has its own error: repository, revision, file, folder; an absent file is remembered as absent."""

    def client():
        from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi()
        api.create_repo("alice/here")

        def error(call):
            try:
                call()
            except HfHubHTTPError as error:
                return [type(error).__name__, error.response.status_code]

        found = {
            "repository": error(lambda: api.model_info("alice/nowhere")),
            "no namespace": error(lambda: api.model_info("gpt2")),
            "other kind": error(lambda: api.dataset_info("alice/here")),
            "revision": error(lambda: api.model_info("alice/here", revision="v9")),
            "commit": error(lambda: api.model_info("alice/here", revision="0" * 40)),
            "file": error(lambda: hf_hub_download("alice/here", "no.txt")),
            "file of revision": error(lambda: hf_hub_download("alice/here", "no.txt", revision="v9")),
            "folder": error(lambda: list(api.list_repo_tree("alice/here", "no"))),
            "folder as file": error(lambda: list(api.list_repo_tree("alice/here", ".gitattributes"))),
        }
        cached = try_to_load_from_cache("alice/here", "no.txt")
        found["remembered"] = type(cached).__name__ == "object"
        found["exists"] = [api.file_exists("alice/here", "no.txt"), api.file_exists("alice/here", ".gitattributes")]
        found["repo_exists"] = [api.repo_exists("alice/nowhere"), api.repo_exists("alice/here")]
        found["revision_exists"] = [api.revision_exists("alice/here", "v9"), api.revision_exists("alice/here", "main")]
        return found

    assert clients(client) == {
        "repository": ["RepositoryNotFoundError", 404],
        "no namespace": ["RepositoryNotFoundError", 404],
        "other kind": ["RepositoryNotFoundError", 404],
        "revision": ["RevisionNotFoundError", 404],
        "commit": ["RevisionNotFoundError", 404],
        "file": ["RemoteEntryNotFoundError", 404],
        "file of revision": ["RevisionNotFoundError", 404],
        "folder": ["RemoteEntryNotFoundError", 404],
        "folder as file": ["RemoteEntryNotFoundError", 404],
        "remembered": True,
        "exists": [False, True],
        "repo_exists": [False, True],
        "revision_exists": [False, True],
    }


def test_branches_tags_and_short_ids(hub: Hub, clients: Clients) -> None:
    """Branches and tags are made, listed, resolved with slashes in their names, and deleted; twice the same is 409."""

    def client():
        from pathlib import Path

        from huggingface_hub import HfApi, resolve_revision
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi()
        api.create_repo("alice/refs")
        first = api.upload_file(repo_id="alice/refs", path_or_fileobj=b"1", path_in_repo="a").oid
        second = api.upload_file(repo_id="alice/refs", path_or_fileobj=b"2", path_in_repo="a").oid
        api.create_tag("alice/refs", tag="v1.0", revision=first, tag_message="A release")
        api.create_tag("alice/refs", tag="light")
        api.create_branch("alice/refs", branch="team/work", revision=first)

        def code(call):
            try:
                call()
                return 200
            except HfHubHTTPError as error:
                return error.response.status_code

        refs = api.list_repo_refs("alice/refs")
        names = {ref.name: ref.target_commit for ref in refs.branches + refs.tags}
        revisions = ["v1.0", "light", "team/work", "main", "HEAD", first[:9], first, "refs/heads/team/work"]
        resolved = {name: api.model_info("alice/refs", revision=name).sha for name in revisions}
        contents = [
            Path(api.hf_hub_download("alice/refs", "a", revision=name)).read_text() for name in ("team/work", "main")
        ]
        twice = [
            code(lambda: api.create_tag("alice/refs", tag="v1.0")),
            code(lambda: api.create_tag("alice/refs", tag="v1.0", exist_ok=True)),
            code(lambda: api.create_branch("alice/refs", branch="team/work")),
            code(lambda: api.create_branch("alice/refs", branch="team/work", exist_ok=True)),
            code(lambda: api.create_branch("alice/refs", branch="bad..name")),
            code(lambda: api.create_branch("alice/refs", branch="team")),
            code(lambda: api.create_branch("alice/refs", branch="main/sub")),
            code(lambda: api.delete_branch("alice/refs", branch="main")),
            code(lambda: api.delete_tag("alice/refs", tag="v9")),
        ]
        api.delete_tag("alice/refs", tag="v1.0")
        api.delete_branch("alice/refs", branch="team/work")
        refs = api.list_repo_refs("alice/refs")
        left = [ref.ref for ref in refs.branches + refs.tags]
        return [first, second, names, resolved, contents, twice, left, resolve_revision("alice/refs").resolved]

    first, second, names, resolved, contents, twice, left, pinned = clients(client)
    assert names == {"main": second, "v1.0": first, "light": second, "team/work": first}
    assert resolved == {
        **names,
        "HEAD": second,
        first[:9]: first,
        first: first,
        "refs/heads/team/work": first,
    }
    assert contents == ["1", "2"]
    assert twice == [409, 200, 409, 200, 400, 409, 409, 403, 404]
    assert left == ["refs/heads/main", "refs/tags/light"]
    assert pinned == second


def test_paths_info(hub: Hub, clients: Clients) -> None:
    """Files and folders are described, with the commit that last changed them; unknown paths are left out."""

    def client():
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi()
        api.create_repo("alice/paths")
        old = api.create_commit(
            "alice/paths",
            [CommitOperationAdd("d/a.txt", b"a"), CommitOperationAdd("d/w.bin", b"w" * 5000)],
            commit_message="old",
        ).oid
        new = api.upload_file(repo_id="alice/paths", path_or_fileobj=b"b", path_in_repo="b.txt").oid
        paths = ["d", "d/a.txt", "d/w.bin", "b.txt", "no"]
        infos = {info.path: info for info in api.get_paths_info("alice/paths", paths, expand=True)}
        plain = api.get_paths_info("alice/paths", "d/w.bin")[0]
        return {
            "commits": {path: info.last_commit.oid for path, info in infos.items()},
            "expected": {"d": old, "d/a.txt": old, "d/w.bin": old, "b.txt": new},
            "title": infos["d/a.txt"].last_commit.title,
            "plain": [plain.size, plain.lfs.size, plain.last_commit],
        }

    found = clients(client)
    assert found["commits"] == found["expected"]
    assert found["title"] == "old"
    assert found["plain"] == [5000, 5000, None]


@pytest.mark.parametrize("revision", ["commit", "main"])
def test_a_warm_cache_asks_little(hub: Hub, clients: Clients, revision: str) -> None:
    """By commit a warm snapshot asks for nothing; by branch it asks once what the commit is."""

    def client(revision):
        from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download

        api = HfApi()
        files = [CommitOperationAdd("a.txt", b"a"), CommitOperationAdd("w.bin", b"w" * 5000)]
        api.create_repo("alice/warm", exist_ok=True)
        oid = api.create_commit("alice/warm", files, commit_message="x").oid
        return snapshot_download("alice/warm", revision=oid if revision == "commit" else revision)

    def again(revision):

        from huggingface_hub import snapshot_download

        return snapshot_download("alice/warm", revision=revision)

    folder = clients(client, revision)
    hub.clear_requests()
    assert clients(again, Path(folder).name if revision == "commit" else revision) == folder
    assert [request["route"] for request in hub.requests()] == ([] if revision == "commit" else ["info"])
