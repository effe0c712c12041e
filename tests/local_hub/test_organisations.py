"""Organisations: whoever is a member sees them, and with the role write or admin publishes in their name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from client_processes import Clients

from local_hub import access
from local_hub.errors import HubError
from local_hub.testing import Hub

MEMBERS = {"alice": "write", "bob": "read", "carol": "admin"}


def test_whoami_lists_them_with_the_role(hub: Hub, clients: Clients) -> None:
    """``hf auth whoami`` and ``HfApi.whoami`` show each organisation; roles are added while the server runs."""

    def client():
        from huggingface_hub import HfApi

        return [[org["type"], org["name"], org["roleInOrg"]] for org in HfApi().whoami()["orgs"]]

    assert clients(client) == []
    hub.add_org("acme", MEMBERS)
    hub.add_org("zeta", {"alice": "admin"})
    assert clients(client) == [["org", "acme", "write"], ["org", "zeta", "admin"]]
    assert clients(client, user="bob") == [["org", "acme", "read"]]
    assert clients(client, user="dave") == []
    assert "acme,zeta" in clients.command("auth", "whoami").stdout


def test_members_publish_by_their_role(either_hub: Hub, clients: Clients) -> None:
    """Write and admin create, commit and delete; read and strangers get 403 in the Hub's words, whatever they try."""

    def client(name):
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi()

        def outcome(call, *arguments, **more):
            try:
                call(*arguments, **more)
                return "done"
            except HfHubHTTPError as error:
                return [error.response.status_code, error.server_message]

        upload = {"repo_id": "acme/shared", "path_in_repo": f"{name}.bin", "path_or_fileobj": name.encode() * 5000}
        return {
            "create": outcome(api.create_repo, f"acme/{name}"),
            "exists": str(api.create_repo("acme/shared", exist_ok=True)).rpartition("/")[2],
            "upload": outcome(api.upload_file, **upload),
            "tag": outcome(api.create_tag, "acme/shared", tag=name),
            "settings": outcome(api.update_repo_settings, "acme/shared", gated=False),
            "move": outcome(api.move_repo, f"{name}/own", f"acme/{name}-moved"),
            "delete": outcome(api.delete_repo, f"acme/{name}"),
        }

    def make(name):
        from huggingface_hub import HfApi

        HfApi().create_repo(f"{name}/own")

    either_hub.add_org("acme", MEMBERS)

    def shared():
        from huggingface_hub import HfApi

        HfApi().create_repo("acme/shared")

    clients(shared)
    for name in ("alice", "bob", "carol", "dave"):
        clients(make, name, user=name)
    for name in ("alice", "carol"):
        found = clients(client, name, user=name)
        assert found.pop("exists") == "shared"
        assert set(found.values()) == {"done"}, found
    for name in ("bob", "dave"):
        found = clients(client, name, user=name)
        assert found.pop("exists") == "shared"
        refused = [403, 'You don\'t have the rights to create a model under the namespace "acme"']
        assert found["create"] == found["move"] == refused
        assert [found[key][0] for key in ("upload", "tag", "settings")] == [403] * 3
        assert found["delete"][0] == 404

    def files():
        from huggingface_hub import HfApi

        return sorted(HfApi().list_repo_files("acme/shared"))

    assert clients(files, user=None) == [".gitattributes", "alice.bin", "carol.bin"]


def test_a_read_token_of_a_member_writes_nothing(hub: Hub, clients: Clients) -> None:
    """The role in the organisation does not make a read token more than it is."""

    def client():
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        try:
            HfApi().create_repo("acme/x")
        except HfHubHTTPError as error:
            return error.response.status_code

    hub.add_org("acme", MEMBERS)
    assert clients(client, role="read") == 403


def test_private_and_gated_repositories_are_open_to_members(either_hub: Hub, clients: Clients) -> None:
    """Every member reads them, with either token; for everybody else the private one does not exist."""

    def make():
        from huggingface_hub import HfApi

        api = HfApi()
        for name in ("secret", "gate"):
            api.create_repo(f"acme/{name}", private=name == "secret")
            api.upload_file(repo_id=f"acme/{name}", path_or_fileobj=b"w" * 5000, path_in_repo="w.bin")
        api.update_repo_settings("acme/gate", gated="manual")

    def read():
        from pathlib import Path

        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError

        def outcome(name):
            try:
                return len(Path(hf_hub_download(f"acme/{name}", "w.bin")).read_bytes())
            except HfHubHTTPError as error:
                return [type(error).__name__, error.response.status_code]

        listed = sorted(item.id for item in HfApi().list_models(author="acme"))
        return [outcome("secret"), outcome("gate"), listed]

    either_hub.add_org("acme", MEMBERS)
    clients(make)
    everything = [5000, 5000, ["acme/gate", "acme/secret"]]
    assert clients(read, user="bob", role="read", home=clients.home / "bob") == everything
    hidden = [["RepositoryNotFoundError", 404], ["GatedRepoError", 403], ["acme/gate"]]
    assert clients(read, user="dave", home=clients.home / "dave") == hidden


def test_names_and_roles_are_checked(hub: Hub) -> None:
    """A name stands for a user or an organisation, and a role is one of three."""
    with pytest.raises(HubError, match="alice is a user"):
        hub.add_org("alice", {"bob": "write"})
    with pytest.raises(HubError, match="Not a role in an organisation: owner"):
        hub.add_org("acme", {"bob": "owner"})
    hub.add_org("acme", {"bob": "read"})
    with pytest.raises(HubError, match="acme is an organisation"):
        hub.token("acme")
    hub.add_org("acme", {"alice": "write"})
    assert access.orgs(hub.root) == {"acme": {"bob": "read", "alice": "write"}}


def test_the_command_line_makes_the_user_a_member(tmp_path: Path) -> None:
    """``run --org acme``: the command's clients may publish as acme."""
    argv = ["run", "--root", str(tmp_path), "--no-seed", "--org", "acme", "--", "hf", "repos", "create", "acme/x"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, "-m", "local_hub", *argv], env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "repos" / "models" / "acme" / "x.git").is_dir()
