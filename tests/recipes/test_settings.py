"""Every key of a recipe: it changes the adapter, or is refused, or is known not to change it."""

import gc
import itertools
import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download
from safetensors.torch import load_file, save_file
from settings_cases import BASE, EFFECTS, ELSEWHERE, ONE_VALUE, OWN, SAVED
from transformers import Seq2SeqTrainingArguments
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames
from trl import ModelConfig

from recipes import train
from recipes.config import NOT_RECIPE, RecipeArguments, parse_recipe, recipe_from_record
from recipes.settings import OPTIMIZERS, OPTIMIZERS_OF_BITSANDBYTES, REFUSED, WITHOUT_EFFECT
from recipes.training import model
from recipes.training.trainer import AdapterTrainer
from record.errors import Slip, UserError, one_line
from record.published_recipe import refused_key
from record.release_files import ADAPTER_FILE
from record.run_record import Record, load_record

KEYS = {item.name for part in (RecipeArguments, Seq2SeqTrainingArguments, ModelConfig) for item in fields(part)}


def rows(words: list[str], numbers: int) -> bytes:
    """Questions of different lengths, some of them with copies."""
    made = [{"question": f"What is {word} {'x ' * (number % 7)}{number}?", "answer": f"{word} < {number} of {word}"}
            for word in words for number in range(numbers)]  # fmt: skip
    return "\n".join(map(json.dumps, made + made[:6] * 2)).encode()


def publish(repo_id: str, repo_type: str, *commits: dict[str, bytes]) -> None:
    """A repository of these commits; the branch `first` is at the first."""
    HfApi().create_repo(repo_id, repo_type=repo_type, exist_ok=True)
    for number, files in enumerate(commits):
        operations = [CommitOperationAdd(path, data) for path, data in files.items()]
        HfApi().create_commit(repo_id, operations, commit_message="Files", repo_type=repo_type)
        if not number:
            HfApi().create_branch(repo_id, branch="first", repo_type=repo_type, exist_ok=True)


@pytest.fixture(scope="module")
def repositories():
    ours, others = rows(["bond", "share", "loan"], 12), rows(["tax", "rent", "price"], 12)
    few = rows(["cash"], 9)
    publish("local-user/settings-rows", "dataset", {"train.jsonl": others, "test.jsonl": few}, {"train.jsonl": ours})
    configs = [{"config_name": name, "data_files": f"{name}.jsonl"} for name in ("one", "other")]
    configs[0]["default"] = True
    card = f"---\n{yaml.safe_dump({'configs': configs})}---\n"
    files = {"README.md": card.encode(), "one.jsonl": others, "other.jsonl": ours}
    publish("local-user/settings-others", "dataset", files)
    folder = Path(snapshot_download("google/flan-t5-large"))
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    files = {name: (folder / name).read_bytes() for name in names}
    with_dropout = json.loads(files["config.json"]) | {"dropout_rate": 0.3}
    publish("local-user/settings-base", "model", files, {"config.json": json.dumps(with_dropout).encode()})


