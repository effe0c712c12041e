"""Releases made to harm who looks at them: each ends in one line, and nothing is done."""

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from forger import copy_of, drawn_anew, edit_record, file, listed, publish, published_as, rehash
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download
from safetensors.torch import save_file

from evaluation import reproduce
from hub.release import pull, pull_parent
from model_cards.card_check import find_difference
from push.release import stage
from recipes.config import parse_recipe, recipe_yaml
from recipes.training import model as models
from record.adapter_config import check_adapter_config
from record.errors import Damaged, UserError, one_line
from record.predictions import SCHEMA, TEXTS, load_predictions
from record.release_files import ADAPTER_FILE, PREDICTIONS_FILE, RECORD_FILE
from record.run_record import Pin, load_record
from record.versions import VERSION

REPO, MIB = "local-user/hostile", 2**20
FORGED_LINE = f"x\nREPRODUCED {REPO}@{'0' * 40} ROUGE-L 1.0000"


@pytest.fixture(scope="module")
def finance(scored_on_few_rows, tmp_path_factory):
    return published_as("hostile", scored_on_few_rows, tmp_path_factory.mktemp("runs") / "finance")


def in_record(**changes):
    """Changes the published record without looking whether it is still one (`a__b` is `b` in `a`)."""

    def forge(run, repo_id):
        path = run / "release" / RECORD_FILE
        found = json.loads(path.read_text())
        for place, value in changes.items():
            *parents, last = place.split("__")
            target = found
            for parent in parents:
                target = target[parent]
            target[last] = value
        path.write_text(json.dumps(found))
        return run / "release"

    return forge


def in_recipe(**keys):
    """Changes the recipe in the record and beside it, with its hash."""

    def forge(run, repo_id):
        record = load_record(run / "release")
        record.recipe |= keys
        record.save(run / "release")
        (run / "release" / "finance.yaml").write_text(recipe_yaml(record.recipe))
        return rehash(run / "release")

    return forge


def in_json(name, **keys):
    """Changes keys of a published JSON file and its hash."""
    return file(name, lambda data: json.dumps(json.loads(data) | keys).encode(), hashed=True)


def padded(name, size):
    return file(name, lambda data: data + b"\n" * size, hashed=True)


def large_weights(run, repo_id):
    (run / "release" / ADAPTER_FILE).write_bytes(b"\0" * 20 * MIB)
    return rehash(run / "release")


def one_text_in_all_rows(run, repo_id):
    """A small file of predictions that would take 10 GiB."""
    rows = load_record(run).data.test
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, "int32")), pa.array(["x" * 20 * MIB]))
    lists = pa.array([[]] * rows, pa.list_(pa.int32()))
    columns = {name: text if name in TEXTS else lists for name in SCHEMA.names}
    pq.write_table(pa.table(columns), run / "release" / PREDICTIONS_FILE, compression="zstd", store_schema=False)
    return rehash(run / "release")


def a_folder_for_a_record(run, repo_id):
    (run / "release" / RECORD_FILE).unlink()
    (run / "release" / RECORD_FILE).mkdir()
    (run / "release" / RECORD_FILE / "x.json").write_text("{}")
    return run / "release"


