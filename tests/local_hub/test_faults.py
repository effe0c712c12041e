"""Faults on purpose: each does what it says, exactly as often as it says, and a client sees it."""

import hashlib
import random
import time
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import pytest
from client_processes import Clients

from local_hub.testing import Hub, running


def make():
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    api.create_repo("alice/f", exist_ok=True)
    files = [CommitOperationAdd("a.txt", b"small text " * 100), CommitOperationAdd("w.bin", b"large file " * 1000)]
    return api.create_commit("alice/f", files, commit_message="x").oid


def commit_again(text):
    """A client whose last commit fails, if it does, reports how."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    try:
        files = [CommitOperationAdd("b.txt", text.encode())]
        outcome = api.create_commit("alice/f", files, commit_message="again").oid
    except Exception as error:
        outcome = [type(error).__name__, str(error)[:200]]
    return outcome


def head():
    from huggingface_hub import HfApi

    api = HfApi()
    return [api.model_info("alice/f").sha, len(api.list_repo_commits("alice/f")), api.file_exists("alice/f", "b.txt")]


def test_status_skip_and_times(hub: Hub, clients: Clients) -> None:
    """The second and third preupload fail with 503, which the client repeats; then everything works."""
    clients(make)
    hub.clear_requests()
    hub.fault("preupload", "status", code=503, skip=1, times=2)
    first, second = clients(commit_again, "one"), clients(commit_again, "two")
    assert [len(first), len(second)] == [40, 40]
    statuses = [request["status"] for request in hub.requests() if request["route"] == "preupload"]
    assert statuses == [200, 503, 503, 200]


def test_status_on_commit_is_final(hub: Hub, clients: Clients) -> None:
    """create_commit does not repeat its POST, and nothing was committed."""
    before = clients(make)
    hub.fault("commit", "status", code=500, method="POST")
    outcome = clients(commit_again, "one")
    assert outcome[0] == "HfHubHTTPError"
    assert "500" in outcome[1]
    assert clients(head) == [before, 2, False]
    assert len(clients(commit_again, "one")) == 40


def test_rate_limit(hub: Hub, clients: Clients) -> None:
    """429 with the Hub's headers: the client waits as long as it is told, and goes on."""

    def client():
        from huggingface_hub import hf_hub_download

        return hf_hub_download("alice/f", "a.txt")

    clients(make)
    headers = {"RateLimit": '"resolvers";r=0;t=1', "RateLimit-Policy": '"fixed window";"resolvers";q=1;w=300'}
    hub.clear_requests()
    hub.fault("resolve", "status", method="GET", code=429, headers=headers)
    start = time.monotonic()
    assert clients(client).endswith("a.txt")
    # The client adds a second of its own (huggingface_hub/utils/_http.py: actual_sleep).
    assert time.monotonic() - start > 2
    gets = [request["status"] for request in hub.requests() if request["method"] == "GET"]
    assert gets == [429, 200]


def test_delay(hub: Hub, clients: Clients) -> None:
    """The answer comes late, and it is the right one."""
    before = clients(make)
    hub.fault("info", "delay", seconds=1.5)
    start = time.monotonic()
    assert clients(head)[0] == before
    assert time.monotonic() - start > 1.5


def test_lost_reply(hub: Hub, clients: Clients) -> None:
    """The commit is made and the client does not learn it: the one case where both sides are right and disagree."""
    before = clients(make)
    hub.fault("commit", "lose_reply")
    outcome = clients(commit_again, "one")
    assert outcome[0] == "RemoteProtocolError"
    sha, commits, exists = clients(head)
    assert [sha != before, commits, exists] == [True, 3, True]
    # The same bytes again are a no-op, by the ids that preupload tells.
    assert clients(commit_again, "one") == sha
    assert clients(head)[1] == 3


