"""What a commit refuses: content that never arrived or is another, and paths outside the repository."""

import json

from client_processes import Clients

from local_hub.testing import Hub


def test_content_that_never_arrived_is_refused(hub: Hub, clients: Clients) -> None:
    """A commit that names a large file which the Hub does not have, or with another size, is refused as a whole."""

    def client(url):
        import json

        from huggingface_hub import HfApi, get_token
        from huggingface_hub.utils import get_session

        api = HfApi()
        api.create_repo("alice/liar")
        api.upload_file(repo_id="alice/liar", path_or_fileobj=b"real" * 1000, path_in_repo="real.bin")
        real = next(f for f in api.list_repo_tree("alice/liar") if f.path == "real.bin")
        codes = []
        for oid, size in (("0" * 64, 10), (real.lfs.sha256, 17), (real.lfs.sha256, 4000)):
            lines = [
                {"key": "header", "value": {"summary": "lie", "description": ""}},
                {"key": "file", "value": {"path": "a.txt", "content": "eA==", "encoding": "base64"}},
                {"key": "lfsFile", "value": {"path": "x.bin", "algo": "sha256", "oid": oid, "size": size}},
            ]
            answer = get_session().post(
                f"{url}/api/models/alice/liar/commit/main",
                content="\n".join(map(json.dumps, lines)).encode(),
                headers={"Authorization": f"Bearer {get_token()}", "Content-Type": "application/x-ndjson"},
            )
            codes.append([answer.status_code, sorted(api.list_repo_files("alice/liar"))])
        return codes

    before = [".gitattributes", "real.bin"]
    after = [".gitattributes", "a.txt", "real.bin", "x.bin"]
    assert clients(client, hub.url) == [[400, before], [400, before], [200, after]]


def test_content_that_is_something_else_is_refused(either_hub: Hub, clients: Clients) -> None:
    """An upload under a wrong sha256 is never committed: the hub hashes what it got, also when it came by Xet."""

    def client():
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi()
        api.create_repo("alice/wrong")
        operation = CommitOperationAdd("w.bin", b"w" * 5000)
        operation.upload_info.sha256 = bytes(32)
        try:
            outcome = api.create_commit("alice/wrong", [operation], commit_message="x").oid
        except Exception as error:
            outcome = f"{error} {error.__cause__}"
        return [outcome, api.list_repo_files("alice/wrong")]

    outcome, files = clients(client)
    assert "422" in outcome
    assert files == [".gitattributes"]


def test_paths_that_leave_the_repository_are_refused(hub: Hub, clients: Clients) -> None:
    """The Python client checks paths itself, so these come over its bare session."""

    def client(url):
        import json

        from huggingface_hub import HfApi, get_token
        from huggingface_hub.utils import get_session

        HfApi().create_repo("alice/paths")
        codes = {}
        for path in ("../x", "a/../../x", "/etc/x", ".git/config", "a//b", ""):
            lines = [
                {"key": "header", "value": {"summary": "s", "description": ""}},
                {"key": "file", "value": {"path": path, "content": "eA==", "encoding": "base64"}},
            ]
            answer = get_session().post(
                f"{url}/api/models/alice/paths/commit/main",
                content="\n".join(map(json.dumps, lines)).encode(),
                headers={"Authorization": f"Bearer {get_token()}"},
            )
            codes[path] = answer.status_code
        return codes

    codes = clients(client, hub.url)
    assert set(codes.values()) == {400}, json.dumps(codes)
