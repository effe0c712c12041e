import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from recipes.config import changed_keys, parse_recipe, recipe_from_record, recipe_yaml
from recipes.templates import template_columns
from record.errors import Slip

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
        (["--foo", "1"], "unknown key `foo`: `python -m recipes.train --help` says which there are"),
        (["--learning-rat=1"], "unknown key `learning_rat`: did you mean `learning_rate`?"),
        (["--lora_r", "x"], "invalid int value: 'x'"),
        (["--lora_r", "0"], "`lora_r` should be at least 1, not 0"),
        (["--dtype", "float16"], "float16 overflows feed-forward layers"),
        (["--fp16", "true"], "float16 overflows feed-forward layers"),
        (["--use_peft", "false"], "only adapters are trained"),
        (["--use_peft", "false", "--load_in_4bit", "true"], "a quantized base could not be trained itself"),
        (["--push_to_hub", "true"], "make publish"),
        (["--dtype", "auto"], "`dtype` should be 'bfloat16' or 'float32', not 'auto'"),
        (["--adapter_name", "someone/name"], "without its owner (letters, digits, `.`, `-` and `_`), not "),
        (["--adapter_name", "bad name!"], "without its owner"),
        (["--per_device_train_batch_size", "0"], "`per_device_train_batch_size` should be at least 1, not 0"),
        (["--lora_dropout", "2"], "`lora_dropout` should be less than 1, not 2.0"),
        (["--lora_task_type", "CAUSAL_LM"], "is not an encoder-decoder's"),
        (["--early_stopping_patience", "2", "--validation_size", "0"], "needs a validation loss"),
        (
            ["--early_stopping_patience", "2", "--load_best_model_at_end", "false"],
            "needs `load_best_model_at_end: true`",
        ),
        (["--early_stopping_patience", "-1"], "`early_stopping_patience` should be at least 0, not -1"),
        (["--prompt", "no column"], "`prompt` names no column"),
        (["--prompt", "{input.__class__}"], "no plain column name"),
        (["--prompt", "{input"], "is not valid"),
        (["--test_size", "1.5"], "`test_size` should be less than 1, not 1.5"),
        (["--num_beams", "0"], "`num_beams` should be at least 1, not 0"),
        (
            ["--attn_implementation", "somebody/kernel"],
            "`attn_implementation` is refused: training has an attention of its own",
        ),
        (["--split", "sorted"], "`split` should be 'random' or 'grouped', not 'sorted'"),
        (["--length_rules", "drop rows > 5"], "is not understood"),
        (["--eval_strategy", "sometimes"], "sometimes"),
    ],
)
def test_a_wrong_recipe_is_refused_with_one_line(overrides, line):
    with pytest.raises(Slip) as refusal:
        parse_recipe(["--config", FINANCE, *overrides])
    assert line in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("learning_rte: 1.0", "unknown key `learning_rte`"),
        ("- a list", "must hold `key: value` lines"),
        ("a: [", "is not valid YAML"),
        ("title: x", "the recipe lacks `adapter_name`"),
        (MINIMAL + "test_size: [0.1]", "`test_size` should be a valid number, not [0.1]"),
        (MINIMAL + "length_rules: 5", "`length_rules` should be a valid list, not 5"),
        (MINIMAL + "expect: 5", "`expect` should be a valid dictionary, not 5"),
        (
            MINIMAL + "model_name_or_path: a/b\nuse_peft: true\nlora_task_type: SEQ_2_SEQ_LM\nlora_r: null",
            "`lora_r` should be a valid int",
        ),
        (MINIMAL + "expect: {published: {base: {rougeX: 0.1}}}", "`expect.published.base.rougeX` should be 'rouge1', "),
        (MINIMAL + "expect: {published: {base: 3}}", "`expect.published.base` should be a valid dictionary, not 3"),
        (MINIMAL + "lora_r: sixteen", "invalid int value: 'sixteen'"),
        (MINIMAL + "expect: {rows: 3}", "`expect.rows` is not one of base_revision, train_rows, "),
        (MINIMAL + "expect: {published: {adpter: {}}}", "`expect.published.adpter` is not one of source, base, "),
        (MINIMAL + "tokens_per_micro_batch: -1", "`tokens_per_micro_batch` should be at least 0, not -1"),
        (MINIMAL + "strict: [yes]", "`strict` should be a valid boolean, not [True]"),
        (MINIMAL.replace("title: x", "title: |-\n  two\n  lines"), "`title` should be one line, not 'two\\nlines'"),
        (MINIMAL.replace("'{a}'", "['{a}', 5]"), "`prompt` should be a valid string, not 5"),
        (MINIMAL + "added_tokens: [a b]", "`added_tokens` may not hold white space, as in 'a b'"),
        (MINIMAL + "extract: {a: 7}", "`extract.a` should be a valid string, not 7"),
        (MINIMAL + "extract: {a: '('}", "`extract` of `a` is not a regular expression"),
        (MINIMAL + "extract: {a: '(x)'}", "`extract` of `a` names no group"),
        (MINIMAL + "language: no", "`language` should be a valid string, not False: write it in quotes"),
        (MINIMAL.replace("title: x", "title: off"), "`title` should be a valid string, not False: write it in quotes"),
        (MINIMAL + "dataset_config: 2024", "`dataset_config` should be a valid string, not 2024: write it in quotes"),
        (MINIMAL + "dataset_revision: 2024-01-02", "not datetime.date(2024, 1, 2): write it in quotes"),
        (MINIMAL + "seed: 1\nseed: 2", "wrong.yaml: `seed` is given twice, in lines 6 and 7: remove one"),
        (MINIMAL + "expect: {published: {base: {}, base: {}}}", "`base` is given twice, in lines 6 and 6: remove one"),
        (MINIMAL + "? [a]\n: 1", "is not valid YAML"),
        (MINIMAL + "config: x", "unknown key `config`"),
    ],
)
def test_a_wrong_file_is_refused_with_one_line(tmp_path, text, line):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(Slip) as refusal:
        parse_recipe(["--config", str(path)])
    assert line in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_in_another_encoding_is_refused_with_one_line(tmp_path, encoding):
    path = tmp_path / "wrong.yaml"
    path.write_bytes((MINIMAL + "language: 'français'").encode(encoding))
    with pytest.raises(Slip, match=r"^\S+wrong\.yaml is not a text in UTF-8: save it as UTF-8$"):
        parse_recipe(["--config", str(path)])


