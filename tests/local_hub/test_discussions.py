"""Discussions and pull requests, by owners and by others."""

from client_processes import Clients

from local_hub.testing import Hub


def test_a_discussion(hub: Hub, clients: Clients) -> None:
    """Opened, commented, renamed, closed: every step is an event that everybody reads in order."""

    def client():
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo("alice/talk", exist_ok=True)
        made = api.create_discussion("alice/talk", "A question", description="What is it?")
        api.comment_discussion("alice/talk", made.num, "An answer")
        renamed = api.rename_discussion("alice/talk", made.num, "An old question")
        closed = api.change_discussion_status("alice/talk", made.num, "closed", comment="Done")
        found = api.get_discussion_details("alice/talk", made.num)
        return {
            "made": [made.num, made.title, made.status, made.author, made.is_pull_request],
            "renamed": [renamed.old_title, renamed.new_title],
            "closed": closed.new_status,
            "title": [found.title, found.status],
            "events": [[event.type, getattr(event, "content", None)] for event in found.events],
            "open": [item.num for item in api.get_repo_discussions("alice/talk", discussion_status="open")],
            "all": [item.num for item in api.get_repo_discussions("alice/talk")],
            "url": found.url,
        }

    assert clients(client) == {
        "made": [1, "A question", "open", "alice", False],
        "renamed": ["A question", "An old question"],
        "closed": "closed",
        "title": ["An old question", "closed"],
        "events": [
            ["comment", "What is it?"],
            ["comment", "An answer"],
            ["title-change", None],
            ["comment", "Done"],
            ["status-change", None],
        ],
        "open": [],
        "all": [1],
        "url": f"{hub.url}/alice/talk/discussions/1",
    }


def test_pull_request_by_another_user(either_hub: Hub, clients: Clients) -> None:
    """Bob proposes files and adds a commit; Alice reads them on the reference and merges, and main has them."""

    def make():
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi()
        api.create_repo("alice/m")
        files = [CommitOperationAdd("a.txt", b"old\n"), CommitOperationAdd("keep.txt", b"keep")]
        api.create_commit("alice/m", files, commit_message="start")

    def propose():
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi()
        files = [CommitOperationAdd("a.txt", b"new\n"), CommitOperationAdd("w.bin", b"w" * 5000)]
        info = api.create_commit(
            "alice/m", files, commit_message="Improve", commit_description="Why not", create_pr=True
        )
        api.upload_file(repo_id="alice/m", path_or_fileobj=b"v" * 6000, path_in_repo="v.bin", revision=info.pr_revision)
        try:
            api.merge_pull_request("alice/m", info.pr_num)
        except HfHubHTTPError as error:
            refused = error.response.status_code
        return [info.pr_url, info.pr_num, info.pr_revision, refused]

    def accept():
        from pathlib import Path

        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi()
        before = api.get_discussion_details("alice/m", 1)
        on_main = sorted(api.list_repo_files("alice/m"))
        on_reference = sorted(api.list_repo_files("alice/m", revision="refs/pr/1"))
        proposed = Path(api.hf_hub_download("alice/m", "w.bin", revision="refs/pr/1")).read_text()
        # Something else happens on main in the meantime: merging must keep it.
        api.upload_file(repo_id="alice/m", path_or_fileobj=b"meanwhile", path_in_repo="b.txt")
        api.merge_pull_request("alice/m", 1, comment="Thanks")
        after = api.get_discussion_details("alice/m", 1)
        try:
            api.upload_file(repo_id="alice/m", path_or_fileobj=b"late", path_in_repo="c.txt", revision="refs/pr/1")
        except HfHubHTTPError as error:
            late = error.response.status_code
        names = sorted(api.list_repo_files("alice/m"))
        return {
            "before": [before.status, before.is_pull_request, before.target_branch, before.conflicting_files],
            "git": [before.git_reference, before.author, before.title],
            "diff": [line for line in before.diff.splitlines() if line in ("-old", "+new")],
            "events": [event.type for event in before.events],
            "on_main": on_main,
            "on_reference": on_reference,
            "proposed": proposed == "w" * 5000,
            "after": [after.status, after.merge_commit_oid == api.model_info("alice/m").sha],
            "history": [[item.title, item.authors] for item in api.list_repo_commits("alice/m")],
            "files": {name: len(Path(api.hf_hub_download("alice/m", name)).read_bytes()) for name in names[1:]},
            "text": Path(api.hf_hub_download("alice/m", "a.txt")).read_text(),
            "late": late,
            "refs": [ref.ref for ref in api.list_repo_refs("alice/m", include_pull_requests=True).pull_requests],
        }

    clients(make)
    url = f"{either_hub.url}/alice/m/discussions/1"
    assert clients(propose, user="bob") == [url, 1, "refs/pr/1", 403]
    assert clients(accept) == {
        "before": ["open", True, "refs/heads/main", []],
        "git": ["refs/pr/1", "bob", "Improve"],
        "diff": ["-old", "+new"],
        "events": ["comment", "commit"],
        "on_main": [".gitattributes", "a.txt", "keep.txt"],
        "on_reference": [".gitattributes", "a.txt", "keep.txt", "v.bin", "w.bin"],
        "proposed": True,
        "after": ["merged", True],
        "history": [
            ["Improve (#1)", ["bob"]],
            ["Upload b.txt with huggingface_hub", ["alice"]],
            ["start", ["alice"]],
            ["initial commit", ["alice"]],
        ],
        "files": {"a.txt": 4, "b.txt": 9, "keep.txt": 4, "v.bin": 6000, "w.bin": 5000},
        "text": "new\n",
        "late": 403,
        "refs": ["refs/pr/1"],
    }


