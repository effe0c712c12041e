"""Every family in the table: however its rows are cut, shared or taken up again, against transformers' own loss."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from family_processes import LENGTHS, fit, rows_of
from huggingface_hub import CommitOperationAdd, HfApi
from tiny_families import LANGUAGES, base_of, byte_pairs, tokenizer_of, type_of, with_adapter
from tokenizers import Tokenizer
from tokenizers import models as kinds
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast

import readme.render
from hub.pins import pin
from recipes import families
from recipes.base_model import family_of
from recipes.data.stored_tokenizer import build_stored
from recipes.data.tokenizer import encode, load_tokens
from recipes.families import FAMILIES, VARIANTS, Family
from recipes.training import padded
from recipes.training.model import load_tokenizer
from record.errors import UserError
from scoring.decoding import ctranslate
from scoring.decoding.generate import in_batches
from scoring.decoding.margins import read_margins, why_not_greedy

PADDED = [kind for kind, family in FAMILIES.items() if not family.flat]
TABLE = yaml.safe_load(Path("readme/families.yaml").read_text())


def blank_tokenizer(pad):
    """It only pads."""
    tokenizer = Tokenizer(kinds.WordLevel({"<0>": 0, "<1>": 1}, "<0>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=f"<{pad}>", padding_side="right")


def test_the_table_for_readers_is_that_of_the_code():
    assert TABLE.keys() == FAMILIES.keys()
    for kind, family in FAMILIES.items():
        cells = set(TABLE[kind])
        assert ("flat" in cells, "padded" in cells) == (family.flat, not family.flat), kind
        assert ("slots" in cells, "int8" in cells, "service" in cells) == (family.flat,) * 3, kind
        assert ("ct2" in cells) == (family.converter is not None and family.language != "first"), kind
        assert ("ctranslate2" in cells, "merged" in cells) == (family.converter is not None, family.images is None)
        assert cells >= {"qlora", "resume", "processes", "generate", "space"}, kind
    # A cell more or less is seen on the page.
    page = Path("docs/trying.md").read_text()
    assert readme.render.rendered(page) == page
    assert page.count("| T5Gemma 2 |") == page.count("| ByT5 |") == 1


def test_rows_of_one_type_are_alike_where_transformers_knows_the_type_alone():
    for (kind, _), variant in VARIANTS.items():
        for part in ("flat", "lora_targets", "starts_with_last", "converter", "images"):
            assert getattr(FAMILIES[variant], part) == getattr(FAMILIES[kind], part), (variant, part)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What a pair of processes trains, one family after another."""
    folder = tmp_path_factory.mktemp("pair")
    launch = ["-m", "accelerate.commands.launch", "--quiet", "--config_file", "recipes/accelerate/ddp-cpu.yaml",
              "--main_process_port", "0", "tests/family_processes.py", str(folder)]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((".", "tests"))}
    answer = subprocess.run([sys.executable, *launch], capture_output=True, text=True, env=environment)
    assert answer.returncode == 0, answer.stderr[-2000:]
    return folder


def near(one, other):
    """Losses, gradient norms and weights are those of the same steps."""
    assert one[0] == pytest.approx(other[0], rel=1e-5, abs=1e-4)
    assert one[1] == pytest.approx(other[1], rel=1e-4)
    assert float((one[2] - other[2]).norm() / other[2].norm()) < 1e-5


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_step_is_the_same_cut_shared_and_resumed(kind, two_processes, tmp_path):
    whole = fit(with_adapter(kind), tmp_path, None, save_strategy="steps", save_steps=2)
    near(fit(with_adapter(kind), tmp_path / "cut", 30), whole)
    losses, norms, processes = json.loads((two_processes / f"{kind}.json").read_text())
    assert processes == 2 and len(losses) == 3
    near((losses, norms, torch.load(two_processes / f"{kind}.pt")), whole)
    resumed = fit(with_adapter(kind), tmp_path, None, resume=tmp_path / "checkpoint-2")
    assert torch.equal(resumed[2], whole[2])


