"""A record from the Hub is a stranger's file: each hostile one ends in one line, soon, and without much memory."""

import json
import re
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from recipes.config import NOT_RECIPE, RecipeArguments, parse_recipe, recipe_from_record
from recipes.expectations import FIGURES
from record.errors import UserError, one_line
from record.published_recipe import OPEN, Expected, OwnRecipe, PublishedRecipe, refused_key
from record.release_files import LARGEST_FILES, RECORD_FILE
from record.run_record import load_record

HONEST = json.loads(Path("tests/record/records/version-1.json").read_text())
RECIPE = HONEST["recipe"]


def refusal(folder, data):
    """The one line with which `load_record` refuses the bytes of a record, found within two seconds."""
    (folder / RECORD_FILE).write_bytes(data)
    start = time.perf_counter()
    with pytest.raises(UserError) as refused:
        load_record(folder)
    assert time.perf_counter() - start < 2
    line = str(refused.value)
    assert line == one_line(line) and len(line) < 600
    return line


def changed(path, value):
    """The bytes of the honest record with another value at `a.b.c`."""
    record = json.loads(json.dumps(HONEST))
    *parents, last = path.split(".")
    target = record
    for parent in parents:
        target = target[int(parent) if isinstance(target, list) else parent]
    target[int(last) if isinstance(target, list) else last] = value
    return json.dumps(record).encode()


def test_the_honest_record_is_read(tmp_path):
    (tmp_path / RECORD_FILE).write_bytes(changed("name", "finance"))
    assert load_record(tmp_path).name == "finance"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(*case, id=name)
        for name, *case in [
            ("nan", changed("scores.rows", float("nan")), "NaN is not a number in JSON"),
            ("infinity", changed("training.seconds", float("-inf")), "-Infinity is not a number in JSON"),
            ("beyond-a-float", changed("hub", 0).replace(b'"hub": 0', b'"hub": 1e999'), "not finite"),
            ("thousands-of-digits", changed("data.loaded", 0).replace(b'"loaded": 0', b'"loaded": ' + b"9" * 5_000),
             "4300 digits"),
            ("a-key-twice", b'{"schema_version": 1, "name": "a", "name": "b"}', "the key 'name' twice"),
            ("a-key-twice-deep-inside", json.dumps(HONEST).encode().replace(b'"mean":', b'"mean": 1, "mean":', 1),
             "the key 'mean' twice"),
            ("nested-without-end", b"[" * LARGEST_FILES[RECORD_FILE], "nested too deep"),
            ("nested-in-the-recipe", b'{"recipe": ' + b'{"a":' * 10**5 + b"1" + b"}" * 10**5 + b"}", "nested too deep"),
            ("too-long", b" " * (LARGEST_FILES[RECORD_FILE] + 1), "larger than"),
            ("no-json", b"{,}", "not JSON"),
            ("no-text", b'{"a": "\xff"}', "not UTF-8"),
            ("no-object", b"[]", "not a JSON object"),
            ("empty", b"", "not JSON"),
            ("no-version", changed("schema_version", "1"), "is not a version"),
            ("version-true", changed("schema_version", True), "is not a version"),
            ("version-0", changed("schema_version", 0), "is not a version"),
            ("version-without-end", changed("schema_version", 10**400), "is not a version"),
            ("a-key-of-his-own", changed("note", 1), "note: Extra inputs"),
            ("a-key-that-ends-the-line", changed("x\nREPRODUCED", 1), "Extra inputs"),
        ]
    ],
)  # fmt: skip
def test_what_no_two_readers_read_alike_is_refused(tmp_path, data, told):
    assert told in refusal(tmp_path, data)


