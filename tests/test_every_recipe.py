"""Every YAML in recipes/, found by listing the folder, runs through parse → train → score → publish → reproduce."""

import functools
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from short_runs import publish
from transformers import set_seed

from evaluation import evaluate, reproduce
from local_hub.miniatures import news, translation
from model_cards import compare
from recipes import train
from recipes.config import parse_recipe
from recipes.pin_recipe import pin_recipe
from recipes.training.model import add_adapter, load_base
from record.errors import UserError
from record.predictions import load_predictions
from record.run_record import load_record

RECIPES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(Path("recipes").glob("*.yaml"))}
SHORT = ("--max_steps", "3", "--logging_steps", "1", "--eval_strategy", "steps", "--eval_steps", "2", "--save_strategy",
         "no", "--load_best_model_at_end", "false", "--max_new_tokens", "6", "--per_device_eval_batch_size", "64",
         "--disable_tqdm", "true")  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Takes a recipe through the loop, once, its parent first; returns the run's folder and the commit."""
    runs = tmp_path_factory.mktemp("runs")
    by_adapter = {keys["adapter_name"]: name for name, keys in RECIPES.items()}

    @functools.cache
    def loop(name: str) -> tuple[Path, str]:
        if (parent := RECIPES[name].get("parent_adapter")) is not None:
            loop(by_adapter[parent])
        run = runs / name
        train.main(["--config", f"recipes/{name}.yaml", "--output_dir", str(run), *SHORT])
        evaluate.main([str(run)])
        return run, publish(run)

    return loop


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_runs_end_to_end(name, published, capsys):
    run, commit = published(name)
    record = load_record(run)
    assert record.training.steps == 3 and len([point for point in record.training.history if point.loss]) == 3
    assert record.scores.rows == record.data.test > 0
    assert all(item.verdict == "not comparable" for item in record.expectations) and record.expectations
    repo_id = f"local-user/{RECIPES[name]['adapter_name']}"
    ModelCard.load(repo_id).validate()
    reproduce.main([repo_id])
    assert f"REPRODUCED (miniature) {repo_id}@{commit}" in capsys.readouterr().out


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_says_what_it_is(name):
    head = Path(f"recipes/{name}.yaml").read_text().partition("\ntitle:")[0]
    assert all(line.startswith("#") or not line for line in head.splitlines())
    assert f"make train-{name}" in head and "# Hardware:" in head and "# Time:" in head
    training = parse_recipe(["--config", f"recipes/{name}.yaml"]).training
    assert training.lr_scheduler_type == "cosine" and training.load_best_model_at_end
    assert RECIPES[name]["split_seed"] == 2137
    assert RECIPES[name].get("test_size") == (None if "test_split" in RECIPES[name] else 0.1)


def test_official_splits_are_taken_as_they_are_and_named_on_the_card(published):
    run, _ = published("cnn_dailymail-official")
    data = load_record(run).data
    assert (data.train, data.validation, data.test) == tuple(news.SPLITS.values()) and data.test_dropped == 0
    articles = [row["article"].split()[0] for row in news.rows()["test"]]
    prompts = load_predictions(run).prompt
    assert [prompt.removeprefix("Summarize the following article: ").split()[0] for prompt in prompts] == articles
    card = (run / "release" / "README.md").read_text()
    assert "This is the dataset's official test split, all of it. Reported on it: ROUGE-1 0.4250, ROUGE-2 0.20" in card
    assert "(Raffel et al. 2020" in card and "another shuffle" not in card


def test_a_translator_scores_its_own_test_pairs_by_chrf(published):
    run, _ = published("nllb-en-de")
    record = load_record(run)
    assert (record.data.validation, record.data.test) == (translation.SPLITS["validation"], translation.SPLITS["test"])
    assert record.data.train == translation.SPLITS["train"] // 10
    pairs, predictions = translation.rows()["test"], load_predictions(run)
    assert predictions.prompt == [pair["en"] for pair in pairs]
    assert predictions.reference == [pair["de"] for pair in pairs]
    assert set(record.scores.adapter) == {"chrf", "bleu"} and record.contract.deciding(["bleu", "chrf"]) == ["chrf"]
    assert record.scores.adapter["chrf"].mean > 0
    card = (run / "release" / "README.md").read_text()
    assert "official test split, all of it.\n" in card and "license: cc-by-nc-4.0" in card
    assert "cc-by-nc-4.0, the base model's" in card


def test_the_base_in_four_bits_is_really_quantized(published):
    run, _ = published("finance-xl")
    record = load_record(run)
    # 3 + 3 blocks: 9 attentions of 4 matrices and 6 gated feed-forwards with 2; transformers keeps T5's `wo` as it is.
    assert record.model.quantized_layers == 9 * 4 + 6 * 2
    model = load_base(record.pins.base_model, parse_recipe(["--config", "recipes/finance-xl.yaml"]).model)
    layer = model.encoder.block[0].layer[0].SelfAttention.q
    assert layer.weight.quant_state.quant_type == "nf4" and layer.weight.quant_state.nested
    # Two weights a byte.
    assert layer.weight.numel() == layer.in_features * layer.out_features // 2 and layer.weight.element_size() == 1


