"""Ids in any case, moved repositories, and what the Hub adds to repositories by itself."""

from client_processes import Clients

from local_hub.testing import Hub


def test_an_id_in_another_case_or_from_before_a_move_leads_to_the_repository(hub: Hub, clients: Clients) -> None:
    def ask() -> list:
        from pathlib import Path

        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.utils import get_session

        api = HfApi()
        api.create_repo("alice/Model")
        url = api.create_repo("Alice/MODEL", exist_ok=True)
        api.upload_file(path_or_fileobj=b"text", path_in_repo="a.txt", repo_id="ALICE/model")
        answers = [url.repo_id, api.model_info("alice/model").id]
        session = get_session()
        for path in ("/api/models/alice/model/tree/main?recursive=true", "/ALICE/model/resolve/main/a.txt"):
            answer = session.get(f"{api.endpoint}{path}", follow_redirects=False)
            answers.append([answer.status_code, answer.headers["location"]])
        api.move_repo("alice/model", "alice/moved")
        api.move_repo("alice/moved", "alice/MOVED")
        paths = api.get_paths_info("Alice/Model", ["a.txt"])
        text = Path(api.hf_hub_download("alice/model", "a.txt")).read_text()
        api.upload_file(path_or_fileobj=b"more", path_in_repo="b.txt", repo_id="alice/Model")
        answers += [api.model_info("ALICE/model").id, [entry.path for entry in paths], text]
        answers.append(sorted(api.list_repo_files("alice/MOVED")))
        for name in ("alice/moved", "alice/Moved"):
            try:
                api.create_repo(name)
            except HfHubHTTPError as error:
                answers.append(error.response.status_code)
        answers.append(api.create_repo("alice/Model").repo_id)
        return answers

    assert clients(ask) == [
        "alice/Model",
        "alice/Model",
        [307, "/api/models/alice/Model/tree/main?recursive=true"],
        [307, "/alice/Model/resolve/main/a.txt"],
        "alice/MOVED",
        ["a.txt"],
        "text",
        [".gitattributes", "a.txt", "b.txt"],
        409,
        409,
        "alice/Model",
    ]


def test_an_id_without_a_namespace_is_no_repository_on_any_route(hub: Hub, clients: Clients) -> None:
    def ask() -> list:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        api, names = HfApi(), []
        for call in (
            lambda: api.model_info("gpt2"),
            lambda: api.model_info("gpt2", revision="main"),
            lambda: list(api.list_repo_tree("gpt2")),
            lambda: api.list_repo_commits("gpt2"),
            lambda: api.hf_hub_download("gpt2", "config.json"),
            lambda: api.hf_hub_download("gpt2", "config.json", repo_type="dataset"),
        ):
            try:
                call()
            except RepositoryNotFoundError as error:
                names.append(error.response.status_code)
        return names

    assert clients(ask, user=None) == [404] * 6


def test_gitattributes_grow_and_a_space_begins_with_a_readme(either_hub: Hub, clients: Clients) -> None:
    def grow() -> list:
        from pathlib import Path

        from huggingface_hub import CommitOperationAdd, HfApi, SpaceCard
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi()
        api.create_repo("alice/m")
        before = Path(api.hf_hub_download("alice/m", ".gitattributes")).read_text()
        files = {"plots/a [1].png": b"\x89PNG\0", "w.safetensors": b"\0", "a.txt": b"text"}
        api.create_commit("alice/m", [CommitOperationAdd(*item) for item in files.items()], commit_message="x")
        api.upload_file(path_or_fileobj=b"\x89PNG\1", path_in_repo="plots/a [1].png", repo_id="alice/m")
        after = Path(api.hf_hub_download("alice/m", ".gitattributes")).read_text()
        api.create_repo("alice/s", repo_type="space", space_sdk="gradio")
        card = SpaceCard.load("alice/s")
        card.validate()
        try:
            api.create_commit("alice/m", [CommitOperationAdd("a..\\b", b"x")], commit_message="x")
        except HfHubHTTPError as error:
            refused = error.response.status_code
        return [after.removeprefix(before), card.data.sdk, refused]

    added = "plots/a[[:space:]]\\[1\\].png filter=lfs diff=lfs merge=lfs -text\n"
    assert clients(grow) == [added, "gradio", 422]


def test_a_bad_card_is_refused_in_words(hub: Hub, clients: Clients) -> None:
    def refusals() -> list:
        from huggingface_hub import ModelCard

        texts = []
        for metadata in ("license: mine", "widget: x", "datasets:\n- null"):
            try:
                ModelCard(f"---\n{metadata}\n---\n").validate()
            except ValueError as error:
                texts.append(str(error))
        return texts

    license, widget, datasets = clients(refusals)
    assert license.startswith('- Error: "license" must be one of')
    assert widget == '- Error: "widget" must be an array'
    assert datasets == '- Error: "datasets" must be an array of strings'
