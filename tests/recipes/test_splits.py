"""Columns, prompts and splits on rows made here, and the recipes' rules on the real rows that REAL_DATA names."""

import json
import os
import random
import re
import time
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from transformers import AutoTokenizer

import recipes.data.columns
from recipes.config import parse_recipe
from recipes.data.columns import fill_templates
from recipes.data.sources import extract
from recipes.data.splits import apply_rules
from record.errors import UserError

REAL_DATA = os.environ.get("REAL_DATA")
needs_real_data = pytest.mark.skipif(REAL_DATA is None, reason="REAL_DATA names no folder with real rows")


def test_a_rows_prompt_depends_on_the_row_and_the_seed_alone():
    rows = [{"q": f"question {n}"} for n in range(300)]
    prompts = ["First: {q}", "Second: {q}", "Third: {q}"]

    def prompts_of(order, seed, processes=None):
        made = Dataset.from_list([rows[n] for n in order]).map(
            fill_templates, fn_kwargs={"prompts": prompts, "target": "{q}", "seed": seed}, num_proc=processes
        )
        return dict(zip(made["q"][:], made["prompt"][:], strict=True))

    straight = prompts_of(range(300), 7)
    shuffled = random.Random(1).sample(range(300), 300)
    assert prompts_of(shuffled, 7) == straight == prompts_of(range(300), 7, processes=2)
    assert prompts_of(range(300), 8) != straight
    counts = [sum(text.startswith(head) for text in straight.values()) for head in ("First", "Second", "Third")]
    # Binomial(300, 1/3): 100 ± 8.2; four standard deviations.
    assert all(67 <= count <= 133 for count in counts)


def test_an_empty_column_leaves_no_white_space_behind():
    row = {"instruction": "Why?", "input": None, "output": " Because.\n"}
    filled = fill_templates(row, ["Answer. {instruction} {input}"], "{output}", seed=0)
    assert filled == {"prompt": "Answer. Why?", "target": "Because."}


def test_columns_are_read_out_of_a_text_and_rows_without_a_match_are_counted():
    recipe = parse_recipe(["--config", "recipes/llama2sql.yaml"]).arguments
    text = (
        "Reply with SQL.\n\n### Instruction:\nHow many\nrows?\n\n### Input:\nCREATE TABLE t (a INT)\n\n### Response:\n"
    )
    rows, unmatched = extract(Dataset.from_dict({"input": [text, "nothing here"], "output": ["SELECT 1", ""]}), recipe)
    assert unmatched == {"extract: no match in input": 1}
    assert rows.to_list() == [
        {"input": text, "output": "SELECT 1", "question": "How many\nrows?", "context": "CREATE TABLE t (a INT)"}
    ]


def test_a_pattern_that_takes_for_ever_is_stopped(monkeypatch):
    monkeypatch.setattr(recipes.data.columns, "PATTERN_SECONDS", 0.2)
    slow = parse_recipe(["--config", "recipes/llama2sql.yaml"]).arguments
    # Every way to cut the row into pieces of one or two letters is tried before it is given up.
    slow.extract = {"input": "(?P<question>(?:a|aa|aaa)+)$"}
    with pytest.raises(UserError, match=r"`extract` of `input` takes over 0\.2 s on one row"):
        extract(Dataset.from_dict({"input": ["a" * 60 + "!"]}), slow)


def test_a_pattern_that_takes_long_on_all_rows_is_stopped(monkeypatch):
    monkeypatch.setattr(recipes.data.columns, "EXTRACT_SECONDS", 0.5)
    slow = parse_recipe(["--config", "recipes/llama2sql.yaml"]).arguments
    slow.extract = {"input": "(?P<question>(?:a|aa|aaa)+)$"}
    began = time.monotonic()
    # A few milliseconds each.
    with pytest.raises(UserError, match=r"`extract` of `input` takes over 0\.5 s on all rows"):
        extract(Dataset.from_dict({"input": ["a" * 17 + "!"] * 2_000}), slow)
    assert time.monotonic() - began < 10


@needs_real_data
def test_the_finance_rule_keeps_the_known_number_of_real_rows():
    rows = json.loads(Path(REAL_DATA, "hub/datasets/gbharti/finance-alpaca/Cleaned_date.json").read_text())
    rules = parse_recipe(["--config", "recipes/finance.yaml"]).arguments.parsed_rules()
    kept, dropped, _, _ = apply_rules(Dataset.from_list(rows), rules, tokenizer=None)
    # Counted by hand over the 5,000 rows with Python's len().
    assert (len(kept), sum(dropped.values())) == (4_110, 890)


@needs_real_data
def test_the_sql_percentiles_are_numpys_on_the_real_tokenizers_lengths():
    tokenizer = AutoTokenizer.from_pretrained(Path(REAL_DATA, "tokenizer"))
    rows = json.loads(Path(REAL_DATA, "hub/datasets/b-mc2/sql-create-context/sql_create_context_v4.json").read_text())
    recipe = parse_recipe(["--config", "recipes/text2sql.yaml"]).arguments
    filled = [fill_templates(row, recipe.prompt, recipe.target, recipe.split_seed) for row in rows]
    kept, dropped, _, limits = apply_rules(
        Dataset.from_list(filled), recipe.parsed_rules(), tokenizer.backend_tokenizer
    )
    lengths = {
        name: np.array([len(tokenizer(row[name])["input_ids"]) for row in filled]) for name in ("prompt", "target")
    }
    expected = {f"drop tokens({name}) > p99.9": np.percentile(lengths[name], 99.9) for name in lengths}
    assert limits == expected
    inside = np.all([lengths[name] <= expected[f"drop tokens({name}) > p99.9"] for name in lengths], axis=0)
    assert len(kept) == inside.sum() == len(rows) - sum(dropped.values()) < len(rows)


@needs_real_data
def test_the_prompts_own_length_around_a_real_article():
    tokenizer = AutoTokenizer.from_pretrained(Path(REAL_DATA, "tokenizer"))
    template = parse_recipe(["--config", "recipes/cnn_dailymail.yaml"]).arguments.prompt[0]
    around = re.sub(r"\{article\}", "", template)
    # The words around the article take 9 to 10 tokens, `</s>` left out.
    assert len(tokenizer(around, add_special_tokens=False)["input_ids"]) in (9, 10)


@needs_real_data
def test_the_real_llama_rows_are_taken_apart_without_loss():
    folder = Path(REAL_DATA, "hub/datasets/ChrisHayduk/Llama-2-SQL-Dataset")
    rows = [
        json.loads(line) for name in ("train", "eval") for line in (folder / f"{name}.jsonl").read_text().splitlines()
    ]
    recipe = parse_recipe(["--config", "recipes/llama2sql.yaml"]).arguments
    made, unmatched = extract(Dataset.from_list(rows), recipe)
    original = json.loads(
        Path(REAL_DATA, "hub/datasets/b-mc2/sql-create-context/sql_create_context_v4.json").read_text()
    )

    def squeezed(rows):
        return {(" ".join(row["question"].split()), " ".join(row["context"].split())) for row in rows}

    assert set(unmatched.values()) == {0} and squeezed(made) == squeezed(original)
