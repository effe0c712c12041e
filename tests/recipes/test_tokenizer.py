"""Tokens that a recipe adds: what cannot be written without them, and that a stranger's PEFT writes them after."""

import json
import os
import random
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hub.pins import pin
from local_hub.miniatures.tokenizer import SPARE_ROWS
from recipes import train
from recipes.config import parse_recipe
from recipes.data.splits import build_splits
from recipes.data.tokenizer import audit, count_tokens, load_tokens
from recipes.training.model import UNKNOWN, add_adapter, load_base, load_tokenizer
from record.errors import UserError
from record.run_record import Unwritable, load_record

REAL_DATA = os.environ.get("REAL_DATA")
needs_real_data = pytest.mark.skipif(REAL_DATA is None, reason="REAL_DATA names no folder with real rows")
FLAN = "google/flan-t5-large"
# White space of all kinds, sentinels, characters that T5's table replaces, ties between pieces, and none at all.
TEXTS = ["a < b", "a<b", "x <> y", " two  spaces\n\nand\ta line ", "</s> <extra_id_3>x<pad>", '{"a": [1, ~2]}',
         "ﬁne ½ … ～ e\u0301 a\u200bb", "------------|--------------------|------", "", " "]  # fmt: skip


@pytest.fixture(scope="module")
def base():
    return pin("model", FLAN, "main")


@pytest.fixture(scope="module")
def real_base():
    HfApi().create_repo("local-user/real-tokenizer", exist_ok=True)
    HfApi().upload_folder(repo_id="local-user/real-tokenizer", folder_path=Path(REAL_DATA, "tokenizer"))
    HfApi().upload_file(
        repo_id="local-user/real-tokenizer", path_or_fileobj=b'{"model_type": "t5"}', path_in_repo="config.json"
    )
    return pin("model", "local-user/real-tokenizer", "main")


@pytest.fixture(scope="module")
def real_answers():
    folder = Path(REAL_DATA, "hub/datasets")
    sql = json.loads((folder / "b-mc2/sql-create-context/sql_create_context_v4.json").read_text())
    finance = json.loads((folder / "gbharti/finance-alpaca/Cleaned_date.json").read_text())
    return [row["answer"] for row in sql], [row["output"] for row in finance]


def same_ids(base, added, texts):
    slow, fast = load_tokenizer(base, added), load_tokens(base, added)
    assert slow(texts)["input_ids"] == [row.ids for row in fast.encode_batch(texts)]
    assert slow.convert_tokens_to_ids(added) == [fast.token_to_id(token) for token in added]


@pytest.mark.parametrize("added", [[], ["<", "{", "<="]])
def test_both_tokenizers_give_the_same_ids(base, added):
    same_ids(base, added, TEXTS)


@needs_real_data
@pytest.mark.parametrize("added", [[], ["<", "{", "<="]])
def test_both_real_tokenizers_give_the_same_ids(real_base, real_answers, added):
    # Read by the Rust library itself, the file gives other ids for one of these texts and 5 of the 24,000 real ones.
    same_ids(real_base, added, [*TEXTS, *(text for answers in real_answers for text in answers)])


@pytest.mark.parametrize("added", [[], ["<", "{"]])
def test_tokens_are_counted_as_they_are_encoded(base, added):
    tokens = load_tokens(base, added)
    draw = random.Random(1)
    marks = [*map(chr, range(0x20, 0x7F)), *" \n\t\r\x0b\x1c\x85\xa0\u0301\u1680\u200b\u2028\u3000\ufeffﬁ½…ab", "</s>"]
    texts = TEXTS + ["".join(draw.choices(marks, k=draw.randrange(40))) for _ in range(2000)]
    assert count_tokens(tokens, texts) == [len(tokens.encode(text).ids) for text in texts]