@pytest.fixture(scope="module")
def adapter_of(repositories, tmp_path_factory):
    """Trains a recipe in this process: its adapter's sha256. Pins and rows of equal recipes are made once."""
    pins, prepared, adapters, numbers = {}, {}, {}, itertools.count()
    folder = tmp_path_factory.mktemp("settings")

    def remembered(memory, make, names):
        def made(recipe, *rest):
            key = repr([(name, recipe.resolved.get(name)) for name in names])
            if key not in memory:
                memory[key] = make(recipe, *rest)
            return memory[key]

        return made

    of_data = sorted(
        {item.name for item in fields(RecipeArguments)} - NOT_RECIPE | {"model_name_or_path", "model_revision"}
    )

    def adapter(keys, published: Record | None = None):
        name = repr(sorted(keys.items())) + repr(published)
        if name not in adapters:
            path = folder / f"run{next(numbers)}.yaml"
            path.write_text(yaml.safe_dump(keys))
            run = path.with_suffix("")
            train.train(parse_recipe(["--config", str(path), "--output_dir", str(run)]), published)
            adapters[name] = load_record(run).training.adapter_sha256
        return adapters[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_pin", remembered(pins, train._pin, of_data))
        patch.setattr(train, "prepare", remembered(prepared, train.prepare, of_data))
        # A base as narrow as this one would be loaded in float32.
        patch.setattr(model, "pick_dtype", lambda dtype, base: getattr(torch, dtype))
        # `Trainer` collects garbage before it begins, among all that the tests before have left.
        gc.freeze()
        yield adapter
        gc.unfreeze()


def test_every_key_is_decided_once():
    decided = [*REFUSED, *WITHOUT_EFFECT, *EFFECTS, *ONE_VALUE, *ELSEWHERE]
    assert sorted(decided) == sorted(KEYS)
    for reason in (*REFUSED.values(), *WITHOUT_EFFECT.values()):
        assert reason == one_line(reason) and len(reason) > 10


@pytest.mark.parametrize("key", EFFECTS)
def test_a_setting_changes_the_adapter(adapter_of, key):
    value, context = EFFECTS[key]
    assert (BASE | context).get(key) != value
    assert adapter_of(BASE | context) != adapter_of(BASE | context | {key: value})


# Another value than the default for keys that cannot change the adapter, all at once.
INERT = {
    "metrics": ["chrf", "sql"], "rouge_tokenizer": "characters",
    "title": "y", "adapter_name": "y", "task": "summarization", "language": "de", "sql_schema": "{question}",
    "sql_database": "{question}.sqlite",
    "max_new_tokens": 5, "num_beams": 2, "expect": {"train_rows": 62}, "strict": True,
    "per_device_eval_batch_size": 3, "eval_accumulation_steps": 1, "eval_on_start": True,
    "logging_strategy": "epoch", "logging_steps": 1, "logging_first_step": True, "log_on_each_node": False,
    "logging_nan_inf_filter": False, "log_level": "error", "log_level_replica": "error", "disable_tqdm": True,
    "run_name": "y", "project": "y", "skip_memory_metrics": False, "metric_for_best_model": "eval_loss",
    "save_total_limit": 1, "save_on_each_node": True, "enable_jit_checkpoint": True, "activation_checkpointing": True,
    "activation_checkpointing_kwargs": {}, "torch_compile": True,
    "torch_compile_backend": "eager", "torch_compile_mode": "default", "full_determinism": True, "use_cpu": True,
    "dataloader_num_workers": 1, "dataloader_pin_memory": False, "dataloader_persistent_workers": True,
    "dataloader_prefetch_factor": 1, "dataloader_multiprocessing_context": "fork", "remove_unused_columns": False,
    "ddp_find_unused_parameters": True, "ddp_bucket_cap_mb": 1, "ddp_broadcast_buffers": True,
    "ddp_static_graph": True, "ddp_timeout": 60, "eval_strategy": "epoch", "save_strategy": "epoch",
}  # fmt: skip
# SQL is not scored against several references, so they are tried apart.
REFERENCES = {"metrics": ["chrf"], "references": ["{question}"]}
# Not tried: they need a GPU, other processes or services, or round in another order.
UNTRIED = {
    "engine", "tokens_per_micro_batch", "bnb_4bit_quant_storage", "output_dir", "report_to", "trackio_space_id",
    "trackio_bucket_id", "trackio_static_space_id", "gradient_checkpointing", "gradient_checkpointing_kwargs", "tf32",
    "ddp_backend", "local_rank",
}  # fmt: skip


def test_other_settings_leave_the_adapter_as_it_is_bit_for_bit(adapter_of):
    assert (INERT | REFERENCES).keys() - {"eval_strategy", "save_strategy"} == WITHOUT_EFFECT.keys() - UNTRIED
    assert adapter_of(BASE) == adapter_of(BASE | INERT) == adapter_of(BASE | REFERENCES)
    torch.use_deterministic_algorithms(False)


def refusal(tmp_path, keys):
    """The one line with which a recipe is refused."""
    path = tmp_path / "refused.yaml"
    path.write_text(yaml.safe_dump(keys))
    with pytest.raises(Slip) as refused:
        parse_recipe(["--config", str(path), "--output_dir", str(tmp_path / "run")])
    line = str(refused.value)
    assert line == one_line(line)
    return line


@pytest.mark.parametrize("key", REFUSED)
def test_a_setting_that_has_no_place_here_is_refused_in_the_file_and_on_the_command_line(tmp_path, key):
    assert refusal(tmp_path, BASE | {key: "x"}) == f"`{key}` is refused: {REFUSED[key]}"
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(BASE))
    with pytest.raises(Slip, match=f"^`{key}` is refused: "):
        parse_recipe(["--config", str(path), f"--{key}", "x"])


