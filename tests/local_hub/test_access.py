"""Who may do what: tokens and their roles, private and gated repositories, and pull requests by others."""

from client_processes import Clients

from local_hub.testing import Hub


def test_tokens(hub: Hub, clients: Clients) -> None:
    """A write token writes in its own namespace only, a read token nowhere, nobody and an unknown token not at all."""

    def client(name):
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi()

        def code(call, *arguments, **more):
            try:
                call(*arguments, **more)
                return 200
            except HfHubHTTPError as error:
                return error.response.status_code

        upload = {"repo_id": "alice/mine", "path_or_fileobj": b"x", "path_in_repo": f"{name}.txt"}
        return {
            "create": code(api.create_repo, f"alice/{name}"),
            "upload": code(api.upload_file, **upload),
            "large": code(api.upload_file, **{**upload, "path_or_fileobj": b"x" * 5000, "path_in_repo": "a.bin"}),
            "tag": code(api.create_tag, "alice/mine", tag=name),
            "settings": code(api.update_repo_settings, "alice/mine", private=False),
            "delete": code(api.delete_repo, "alice/mine") if name != "owner" else 200,
            "read": code(api.model_info, "alice/mine"),
            "check": [code(api.auth_check, "alice/mine"), code(api.auth_check, "alice/mine", write=True)],
        }

    def make():
        from huggingface_hub import HfApi

        HfApi().create_repo("alice/mine")

    def role():
        from huggingface_hub import HfApi

        return HfApi().whoami()["auth"]["accessToken"]["role"]

    clients(make)
    may = dict.fromkeys(("create", "upload", "large", "tag", "settings", "delete"), 200)
    known = {"read": 200}
    assert clients(client, "owner") == {**may, **known, "check": [200, 200]}
    for name, user, token_role in (("reader", "alice", "read"), ("other", "bob", "write")):
        assert clients(client, name, user=user, role=token_role) == {
            **dict.fromkeys(may, 403),
            **known,
            "check": [200, 403],
        }
    assert clients(client, "nobody", user=None) == {**dict.fromkeys(may, 401), **known, "check": [200, 401]}
    assert [clients(role), clients(role, role="read")] == ["write", "read"]


def test_an_unknown_token_is_told_so(hub: Hub, clients: Clients) -> None:
    """A wrong token is 401 with the Hub's own words, not a repository that is not there."""

    def client():
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        found = []
        for call in (lambda: HfApi().whoami(), lambda: HfApi().model_info("alice/x")):
            try:
                call()
            except HfHubHTTPError as error:
                found.append([type(error).__name__, error.response.status_code, "redential" in str(error)])
        return found

    found = clients(client, user=None, HF_TOKEN="hf_" + "x" * 34)
    assert found[0][1] == 401
    assert found[1] == ["HfHubHTTPError", 401, True]


def test_private_repositories(either_hub: Hub, clients: Clients) -> None:
    """The owner reads with either token; for others it does not exist, neither its facts nor its files nor its name."""

    def make():
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo("alice/secret", private=True)
        api.upload_file(repo_id="alice/secret", path_or_fileobj=b"w" * 5000, path_in_repo="w.bin")
        api.upload_file(repo_id="alice/secret", path_or_fileobj=b"text", path_in_repo="a.txt")

    def read():
        from pathlib import Path

        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi()

        def outcome(call):
            try:
                return call()
            except HfHubHTTPError as error:
                return [type(error).__name__, error.response.status_code]

        return {
            "info": outcome(lambda: api.model_info("alice/secret").private),
            "tree": outcome(lambda: sorted(file.path for file in api.list_repo_tree("alice/secret"))),
            "small": outcome(lambda: Path(hf_hub_download("alice/secret", "a.txt")).read_text()),
            "large": outcome(lambda: len(Path(hf_hub_download("alice/secret", "w.bin")).read_bytes())),
            "listed": outcome(lambda: [item.id for item in api.list_models(author="alice")]),
            "commits": outcome(lambda: len(api.list_repo_commits("alice/secret"))),
            "discussions": outcome(lambda: len(list(api.get_repo_discussions("alice/secret")))),
        }

    def publish():
        from huggingface_hub import HfApi

        HfApi().update_repo_settings("alice/secret", private=False)

    open_to_all = {
        "tree": [".gitattributes", "a.txt", "w.bin"],
        "small": "text",
        "large": 5000,
        "listed": ["alice/secret"],
        "commits": 3,
        "discussions": 0,
    }
    clients(make)
    assert clients(read, home=clients.home / "write") == {"info": True, **open_to_all}
    assert clients(read, home=clients.home / "read", role="read") == {"info": True, **open_to_all}
    for user, status in (("bob", 404), (None, 401)):
        hidden = {key: ["RepositoryNotFoundError", status] for key in ("info", *open_to_all)}
        assert clients(read, home=clients.home / f"{user}", user=user) == {**hidden, "listed": []}
    clients(publish)
    assert clients(read, home=clients.home / "later", user=None) == {"info": False, **open_to_all}


