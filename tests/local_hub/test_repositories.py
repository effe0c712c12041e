"""Repositories as a whole: made, found, described, moved, deleted; and what their cards say."""

from pathlib import Path

from client_processes import Clients

from local_hub.testing import Hub, running


def test_create_and_delete_every_kind(hub: Hub, clients: Clients) -> None:
    """A model, a dataset and a Space may share an id; creating twice is 409, or the same address with exist_ok."""

    def client():
        from pathlib import Path

        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

        api = HfApi()
        found = {"name": api.whoami()["name"]}
        for kind in ("model", "dataset", "space"):
            more = {"space_sdk": "static"} if kind == "space" else {}
            url = api.create_repo("alice/thing", repo_type=kind, **more)
            api.upload_file(repo_id="alice/thing", repo_type=kind, path_or_fileobj=kind.encode(), path_in_repo="k.txt")
            try:
                api.create_repo("alice/thing", repo_type=kind, **more)
            except HfHubHTTPError as error:
                again = error.response.status_code
            same = api.create_repo("alice/thing", repo_type=kind, exist_ok=True, **more)
            text = Path(api.hf_hub_download("alice/thing", "k.txt", repo_type=kind)).read_text()
            info = api.repo_info("alice/thing", repo_type=kind)
            api.delete_repo("alice/thing", repo_type=kind)
            try:
                api.delete_repo("alice/thing", repo_type=kind)
            except RepositoryNotFoundError:
                gone = True
            api.delete_repo("alice/thing", repo_type=kind, missing_ok=True)
            found[kind] = [url, again, same == url, text, type(info).__name__, info.private, gone]
        found["short"] = api.create_repo("just-a-name").repo_id
        return found

    base = hub.url
    assert clients(client) == {
        "name": "alice",
        "model": [f"{base}/alice/thing", 409, True, "model", "ModelInfo", False, True],
        "dataset": [f"{base}/datasets/alice/thing", 409, True, "dataset", "DatasetInfo", False, True],
        "space": [f"{base}/spaces/alice/thing", 409, True, "space", "SpaceInfo", False, True],
        "short": "alice/just-a-name",
    }


def test_a_new_repository_does_not_inherit(hub: Hub, clients: Clients) -> None:
    """Deleted and made again, a repository is empty, and its old commits are gone."""

    def client():
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo("alice/again")
        old = api.upload_file(repo_id="alice/again", path_or_fileobj=b"secret", path_in_repo="a.txt").oid
        api.delete_repo("alice/again")
        api.create_repo("alice/again")
        return [api.list_repo_files("alice/again"), api.revision_exists("alice/again", old)]

    assert clients(client) == [[".gitattributes"], False]


def test_move(either_hub: Hub, clients: Clients) -> None:
    """Under its old id a moved repository is still read and written, by redirect; until somebody takes the id."""

    def client():
        from pathlib import Path

        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi()
        api.create_repo("alice/old", private=True)
        api.create_repo("alice/other")
        oid = api.upload_file(repo_id="alice/old", path_or_fileobj=b"w" * 5000, path_in_repo="w.bin").oid
        api.move_repo("alice/old", "alice/new")
        found = {"info": [api.model_info("alice/old").id, api.model_info("alice/old").sha == oid]}
        found["file"] = Path(api.hf_hub_download("alice/old", "w.bin")).read_text() == "w" * 5000
        api.upload_file(repo_id="alice/old", path_or_fileobj=b"2", path_in_repo="b.txt")
        found["files"] = sorted(api.list_repo_files("alice/new"))
        api.create_tag("alice/old", tag="t")
        found["tags"] = [ref.name for ref in api.list_repo_refs("alice/new").tags]
        found["codes"] = []
        for target in ("alice/other", "bob/new"):
            try:
                api.move_repo("alice/new", target)
            except HfHubHTTPError as error:
                found["codes"].append(error.response.status_code)
        api.create_repo("alice/old")
        found["taken"] = [api.model_info("alice/old").id, api.list_repo_files("alice/old")]
        return found

    assert clients(client) == {
        "info": ["alice/new", True],
        "file": True,
        "files": [".gitattributes", "b.txt", "w.bin"],
        "tags": ["t"],
        "codes": [409, 403],
        "taken": ["alice/old", [".gitattributes"]],
    }