NO_NAMES = ["../x", "a/b", "a\\b", "/etc/x", ".x", "-x", "x.", "CON", "nul.txt", "x\n", "x y", "", "a" * 92, "C:x"]
NO_IDS = ["x", "../x", "a/../b", "a--b/c", "a/b.git", "/a/b", "a/b/c", "a/b\n", "./a/b", "a/-b", "é/b", f"{'a' * 97}/b"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_is_no_plain_file_name_is_refused(tmp_path, name):
    assert ": name: " in refusal(tmp_path, changed("name", name))
    assert refused_key({"adapter_name": name}).startswith("`adapter_name`")


@pytest.mark.parametrize("repo_id", NO_IDS)
def test_an_id_that_the_hub_would_not_give_is_refused(tmp_path, repo_id):
    assert "pins.base_model.id" in refusal(tmp_path, changed("pins.base_model.id", repo_id))
    assert refused_key({"dataset_name": repo_id}).startswith("`dataset_name`")


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../b", "a\\b", "a//b", "a/.x", "aux.json", "a/con/b", "a\n", "C:\\x"]
)
def test_a_path_that_leads_elsewhere_is_refused(tmp_path, path):
    assert f"files.{path}".split("\n")[0] in refusal(tmp_path, changed("files", {path: "0" * 64}))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.loaded", -1),
        ("data.test", 2**53),
        ("data.test", 1.5),
        ("data.dropped", {"x" * 301: 1}),
        ("data.dropped", {f"rule {number}": 1 for number in range(51)}),
        ("data.dropped", {"drop\nREPRODUCED": 1}),
        ("data.limits", {"a": 1e300}),
        ("unwritable.characters", {"<" * 9: 1}),
        ("model.total", 0),
        ("model.trainable", -5),
        ("batch.per_device", 0),
        ("batch.too_large", [1] * 101),
        ("environment.device", "\x1b[2J"),
        ("environment.device", "cpu \u202e"),
        ("environment.packages", {str(number): "1" for number in range(101)}),
        ("expectations.0.found", 10**300),
        ("leakage", [HONEST["leakage"][0]] * 101),
        ("leakage.0.exact", -1),
        ("training.history.0.loss", -0.1),
        ("training.history.0.loss", 1e300),
        ("training.seed", -1),
        ("training.seed", 2**32),
        ("contract.max_new_tokens", 0),
        ("contract.resamples", 0),
        ("contract.confidence", 1.5),
        ("scores.base", {"of his own": HONEST["scores"]["base"]["rougeL"]}),
        ("scores.adapter_outputs.cut", -1),
        ("rendered.matplotlib", "x" * 301),
        ("hub", "h" * 301),
        ("pins.base_model.license", "x" * 301),
        ("files", {f"f{number}": "0" * 64 for number in range(101)}),
        ("recipe", {"a": {"b": {"c": {"d": {"e": {"f": {}}}}}}}),
        ("recipe", {"a": list(range(5_000))}),
        ("recipe", {"a": "x" * 20_001}),
        ("recipe", {"a": 10**300}),
        ("recipe", []),
    ],
)  # fmt: skip
def test_a_value_out_of_bounds_is_refused(tmp_path, path, value):
    assert f": {path}" in refusal(tmp_path, changed(path, value))


@pytest.mark.parametrize(("bound", "value"), [("mean", 1.01), ("low", -2)])
def test_a_share_out_of_bounds_is_refused(tmp_path, bound, value):
    assert ": scores.base: Value error, rougeL lies between" in refusal(
        tmp_path, changed(f"scores.base.rougeL.{bound}", value)
    )


def test_an_interval_upside_down_is_refused(tmp_path):
    """The plot of such a one ended in a traceback."""
    assert "lower end is not above" in refusal(tmp_path, changed("scores.base.rougeL.high", -1))