def test_drafts_and_conflicts(hub: Hub, clients: Clients) -> None:
    """A draft must be opened before it is merged; a file that both sides changed is a conflict and is named."""

    def client():
        from pathlib import Path

        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi()
        api.create_repo("alice/c")
        api.upload_file(repo_id="alice/c", path_or_fileobj=b"1", path_in_repo="a.txt")
        draft = api.create_pull_request("alice/c", "A draft")
        upload = {"repo_id": "alice/c", "path_in_repo": "a.txt"}
        api.upload_file(path_or_fileobj=b"2", revision=draft.git_reference, **upload)

        def merge():
            try:
                api.merge_pull_request("alice/c", draft.num)
                return 200
            except HfHubHTTPError as error:
                return [error.response.status_code, "a.txt" in str(error)]

        found = {"status": draft.status, "draft": merge()}
        api.change_discussion_status("alice/c", draft.num, "open")
        api.upload_file(path_or_fileobj=b"3", **upload)
        found["conflict"] = [api.get_discussion_details("alice/c", draft.num).conflicting_files, merge()]
        api.upload_file(path_or_fileobj=b"3", revision=draft.git_reference, **upload)
        found["solved"] = [api.get_discussion_details("alice/c", draft.num).conflicting_files, merge()]
        found["text"] = Path(api.hf_hub_download("alice/c", "a.txt")).read_text()
        return found

    assert clients(client) == {
        "status": "draft",
        "draft": [400, False],
        "conflict": [["a.txt"], [409, True]],
        "solved": [[], 200],
        "text": "3",
    }


def test_pull_request_from_an_older_commit(hub: Hub, clients: Clients) -> None:
    """With ``parent_commit`` a pull request starts there, also when main has gone on; main itself refuses it."""

    def client():
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi()
        api.create_repo("alice/old")
        start = api.upload_file(repo_id="alice/old", path_or_fileobj=b"1", path_in_repo="a.txt").oid
        api.upload_file(repo_id="alice/old", path_or_fileobj=b"2", path_in_repo="b.txt")

        def commit(**more):
            files = [CommitOperationAdd("c.txt", b"3")]
            return api.create_commit("alice/old", files, commit_message="Older", parent_commit=start, **more)

        info = commit(create_pr=True)
        try:
            commit()
        except HfHubHTTPError as error:
            refused = error.response.status_code
        history = [item.commit_id for item in api.list_repo_commits("alice/old", revision=info.pr_revision)]
        proposed = sorted(api.list_repo_files("alice/old", revision=info.pr_revision))
        api.merge_pull_request("alice/old", info.pr_num)
        return [history[:2] == [info.oid, start], refused, proposed, sorted(api.list_repo_files("alice/old"))]

    before = [".gitattributes", "a.txt", "c.txt"]
    assert clients(client) == [True, 412, before, [".gitattributes", "a.txt", "b.txt", "c.txt"]]