CARD = """---
base_model: google/flan-t5-small
library_name: peft
pipeline_tag: summarization
language: [en]
license: apache-2.0
datasets: [alice/data]
tags: [lora]
date: 2026-01-02
model-index:
- name: test
  results:
  - task: {type: summarization}
    dataset: {type: alice/data, name: Data, split: test}
    metrics:
    - {type: rouge, value: 41.5, name: ROUGE-1}
---
# Card
"""


def test_what_the_card_says(hub: Hub, clients: Clients) -> None:
    """Info carries the front matter, the tags made from it, the results, and the adapter's configuration."""

    def client(card):
        import json

        from huggingface_hub import CommitOperationAdd, HfApi, metadata_update

        adapter = {"base_model_name_or_path": "google/flan-t5-small", "task_type": "SEQ_2_SEQ_LM", "r": 4}
        api = HfApi()
        api.create_repo("alice/card")
        files = {
            "README.md": card.encode(),
            "adapter_config.json": json.dumps(adapter).encode(),
            "adapter_model.safetensors": b"x" * 3000,
        }
        operations = [CommitOperationAdd(path, data) for path, data in files.items()]
        api.create_commit("alice/card", operations, commit_message="x")
        info = api.model_info("alice/card", files_metadata=True)
        result = info.card_data.eval_results[0]
        metadata_update("alice/card", {"tags": ["lora", "more"]}, overwrite=True)
        some = api.model_info("alice/card", expand=["tags", "cardData"])
        sizes = {file.rfilename: file.size for file in info.siblings}
        return {
            "tags": info.tags,
            "names": [info.library_name, info.pipeline_tag, info.card_data.base_model, info.author],
            "result": [result.task_type, result.dataset_type, result.metric_type, result.metric_value],
            "index": info.model_index[0]["name"],
            "peft": info.config["peft"],
            "size": sizes["adapter_model.safetensors"],
            "updated": [some.card_data.tags, "more" in some.tags, some.sha],
        }

    found = clients(client, CARD)
    tags = found.pop("tags")
    assert tags == [
        "peft",
        "safetensors",
        "summarization",
        "lora",
        "model-index",
        "en",
        "dataset:alice/data",
        "base_model:google/flan-t5-small",
        "base_model:adapter:google/flan-t5-small",
        "license:apache-2.0",
    ]
    assert found == {
        "names": ["peft", "summarization", "google/flan-t5-small", "alice"],
        "result": ["summarization", "alice/data", "rouge", 41.5],
        "index": "test",
        "peft": {"base_model_name_or_path": "google/flan-t5-small", "task_type": "SEQ_2_SEQ_LM"},
        "size": 3000,
        "updated": [["lora", "more"], True, None],
    }


def test_lists(tmp_path: Path, home: Path) -> None:
    """Models and datasets are found by author, words and tags, over several pages; private ones only by their owner."""

    def write():
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi()
        for number in range(5):
            api.create_repo(f"alice/model-{number}", private=number == 4)
            card = f"---\nlicense: mit\ntags: [t{number % 2}]\npipeline_tag: summarization\n---\n".encode()
            files = [CommitOperationAdd("README.md", card)]
            api.create_commit(f"alice/model-{number}", files, commit_message="x")
        api.create_repo("alice/data", repo_type="dataset")

    def read():
        from huggingface_hub import HfApi

        api = HfApi()

        def ids(items):
            return sorted(item.id for item in items)

        return {
            "all": ids(api.list_models()),
            "author": ids(api.list_models(author="alice")),
            "nobody": ids(api.list_models(author="bob")),
            "search": ids(api.list_models(search="MODEL-3")),
            "tag": ids(api.list_models(filter=["t1", "license:mit"])),
            "task": ids(api.list_models(pipeline_tag="summarization", limit=3)),
            "data": ids(api.list_datasets(author="alice")),
            "full": [item.card_data.license for item in api.list_models(search="model-0", full=True, cardData=True)],
        }

    with running(tmp_path / "hub", users=["alice", "bob"], page_size=2) as hub:
        clients = Clients(hub, home)
        clients(write)
        own, other = clients(read), clients(read, user="bob")
    public = [f"alice/model-{number}" for number in range(4)]
    assert own["all"] == own["author"] == [*public, "alice/model-4"]
    assert other["all"] == other["author"] == public
    assert other["nobody"] == []
    assert other["search"] == ["alice/model-3"]
    assert other["tag"] == ["alice/model-1", "alice/model-3"]
    assert len(other["task"]) == 3
    assert other["data"] == ["alice/data"]
    assert other["full"] == ["mit"]