def test_a_dropped_request_is_not_carried_out(hub: Hub, clients: Clients) -> None:
    """The client learns as little as from a lost reply, but no commit was made."""
    before = clients(make)
    hub.fault("commit", "drop")
    assert clients(commit_again, "one")[0] == "RemoteProtocolError"
    assert clients(head) == [before, 2, False]


def test_cut_download_is_resumed(tmp_path: Path, home: Path) -> None:
    """Half of the body, then silence: the client goes on from the last piece it has, and the file is whole."""

    def client():
        import hashlib
        from pathlib import Path

        from huggingface_hub import hf_hub_download

        return hashlib.sha256(Path(hf_hub_download("alice/long", "w.bin")).read_bytes()).hexdigest()

    data = random.Random(0).randbytes(24 << 20)
    content = SimpleNamespace(kind="model", id="alice/long", files={"w.bin": data})
    with running(tmp_path / "hub", [content], xet=False) as hub:
        hub.fault("resolve", "cut", method="GET")
        assert Clients(hub, home)(client, user=None) == hashlib.sha256(data).hexdigest()
        gets = [request for request in hub.requests() if request["method"] == "GET"]
    assert [request.get("fault") for request in gets] == ["cut", None]
    # The client keeps pieces of 10 MiB (huggingface_hub/constants.py: DOWNLOAD_CHUNK_SIZE); 12 MiB had arrived.
    assert [request.get("range") for request in gets] == [None, "bytes=10485760-"]
    assert [request["status"] for request in gets] == [200, 206]


@pytest.mark.parametrize("name", ["a.txt", "w.bin"])
def test_corrupt_download_of_the_same_size(hub: Hub, clients: Clients, name: str) -> None:
    """Over plain HTTP the client notices nothing but sizes: whoever needs the right bytes checks their hash."""

    def client(name):
        import hashlib
        from pathlib import Path

        from huggingface_hub import hf_hub_download

        data = Path(hf_hub_download("alice/f", name)).read_bytes()
        return [len(data), data in (b"small text " * 100, b"large file " * 1000), hashlib.sha256(data).hexdigest()]

    clients(make)
    hub.fault("resolve", "corrupt", method="GET", path=name)
    size, right, _ = clients(client, name, HF_HUB_DISABLE_XET="1")
    assert [size, right] == [{"a.txt": 1100, "w.bin": 11000}[name], False]
    assert clients(client, name, home=clients.home / "again", HF_HUB_DISABLE_XET="1")[:2] == [size, True]


def test_corrupt_xet_data_is_noticed(hub: Hub, clients: Clients) -> None:
    """Over Xet the client sees that the data cannot be unpacked, and asks again."""

    def client():
        from pathlib import Path

        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download("alice/f", "w.bin")).read_bytes() == b"large file " * 1000

    clients(make)
    hub.fault("xet_data", "corrupt")
    assert clients(client)
    assert [request.get("fault") for request in hub.requests() if request["route"] == "xet_data"] == ["corrupt", None]


def test_one_wrong_byte_is_not_noticed_over_xet_either(hub: Hub, clients: Clients) -> None:
    """Data that can be unpacked is taken as it is: hf_xet 1.8.0 does not check it against the hash that names it."""

    def publish():
        import random

        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo("alice/noise")
        # Noise is stored uncompressed, so that a changed byte changes nothing but itself.
        data = random.Random(0).randbytes(20_000)
        return api.upload_file(repo_id="alice/noise", path_or_fileobj=data, path_in_repo="w.bin").oid

    def client():
        import random
        from pathlib import Path

        from huggingface_hub import hf_hub_download

        data, right = Path(hf_hub_download("alice/noise", "w.bin")).read_bytes(), random.Random(0).randbytes(20_000)
        return [len(data), [position for position, byte in enumerate(data) if byte != right[position]]]

    clients(publish)
    hub.fault("xet_data", "corrupt", offset=10_000)
    size, wrong = clients(client)
    assert [size, len(wrong)] == [20_000, 1]
    assert clients(client, home=clients.home / "again") == [20_000, []]