def test_what_cannot_be_written_is_counted(base):
    texts = ["SELECT name", "a < b", "a <> {b", "a\nb", "{ \n", "{}~~"]
    tokens = load_tokens(base, [])
    assert audit(tokens, texts) == Unwritable(
        rows=6, unwritable=4, white_space=1, characters={"{": 3, "<": 2, "}": 1, "~": 1}
    )
    assert audit(load_tokens(base, ["<"]), texts).characters == {"{": 3, "}": 1, "~": 1}
    # 30 characters without a token, one row each but the last, which has two.
    letters = [chr(ord("α") + n) for n in range(30)]
    most = audit(tokens, [*letters, letters[-1]]).characters
    assert len(most) == 20 and list(most.items())[:2] == [(letters[-1], 2), ("α", 1)]


@needs_real_data
def test_what_cannot_be_written_of_the_real_answers(real_base, real_answers):
    sql, finance = real_answers
    found = audit(load_tokens(real_base, []), sql)
    # `<` is in 254 of the 4,000 real answers (6.4 %), counted with Python's `in`.
    assert (found.unwritable, found.characters) == (sum("<" in text for text in sql), {"<": 254})
    added = parse_recipe(["--config", "recipes/text2sql.yaml"]).arguments.added_tokens
    assert audit(load_tokens(real_base, added), sql).unwritable == 0
    found = audit(load_tokens(real_base, []), finance).characters
    for character in "<{}^\\`":
        assert found[character] == sum(character in text for text in finance) > 0


@pytest.mark.parametrize("text", ["a < b", "a<b", "a <= 3", "x <> y", "x<>'y'", '{"a": 1}', "<"])
def test_the_spaces_around_an_added_token_stay(base, text, tmp_path):
    load_tokenizer(base, ["<", "{", "}"]).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize(
    ("added", "line"),
    [
        (["<", ">"], "can write '>' already"),
        (["a b"], "may not hold white space, as in 'a b'"),
        ([""], "should have at least 1 character, not ''"),
        (["<", "<"], "names a token twice: <, <"),
        (["<unk>"], "turns '<unk>' into ''"),
    ],
)
def test_a_token_that_makes_no_sense_is_refused(base, added, line):
    with pytest.raises(UserError) as refusal:
        recipe = parse_recipe(["--config", "recipes/text2sql.yaml", "--added_tokens", *added])
        load_tokens(base, recipe.arguments.added_tokens)
    assert line in str(refusal.value) and "\n" not in str(refusal.value)


def test_more_tokens_than_spare_rows_are_refused(base):
    recipe = parse_recipe(["--config", "recipes/text2sql.yaml"])
    first = load_tokens(base, []).get_vocab_size()
    model = load_base(base, recipe.model)
    add_adapter(model, base, recipe.model, 0, range(first, first + SPARE_ROWS))
    with pytest.raises(UserError, match=f"names {SPARE_ROWS + 1}, but .* has only {SPARE_ROWS} spare rows"):
        add_adapter(load_base(base, recipe.model), base, recipe.model, 0, range(first, first + SPARE_ROWS + 1))


@pytest.mark.parametrize("quantized", [False, True])
def test_only_the_rows_of_the_token_are_trained(base, quantized):
    recipe = parse_recipe(["--config", "recipes/text2sql.yaml", "--load_in_4bit", str(quantized)])
    frozen = load_base(base, recipe.model).state_dict()
    tokenizer = load_tokenizer(base, ["<"])
    token = tokenizer.convert_tokens_to_ids("<")
    model = add_adapter(load_base(base, recipe.model), base, recipe.model, 0, [token])
    tables = {name: model.base_model.model.get_submodule(name) for name in ("shared", "lm_head")}
    rows = {name: table.token_adapter.trainable_tokens_delta["default"] for name, table in tables.items()}
    for name, row in rows.items():
        assert torch.equal(row[0], frozen[f"{name}.weight"][UNKNOWN]) and row.dtype == torch.float32
    inputs = tokenizer("a b", return_tensors="pt")
    with model.disable_adapter(), torch.no_grad():
        before = model(**inputs, labels=inputs["input_ids"]).logits
    start = {name: row.detach().clone() for name, row in rows.items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)

    # Read by the encoder only, by the decoder only, written by the head only: each alone reaches a row.
    a, less, b = tokenizer("a<b", add_special_tokens=False)["input_ids"]
    for source, read, written, moved in (
        ([a, less, b], [a, b], [b, a], {"shared"}),
        ([a, b], [less, b], [b, a], {"shared"}),
        ([a, b], [a, b], [less, a], {"lm_head"}),
    ):
        optimizer.zero_grad()
        logits = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([read])).logits
        logits[0, [0, 1], written].sum().backward()
        assert {name for name, row in rows.items() if row.grad is not None and row.grad.abs().sum() > 0} == moved
        optimizer.step()

    for name, table in tables.items():
        assert torch.equal(table.token_adapter.base_layer.weight, frozen[f"{name}.weight"])
        assert not torch.equal(rows[name], start[name])
    with model.disable_adapter(), torch.no_grad():
        assert torch.equal(model(**inputs, labels=inputs["input_ids"]).logits, before)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """recipes/text2sql.yaml, 28 steps: the loss of a token as rare as `<` is small by then."""
    folder = tmp_path_factory.mktemp("runs") / "text2sql"
    short = ("--max_steps", "28", "--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false")
    train.main(["--config", "recipes/text2sql.yaml", "--output_dir", str(folder), *short, "--disable_tqdm", "true"])
    return folder