def test_anchors_and_merges_are_no_second_key(tmp_path):
    path = tmp_path / "merged.yaml"
    expect = "expect:\n  published: {base: &one {rouge1: 0.1}, adapter: {<<: *one, rouge1: 0.2}}\n"
    path.write_text(Path(FINANCE).read_text().partition("expect:")[0] + expect)
    published = parse_recipe(["--config", str(path)]).resolved["expect"]["published"]
    assert published == {"base": {"rouge1": 0.1}, "adapter": {"rouge1": 0.2}}


def test_a_slip_is_one_line_and_exit_code_2(tmp_path):
    for key, cure in (("--learning_rat", "did you mean `learning_rate`?"), ("--split", "should be 'random' or 'gr")):
        command = [sys.executable, "-m", "recipes.train", "--config", FINANCE, "--output_dir", str(tmp_path), key, "1"]
        answer = subprocess.run(command, capture_output=True, text=True)
        assert answer.returncode == 2 and answer.stdout == ""
        (line,) = answer.stderr.splitlines()
        assert line.startswith("error: ") and cure in line
        assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named():
    with pytest.raises(Slip, match=r"cannot read the recipe recipes/none\.yaml"):
        parse_recipe(["--config", "recipes/none.yaml"])


def test_template_columns_come_once_in_order():
    assert template_columns("{b} and {a} and {b}, {{literally}}") == ["b", "a"]