def test_the_largest_record_takes_bounded_memory(tmp_path):
    # Sixteen mebibytes of small objects.
    small = b'{"":0},' * ((LARGEST_FILES[RECORD_FILE] - 60) // 7)
    (tmp_path / RECORD_FILE).write_bytes(b'{"schema_version":1,"recipe":{"a":[' + small + b"0]}}")
    # 552 MiB measured with Python 3.11.7.
    code = (
        "import resource, sys; from pathlib import Path; from record.run_record import load_record\n"
        "from record.errors import UserError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (800 * 2**20,) * 2)\n"
        "try: load_record(Path(sys.argv[1]))\n"
        "except UserError as refusal: print(refusal)"
    )
    found = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert "is not a run record" in found.stdout, found.stderr


PATHS = {"output_dir": "/home", "deepspeed": "zero.json", "fsdp_config": "x.json", "fsdp": "y",
         "accelerator_config": "x.json", "resume_from_checkpoint": "/x", "generation_config": "/x"}  # fmt: skip
REMOTE = {"push_to_hub": True, "hub_model_id": "mallory/x", "hub_token": "x", "hub_strategy": "all_checkpoints",
          "hub_revision": "x", "report_to": "wandb", "project": "x", "trackio_space_id": "mallory/x",
          "trackio_bucket_id": "mallory/x", "trackio_static_space_id": "mallory/x"}  # fmt: skip
CODE = {"trust_remote_code": True, "torch_compile_backend": "mallory.backend",
        "torch_compile_mode": "x", "use_liger_kernel": True, "liger_kernel_config": {}, "optim_args": "x=1",
        "optim_target_modules": "(a+)+$", "parallelism_config": {}, "ddp_backend": "mpi",
        "dataloader_multiprocessing_context": "spawn", "enable_jit_checkpoint": True, "config": "x.yaml"}  # fmt: skip
REST = {"debug": "underflow_overflow", "log_level": "debug", "label_names": ["x"], "include_for_metrics": ["inputs"],
        "predict_with_generate": True, "generation_max_length": 10**9, "generation_num_beams": 10**9,
        "lora_target_parameters": ["(a+)+$"], "ddp_timeout": 10**9, "fp16": True, "local_rank": 7,
        "use_cpu": True, "disable_tqdm": True, "auto_find_batch_size": True, "strict": True, "env": {"A": "b"},
        "x\x1b[2J\nREPRODUCED": 1}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [*PATHS.items(), *REMOTE.items(), *CODE.items(), *REST.items()])
def test_a_recipe_may_not_set_what_reaches_beyond_training(key, value):
    assert refused_key(RECIPE | {key: value}) == f"`{key}` is not one of the keys that a published recipe may set"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_name_or_path", "/tmp/model"),
        ("model_name_or_path", "../model"),
        ("dataset_name", "json"),
        ("dataset_config", "../../x"),
        ("dataset_config", "a/b"),
        ("attn_implementation", "mallory/kernel"),
        ("optim", "torchao_adam"),
        ("optim", "galore_adamw"),
        ("lr_scheduler_type", "greedy"),
        ("dtype", "auto"),
        ("use_peft", False),
        ("lora_target_modules", "(a+)+$"),
        ("lora_target_modules", ["q", "(.*)*x"]),
        ("lora_target_modules", ["q"] * 101),
        ("lora_modules_to_save", [".*"]),
        ("bnb_4bit_quant_storage", "os"),
        ("bnb_4bit_quant_type", "x"),
        ("lora_r", 1_025),
        ("lora_r", 0),
        ("lora_r", True),
        ("lora_alpha", 10**9),
        ("lora_dropout", 1),
        ("max_new_tokens", 4_097),
        ("num_beams", 65),
        ("per_device_train_batch_size", 10**9),
        ("gradient_accumulation_steps", 10**9),
        ("num_train_epochs", 1e9),
        ("num_train_epochs", float("nan")),
        ("max_steps", 10**8),
        ("learning_rate", float("inf")),
        ("learning_rate", "1e-3"),
        ("dataloader_num_workers", 17),
        ("dataloader_prefetch_factor", 10**6),
        ("seed", -1),
        ("test_size", 1),
        ("prompt", "{a}" * 31),
        ("prompt", ["{a}"] * 101),
        ("prompt", []),
        ("target", "x" * 5_001),
        ("added_tokens", ["x"] * 101),
        ("length_rules", ["drop words(a) > 1"] * 21),
        ("extract", {f"c{number}": "(?P<a>.)" for number in range(11)}),
        ("extract", {"a": "x" * 2_001}),
        ("gradient_checkpointing_kwargs", {"context_fn": "x"}),
        ("metric_for_best_model", "__class__"),
        ("expect", {"published": {"base": {"rougeX": 1}}}),
        ("expect", {"published": {"base": {"rouge1": 2}}}),
        ("expect", {"all_parameters": 10**30}),
    ],
)  # fmt: skip
def test_a_recipe_may_not_set_nonsense(key, value):
    refused = refused_key(RECIPE | {key: value})
    assert re.match(f"`{key}[a-z0-9._]*`(:| should| is not one of) ", refused, re.IGNORECASE)
    assert refused == one_line(refused) and len(refused) < 300