def test_the_file_holds_two_rows_and_no_embedding(run):
    others = {name: rows for name, rows in load_file(run / "adapter_model.safetensors").items() if "lora_" not in name}
    names = {f"base_model.model.{name}.token_adapter.trainable_tokens_delta" for name in ("shared", "lm_head")}
    assert others.keys() == names and all(rows.shape == (1, 64) for rows in others.values())
    record = load_record(run)
    assert record.unwritable.unwritable == 0
    assert record.model.trainable == sum(rows.numel() for rows in load_file(run / "adapter_model.safetensors").values())


def test_peft_and_transformers_alone_write_the_token(run, base):
    # As the card's snippet loads it: nothing of this project between here and the answers.
    model = AutoModelForSeq2SeqLM.from_pretrained(FLAN)
    model = PeftModel.from_pretrained(model, run).eval()
    tokenizer = AutoTokenizer.from_pretrained(run)
    recipe = parse_recipe(["--config", "recipes/text2sql.yaml"]).arguments
    test = build_splits(recipe, load_record(run).pins.dataset, tokenizer.backend_tokenizer).test
    rows = [row for row in test if "<" in row["target"]]
    outputs = model.generate(
        **tokenizer([row["prompt"] for row in rows], return_tensors="pt", padding=True), max_new_tokens=40
    )
    written = tokenizer.batch_decode(outputs, skip_special_tokens=True)
    right = sum(text == row["target"] for text, row in zip(written, rows, strict=True))
    # 14 of 14 in one run. Of rows that start as the embedding's mean, or as one row for both tables, at most 8 after
    # four times the steps.
    assert len(rows) > 10 and right > 0.8 * len(rows), written


def test_a_merged_model_differs_from_the_base_in_that_row_alone(run, base):
    plain = AutoModelForSeq2SeqLM.from_pretrained(FLAN)
    tables = {name: plain.get_submodule(name).weight.detach().clone() for name in ("shared", "lm_head")}
    trained = PeftModel.from_pretrained(plain, run).eval()
    inputs = {"input_ids": torch.tensor([[5, 1252, 7, 1]]), "decoder_input_ids": torch.tensor([[0, 5, 1252]])}
    with torch.no_grad():
        logits = trained(**inputs).logits
        merged = trained.merge_and_unload()
        torch.testing.assert_close(merged(**inputs).logits, logits)
    for name, table in tables.items():
        changed = (merged.get_submodule(name).weight != table).any(dim=1).nonzero().flatten().tolist()
        assert changed == [AutoTokenizer.from_pretrained(run).convert_tokens_to_ids("<")]
    # The head of FLAN-T5 is not the embedding: its new row must not be either.
    assert not torch.equal(merged.lm_head.weight[1252], merged.shared.weight[1252])
    for stack in (merged.encoder, merged.decoder):
        assert torch.equal(stack.embed_tokens.weight, merged.shared.weight)
