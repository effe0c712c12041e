"""What the Hub's own JavaScript makes of a release: @huggingface/hub reads it, @huggingface/tasks knows its metadata.

The second package is where the Hub's pages have their tasks, libraries and "Use this model" snippets from.
"""

import json
from pathlib import Path

import npm_clients
import pytest
import yaml
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.hf_api import RepoFile
from short_runs import copy_of

from push import publish
from record.run_record import load_record

RECIPES = sorted(Path("recipes").glob("*.yaml"))

READ = r"""
import { downloadFile, listFiles, modelInfo } from "@huggingface/hub";
import { MODEL_LIBRARIES_UI_ELEMENTS } from "@huggingface/tasks";
const { HF_ENDPOINT: hubUrl, REPO: repo } = process.env;
const text = async (path) => await (await downloadFile({ repo, hubUrl, path })).text();
const files = {};
for await (const file of listFiles({ repo, hubUrl, recursive: true }))
  if (file.type === "file") files[file.path] = file.size;
const additionalFields = ["author", "cardData", "config", "filePaths", "library_name", "model-index", "sha", "tags"];
const info = await modelInfo({ name: repo, hubUrl, additionalFields });
const adapter = await text("adapter_config.json");
// The model as the Hub's pages have it; its adapter's configuration once as the hub tells it, once as the file does.
const model = { ...info, id: info.name, pipeline_tag: info.task };
const snippets = MODEL_LIBRARIES_UI_ELEMENTS[info.library_name].snippets;
console.log(JSON.stringify({
  files, info, adapter, card: await text("README.md"), snippets: snippets(model),
  again: snippets({ ...model, config: { peft: JSON.parse(adapter) } }),
}));
"""

KNOWN = r"""
import { MODEL_LIBRARIES_UI_ELEMENTS, PIPELINE_DATA } from "@huggingface/tasks";
const names = new Intl.DisplayNames(["en"], { type: "language", fallback: "none" });
console.log(JSON.stringify({
  tasks: Object.keys(PIPELINE_DATA).filter((task) => !PIPELINE_DATA[task].hideInModels),
  libraries: Object.keys(MODEL_LIBRARIES_UI_ELEMENTS),
  languages: Object.fromEntries(process.env.LANGUAGES.split(" ").map((code) => [code, names.of(code) ?? null])),
}));
"""


@pytest.fixture(scope="module")
def release(request, tmp_path_factory, hub):
    """The run's record, its repository, and what the npm packages read of it without a token."""
    # Where npm is missing this skips, before a model is trained for nothing.
    npm_clients.install()
    folder = copy_of(request.getfixturevalue("run"), tmp_path_factory.mktemp("npm") / "run", "finance-for-npm")
    publish.main([str(folder)])
    record = load_record(folder)
    repo_id = f"local-user/{record.recipe['adapter_name']}"
    return record, repo_id, npm_clients.run(READ, folder.parent, hub.env(folder, REPO=repo_id))


@pytest.fixture(scope="module")
def known(tmp_path_factory, hub):
    """The tasks and libraries of the Hub's pages, and the names of the languages that the recipes are in."""
    folder = tmp_path_factory.mktemp("known")
    codes = sorted({recipe(path).get("language", "en") for path in RECIPES} | {"xx"})
    return npm_clients.run(KNOWN, folder, hub.env(folder, LANGUAGES=" ".join(codes)))


def recipe(path):
    return yaml.safe_load(path.read_text())


def test_files_and_metadata_are_those_of_the_python_client(release):
    _, repo_id, read = release
    api = HfApi()
    entries = api.list_repo_tree(repo_id, recursive=True)
    tree = {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}
    assert read["files"] == tree and {"adapter_model.safetensors", "record.json", "plots/loss.png"} <= tree.keys()
    info = read["info"]
    assert sorted(info["filePaths"]) == sorted(tree)
    assert (info["name"], info["author"], info["private"]) == (repo_id, "local-user", False)
    assert info["sha"] == api.model_info(repo_id).sha
    for path, text in (("README.md", read["card"]), ("adapter_config.json", read["adapter"])):
        assert Path(hf_hub_download(repo_id, path)).read_text() == text


def test_the_hub_knows_what_the_card_states(release, known):
    record, _, read = release
    info, card = read["info"], read["info"]["cardData"]
    assert card["pipeline_tag"] == info["task"] == record.recipe["task"] and info["task"] in known["tasks"]
    assert card["library_name"] == info["library_name"] == "peft" and info["library_name"] in known["libraries"]
    assert card["base_model"] == record.pins.base_model.id
    assert card["license"] == record.pins.base_model.license
    base, dataset = record.pins.base_model.id, record.pins.dataset.id
    stated = {"peft", f"license:{card['license']}", f"base_model:adapter:{base}", f"dataset:{dataset}", "en"}
    assert stated <= set(info["tags"])
    (result,) = info["model-index"][0]["results"][:1]
    assert result["task"]["type"] == info["task"] and result["dataset"]["revision"] == record.pins.dataset.revision


def test_use_this_model_names_the_base_and_loads(release):
    """The snippet of the Hub's page, pasted as it is: it loads the published adapter onto its base."""
    record, repo_id, read = release
    (snippet,) = read["snippets"]
    assert read["again"] == read["snippets"]
    assert json.loads(read["adapter"])["base_model_name_or_path"] == record.pins.base_model.id
    assert f'AutoModelForSeq2SeqLM.from_pretrained("{record.pins.base_model.id}")' in snippet
    assert f'PeftModel.from_pretrained(base_model, "{repo_id}")' in snippet
    names = {}
    exec(snippet, names)
    assert type(names["model"]).__name__ == "PeftModelForSeq2SeqLM"
    assert names["model"].peft_config["default"].base_model_name_or_path == record.pins.base_model.id


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_of_a_task_and_a_language_that_the_hub_has(path, known):
    stated = recipe(path)
    # What the recipe leaves out is the default of recipes/config.py, and model_cards/card.py's "en".
    assert stated.get("task", "question-answering") in known["tasks"]
    assert known["languages"]["xx"] is None and known["languages"][stated.get("language", "en")]
