"""Every request of a publish and of a pull can be broken by itself, in both transports; what the clients make of it."""

from client_processes import Clients

from local_hub.testing import Hub

# What changes something is done and not told; what only asks is not even looked at.
COMMON = dict.fromkeys(["create", "commit"], "lose_reply")
COMMON |= dict.fromkeys(["preupload", "validate_yaml", "info", "tree", "resolve"], "drop")
XET = dict.fromkeys(["xet_xorb", "xet_shard"], "lose_reply")
XET |= dict.fromkeys(["xet_write_token", "xet_read_token", "xet_reconstruction", "xet_data"], "drop")
LFS = {"lfs_batch": "drop", "lfs_put": "lose_reply", "lfs_verify": "drop"}
# What huggingface_hub 2.4.0 does not ask for again when the connection closes (it does after a 503).
NOT_REPEATED = {"create", "validate_yaml", "commit", "info", "resolve"}


def publish_and_pull(url, secret, actions):
    """For each route in turn: break it once, publish and pull, then do so again; both outcomes and the commits made."""
    import json
    import random
    import urllib.request
    from pathlib import Path

    from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download

    api = HfApi()

    def faults(method, rule):
        request = urllib.request.Request(f"{url}/__hub__/faults", json.dumps(rule).encode(), method=method)
        request.add_header("X-Local-Hub-Secret", secret)
        urllib.request.urlopen(request).read()

    def attempt(name, data):
        try:
            api.create_repo(name, exist_ok=True)
            files = [CommitOperationAdd("README.md", b"# x"), CommitOperationAdd("w.bin", data)]
            commit = api.create_commit(name, files, commit_message="x").oid
            folder = Path(snapshot_download(name, cache_dir=name))
            return (folder / "w.bin").read_bytes() == data and folder.name == commit
        except Exception as error:
            return type(error).__name__

    found = {}
    for number, (route, action) in enumerate(actions.items()):
        name, data = f"alice/at-{route}", random.Random(number).randbytes(20_000)
        faults("POST", {"route": route, "action": action})
        first = attempt(name, data)
        faults("DELETE", {})
        found[route] = [first, attempt(name, data), len(api.list_repo_commits(name)) - 1]
    return found


def test_a_closed_connection_at_every_route(either_hub: Hub, clients: Clients) -> None:
    """It is repeated or told; the files that arrive are right, the next try completes, and no commit is made twice."""
    actions = COMMON | (XET if either_hub.xet else LFS)
    found = clients(publish_and_pull, either_hub.url, either_hub.secret, actions)
    broken = {request["route"]: request["fault"] for request in either_hub.requests() if request.get("fault")}
    assert broken == actions
    for route, outcome in found.items():
        first = "RemoteProtocolError" if route in NOT_REPEATED else True
        assert outcome == [first, True, 1], route
