"""Trusted publishers: the clients' own exchange of an id token, and what the token they get may do."""

import time

from client_processes import Clients

from local_hub.testing import Hub


def make():
    from huggingface_hub import HfApi

    api = HfApi()
    for name in ("mine", "other"):
        api.create_repo(f"alice/{name}", private=True, exist_ok=True)
    api.create_repo("alice/open", exist_ok=True)
    api.create_repo("alice/mine", repo_type="dataset", exist_ok=True)


def publish(repo_id):
    """What a job can do with its token: its kind, and the outcome of each call."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()

    def outcome(call, *arguments, **more):
        try:
            call(*arguments, **more)
            return "done"
        except HfHubHTTPError as error:
            return error.response.status_code

    upload = {"repo_id": repo_id, "path_in_repo": "w.bin", "path_or_fileobj": b"w" * 5000}
    return {
        "token": get_token()[:7],
        "exists": outcome(api.create_repo, repo_id, exist_ok=True),
        "upload": outcome(api.upload_file, **upload),
        "card": outcome(api.upload_file, **{**upload, "path_in_repo": "README.md", "path_or_fileobj": b"# x"}),
        "tag": outcome(api.create_tag, repo_id, tag="v1"),
        "pull_request": outcome(api.create_discussion, repo_id, "A title"),
        "read": outcome(api.list_repo_files, repo_id),
        "whoami": outcome(api.whoami),
        "create": outcome(api.create_repo, "alice/new"),
        "delete": outcome(api.delete_repo, repo_id),
        "collection": outcome(api.create_collection, "x", namespace="alice"),
    }


def test_it_writes_to_its_repository_only(either_hub: Hub, clients: Clients) -> None:
    """In its own repository it commits and tags; it reads what is public; everything else is refused."""
    clients(make)
    job = {"user": None, "HF_OIDC_RESOURCE": "alice/mine", "HF_OIDC_ID_TOKEN": either_hub.trust("alice/mine")}
    done = dict.fromkeys(("exists", "upload", "card", "tag", "pull_request", "read"), "done")
    refused = dict.fromkeys(("whoami", "create", "delete", "collection"), 401)
    assert clients(publish, "alice/mine", **job) == {"token": "hf_jwt_", **done, **refused}
    writes = dict.fromkeys(("upload", "card", "tag", "pull_request"), 403)
    public = {"token": "hf_jwt_", "exists": "done", "read": "done", **writes, **refused}
    assert clients(publish, "alice/open", **job) == public
    hidden = {**dict.fromkeys(("exists", "upload", "card", "tag", "pull_request", "read"), 404), **refused}
    # create_repo answers with its own refusal where repo_info finds nothing.
    assert clients(publish, "alice/other", **job) == {"token": "hf_jwt_", **hidden, "exists": 401}

    def commits():
        from huggingface_hub import HfApi

        return [[commit.title, commit.authors] for commit in HfApi().list_repo_commits("alice/mine")][:2]

    title = "Upload README.md with huggingface_hub"
    assert clients(commits) == [[title, ["[OIDC]"]], ["Upload w.bin with huggingface_hub", ["[OIDC]"]]]


def test_github_actions(hub: Hub, clients: Clients) -> None:
    """The client asks for its id token, exchanges it once, and ``hf upload`` publishes; a stored token is not used."""
    clients(make)
    job = {
        "HF_OIDC_RESOURCE": "datasets/alice/mine",
        "GITHUB_ACTIONS": "true",
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{hub.url}/id-token",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": hub.trust("datasets/alice/mine"),
    }

    (clients.home / "rows.csv").write_text("a,b\n")
    hub.clear_requests()
    done = clients.command("upload", "alice/mine", "rows.csv", "--repo-type", "dataset", **job)
    assert done.returncode == 0, done.stderr
    requests = hub.requests()
    exchanges = [request["route"] for request in requests if request["route"] in ("id_token", "oauth_token")]
    assert exchanges == ["id_token", "oauth_token"]
    assert [request["user"] for request in requests if request["route"] == "commit"] == ["[OIDC]"]


def test_what_is_not_trusted_gets_no_token(hub: Hub, clients: Clients) -> None:
    """A foreign id token, another repository or one that is not there: one sentence from the exchange, the same."""

    def client():
        from huggingface_hub import HfApi

        try:
            HfApi().repo_info("alice/mine")
        except Exception as error:
            return [type(error).__name__, error.response.status_code, error.server_message]

    clients(make)
    token, none = hub.trust("alice/mine"), hub.trust("alice/none")
    sentence = "invalid_grant: No trusted publisher matches this token and resource"
    for resource, id_token in (("alice/mine", "id"), ("alice/open", token), ("datasets/alice/mine", token),
                               ("alice/none", none)):  # fmt: skip
        found = clients(client, user=None, HF_OIDC_RESOURCE=resource, HF_OIDC_ID_TOKEN=id_token)
        assert found == ["BadRequestError", 400, sentence], (resource, id_token)
    found = clients(client, user=None, HF_OIDC_RESOURCE="alice", HF_OIDC_ID_TOKEN=token)
    assert found[2] == "invalid_request: resource must be a repository"


def test_a_token_expires(hub: Hub, clients: Clients) -> None:
    """The client exchanges again when its hour is over; a token used beyond it is refused with a sentence."""

    def client(url):
        import time

        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HfHubHTTPError

        api, first = HfApi(), get_token()
        time.sleep(1.1)
        upload = {"repo_id": "alice/mine", "path_in_repo": "a.txt", "path_or_fileobj": b"a"}
        outcomes = []
        for token in (first, first[:-1] + ("0" if first[-1] != "0" else "1"), None):
            try:
                outcomes.append(len(api.upload_file(**upload, token=token).oid))
            except HfHubHTTPError as error:
                outcomes.append([error.response.status_code, error.server_message])
        return outcomes

    clients(make)
    id_token = hub.trust("alice/mine", seconds=1)
    start = time.monotonic()
    assert clients(client, hub.url, user=None, HF_OIDC_RESOURCE="alice/mine", HF_OIDC_ID_TOKEN=id_token) == [
        [401, "The access token has expired: exchange a new id token for another one"],
        [401, "Invalid credentials in Authorization header"],
        40,
    ]
    assert time.monotonic() - start > 1
