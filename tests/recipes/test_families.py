"""Every family in the table: its padded way against transformers' own loss, and from training to REPRODUCED."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import CommitOperationAdd, HfApi
from short_runs import publish
from test_trainer import arguments_for, rows_of, trained
from tiny_families import LANGUAGES, ROWS, base_of, with_adapter
from tokenizers import Tokenizer
from tokenizers import models as kinds
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast

from evaluation import evaluate
from evaluation.reproduce import reproduce
from hub.pins import pin
from recipes import train
from recipes.base_model import family_of
from recipes.data.stored_tokenizer import build_stored
from recipes.data.tokenizer import encode, load_tokens
from recipes.families import FAMILIES
from recipes.training import padded
from recipes.training.model import load_tokenizer
from recipes.training.trainer import AdapterTrainer
from record.errors import UserError
from record.predictions import load_predictions
from record.run_record import load_record
from scoring.decoding.generate import in_batches
from serving.export.make import from_run, make
from serving.loading import load
from serving.space.publish import lay_out

# All but those that every other test trains.
KINDS = [kind for kind in FAMILIES if kind not in ("t5", "mt5")]
PADDED = [kind for kind, family in FAMILIES.items() if not family.flat]


@pytest.fixture(scope="module")
def rows():
    HfApi().create_repo("local-user/family-rows", repo_type="dataset", exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    operation = CommitOperationAdd("rows.jsonl", lines)
    HfApi().create_commit("local-user/family-rows", [operation], commit_message="Rows", repo_type="dataset")


def recipe_of(kind, folder, **keys):
    source, target = LANGUAGES.get(kind, (None, None))
    content = {
        "title": "sums", "adapter_name": f"tiny-{kind}-sums", "model_name_or_path": f"local-user/tiny-{kind}",
        "use_peft": True, "lora_task_type": "SEQ_2_SEQ_LM", "dataset_name": "local-user/family-rows",
        "prompt": "{question}", "target": "{answer}", "max_steps": 3, "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no",
        "disable_tqdm": True, "max_new_tokens": 5, "tokens_per_micro_batch": 128, "split": "random",
        "split_seed": 1, "source_language": source, "target_language": target,
    }  # fmt: skip
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (content | keys).items() if value is not None}))
    return str(path)


@pytest.mark.parametrize("kind", PADDED)
def test_from_training_to_reproduced(kind, rows, tmp_path):
    base = base_of(kind, tmp_path)
    run = tmp_path / "run"
    train.main(["--config", recipe_of(kind, tmp_path), "--output_dir", str(run)])
    evaluate.main([str(run)])
    record = load_record(run)
    assert record.model.type == kind and record.training.steps == 3
    targets = json.loads((run / "adapter_config.json").read_text())["target_modules"]
    assert sorted(targets) == sorted(FAMILIES[kind].lora_targets)
    card_name = FAMILIES[kind].name
    refused_in_one_line(run, base, tmp_path)
    if kind == "m2m_100":
        target = load_tokenizer(base, [], LANGUAGES[kind]).convert_tokens_to_ids("deu_Latn")
        outputs = load_predictions(run).adapter_tokens
        assert {ids[0] for ids in outputs} == {target}
    commit = publish(run)
    verdict, _ = reproduce(f"local-user/tiny-{kind}-sums", commit)
    assert (verdict.verdict, verdict.level) == ("REPRODUCED", "generate"), verdict.reason
    card = HfApi().hf_hub_download(f"local-user/tiny-{kind}-sums", "README.md", revision=commit)
    assert f"encoder-decoder ({card_name})" in Path(card).read_text()
    assert family_of(base).name == card_name


def refused_in_one_line(run, base, folder):
    """What is not done yet with the family says so."""
    (folder / "space").mkdir()
    for refused in (
        lambda: load([str(run)]),
        lambda: lay_out(str(run), "main", folder / "space"),
        lambda: make(from_run(run), "merged"),
    ):
        with pytest.raises(
            UserError, match=f"adapters of T5 and mT5 are .* here, not those of .* as {base.id}"
        ) as line:
            refused()
        assert "\n" not in str(line.value)


def test_a_row_s_ids_bear_its_languages(tmp_path):
    for kind, (source, target) in LANGUAGES.items():
        base = base_of(kind, tmp_path)
        tokens = load_tokens(base, [], (source, target))
        end, plain = tokens.token_to_id("</s>"), tokens.encode("What is it", add_special_tokens=False).ids
        ends = [tokens.token_to_id(name) for name in (source, target)]
        # NLLB's texts begin with their language, mBART's end with it.
        ids = [[language, *plain, end] if kind == "m2m_100" else [*plain, end, language] for language in ends]
        assert [encode(tokens, ["What is it"], targets)[0] for targets in (False, True)] == ids
        assert load_tokenizer(base, [], (source, target))("What is it")["input_ids"] == ids[0]
        with pytest.raises(UserError, match="set `source_language` and `target_language`"):
            load_tokens(base, [])
        with pytest.raises(UserError, match="`target_language: xx` is no token of"):
            load_tokens(base, [], (source, "xx"))
    with pytest.raises(UserError, match="state languages in `prompt`"):
        load_tokens(pin("model", "google/flan-t5-large", "main"), [], ("eng_Latn", "deu_Latn"))


def test_what_a_family_cannot_take_is_refused_before_training(rows, tmp_path, capsys):
    base_of("bart", tmp_path)
    for keys, line in (
        ({"prompt": "{question}" * 9}, "has 64 positions: set `length_rules` (`truncate"),
        ({"max_new_tokens": 65}, "set `max_new_tokens` to 64 at most"),
        ({"neftune_noise_alpha": 5}, "`neftune_noise_alpha` has no effect on BART"),
        ({"engine": "ctranslate2"}, "`engine: ctranslate2` does not decode BART"),
        ({"added_tokens": ["<"]}, "`added_tokens` are for tokenizers like T5's"),
    ):
        with pytest.raises(SystemExit):
            train.main(["--config", recipe_of("bart", tmp_path, **keys), "--output_dir", str(tmp_path / "run")])
        assert line in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_tokenizer_with_a_pattern_of_its_own_is_not_read(tmp_path):
    content = json.loads(tokenizer_of("bart").to_str())
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [content["pre_tokenizer"], split]}
    base = base_of("bart", tmp_path)
    with pytest.raises(UserError, match="its pre_tokenizer holds a regular expression of its own"):
        build_stored(base, json.dumps(content).encode(), FAMILIES["bart"], None)


def test_a_decoder_only_model_is_refused_with_where_to_go(tmp_path):
    HfApi().create_repo("local-user/decoder-only", exist_ok=True)
    config = json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}).encode()
    operation = CommitOperationAdd("config.json", config)
    HfApi().create_commit("local-user/decoder-only", [operation], commit_message="Config")
    with pytest.raises(UserError, match=r"is a decoder-only model.*TRL's SFTTrainer") as line:
        family_of(pin("model", "local-user/decoder-only", "main"))
    assert "\n" not in str(line.value)


@pytest.mark.parametrize("kind", PADDED)
def test_a_batch_gives_the_tokens_of_a_row_alone(kind, record):
    model = with_adapter(kind).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(kinds.WordLevel({"<pad>": 0}, "<pad>")),
                                        pad_token="<pad>", padding_side="right")  # fmt: skip
    prompts = [row["input_ids"] for row in rows_of(LENGTHS)]
    contract = record.contract.model_copy(update={"max_new_tokens": 12, "batch_size": 8})
    together = in_batches(model, tokenizer, prompts, contract, lambda rows: None)
    alone = [in_batches(model, tokenizer, [ids], contract, lambda rows: None)[0] for ids in prompts]
    same = sum(one == other for one, other in zip(together, alone, strict=True))
    assert same == len(prompts), f"{same} of {len(prompts)} rows"


# Rows of very different lengths: two steps of eight and one of four, as in test_trainer.
LENGTHS = [(9 - n, n) for n in (1, 8, 2, 7, 3, 6, 4, 5)] + [(n, 13 - n) for n in range(1, 13)]


@pytest.mark.parametrize("kind", PADDED)
def test_losses_and_gradients_are_those_of_one_padded_batch_however_a_step_is_cut(kind, tmp_path):
    whole, cut = (
        trained(AdapterTrainer(model=with_adapter(kind), args=arguments_for(tmp_path, 8, 1, num_train_epochs=1),
                               train_dataset=rows_of(LENGTHS), tokens=tokens))
        for tokens in (None, 30)
    )  # fmt: skip
    assert cut[0] == pytest.approx(whole[0], rel=1e-5, abs=1e-4)
    assert cut[1] == pytest.approx(whole[1], rel=1e-4)
    assert float((cut[2] - whole[2]).norm() / whole[2].norm()) < 1e-5
    # The whole batch, by transformers' own collator and loss.
    model, rows = with_adapter(kind).eval(), list(rows_of(LENGTHS[:8]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(kinds.WordLevel({"<pad>": 0}, "<pad>")),
                                        pad_token="<pad>")  # fmt: skip
    batch = dict(DataCollatorForSeq2Seq(tokenizer, model=model.get_base_model())(rows))
    batch.pop("token_type_ids", None)
    config = model.get_base_model().config
    ours = padded.losses(model, padded.micro_batch(rows, config))
    theirs = model(**batch).loss * (batch["labels"] != -100).sum()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    # Two processes: their shares add up to the step.
    shares = padded.cut([(len(row["input_ids"]), len(row["labels"])) for row in rows], 2, 30)
    assert len(shares[0]) == len(shares[1]) and sorted(n for share in shares for part in share for n in part) == [
        *range(8)
    ]
    parts = [padded.losses(model, padded.micro_batch([rows[n] for n in part], config))
             for share in shares for part in share if part]  # fmt: skip
    torch.testing.assert_close(sum(parts), theirs, rtol=1e-5, atol=0)
    with torch.no_grad():
        sums = padded.losses(model, padded.micro_batch(rows, config))
    torch.testing.assert_close(sums.sum(0), torch.stack([theirs.detach(), sums[:, 1].sum()]), rtol=1e-5, atol=0)


def test_two_processes_train_what_one_trains(rows, tmp_path):
    base_of("bart", tmp_path)
    recipe = recipe_of("bart", tmp_path, lora_dropout=0.0)
    train.main(["--config", recipe, "--output_dir", str(tmp_path / "one")])
    launch = ["-m", "accelerate.commands.launch", "--quiet", "--config_file", "recipes/accelerate/ddp-cpu.yaml",
              "--main_process_port", "0"]  # fmt: skip
    work = ["-m", "recipes.train", "--config", recipe, "--output_dir", str(tmp_path / "two")]
    answer = subprocess.run([sys.executable, *launch, *work], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr[-2000:]
    one, two = load_record(tmp_path / "one"), load_record(tmp_path / "two")
    assert (one.batch.processes, two.batch.processes) == (1, 2)
    losses = [[point.loss for point in record.training.history if point.loss] for record in (one, two)]
    assert len(losses[0]) == 3 and losses[1] == pytest.approx(losses[0], rel=1e-4)