def test_a_corrupt_range_of_a_file(hub: Hub, clients: Clients) -> None:
    """A request for a part of a file gets that part, of its size, with one byte changed."""

    def client(url):
        from huggingface_hub.utils import get_session

        headers = {"Range": "bytes=5-14"}
        parts = [get_session().get(f"{url}/alice/f/resolve/main/a.txt", headers=headers) for _ in range(3)]
        return [[part.status_code, part.headers["content-range"], part.text] for part in parts]

    clients(make)
    hub.fault("resolve", "corrupt", method="GET", offset=100)
    hub.fault("resolve", "corrupt", method="GET", offset=1)
    found = clients(client, hub.url)
    assert [part[:2] for part in found] == [[206, "bytes 5-14/1100"]] * 3
    texts = [part[2] for part in found]
    assert texts[0] == texts[2] == " text smal"
    assert texts[1][0] + texts[1][-8:] == " ext smal" and texts[1] != texts[0]


def test_stall(hub: Hub, clients: Clients) -> None:
    """Half of the file comes, then nothing for a while, then the rest."""

    def client():
        from pathlib import Path

        from huggingface_hub import hf_hub_download

        return len(Path(hf_hub_download("alice/f", "a.txt")).read_bytes())

    clients(make)
    hub.fault("resolve", "stall", method="GET", seconds=1.5)
    start = time.monotonic()
    assert clients(client) == 1100
    assert time.monotonic() - start > 1.5


def test_a_rule_for_one_user_in_the_hubs_words(hub: Hub, clients: Clients) -> None:
    """Bob alone is refused, with the sentence of the rule."""

    def client():
        from huggingface_hub import HfApi

        try:
            return HfApi().model_info("alice/f").id
        except Exception as error:
            return [error.response.status_code, error.server_message]

    clients(make)
    hub.fault("info", "status", code=429, message="Slow down, Bob.", user="bob", times=-1)
    assert [clients(client), clients(client, user="bob"), clients(client, user=None)] == [
        "alice/f",
        [429, "Slow down, Bob."],
        "alice/f",
    ]


def test_what_is_no_rule_is_refused(hub: Hub) -> None:
    """A misspelt field or a missing one fails where the rule is set, not where it should have acted."""
    for rule in ({"action": "explode"}, {"action": "status"}, {"action": "drop", "paht": "x"}, {"action": "stall"}):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            hub.fault("commit", **rule)


@pytest.mark.parametrize(("xet", "route"), [("0", "xet_shard"), ("1", "lfs_put")])
def test_upload_that_breaks_off_is_never_committed(hub: Hub, clients: Clients, xet: str, route: str) -> None:
    """When the large file does not arrive, neither does the commit; the next try works."""

    def client():
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo("alice/f", exist_ok=True)
        try:
            return api.upload_file(repo_id="alice/f", path_or_fileobj=b"w" * 9000, path_in_repo="w.bin").oid
        except Exception as error:
            return type(error).__name__

    hub.fault(route, "status", code=400, times=-1)
    assert len(clients(client, HF_HUB_DISABLE_XET=xet)) != 40
    assert "commit" not in [request["route"] for request in hub.requests()]
    hub.clear_faults()
    assert len(clients(client, HF_HUB_DISABLE_XET=xet)) == 40


def test_hooks_need_the_secret(hub: Hub, clients: Clients) -> None:
    """No client can break the hub or read its log."""

    def client(url):
        from huggingface_hub.utils import get_session

        session = get_session()
        rule = {"route": "*", "action": "status", "code": 500, "times": -1}
        wrong = {"X-Local-Hub-Secret": "x"}
        return [
            session.post(f"{url}/__hub__/faults", json=rule).status_code,
            session.post(f"{url}/__hub__/faults", json=rule, headers=wrong).status_code,
            session.get(f"{url}/__hub__/requests", headers=wrong).status_code,
            session.get(f"{url}/api/models").status_code,
        ]

    assert clients(client, hub.url) == [404, 404, 404, 200]