def test_a_refused_setting_may_say_what_is_so_in_any_case(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(BASE | {"push_to_hub": False, "fp16": False, "deepspeed": None}))
    parse_recipe(["--config", str(path), "--average_tokens_across_devices", "True", "--use-liger-kernel=false"])
    assert refusal(tmp_path, BASE | {"do_train": False}).startswith("`do_train` is refused: ")


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        *(({key: value}, line) for key, (value, line) in ONE_VALUE.items()),
        ({"tf32": True}, "--tf32 requires Ampere"),
        ({"metric_for_best_model": "rougeL"}, "`metric_for_best_model` should be 'loss' or 'eval_loss', not 'rougeL'"),
        ({"bnb_4bit_quant_type": "fp4"}, "`bnb_4bit_quant_type` has no effect without `load_in_4bit: true`"),
        ({"optim_args": "momentum=0.9"}, "`optim_args` has no effect with `optim: adamw_torch_fused`: remove it"),
        ({"optim": "sgd", "optim_args": "momentun=0.9"}, "`optim_args` has no effect with `optim: sgd`: remove it"),
        ({"optim": "sgd", "optim_args": "momentum"}, "`optim: sgd` cannot be used here: "),
        ({"optim": "adafactor", "adam_beta1": 0.5}, "`adam_beta1` has no effect with `optim: adafactor`: remove it"),
        ({"lr_scheduler_type": "constant", "warmup_steps": 3}, "`warmup_steps` has no effect with "),
        ({"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {"a": 1}}, "`lr_scheduler_kwargs` has no effect"),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"a": 1}}, "`lr_scheduler_type: cosine` and "),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "`lr_scheduler_type: cosine_with_min_lr` and "),
        (
            {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}},
            "`use_reentrant: true` loses the gradients of the first layers: ",
        ),
        ({"train_split": "train"}, "`train_split` needs `test_split` too: name both, or neither"),
        ({"validation_split": "train", "test_split": "test"}, "`validation_split` needs `train_split` too"),
        (OWN | {"dataset_splits": ["train"]}, "`dataset_splits` are joined and drawn from again: remove it"),
        (OWN | {"test_size": 0.1}, "`test_size` has no effect with `test_split`, which names the rows"),
        (OWN | {"split": "random"}, "`split` has no effect with `test_split`"),
        (OWN | {"split": "grouped"}, "`split: grouped` draws the test rows, `test_split` names them"),
        (OWN | {"validation_split": "test", "validation_size": 0.1}, "`validation_size` has no effect with `valid"),
        (OWN | {"validation_split": "test", "select_on_test": True}, "`select_on_test` takes the validation loss"),
        ({"length_rules": ["truncate words(answer) > 2"]}, "length rule 'truncate words(answer) > 2' has no effect: "),
    ],
)
def test_settings_without_effect_next_to_others_are_refused_with_one_line(tmp_path, keys, line):
    assert line in refusal(tmp_path, BASE | keys)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("key", ["optim", "lr_scheduler_type"])
def test_optimizers_and_schedules_each_change_the_adapter_or_are_refused(adapter_of, tmp_path, key):
    kinds = {"optim": OptimizerNames, "lr_scheduler_type": SchedulerType}[key]
    context = BASE | {"eval_strategy": "steps", "eval_steps": 2} if key == "lr_scheduler_type" else BASE
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(BASE))
    trained, refused = {}, []
    for kind in kinds:
        try:
            if kind.value in OPTIMIZERS_OF_BITSANDBYTES[1:]:
                parse_recipe(["--config", str(path), "--optim", kind.value])
            else:
                trained[kind.value] = adapter_of(context | {key: kind.value})
        except UserError as error:
            assert str(error) == one_line(str(error)) and f"`{key}: {kind.value}`" in str(error)
            refused.append(kind.value)
    assert refused and len({*trained.values()}) >= 4
    if key == "optim":
        assert {kind.value for kind in kinds} - {*OPTIMIZERS, *OPTIMIZERS_OF_BITSANDBYTES} <= {*refused}
        assert {*OPTIMIZERS} <= trained.keys()
    else:
        # They need `lr_scheduler_kwargs`.
        assert refused == ["cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay"]