def test_an_evaluation_leaves_the_gradients_of_a_quantized_base_as_they_were(published):
    # bitsandbytes 0.50 loses them on CPUs with AVX512-BF16.
    record = load_record(published("finance-xl")[0])
    recipe = parse_recipe(["--config", "recipes/finance-xl.yaml"])
    base = record.pins.base_model
    model = add_adapter(load_base(base, recipe.model), base, recipe.model, seed=0)
    batch = {"input_ids": torch.tensor([[5, 6, 7, 1]]), "labels": torch.tensor([[8, 9, 1]])}

    def gradient() -> torch.Tensor:
        set_seed(1)
        model.zero_grad()
        model.train()(**batch).loss.backward()
        return torch.cat(
            [p.grad.flatten() for n, p in model.named_parameters() if "encoder.block.0" in n and "lora_B" in n]
        )

    before = gradient()
    with torch.no_grad():
        model.eval()(**batch)
    assert before.abs().sum() > 0
    torch.testing.assert_close(gradient(), before)


def test_a_chain_names_its_parent_and_tells_what_was_forgotten(published):
    run, _ = published("llama2sql")
    parent_run, parent_commit = published("text2sql")
    record, parent = load_record(run), load_record(parent_run)
    assert (record.pins.parent_adapter.id, record.pins.parent_adapter.revision) == (
        "local-user/flan-t5-large-text2sql", parent_commit,
    )  # fmt: skip
    assert record.pins.base_model == parent.pins.base_model
    assert record.model.trainable == parent.model.trainable > 0
    assert record.training.adapter_sha256 != parent.training.adapter_sha256
    assert record.forgetting.rows == parent.scores.rows
    # The same rows asked anew, split independently: the parent has seen 90 % of them (97 + 3 % train and validation).
    ours, theirs = record.leakage
    assert (ours.adapter, theirs.adapter) == (None, f"local-user/flan-t5-large-text2sql@{parent_commit}")
    assert theirs.exact + theirs.near == pytest.approx(0.9 * record.scores.rows, rel=0.03)
    # Both recipes ask with the same words.
    assert theirs.prompts == theirs.token_ids == pytest.approx(0.9 * record.scores.rows, rel=0.03)
    assert theirs.training_rows == parent.data.train + parent.data.validation
    seen = sum(record.scores.seen.values())
    assert 0.87 * record.scores.rows < seen == record.scores.rows - record.scores.clean.rows
    assert record.forgetting.parent == parent.scores.adapter
    card = (run / "release" / "README.md").read_text()
    assert (
        f"of which {seen} (" in card
        and f"The scores of the {record.scores.clean.rows} test rows that are in no" in card
    )
    assert {"sql_parsed", "sql_exact_match", "sql_execution_match"} < record.scores.adapter.keys()
    assert f"own tables ({record.scores.sql.not_executable} (" in card and record.scores.sql.not_executable > 0
    assert f"local-user/flan-t5-large-text2sql@{parent_commit[:12]}" in card and "What training made it forget" in card
    assert f"--parent_adapter local-user/flan-t5-large-text2sql@{parent_commit} " in card
    other = parse_recipe(["--config", "recipes/llama2sql.yaml", "--added_tokens", "<", "~"])
    with pytest.raises(UserError, match=r"was trained with `added_tokens: \['<'\]`.* not \['<', '~'\]"):
        pin_recipe(other)
    # The adapter's shape is its parent's (text2sql has 16): another one would be taken without a word.
    pin_recipe(
        parse_recipe(["--config", "recipes/llama2sql.yaml", "--lora_r", "16", "--lora_target_modules", "o", "q", "v"])
    )
    with pytest.raises(
        UserError, match=r"^`lora_r` is that of local-user/flan-t5-large-text2sql, which is continued: "
    ):
        pin_recipe(parse_recipe(["--config", "recipes/llama2sql.yaml", "--lora_r", "4"]))


def test_base_models_are_compared_in_one_table_and_one_plot(published, tmp_path, capsys):
    runs = [published(name)[0] for name in ("finance-base", "finance", "finance-xl")]
    compare.main([*map(str, runs), "--into", str(tmp_path)])
    table = (tmp_path / "compare.md").read_text()
    for record in map(load_record, runs):
        line = next(line for line in table.splitlines() if line.startswith(f"| {record.name} (miniature) |"))
        scores = record.scores
        for figure in (record.model.total, record.model.trainable):
            assert f"{figure:,}" in line
        for interval in (scores.base["rougeL"], scores.adapter["rougeL"]):
            assert f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]" in line
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit):
        compare.main([str(tmp_path), "--into", str(tmp_path)])
    assert "holds no record.json" in capsys.readouterr().err