@pytest.mark.parametrize("kind", PADDED)
def test_the_loss_is_transformers_own_of_one_padded_batch(kind):
    model, rows = with_adapter(kind).eval(), list(rows_of(LENGTHS[:8]))
    config = model.get_base_model().config
    collator = DataCollatorForSeq2Seq(blank_tokenizer(config.pad_token_id), model=model.get_base_model())
    batch = dict(collator(rows))
    batch.pop("token_type_ids", None)
    ours = padded.losses(model, padded.micro_batch(rows, config))
    theirs = model(**batch).loss * (batch["labels"] != -100).sum()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    with torch.no_grad():
        sums = padded.losses(model, padded.micro_batch(rows, config))
    torch.testing.assert_close(sums.sum(0), torch.stack([theirs.detach(), sums[:, 1].sum()]), rtol=1e-5, atol=0)


def test_every_row_is_in_one_share():
    shares = padded.cut(LENGTHS[:8], 2, 30)
    assert len(shares[0]) == len(shares[1])
    assert sorted(n for share in shares for part in share for n in part) == [*range(8)]


def written_alone(model, ids, most):
    """What transformers writes for one row."""
    end, row = model.generation_config.eos_token_id, torch.tensor([ids])
    how = {"max_new_tokens": most, "do_sample": False, "num_beams": 1, "attention_mask": torch.ones_like(row)}
    output = model.generate(input_ids=row, **how)[0, 1:].tolist()
    return output[: output.index(end)] if end in output else output


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_engine_gives_the_tokens_of_a_row_alone(kind, record):
    # Of weights as they are drawn a model writes one token again and again; of these, some other at least.
    model, family = with_adapter(kind, scale=8).eval(), FAMILIES[kind]
    transformers.set_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1)
    if family.language:
        key = "forced_bos_token_id" if family.language == "first" else "decoder_start_token_id"
        setattr(model.generation_config, key, 7)
    end = model.generation_config.eos_token_id
    # The empty text too.
    prompts = [[end], *([*row["input_ids"], end] for row in rows_of(LENGTHS))]
    contract = record.contract.model_copy(update={"max_new_tokens": 12, "batch_size": 8})
    tokenizer = blank_tokenizer(model.generation_config.pad_token_id)
    told = []
    for adapter in (True, False):
        with contextlib.nullcontext() if adapter else model.disable_adapter():
            alone = [written_alone(model, ids, 12) for ids in prompts]
            assert in_batches(model, tokenizer, prompts, contract, lambda rows: None) == alone
            read_as_written(model, prompts, alone, contract, adapter)
        if family.converter is not None:
            assert ctranslate.greedy(model, adapter, prompts, 12, 4) == alone
        told.append(alone)
    assert told[0] != told[1] or kind == "pegasus"


def read_as_written(model, prompts, outputs, contract, adapter):
    """Reading finds each token that was written the likeliest, and finds another one in its place."""
    assert why_not_greedy(model, contract) is None
    margins = read_margins(model, prompts, outputs, contract, adapter=adapter)
    ended = [len(ids) < contract.max_new_tokens for ids in outputs]
    assert [len(row.short) for row in margins] == [len(ids) + end for ids, end in zip(outputs, ended, strict=True)]
    assert max(row.short.max() for row in margins) < 1e-4 and min(row.gaps.min() for row in margins) >= 0
    others = [[*ids[:-1], (ids[-1] + 2) % 40] if ids else [] for ids in outputs]
    for row, ids in zip(read_margins(model, prompts, others, contract, adapter=adapter), others, strict=True):
        assert not ids or row.short[len(ids) - 1] > 1e-4