def test_gated_repositories(either_hub: Hub, clients: Clients) -> None:
    """Everybody sees that a gated repository is there; its files open only to those who were let in."""

    def make():
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo("alice/gate")
        api.upload_file(repo_id="alice/gate", path_or_fileobj=b"w" * 5000, path_in_repo="w.bin")
        api.update_repo_settings("alice/gate", gated="manual")

    def grant():
        from huggingface_hub import HfApi

        HfApi().grant_access("alice/gate", "bob")

    def read():
        from pathlib import Path

        from huggingface_hub import HfApi, hf_hub_download, snapshot_download
        from huggingface_hub.errors import GatedRepoError

        api = HfApi()

        def outcome(call):
            try:
                return call()
            except GatedRepoError as error:
                return error.response.status_code

        return [
            api.model_info("alice/gate").gated,
            outcome(lambda: len(Path(hf_hub_download("alice/gate", "w.bin")).read_bytes())),
            outcome(lambda: bool(snapshot_download("alice/gate"))),
            outcome(lambda: api.auth_check("alice/gate")),
        ]

    clients(make)
    assert clients(read, home=clients.home / "owner") == ["manual", 5000, True, None]
    assert clients(read, home=clients.home / "bob", user="bob") == ["manual", 403, 403, 403]
    assert clients(read, home=clients.home / "nobody", user=None) == ["manual", 401, 401, 401]
    clients(grant)
    assert clients(read, home=clients.home / "bob", user="bob") == ["manual", 5000, True, None]


def test_xet_storage_asks_for_its_tokens(hub: Hub, clients: Clients) -> None:
    """Xet storage gives and takes nothing without a token that a repository gave out; a read token cannot write."""

    def client(url):
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.utils import get_session

        api = HfApi()
        api.create_repo("alice/x")
        api.upload_file(repo_id="alice/x", path_or_fileobj=b"w" * 5000, path_in_repo="w.bin")
        file = next(file for file in api.list_repo_tree("alice/x") if file.path == "w.bin")
        session = get_session()
        signed_in = {"Authorization": f"Bearer {get_token()}"}
        token = session.get(f"{url}/api/models/alice/x/xet-read-token/main", headers=signed_in).json()
        cas = token["casUrl"]
        headers = {"Authorization": f"Bearer {token['accessToken']}"}
        recipe = session.get(f"{cas}/v1/reconstructions/{file.xet_hash}", headers=headers)
        data = next(iter(recipe.json()["fetch_info"].values()))[0]["url"]
        parts = data.split("/")
        parts[-2] = "0" * 64
        return [
            recipe.status_code,
            session.get(f"{cas}/v1/reconstructions/{file.xet_hash}").status_code,
            session.get(f"{cas}/v1/reconstructions/{file.xet_hash}", headers=signed_in).status_code,
            session.post(f"{cas}/v1/xorbs/default/{'0' * 64}", headers=headers, content=b"x").status_code,
            session.post(f"{cas}/v1/shards", content=b"x").status_code,
            session.get(data).status_code,
            session.get("/".join(parts)).status_code,
        ]

    assert clients(client, hub.url) == [200, 401, 401, 403, 401, 200, 403]