def test_card_checks(hub: Hub, clients: Clients) -> None:
    """A README with wrong metadata is refused before anything is uploaded; an empty one is warned about."""

    def client():
        import warnings
        from pathlib import Path

        from huggingface_hub import HfApi, ModelCard

        cards = {
            "good": "license: apache-2.0\nbase_model: google/flan-t5-small\npipeline_tag: summarization",
            "path": "base_model: /home/me/runs/checkpoint-10",
            "license": "license: my-own",
            "relation": "base_model: a/b\nbase_model_relation: child",
            "index": "model-index:\n- name: x\n  results:\n  - task: {type: t}\n    metrics: []",
            "yaml": "tags: [unclosed",
            "task": "pipeline_tag: text2text-generation",
        }
        api = HfApi()
        api.create_repo("alice/checked")
        found = {}
        for name, yaml in cards.items():
            content = f"---\n{yaml}\n---\n# {name}\n"
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    api.upload_file(repo_id="alice/checked", path_or_fileobj=content.encode(), path_in_repo="README.md")
                    found[name] = [str(item.message).rpartition("- ")[2] for item in caught]
                except ValueError as error:
                    found[name] = str(error).partition("\n")[2]
        try:
            ModelCard("---\nlicense: my-own\n---\n").validate()
        except ValueError:
            found["card"] = "refused"
        found["head"] = Path(api.hf_hub_download("alice/checked", "README.md")).read_text()
        return found

    found = clients(client)
    assert found["good"] == []
    assert '"base_model" with value' in found["path"]
    assert '"license" must be one of' in found["license"]
    assert '"base_model_relation" must be one of' in found["relation"]
    for missing in ("dataset.type", "dataset.name", "metrics"):
        assert f"results[0].{missing}" in found["index"]
    assert "YAML metadata is not valid" in found["yaml"]
    assert found["task"] == ["\"pipeline_tag\" 'text2text-generation' is not in the official list"]
    assert found["card"] == "refused"
    assert found["head"].endswith("# task\n")


def test_a_spaces_front_matter_is_checked(hub: Hub, clients: Clients) -> None:
    """What the Hub knows of a Space is refused before the commit; the rest of the front matter is the page's."""

    def client():
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo("alice/page", repo_type="space", space_sdk="gradio")
        found = []
        for yaml in (
            "sdk: flask",
            'colorFrom: "#ffffff"',
            f"short_description: {61 * 'a'}",
            "sdk: gradio\ntitle: Mine",
        ):
            try:
                api.upload_file(
                    repo_id="alice/page",
                    repo_type="space",
                    path_or_fileobj=f"---\n{yaml}\n---\n".encode(),
                    path_in_repo="README.md",
                )
                found.append(api.space_info("alice/page").card_data.title)
            except ValueError as error:
                found.append(str(error).partition("\n- ")[2])
        return found

    sdk, colour, short, good = clients(client)
    assert sdk == '"sdk" must be one of [gradio, docker, static]'
    assert colour.startswith('"colorFrom" must be one of [red, ')
    assert short.startswith('"short_description" length must be')
    assert good == "Mine"


def test_names_that_cannot_be(hub: Hub, clients: Clients) -> None:
    """What the Python client would not even send is refused by the hub as well, in one sentence."""

    def client(url, names):
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.utils import get_session

        headers = {"Authorization": f"Bearer {get_token()}"}
        found = {}
        for name in names:
            wanted = {"name": name, "organization": None}
            answer = get_session().post(f"{url}/api/repos/create", headers=headers, json=wanted)
            found[name] = [answer.status_code, answer.json().get("error", "").partition(". ")[2]]
        return [found, [item.id for item in HfApi().list_models(author="alice")]]

    bad = ["a b", "a--b", "a..b", "-a", "a-", ".a", "a.", "a" * 97, "a.git", "a.ipynb", "a.lock", "a/b", "é", "a\n", ""]
    found, made = clients(client, hub.url, [*bad, "a.b-c_d", "a" * 96, "datasets"])
    assert made == ["alice/" + "a" * 96, "alice/a.b-c_d"] or made == ["alice/a.b-c_d", "alice/" + "a" * 96]
    assert {name: found.pop(name)[0] for name in ("a.b-c_d", "a" * 96)} == {"a.b-c_d": 200, "a" * 96: 200}
    assert found.pop("datasets") == [400, "It is reserved."]
    assert set(found) == set(bad)
    for name, (status, sentence) in found.items():
        assert status == 400, name
        assert sentence.startswith("Only regular characters"), name
