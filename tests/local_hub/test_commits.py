"""Uploads and commits: what a client put in is what every client gets out, and history keeps its promises."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from client_processes import Clients

from local_hub.testing import Hub, running


def routes(hub: Hub) -> list[str]:
    return [request["route"] for request in hub.requests()]


def test_one_commit_of_many_kinds_of_files(either_hub: Hub, clients: Clients) -> None:
    """Text, JSON, an empty file, floats (grouped and compressed by Xet), random and repetitive bytes, in folders."""

    def upload():
        import hashlib
        import pathlib
        import random
        import struct

        from huggingface_hub import CommitOperationAdd, HfApi

        rng = random.Random(0)
        files = {
            "README.md": b"---\nlicense: mit\n---\n# Hello\n",
            "config.json": b'{"a": 1}',
            "folder/empty.txt": b"",
            "folder/data.bin": struct.pack("<60000f", *(rng.gauss(0, 1) for _ in range(60000))),
            "random.safetensors": rng.randbytes(700_000),
            "text.zip": b"the same words again and again, " * 30_000,
            "folder/deep/er/notes.txt": "größer\n".encode(),
        }
        pathlib.Path("data.bin").write_bytes(files["folder/data.bin"])
        operations = [
            CommitOperationAdd(path, "data.bin" if path.endswith("data.bin") else data) for path, data in files.items()
        ]
        api = HfApi()
        url = api.create_repo("alice/many")
        info = api.create_commit(
            "alice/many", operations, commit_message="All of them", commit_description="With\nwords"
        )
        hashes = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
        return {"url": url, "oid": info.oid, "commit_url": info.commit_url, "hashes": hashes}

    def download(revision):
        import hashlib
        import pathlib

        from huggingface_hub import HfApi, snapshot_download

        folder = pathlib.Path(snapshot_download("alice/many", revision=revision))
        api = HfApi()
        infos = {file.path: file for file in api.list_repo_tree("alice/many", recursive=True) if hasattr(file, "size")}
        return {
            "hashes": {
                str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in folder.rglob("*")
                if path.is_file()
            },
            "snapshot": folder.name,
            "large": {path: info.lfs.sha256 for path, info in infos.items() if info.lfs},
            "xet": sorted(path for path, info in infos.items() if info.xet_hash),
            "commits": [[c.commit_id, c.title, c.message, c.authors] for c in api.list_repo_commits("alice/many")],
        }

    made = clients(upload)
    assert made["url"] == f"{either_hub.url}/alice/many"
    assert made["commit_url"] == f"{either_hub.url}/alice/many/commit/{made['oid']}"
    xet = either_hub.xet
    assert ("xet_shard" in routes(either_hub)) == xet
    assert ("lfs_put" in routes(either_hub)) == (not xet)

    large = ["folder/data.bin", "random.safetensors", "text.zip"]
    for transport in ("0", "1"):
        either_hub.clear_requests()
        home = clients.home / f"cold{transport}"
        found = clients(download, made["oid"], home=home, user=None, HF_HUB_DISABLE_XET=transport)
        assert found["snapshot"] == made["oid"]
        assert {path: found["hashes"][path] for path in made["hashes"]} == made["hashes"]
        assert set(found["hashes"]) == {*made["hashes"], ".gitattributes"}
        assert found["large"] == {path: made["hashes"][path] for path in large}
        assert found["xet"] == (large if xet else [])
        assert ("xet_data" in routes(either_hub)) == (xet and transport == "0")
        assert found["commits"][0] == [made["oid"], "All of them", "With\nwords", ["alice"]]
        assert [commit[1] for commit in found["commits"]] == ["All of them", "initial commit"]


def test_history_is_git(either_hub: Hub, clients: Clients) -> None:
    """Ids are git's own: a blob's, and the pointer's for a large file."""

    def client():
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi()
        api.create_repo("alice/git")
        operations = [CommitOperationAdd("a.txt", b"hello\n"), CommitOperationAdd("w.bin", b"weights" * 1000)]
        api.create_commit("alice/git", operations, commit_message="x")
        # Names that git orders in its own way: a folder counts as if it ended in a slash.
        operations = [CommitOperationAdd(name, b"x") for name in ("d/x", "d-x", "d.x", "e/f/g", "ü")]
        api.create_commit("alice/git", operations, commit_message="größer")
        api.create_tag("alice/git", tag="v1", tag_message="A tag")
        return {file.path: file.blob_id for file in api.list_repo_tree("alice/git") if hasattr(file, "blob_id")}

    found = clients(client)
    # From: printf 'hello\n' | git hash-object --stdin
    assert found["a.txt"] == "ce013625030ba8dba906f756967f9e9ca394464a"
    # From: git hash-object .gitattributes, of a repository made on huggingface.co.
    assert found[".gitattributes"] == "a6344aac8c09253b3b630fb776ae94478aa0275b"
    sha256 = hashlib.sha256(b"weights" * 1000).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 7000\n".encode()
    assert found["w.bin"] == hashlib.sha1(b"blob %d\0%s" % (len(pointer), pointer)).hexdigest()
    if shutil.which("git"):
        repository = either_hub.root / "repos" / "models" / "alice" / "git.git"
        check = subprocess.run(["git", "-C", repository, "fsck", "--strict"], text=True, capture_output=True)
        assert (check.returncode, check.stdout) == (0, ""), check.stderr