def test_a_run_of_the_first_rules_is_repeated_without_what_they_did_not_apply(adapter_of, tmp_path):
    plain = adapter_of(BASE)
    recipe = BASE | {"label_smoothing_factor": 0.5, "neftune_noise_alpha": 10}
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(recipe))
    now = tmp_path / "now"
    train.train(parse_recipe(["--config", str(path), "--output_dir", str(now)]))
    record = load_record(now)
    assert record.data.rules == 2 and record.training.adapter_sha256 != plain
    record.data.rules = 1
    train.train(parse_recipe(["--config", str(path), "--output_dir", str(tmp_path / "old")]), record)
    assert load_record(tmp_path / "old").training.adapter_sha256 == plain


def test_a_published_recipe_of_before_is_still_read():
    before = {"attn_implementation": "sdpa", "average_tokens_across_devices": False, "torch_empty_cache_steps": 1,
              "lora_modules_to_save": ["lm_head"], "warmup_steps": 3.0, "lr_scheduler_type": "constant",
              "length_rules": ["truncate words(answer) > 2"], "prompt": ["{question}"]}  # fmt: skip
    recipe = {key: value for key, value in BASE.items() if key not in NOT_RECIPE} | before
    assert refused_key(recipe) is None
    assert recipe_from_record("before", recipe).resolved == recipe


@pytest.mark.parametrize(
    ("targets", "line"),
    [
        (["q", "vv"], "`lora_target_modules` names `vv`, which the base model lacks: it has k, lm_head, o, q, "),
        (["q", "shared"], "`lora_target_modules` names `shared`, which is never called: name `embed_tokens`"),
        (["vv"], "the adapter cannot be made: "),
    ],
)
def test_lora_on_modules_that_take_no_part_is_refused_with_one_line(adapter_of, targets, line):
    with pytest.raises(UserError) as refused:
        adapter_of(BASE | {"lora_target_modules": targets})
    assert line in str(refused.value) and str(refused.value) == one_line(str(refused.value))


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_lora_on_the_head_cannot_bring_another_head(adapter_of, tmp_path):
    path, run = tmp_path / "head.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(BASE | {"lora_target_modules": ["q", "lm_head"]}))
    recipe = parse_recipe(["--config", str(path), "--output_dir", str(run)])
    train.train(recipe)
    base = load_record(run).pins.base_model
    model.load_adapter(model.load_base(base, recipe.model), run, base)
    weights, name = load_file(run / ADAPTER_FILE), "base_model.model.lm_head.base_layer.weight"
    for other in (
        weights | {name: weights[name] + 1e-3},
        weights | {"base_model.model.x.base_layer.weight": torch.ones(2)},
    ):
        save_file(other, run / ADAPTER_FILE)
        with pytest.raises(UserError, match=r"^adapter_model\.safetensors (changes the base|does not fit)"):
            model.load_adapter(model.load_base(base, recipe.model), run, base)


def test_a_continued_run_stops_as_early_as_one_that_was_never_interrupted(adapter_of, tmp_path, monkeypatch):
    # The loss falls, which counts as no improvement here: after steps 2 and 3 patience is at its end.
    keys = SAVED | {"early_stopping_patience": 2, "max_steps": 6}
    whole = adapter_of(BASE | keys)
    path, run = tmp_path / "continued.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(BASE | keys))
    words = ["--config", str(path), "--output_dir", str(run)]
    save = AdapterTrainer._save_checkpoint

    def save_and_die(trainer, *rest):
        save(trainer, *rest)
        if trainer.state.global_step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(AdapterTrainer, "_save_checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        train.train(parse_recipe(words))
    monkeypatch.undo()
    train.train(parse_recipe(words))
    training = load_record(run).training
    assert (training.resumed_from, training.steps, training.adapter_sha256) == (2, 3, whole)


def test_a_learning_rate_of_zero_is_told(adapter_of, capsys):
    adapter_of(BASE | {"learning_rate": 0})
    assert "Training will change nothing: `learning_rate` is 0\n" in capsys.readouterr().out