def test_what_a_base_model_s_own_configuration_asks_for_is_read_as_it_is_written(record):
    # As the configurations of bart-large-cnn, mbart-large-50 and the opus-mt models do.
    rules = {"no_repeat_ngram_size": 2, "min_length": 7, "forced_bos_token_id": 5, "forced_eos_token_id": 1,
             "bad_words_ids": [[7], [9, 8]]}  # fmt: skip
    prompts = [row["input_ids"] for row in rows_of(LENGTHS)]
    tokenizer = blank_tokenizer(0)
    contract = record.contract.model_copy(update={"max_new_tokens": 12, "batch_size": 8})
    plain = in_batches(with_adapter("bart").eval(), tokenizer, prompts, contract, lambda rows: None)
    model = with_adapter("bart").eval()
    model.generation_config.update(**rules)
    outputs = in_batches(model, tokenizer, prompts, contract, lambda rows: None)
    assert outputs != plain and {ids[0] for ids in outputs} == {5} and {len(ids) for ids in outputs} <= set(range(12))
    assert max(row.short.max() for row in read_margins(model, prompts, outputs, contract, adapter=True)) < 1e-4
    # The rules forbid what the model writes without them.
    assert max(row.short.max() for row in read_margins(model, prompts, plain, contract, adapter=True)) == np.inf
    model.generation_config.repetition_penalty = 1.3
    assert why_not_greedy(model, contract) == "the base model's own generation config asks for repetition_penalty"


def test_a_row_s_ids_bear_its_languages(tmp_path):
    for kind, (source, target) in LANGUAGES.items():
        base = base_of(kind, tmp_path)
        tokens = load_tokens(base, [], (source, target))
        end, plain = tokens.token_to_id("</s>"), tokens.encode("What is it", add_special_tokens=False).ids
        ends = [tokens.token_to_id(name) for name in (source, target)]
        # NLLB's and mBART-50's texts begin with their language, mBART's end with it.
        ids = [[*plain, end, language] if kind == "mbart" else [language, *plain, end] for language in ends]
        assert [encode(tokens, ["What is it"], targets)[0] for targets in (False, True)] == ids
        assert load_tokenizer(base, [], (source, target))("What is it")["input_ids"] == ids[0]
        with pytest.raises(UserError, match="set `source_language` and `target_language`"):
            load_tokens(base, [])
        with pytest.raises(UserError, match="`target_language: xx` is no token of"):
            load_tokens(base, [], (source, "xx"))
    with pytest.raises(UserError, match="state languages in `prompt`"):
        load_tokens(pin("model", "google/flan-t5-large", "main"), [], ("eng_Latn", "deu_Latn"))


def test_a_tokenizer_with_a_pattern_of_its_own_is_not_read(tmp_path):
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    content = {"model": byte_pairs("<pad>"), "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split]}}
    with pytest.raises(UserError, match="its pre_tokenizer holds a regular expression of its own"):
        build_stored(pin("model", "google/flan-t5-large", "main"), content, FAMILIES["bart"], None)


def config_only(name, **config):
    repo = f"local-user/{name}"
    HfApi().create_repo(repo, exist_ok=True)
    operation = CommitOperationAdd("config.json", json.dumps(config).encode())
    HfApi().create_commit(repo, [operation], commit_message="Config")
    return pin("model", repo, "main")


def test_a_decoder_only_model_is_refused_with_where_to_go():
    with pytest.raises(UserError, match=r"is a decoder-only model.*TRL's SFTTrainer") as line:
        family_of(config_only("decoder-only", model_type="llama", architectures=["LlamaForCausalLM"]))
    assert "\n" not in str(line.value)


def test_what_is_not_possible_within_a_part_is_refused():
    encoder = {"text_config": {"hidden_size": 10**9}}
    with pytest.raises(UserError, match="its `hidden_size` is no whole number from 1 to 32,768"):
        family_of(config_only("too-wide", model_type="t5gemma2", encoder=encoder))


def test_a_new_family_is_one_row(monkeypatch, tmp_path):
    """PLBART is in no table here: its row, and the function that makes a tiny one of it, are all that it needs."""
    with pytest.raises(UserError, match=r"is no model of the types t5, mt5, .*: none else is trained here"):
        family_of(config_only("plbart", model_type="plbart", architectures=["PLBartForConditionalGeneration"]))
    monkeypatch.setitem(families.FAMILIES, "plbart", Family("PLBART", positions="max_position_embeddings"))
    monkeypatch.setattr("recipes.base_model.TYPES", [*families.FAMILIES])
    assert type_of("plbart") == "plbart"
    assert family_of(config_only("plbart", model_type="plbart")).name == "PLBART"
    whole, cut = (fit(with_adapter("plbart"), tmp_path, tokens) for tokens in (None, 30))
    near(cut, whole)
    assert tokenizer_of("plbart").encode("What is it").ids