CASES = [
    ("a-newer-version", in_record(schema_version=VERSION + 1), 2, "update the clone"),
    ("a-folder-for-a-record", a_folder_for_a_record, 2, f"holds no {RECORD_FILE}"),
    ("a-key-twice", file(RECORD_FILE, lambda data: b'{"name": "x",' + data[1:]), 2, "the key 'name' twice"),
    ("a-name-that-climbs", in_record(name="../../x"), 2, "name: String should match"),
    ("a-folder-to-write-to", in_record(recipe__output_dir="/tmp/x"), 2, "`output_dir` is not one of the keys"),
    ("a-pickle-to-resume", in_record(recipe__resume_from_checkpoint="/x"), 2, "`resume_from_checkpoint` is not one of"),
    ("a-service-that-hears", in_record(recipe__report_to="wandb"), 2, "`report_to` is not one of the keys"),
    ("a-base-on-this-disk", in_record(recipe__model_name_or_path="../base"), 2, "`model_name_or_path` should "),
    ("a-pattern-for-modules", in_record(recipe__lora_target_modules="(q+)+$"), 2, "`lora_target_modules` should "),
    ("an-output-without-end", in_record(recipe__max_new_tokens=10**9), 2, "`max_new_tokens` should be at most 4096"),
    ("a-pattern-that-fills-memory", in_recipe(extract={"input": "(?P<x>(((a{999}){999}){999}))"}), 2, "too far"),
    ("a-large-card", padded("README.md", 2 * MIB), 2, "the README.md of local-user/hostile has 2,1"),
    ("a-large-configuration", padded("adapter_config.json", MIB), 2, "adapter_config.json of local-user/hostile has"),
    ("a-large-picture", padded("plots/loss.png", 8 * MIB), 2, "not downloaded"),
    ("more-weights-than-the-record-counts", large_weights, 2, f"the {ADAPTER_FILE} of local-user/hostile has"),
    ("a-file-of-no-release", listed("weights.pkl", b"\x80" * 2 * MIB), 2, "the weights.pkl of local-user/hostile has"),
    ("one-text-in-all-rows", one_text_in_all_rows, 1, "bytes of text"),
    ("a-line-of-his-own", in_json("tokenizer_config.json", model_input_names=[FORGED_LINE]), 1, "model_input_names"),
    ("a-line-in-a-key", in_json("adapter_config.json", **{FORGED_LINE: 1}), 1, "adapter_config.json sets x"),
    ("deep-json", file("tokenizer.json", lambda _: b'{"r":' + b"[" * 10**5, True), 1, "nested too deep"),
    ("two-ranks", file("adapter_config.json", lambda data: b'{"r": 999,' + data[1:], True), 1, "the key 'r' twice"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("forge", "code", "told"), [pytest.param(forge, code, told, id=name) for name, forge, code, told in CASES]
)
def test_a_hostile_release_ends_in_one_line(finance, tmp_path, capsys, forge, code, told):
    run, commit = finance
    forged = forge(copy_of(run, tmp_path / "forged"), REPO)
    api = HfApi()
    # As `forger.publish`, which does not know of folders in a file's place.
    changed = [
        CommitOperationAdd(path.relative_to(forged).as_posix(), path)
        for path in forged.rglob("*")
        if path.is_file() and (forged / RECORD_FILE).is_dir() <= (path.parent.name == RECORD_FILE)
    ]
    gone = [CommitOperationDelete(RECORD_FILE)] if (forged / RECORD_FILE).is_dir() else []
    revision = api.create_commit(
        REPO, [*gone, *changed], commit_message="Publish", parent_commit=commit, create_pr=True
    ).pr_revision
    start = time.perf_counter()
    with pytest.raises(SystemExit) as stop:
        reproduce.main([REPO, "--revision", revision, "--level", "score"])
    out, err = capsys.readouterr()
    assert time.perf_counter() - start < 20
    last = out.rstrip("\n").split("\n")[-1]
    assert stop.value.code == code and told in last, last
    assert last == one_line(last) and last.startswith("UNCHECKED " if code == 2 else "DRIFTED ")
    assert "Traceback" not in out + err
    assert not [line for line in out.split("\n") if line.startswith("REPRODUCED")]


@pytest.mark.parametrize(
    "metadata",
    ["a: " + "[" * 10**5, "model-index: 7", "model-index:\n- name: x\n  results: [[x]]", "- a", "a: *a", "a: &a [*a]"],
)
def test_metadata_of_a_card_that_cannot_be_read_is_drift(finance, tmp_path, metadata):
    run = copy_of(finance[0], tmp_path / "run")
    folder, record = run / "release", load_record(run / "release")
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n# x\n")
    record.rendered.code = "0" * 64
    told = find_difference(REPO, folder, record, load_predictions(run))
    assert told.startswith(("the card's metadata", "the scores in the card's metadata")) and "\n" not in told


def test_a_release_of_version_1_reproduces(finance, tmp_path):
    run, commit = finance
    schema = json.loads(Path("record/schemas/record-1.json").read_text())

    def forge(run, repo_id):
        # Its rows were compared by the first rules.
        drawn_anew(data__rules=1)(run, repo_id)
        path = run / "release" / RECORD_FILE
        record = {key: value for key, value in json.loads(path.read_text()).items() if key in schema["properties"]}
        sections = {name: [record[name.lower()]] for name in ("Data", "Training", "Contract", "Scores", "Environment")}
        for section, parts in {**sections, "Leakage": record["leakage"]}.items():
            for part in parts:
                for key in part.keys() - schema["$defs"][section]["properties"].keys():
                    del part[key]
        # Another renderer's, as the card of an older version is.
        record["rendered"]["code"] = "0" * 64
        path.write_text(json.dumps(record | {"schema_version": 1}, indent=1))
        return run / "release"

    old = publish(REPO, commit, run / "release", forge(copy_of(run, tmp_path / "old"), REPO))
    verdict, found = reproduce.reproduce(REPO, old)
    assert (verdict.verdict, verdict.evidence) == ("REPRODUCED", "tokens"), verdict.line
    assert found.record.schema_version == VERSION
    stated = json.loads(Path(hf_hub_download(REPO, RECORD_FILE, revision=old)).read_text())
    assert stated["schema_version"] == 1


def test_a_damaged_cache_is_not_followed_out_of_it(finance, tmp_path, tmp_path_factory):
    folder = pull(REPO, finance[1], cache=tmp_path).require_whole().folder
    outside = tmp_path_factory.mktemp("outside") / "mine.txt"
    outside.write_text("mine")
    for target in ("/dev/zero", outside):
        (folder / "README.md").unlink()
        (folder / "README.md").symlink_to(target)
        with pytest.raises(Damaged, match=r"README\.md of local-user/hostile arrived damaged"):
            pull(REPO, finance[1], ["README.md"], cache=tmp_path)
        assert pull(REPO, finance[1], ["README.md"], cache=tmp_path).differing == []
    assert outside.read_text() == "mine"


OF_OTHERS = {
    "another-base": ({"base_model_name_or_path": "google/flan-t5-base"}, "names the base model google/flan-t5-base@"),
    "another-commit": ({"revision": "0" * 40}, f"google/flan-t5-large@{'0' * 40}"),
    "no-commit": ({"revision": None}, "revision: Input should be a valid string"),
    "a-module-to-import": ({"megatron_core": "antigravity"}, "sets megatron_core to 'antigravity'"),
    "a-class-to-import": ({"auto_mapping": {"parent_library": "antigravity"}}, "sets auto_mapping"),
    "a-base-changed-at-loading": ({"init_lora_weights": "olora"}, "sets init_lora_weights to 'olora'"),
    "a-rank-without-end": ({"r": 10**9}, "r: Input should be less than or equal to 1024"),
    "a-pattern-without-end": ({"target_modules": "(.*)*q"}, "target_modules"),
    "a-key-of-his-own": ({"x": 1}, "sets x to 1"),
}


@pytest.mark.parametrize("name", OF_OTHERS)
def test_an_adapter_of_another_base_or_with_demands_is_loaded_nowhere(finance, tmp_path, name):
    run, commit = finance
    keys, told = OF_OTHERS[name]
    forged = copy_of(run, tmp_path / "forged")
    record, path = load_record(forged), forged / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    with pytest.raises(UserError) as refusal:
        check_adapter_config(forged, record.pins.base_model)
    assert told in str(refusal.value) and "\n" not in str(refusal.value)
    recipe = parse_recipe(["--config", "recipes/finance.yaml"])
    base = models.load_base(record.pins.base_model, recipe.model)
    before = {key: tensor.clone() for key, tensor in base.state_dict().items()}
    for load in (
        lambda: models.load_adapter(base, forged, record.pins.base_model),
        lambda: models.continue_adapter(base, forged, record.pins.base_model, recipe.model, 0),
    ):
        with pytest.raises(UserError) as again:
            load()
        assert str(again.value) == str(refusal.value)
    assert all(tensor.equal(before[key]) for key, tensor in base.state_dict().items())
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        stage(forged, REPO, None, tmp_path / "release")
    release = copy_of(run, tmp_path / "parent") / "release"
    (release / "adapter_config.json").write_bytes(path.read_bytes())
    parent = publish(REPO, commit, run / "release", rehash(release))
    parent = Pin(kind="model", id=REPO, revision=HfApi().model_info(REPO, revision=parent).sha)
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        pull_parent(parent)


def test_the_record_keeps_what_others_would_not_train(finance, tmp_path):
    forged = copy_of(finance[0], tmp_path / "forged")
    edit_record(forged, recipe=lambda keys: keys | {"torch_compile_mode": "default"})
    assert load_record(forged).recipe == load_record(finance[0]).recipe | {"torch_compile_mode": "default"}


def test_what_others_would_not_train_is_not_published(finance, tmp_path):
    forged = copy_of(finance[0], tmp_path / "forged")
    edit_record(forged, recipe=lambda keys: keys | {"torch_compile_mode": "default"})
    with pytest.raises(UserError, match="cannot be published, others would not train it: `torch_compile_mode` is not"):
        stage(forged, REPO, None, tmp_path / "release")


def test_weights_that_are_none_are_not_loaded(finance, tmp_path):
    forged = copy_of(finance[0], tmp_path / "forged")
    save_file({"x": torch.zeros(2, dtype=torch.int64)}, forged / ADAPTER_FILE)
    recipe, base = parse_recipe(["--config", "recipes/finance.yaml"]), load_record(forged).pins.base_model
    model = models.load_base(base, recipe.model)
    with pytest.raises(UserError, match="x is of the type I64, which no weights are"):
        models.load_adapter(model, forged, base)
