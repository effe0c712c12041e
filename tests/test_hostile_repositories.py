"""Base models, tokenizers and datasets made to harm who loads them: each ends in one line, and nothing is done."""

import json
import time
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download

from hub.pins import pin
from recipes.config import parse_recipe
from recipes.data.dataset_files import load_rows
from recipes.data.tokenizer import load_tokens
from recipes.training import model as models
from record.errors import UserError, one_line
from record.run_record import Pin

MIB = 2**20


def repository(name, kind, files):
    """A repository of a stranger with these files, as a pin of its commit."""
    api, repo_id = HfApi(), f"local-user/{name}"
    api.create_repo(repo_id, repo_type=kind)
    added = [CommitOperationAdd(path, data) for path, data in files.items()]
    commit = api.create_commit(repo_id, added, commit_message="x", repo_type=kind).oid
    return Pin(kind=kind, id=repo_id, revision=commit)


def of_base(name):
    return Path(hf_hub_download("google/flan-t5-large", name)).read_bytes()


def json_of_base(name, **keys):
    return {name: json.dumps(json.loads(of_base(name)) | keys).encode()}


CODE = b"raise SystemExit('a stranger ran his code')\n"
NORMALIZER = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
BASES = {
    "no-t5": (json_of_base("config.json", model_type="gpt2"), "is no model of the types t5, mt5"),
    "code": (json_of_base("config.json", auto_map={"AutoModelForSeq2SeqLM": "m.M"}) | {"m.py": CODE}, "`auto_map`"),
    "kernels": (json_of_base("config.json", attn_implementation="mallory/kernel"), "sets `attn_implementation`"),
    "quantizer": (json_of_base("config.json", quantization_config={"quant_method": "x"}), "`quantization_config`"),
    "layers-without-end": (json_of_base("config.json", num_layers=10**9), "`num_layers` is no whole number"),
    "no-shape": ({"config.json": b"[" * 10**5}, "nested too deep"),
    "a-large-configuration": ({"config.json": b" " * (MIB + 1)}, "not downloaded"),
    "pickles-only": ({"config.json": of_base, "pytorch_model.bin": b"\x80\x04."}, "holds no weights as safetensors"),
    "no-weights": ({"config.json": of_base, "model.safetensors": b"\xff" * 100}, "cannot be loaded"),
}  # fmt: skip


@pytest.mark.parametrize("name", BASES)
def test_a_hostile_base_model_is_not_loaded(name):
    files, told = BASES[name]
    files = {path: data(path) if callable(data) else data for path, data in files.items()}
    base = repository(f"base-{name}", "model", files)
    with pytest.raises(UserError, match=told) as refusal:
        models.load_base(base, parse_recipe(["--config", "recipes/finance.yaml"]).model)
    assert one_line(str(refusal.value)) == str(refusal.value)


TOKENIZERS = {
    "a-table-that-panics": (json_of_base("tokenizer.json", normalizer=NORMALIZER), "is not a T5's"),
    "a-decoder-of-patterns": (
        json_of_base("tokenizer.json", decoder={"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}),
        "its decoder is of the kind Replace",
    ),
    "another-model": (json_of_base("tokenizer.json", model={"type": "BPE"}), "its model is of the kind BPE"),
    "no-vocabulary": (json_of_base("tokenizer.json", model={"type": "Unigram", "vocab": [7]}), "is not a T5's"),
    "no-parts": ({"tokenizer.json": b"{}"}, "its model is of the kind None"),
    "a-list": ({"tokenizer.json": b"[]"}, "it lacks a part"),
    "not-json": ({"tokenizer.json": b"["}, "not JSON"),
    "large": ({"tokenizer.json": b" " * (64 * MIB + 1)}, "not downloaded"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_hostile_tokenizer_is_not_loaded(name):
    files, told = TOKENIZERS[name]
    base = repository(f"tokenizer-{name}", "model", json_of_base("config.json") | files)
    with pytest.raises(UserError, match=told) as refusal:
        load_tokens(base, [])
    assert one_line(str(refusal.value)) == str(refusal.value)


def test_a_tokenizer_s_own_code_is_not_run(monkeypatch):
    # Unless told otherwise, transformers asks whoever sits there whether to run it.
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    files = json_of_base("tokenizer_config.json", tokenizer_class="Mine", auto_map={"AutoTokenizer": ["t.Mine", None]})
    base = repository(
        "tokenizer-code",
        "model",
        json_of_base("config.json") | files | {"tokenizer.json": of_base("tokenizer.json"), "t.py": CODE},
    )
    with pytest.raises(UserError, match="the tokenizer of local-user/tokenizer-code"):
        models.load_tokenizer(base, [])


ROW = b'{"a": "x"}\n'


def readme(metadata):
    return {"README.md": f"---\n{metadata}\n---\n".encode(), "data.json": ROW}


def data_files(path):
    return readme(f"configs:\n- config_name: default\n  data_files: {path}")


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
)
DATASETS = {
    "a-billion-laughs": (readme(f"{LAUGHS}configs: *a11"), "stand for too many values"),
    "itself": (readme("configs: &a [*a]"), "stand for too many values"),
    "deep": ({".huggingface.yaml": b"[" * 10**5, "data.json": ROW}, "cannot be loaded"),
    "a-script": ({"rows-a-script.py": CODE, "data.json": ROW}, "cannot be loaded"),
    "a-large-card": ({"README.md": b" " * (2 * MIB + 1), "data.json": ROW}, "not downloaded"),
    "a-file-on-this-disk": (data_files("/etc/passwd"), "cannot be loaded"),
    "another-repository": (data_files("hf://datasets/gbharti/finance-alpaca/*.json"), "cannot be loaded"),
    "a-moving-branch": (data_files("hf://datasets/local-user/rows-a-moving-branch@main/data.json"), "pinned commit"),
    "an-archive": ({"rows.tar": b"\0" * 10_240}, "cannot be loaded|only arrow"),
    "no-rows": ({"notes.bin": b"x"}, "cannot be loaded"),
    "no-json": ({"data.json": b"{" * 10**5}, "cannot be loaded"),
}  # fmt: skip


@pytest.mark.parametrize("name", DATASETS)
def test_a_hostile_dataset_is_not_loaded(name):
    files, told = DATASETS[name]
    dataset = repository(f"rows-{name}", "dataset", files)
    start = time.perf_counter()
    with pytest.raises(UserError, match=told) as refusal:
        load_rows(dataset, None)
    assert time.perf_counter() - start < 10
    assert one_line(str(refusal.value)) == str(refusal.value)


def test_a_folder_of_the_same_name_is_not_read_instead(tmp_path, monkeypatch):
    dataset = repository("rows-shadowed", "dataset", {"data.json": ROW})
    assert load_rows(dataset, None)["train"][:] == {"a": ["x"]}
    base = pin("model", "google/flan-t5-large", "main")
    shadow = tmp_path / "local-user" / "rows-shadowed"
    shadow.mkdir(parents=True)
    (shadow / "data.json").write_bytes(b'{"a": "from this disk"}\n')
    (tmp_path / base.id).mkdir(parents=True)
    recipe = parse_recipe(["--config", "recipes/finance.yaml"])
    monkeypatch.chdir(tmp_path)
    for load in (load_rows, dataset, None), (models.load_base, base, recipe.model), (models.load_tokenizer, base, []):
        with pytest.raises(UserError, match="has the name of a repository"):
            load[0](*load[1:])
