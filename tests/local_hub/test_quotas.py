"""A full namespace: refused where the real Hub refuses, in both transports, and never half committed."""

from client_processes import Clients

from local_hub.quotas import PRIVATE, PUBLIC
from local_hub.testing import Hub


def publish(uploads):
    """Commit large files (repository, letter, size in bytes) with a small one beside: outcomes and commits so far."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api, outcomes = HfApi(), []
    for name in ("shut", "also", "open"):
        api.create_repo(f"acme/{name}", private=name != "open", exist_ok=True)
    for name, letter, size in uploads:
        files = [CommitOperationAdd("w.bin", letter.encode() * size), CommitOperationAdd("a.txt", letter.encode())]
        try:
            api.create_commit(f"acme/{name}", files, commit_message="x")
            outcome = "done"
        except HfHubHTTPError as error:
            outcome = [error.response.status_code, error.server_message]
        outcomes.append([outcome, len(api.list_repo_commits(f"acme/{name}"))])
    return outcomes


def test_what_is_above_the_limit_is_refused(either_hub: Hub, clients: Clients) -> None:
    """All private repositories of a namespace count together, with their history, and public ones by themselves."""
    hub = either_hub
    hub.add_org("acme", {"alice": "write"})
    hub.quota("acme", 20_000)
    expected = {
        ("shut", "a", 12_000): ["done", 2],
        ("also", "b", 12_000): [[403, PRIVATE], 1],
        ("also", "c", 8_000): ["done", 2],
        ("shut", "d", 1_000): [[403, PRIVATE], 2],
        ("open", "b", 12_000): ["done", 2],
        ("open", "e", 12_000): [[403, PUBLIC], 2],
    }
    assert clients(publish, list(expected)) == list(expected.values())
    refused = [request["route"] for request in hub.requests() if request["status"] == 403]
    assert refused == ["commit" if hub.xet else "lfs_batch"] * 3
    hub.quota("acme", None)
    assert clients(publish, [("open", "e", 12_000)]) == [["done", 3]]


def test_other_namespaces_and_small_files_are_not_counted(hub: Hub, clients: Clients) -> None:
    """A full organisation does not keep its member from publishing, nor itself from changing a card."""

    def client():
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo("alice/own")
        api.create_repo("acme/full")
        own = api.upload_file(repo_id="alice/own", path_in_repo="w.bin", path_or_fileobj=b"w" * 5000)
        card = api.upload_file(repo_id="acme/full", path_in_repo="README.md", path_or_fileobj=b"# x")
        return [len(own.oid), len(card.oid)]

    hub.add_org("acme", {"alice": "write"})
    hub.quota("acme", 0)
    assert clients(client) == [40, 40]
