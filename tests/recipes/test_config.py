from pathlib import Path

import pytest
import yaml

from recipes.config import changed_keys, parse_recipe, recipe_from_record, recipe_yaml, template_columns
from record.errors import UserError

FINANCE = "recipes/finance.yaml"
MINIMAL = "title: x\nadapter_name: x\ndataset_name: a/b\nprompt: '{a}'\ntarget: '{b}'\n"


def test_a_recipe_resolves_to_its_keys_with_overrides(tmp_path):
    recipe = parse_recipe(["--config", FINANCE, "--output_dir", str(tmp_path), "--lora-r", "4", "--max_steps=7"])
    keys = yaml.safe_load(Path(FINANCE).read_text())
    assert recipe.name == "finance"
    del keys["report_to"]
    assert recipe.resolved == {**keys, "lora_r": 4, "max_steps": 7, "prompt": [keys["prompt"]]}
    assert (recipe.model.lora_r, recipe.training.max_steps) == (4, 7)
    assert recipe.training.output_dir == str(tmp_path) and "output_dir" not in recipe.resolved


def test_a_resolved_recipe_can_be_read_back_from_the_record_and_from_yaml(tmp_path):
    resolved = parse_recipe(["--config", FINANCE, "--seed", "3"]).resolved
    assert recipe_from_record("finance", resolved).resolved == resolved
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_yaml(resolved))
    again = parse_recipe(["--config", str(path)])
    assert changed_keys(again.resolved, resolved) == []
    assert again.training.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["--foo", "1"], "foo"),
        (["--lora_r", "x"], "invalid int value: 'x'"),
        (["--lora_r", "0"], "`lora_r` is a whole number of at least 1, not 0"),
        (["--dtype", "float16"], "float16 overflows T5"),
        (["--fp16", "true"], "float16 overflows T5"),
        (["--use_peft", "false"], "only adapters are trained"),
        (["--use_peft", "false", "--load_in_4bit", "true"], "a quantized base could not be trained itself"),
        (["--push_to_hub", "true"], "make publish"),
        (["--dtype", "auto"], "`dtype: auto` is not supported"),
        (["--adapter_name", "someone/name"], "without its owner"),
        (["--adapter_name", "bad name!"], "without its owner"),
        (["--per_device_train_batch_size", "0"], "`per_device_train_batch_size` is a whole number of at least 1"),
        (["--lora_dropout", "2"], "`lora_dropout` is a share"),
        (["--lora_task_type", "CAUSAL_LM"], "is not T5's"),
        (["--early_stopping_patience", "2", "--validation_size", "0"], "needs a validation loss"),
        (
            ["--early_stopping_patience", "2", "--load_best_model_at_end", "false"],
            "needs `load_best_model_at_end: true`",
        ),
        (["--early_stopping_patience", "-1"], "`early_stopping_patience` is 0 (never) or more"),
        (["--prompt", "no column"], "`prompt` names no column"),
        (["--prompt", "{input.__class__}"], "no plain column name"),
        (["--prompt", "{input"], "is not valid"),
        (["--test_size", "1.5"], "`test_size` is a share"),
        (["--num_beams", "0"], "`num_beams` is at least 1"),
        (["--attn_implementation", "somebody/kernel"], "`attn_implementation` is one of eager"),
        (["--split", "sorted"], "`split` is random or grouped, not 'sorted'"),
        (["--length_rules", "drop rows > 5"], "is not understood"),
        (["--eval_strategy", "sometimes"], "sometimes"),
    ],
)
def test_a_wrong_recipe_is_refused_with_one_line(overrides, line):
    with pytest.raises(UserError) as refusal:
        parse_recipe(["--config", FINANCE, *overrides])
    assert line in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("learning_rte: 1.0", "unknown key `learning_rte`"),
        ("- a list", "must hold `key: value` lines"),
        ("a: [", "is not valid YAML"),
        ("title: x", "the recipe lacks `adapter_name`"),
        (MINIMAL + "test_size: [0.1]", "`test_size` is not of the type"),
        (MINIMAL + "length_rules: 5", "`length_rules` is not of the type"),
        (MINIMAL + "expect: 5", "`expect` is not of the type"),
        (MINIMAL + "model_name_or_path: a/b\nuse_peft: true\nlora_r: null", "`lora_r` is a whole number"),
        (MINIMAL + "expect: {published: {base: {rougeX: 0.1}}}", "`expect.published.base` holds numbers for rouge1"),
        (MINIMAL + "expect: {published: {base: 3}}", "`expect.published.base` holds numbers for rouge1"),
        (MINIMAL + "lora_r: sixteen", "invalid int value: 'sixteen'"),
        (MINIMAL + "expect: {rows: 3}", "`expect` knows base_revision, train_rows"),
        (MINIMAL + "expect: {published: {adpter: {}}}", "`expect.published` holds source, base and adapter"),
        (MINIMAL + "extract: {a: '('}", "`extract` of `a` is not a regular expression"),
        (MINIMAL + "extract: {a: '(x)'}", "`extract` of `a` names no group"),
    ],
)
def test_a_wrong_file_is_refused_with_one_line(tmp_path, text, line):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refusal:
        parse_recipe(["--config", str(path)])
    assert line in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"cannot read the recipe recipes/none\.yaml"):
        parse_recipe(["--config", "recipes/none.yaml"])


def test_template_columns_come_once_in_order():
    assert template_columns("{b} and {a} and {b}, {{literally}}") == ["b", "a"]