def test_no_op_commit(either_hub: Hub, clients: Clients) -> None:
    """The same bytes again make no commit, for small and for large files; one other byte does."""

    def client():
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi()
        api.create_repo("alice/same")
        heads = []
        for last in (b"1", b"1", b"2"):
            small, large = CommitOperationAdd("a.txt", b"text" + last), CommitOperationAdd("w.bin", b"w" * 9000 + last)
            heads.append(api.create_commit("alice/same", [small, large], commit_message="again").oid)
        heads.append(api.model_info("alice/same").sha)
        return heads

    first, second, third, head = clients(client)
    assert first == second
    assert third not in (first, None)
    assert head == third
    assert routes(either_hub).count("commit") == 2


def test_upload_folder_delete_copy_and_ignore(either_hub: Hub, clients: Clients) -> None:
    """A folder goes up but for what .gitignore names; files and folders are deleted and copied by later commits."""

    def client():
        import pathlib

        from huggingface_hub import CommitOperationCopy, CommitOperationDelete, HfApi
        from huggingface_hub.errors import EntryNotFoundError

        folder = pathlib.Path("up")
        for name in ("keep.txt", "old/a.txt", "old/b.bin", "scratch.tmp", "weights.bin"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(name.encode() * 100)
        (folder / ".gitignore").write_text("*.tmp\n")
        api = HfApi()
        api.create_repo("alice/folder")
        api.upload_folder(repo_id="alice/folder", folder_path=folder, commit_message="up")
        before = sorted(api.list_repo_files("alice/folder"))
        operations = [
            CommitOperationDelete("old/"),
            CommitOperationDelete("keep.txt"),
            CommitOperationCopy("weights.bin", "copy.bin"),
        ]
        api.create_commit("alice/folder", operations, commit_message="tidy up")
        try:
            api.delete_file("no/such.txt", "alice/folder")
            missing = None
        except EntryNotFoundError as error:
            missing = error.response.status_code
        copied = pathlib.Path(api.hf_hub_download("alice/folder", "copy.bin")).read_bytes()
        after = sorted(api.list_repo_files("alice/folder"))
        return {"before": before, "after": after, "copied": copied.decode(), "missing": missing}

    found = clients(client)
    names = [".gitattributes", ".gitignore", "keep.txt", "old/a.txt", "old/b.bin", "weights.bin"]
    assert found["before"] == names
    assert found["after"] == [".gitattributes", ".gitignore", "copy.bin", "weights.bin"]
    assert found["copied"] == "weights.bin" * 100
    assert found["missing"] == 404


def test_multipart_upload(tmp_path: Path, home: Path) -> None:
    """An LFS file above the part size arrives in parts and is put together; so does a file object when Xet is on."""

    def upload(name):
        import io
        import random

        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo("alice/parts", exist_ok=True)
        data = random.Random(name).randbytes(250_000)
        api.upload_file(repo_id="alice/parts", path_or_fileobj=io.BytesIO(data), path_in_repo=f"{name}.bin")
        return None

    def check(name):
        import pathlib
        import random

        from huggingface_hub import hf_hub_download

        got = pathlib.Path(hf_hub_download("alice/parts", f"{name}.bin")).read_bytes()
        return got == random.Random(name).randbytes(250_000)

    for transport in ("xet", "lfs"):
        with running(tmp_path / transport, users=["alice"], xet=transport == "xet", lfs_part_size=100_000) as hub:
            clients = Clients(hub, home)
            clients(upload, transport)
            assert routes(hub).count("lfs_part") == 3
            assert routes(hub).count("lfs_complete") == 1
            assert clients(check, transport, home=home / transport)


def test_parent_commit(hub: Hub, clients: Clients) -> None:
    """A commit on an old parent is refused with 412; the current one, also abbreviated, is taken."""

    def client():
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HfHubHTTPError

        def commit(name, parent):
            operations = [CommitOperationAdd(f"{name}.txt", name.encode())]
            try:
                return api.create_commit("alice/p", operations, commit_message=name, parent_commit=parent).oid
            except HfHubHTTPError as error:
                return [error.response.status_code, str(error)]

        api = HfApi()
        api.create_repo("alice/p")
        start = api.model_info("alice/p").sha
        first = commit("one", start)
        return {
            "first": first,
            "stale": commit("two", start),
            "short": commit("three", first[:7]),
            "files": sorted(api.list_repo_files("alice/p")),
        }

    found = clients(client)
    assert found["stale"][0] == 412
    assert "The branch was updated since" in found["stale"][1]
    assert len(found["short"]) == 40
    assert found["files"] == [".gitattributes", "one.txt", "three.txt"]


def test_concurrent_commits_lose_nothing(hub: Hub, clients: Clients) -> None:
    """Of many commits on one parent one is taken; of many without a parent all are, one after the other."""

    def client():
        from concurrent.futures import ThreadPoolExecutor

        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi()
        api.create_repo("alice/race")
        start = api.model_info("alice/race").sha

        def commit(name, parent):
            operations = [CommitOperationAdd(f"{name}.txt", name.encode())]
            try:
                return api.create_commit("alice/race", operations, commit_message=name, parent_commit=parent).oid
            except HfHubHTTPError as error:
                return error.response.status_code

        with ThreadPoolExecutor(8) as pool:
            same_parent = list(pool.map(lambda i: commit(f"p{i}", start), range(8)))
            no_parent = list(pool.map(lambda i: commit(f"n{i}", None), range(8)))
        history = [item.commit_id for item in api.list_repo_commits("alice/race")]
        files = sorted(api.list_repo_files("alice/race"))
        return {"same": same_parent, "none": no_parent, "history": history, "files": files}

    found = clients(client)
    won = [number for number, oid in enumerate(found["same"]) if oid != 412]
    assert len(won) == 1
    assert sorted(found["none"]) == sorted(found["history"][:8])
    assert found["history"][8] == found["same"][won[0]]
    assert len(found["history"]) == 10
    assert found["files"] == [".gitattributes", *(f"n{i}.txt" for i in range(8)), f"p{won[0]}.txt"]


def test_killed_server_keeps_what_it_acknowledged(either_hub: Hub, clients: Clients) -> None:
    """kill -9 in the middle of a stream of commits: after a restart every acknowledged one is there, whole."""

    def write():
        import pathlib
        import random

        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi()
        api.create_repo("alice/durable", exist_ok=True)
        for number in range(1000):
            data = random.Random(number).randbytes(60_000)
            operations = [
                CommitOperationAdd(f"{number}.bin", data),
                CommitOperationAdd(f"{number}.json", json.dumps(number).encode()),
            ]
            oid = api.create_commit("alice/durable", operations, commit_message=f"number {number}").oid
            with pathlib.Path("acknowledged").open("a") as file:
                file.write(f"{number} {oid}\n")

    def check():
        import pathlib
        import random

        from huggingface_hub import HfApi, snapshot_download

        api = HfApi()
        acknowledged = [line.split() for line in pathlib.Path("acknowledged").read_text().splitlines()]
        history = [item.commit_id for item in api.list_repo_commits("alice/durable")]
        folder = pathlib.Path(snapshot_download("alice/durable"))
        good = [
            (folder / f"{number}.bin").read_bytes() == random.Random(int(number)).randbytes(60_000)
            and (folder / f"{number}.json").read_text() == number
            for number, _ in acknowledged
        ]
        there = [oid in history for _, oid in acknowledged]
        return {"there": there, "good": good, "history": len(history)}

    acknowledged = clients.home / "acknowledged"
    for wanted in (3, 8):
        # The client gives up at once when the server is gone: its commit is not repeated.
        writer = clients.start(write)
        while not acknowledged.exists() or acknowledged.read_text().count("\n") < wanted:
            assert writer.poll() is None, writer.communicate()
        either_hub.kill()
        writer.kill()
        writer.communicate()
        either_hub.start()
        found = clients(check, home=clients.home / f"after{wanted}")
        assert len(found["there"]) >= wanted
        assert all(found["there"])
        assert all(found["good"])
        # One more commit than acknowledged is allowed: made, but killed before its answer.
        assert found["history"] - len(set(acknowledged.read_text().split("\n"))) <= 2


def test_branches_receive_commits(hub: Hub, clients: Clients) -> None:
    """A commit goes to the branch it names; an unknown branch is RevisionNotFound, and a tag takes no commits."""

    def client():
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RevisionNotFoundError

        api = HfApi()
        api.create_repo("alice/b")
        api.create_branch("alice/b", branch="feature/x")
        api.create_tag("alice/b", tag="v1")
        api.upload_file(repo_id="alice/b", path_or_fileobj=b"1", path_in_repo="a.txt", revision="feature/x")
        refused = []
        for revision in ("nowhere", "v1"):
            try:
                api.upload_file(repo_id="alice/b", path_or_fileobj=b"2", path_in_repo="a.txt", revision=revision)
            except RevisionNotFoundError:
                refused.append(revision)
        return [refused, api.list_repo_files("alice/b", revision="feature/x"), api.list_repo_files("alice/b")]

    assert clients(client) == [["nowhere", "v1"], [".gitattributes", "a.txt"], [".gitattributes"]]