def test_every_shipped_recipe_may_be_published_and_its_record_be_trained():
    for path in Path("recipes").glob("*.yaml"):
        resolved = parse_recipe(["--config", str(path)]).resolved
        assert refused_key(resolved) is None
        assert recipe_from_record(path.stem, resolved).resolved == resolved


def test_the_allowed_keys_and_values_are_those_of_the_installed_versions():
    from typing import get_args

    from transformers import Seq2SeqTrainingArguments
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames
    from trl import ModelConfig

    known = {item.name for part in (RecipeArguments, Seq2SeqTrainingArguments, ModelConfig) for item in fields(part)}
    allowed = PublishedRecipe.__annotations__
    assert allowed.keys() <= known
    assert {item.name for item in fields(RecipeArguments)} - NOT_RECIPE <= allowed.keys()
    assert {item.name for item in fields(RecipeArguments)} <= OwnRecipe.__annotations__.keys()
    assert allowed.keys() >= OPEN
    assert Expected.__annotations__.keys() == {*FIGURES, "published"}
    assert set(get_args(allowed["lr_scheduler_type"])) <= {kind.value for kind in SchedulerType}
    assert set(get_args(allowed["optim"])) <= {kind.value for kind in OptimizerNames}


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        # Compiled, the first took all memory of the machine.
        ("(?P<x>((((a{1000}){1000}){1000}){1000}))", "counts too far"),
        ("(?P<x>a{1,999999999})", "counts too far"),
        (f"(?P<x>{'a{99}' * 20})", "counts too far"),
        ("(?P<x>" + "(" * 900 + ")" * 900 + ")", "is not a regular expression"),
        (7, "`extract.input` should be a valid string, not 7"),
    ],
)
def test_a_pattern_does_not_fill_the_memory(pattern, told):
    start = time.perf_counter()
    with pytest.raises(UserError, match=told):
        recipe_from_record("finance", RECIPE | {"extract": {"input": pattern}})
    assert time.perf_counter() - start < 5


def test_an_honest_pattern_counts(tmp_path):
    recipe = recipe_from_record("finance", RECIPE | {"extract": {"input": r"(?P<day>\d{4}-\d{2}-\d{2}) .{0,500}"}})
    assert recipe.arguments.parsed_extract()["input"].search("on 2026-01-02 x")["day"] == "2026-01-02"


def test_your_own_recipe_may_hold_more_but_within_the_same_bounds(tmp_path):
    keys = yaml.safe_load(Path("recipes/finance.yaml").read_text())
    path = tmp_path / "mine.yaml"
    more = {"torch_compile_mode": "default", "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr": 1e-5}, "lora_target_modules": "(q|v)"}  # fmt: skip
    path.write_text(yaml.safe_dump(keys | more))
    resolved = parse_recipe(["--config", str(path)]).resolved
    assert refused_key(resolved) and resolved["torch_compile_mode"] == "default"
    with pytest.raises(UserError, match="`lora_r` should be at most 1024, not 5000"):
        parse_recipe(["--config", str(path), "--lora_r", "5000"])


@pytest.mark.parametrize("name", ["my run.yaml", "-x.yaml", "nul.yaml"])
def test_a_recipe_s_file_names_its_run(tmp_path, name):
    (tmp_path / name).write_text("title: x")
    with pytest.raises(UserError, match="the run is named by this file"):
        parse_recipe(["--config", str(tmp_path / name)])
