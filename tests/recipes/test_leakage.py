"""Leakage: planted copies are found, nothing else is; grouped splits keep copies together."""

import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi
from transformers import AutoTokenizer

from hub.pins import pin
from local_hub.miniatures import finance, sql
from recipes.config import parse_recipe
from recipes.data.leakage import BANDS, NEAR, ROWS, compare, groups, words
from recipes.data.splits import build_splits, hold_out_groups
from recipes.data.tokenizer import load_tokens
from record.errors import UserError

REAL_DATA = os.environ.get("REAL_DATA")
needs_real_data = pytest.mark.skipif(REAL_DATA is None, reason="REAL_DATA names no folder with real rows")

# 21 words and thus 20 pairs, none of which comes twice.
LONG = "my uncle in lisbon wants to sell his old bakery and asks which taxes he must pay before next spring begins"
OTHERS = [f"question {n} about thing {n * n} and place {n * 7}" for n in range(40)]


def halves(rows: list, seed: int) -> tuple[list, list]:
    """Ten percent of the rows as a test, and the others."""
    shuffled = random.Random(seed).sample(rows, len(rows))
    cut = math.ceil(len(rows) / 10)
    return shuffled[:cut], shuffled[cut:]


def seen(findings: list[str]) -> float:
    return sum(finding != "" for finding in findings) / len(findings)


@pytest.mark.parametrize(
    "copy",
    [
        "What is a bond's price, and why?",
        "what is a bond's price and why",
        "  WHAT is\ta bond’s\n\nprice — and “why”?! ",
        "What is a bonds price (and) why",
        "Ｗhat is a bond's price, and why?",
    ],
)
def test_an_exact_copy_is_found_whatever_its_case_space_and_punctuation(copy):
    assert compare([copy, "What is a bond?"], [*OTHERS, "What is a bond's price, and why?"]) == ["exact", ""]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("rows where a < b", "rows where a > b"),
        ("rows where a = b", "rows where a != b"),
        ("what is 3 - 5", "what is 3 * 5"),
        ("what is 3.5", "what is 35"),
        ("shares of 2021", "shares of 2022"),
        ("who owns whom", "whom owns who"),
    ],
)
def test_texts_that_mean_something_else_are_no_copies(one, other):
    assert compare([one], [*OTHERS, other]) == [""]


def test_the_comma_of_a_thousand_is_no_difference():
    assert words("I owe $1,200,000.50 today") == ("i", "owe", "1200000", "50", "today")


def jaccard(one: str, other: str) -> float:
    """Written anew, over the texts' own words."""
    pairs = [{" ".join(text.split()[n : n + 2]) for n in range(len(text.split()) - 1)} for text in (one, other)]
    return len(pairs[0] & pairs[1]) / len(pairs[0] | pairs[1])


def test_near_duplicates_are_found_from_0_8_on_and_not_below():
    texts = LONG.split()
    planted = {
        "changed at the end": " ".join([*texts[:-1], "ends"]),
        "one changed inside": " ".join([*texts[:8], "shop", *texts[9:]]),
        "three added": f"{LONG} in the north",
        "two words cut": " ".join(texts[2:]),
        "five added": f"well then {LONG} in the north",
        "two changed inside": " ".join([*texts[:5], "give", *texts[6:12], "what", *texts[13:]]),
        "the halves swapped": " ".join([*texts[10:], *texts[:10]]),
    }
    measured = {name: jaccard(LONG, text) for name, text in planted.items()}
    found = dict(zip(planted, compare(list(planted.values()), [*OTHERS, LONG]), strict=True))
    assert found == {name: "near" if similarity >= NEAR else "" for name, similarity in measured.items()}
    assert set(found.values()) == {"near", ""}
    # One word changed inside shares 18 of 22 pairs, five words added 20 of 25, two changed inside 16 of 24.
    assert {0.8, 16 / 24, 18 / 22} <= set(measured.values())


def test_the_limit_itself_counts_as_near():
    # Eight of ten pairs are shared.
    one, other = "a b c d e f g h i j", "a b c d e f g h i x"
    assert jaccard(one, other) == 0.8
    assert compare([other], [*OTHERS, one]) == ["near"]


def test_the_share_of_near_duplicates_that_the_index_finds():
    assert 1 - (1 - NEAR**ROWS) ** BANDS > 0.997
    rng = random.Random(3)
    # 41 random words make 40 pairs, the first 33 of them 32.
    training = [" ".join(f"w{rng.randrange(9_999)}" for _ in range(41)) for _ in range(1_000)]
    test = [" ".join(text.split()[:33]) for text in training]
    assert {jaccard(*pair) for pair in zip(test, training, strict=True)} == {0.8}
    # Binomial(1000, 0.9977): 997.7 ± 1.5; five standard deviations.
    assert compare(test, training).count("near") >= 990


def test_nothing_is_found_among_unrelated_rows():
    test = [f"how tall is tower {n} of city {n + 1}" for n in range(50)]
    assert set(compare(test, OTHERS)) == {""}
    assert compare(test, []) == [""] * 50 and compare([], test) == []


def test_empty_and_one_word_inputs():
    training = [*OTHERS, "", "Inflation?", "?!"]
    assert compare(["", "  ", "inflation", "deflation", "?!", "..."], training) == [
        "exact", "exact", "exact", "", "exact", "",
    ]  # fmt: skip
    assert compare(["", "inflation"], OTHERS) == ["", ""]


def test_rows_twice_in_the_test_are_no_leakage():
    assert compare([LONG, LONG, LONG.upper()], OTHERS) == [""] * 3


def test_the_findings_depend_on_neither_the_order_nor_the_process():
    rows = [row["instruction"] for row in finance.rows()[:900]]
    test, training = halves(rows, 1)
    findings = compare(test, training)
    assert {"exact", "near", "disguised", ""} == set(findings)
    assert compare(test[::-1], training[::-1]) == findings[::-1]
    program = (
        "import json, sys; from recipes.data.leakage import compare; print(json.dumps(compare(*json.load(sys.stdin))))"
    )
    for seed in ("1", "2"):
        answer = subprocess.run(
            [sys.executable, "-c", program], input=json.dumps([test, training]), capture_output=True, text=True,
            check=True, env=os.environ | {"PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert json.loads(answer.stdout) == findings


def test_a_shared_beginning_loses_nothing():
    terms = [
        "inflation",
        "a bond",
        "a share",
        "a fund",
        "an index",
        "escrow",
        "a loan",
        "debt",
        "cash",
        "profit",
        "tax",
    ]
    test = [f"What is {term}?" for term in terms]
    training = [*OTHERS, "what is debt", "Why is debt bad", "what is an option", "a bond"]
    findings = dict(zip(terms, compare(test, training), strict=True))
    assert findings["debt"] == "exact"
    assert all(findings[term] == "" for term in ("inflation", "escrow", "an index", "cash"))


# How the second training of a chain asks the rows of the first.
LAYOUTS = {
    "the same texts": "{question} {context}",
    "another layout": "Here is a task with an input.\n### Instruction:\n{question}\n### Input:\n{context}\n### Answer:",
    "words that the rows have, too": "Is the question not answered? Q: {question} Table: {context} Select the answer:",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_chain_over_the_same_rows_has_seen_nine_tenths_of_the_second_test(layout):
    rows = random.Random(0).sample(sql.rows(), 1_500)
    first = [LAYOUTS["the same texts"].format(**row) for row in rows]
    second = [LAYOUTS[layout].format(**row) for row in rows]
    trained = halves(list(range(1_500)), 1)[1]
    tested = halves(list(range(1_500)), 2)[0]
    findings = compare([second[n] for n in tested], [first[n] for n in trained])
    planted = [n in set(trained) for n in tested]
    # Binomial(150, 0.9), drawn by the two seeds: 0.9 ± 0.024.
    assert 0.83 < np.mean(planted) < 0.97
    assert [finding == "exact" for finding in findings] == planted
    assert seen(findings) - np.mean(planted) < 0.05


def test_a_few_rows_that_leave_the_layout_hide_nothing():
    rows = sql.rows()[:400]
    raw = [sql.prompted(row)["input"] for row in rows]
    raw[7] = raw[211] = "Write a poem."
    findings = compare(raw[:200], [f"{row['question']} {row['context']}" for row in rows])
    assert findings.count("exact") == 199 and findings[7] == ""


def test_a_layout_with_variants_hides_nothing():
    rows = finance.rows()[:600]
    first = [f"{row['instruction']} {row['input']}" for row in rows]
    head = "Below is an instruction that describes a task{more}. Write a response that completes the request.\n\n"
    second = [
        head.format(more=", paired with an input that provides further context" if row["input"] else "")
        + f"### Instruction:\n{row['instruction']}\n\n"
        + (f"### Input:\n{row['input']}\n\n" if row["input"] else "")
        + "### Response:\n"
        for row in rows
    ]
    assert 0.1 < np.mean([row["input"] != "" for row in rows]) < 0.9
    findings = compare(second, first[:300])
    assert seen(findings[:300]) == 1 and findings[:300].count("exact") >= 290
    assert seen(findings[300:]) < 0.2


def test_groups_connect_copies_over_any_number_of_steps():
    steps = [LONG, f"{LONG} in the north", f"{LONG} in the north of our land"]
    assert jaccard(steps[0], steps[2]) < NEAR <= min(jaccard(*steps[:2]), jaccard(*steps[1:]))
    inputs = [steps[2], *OTHERS, steps[0].upper(), steps[1], OTHERS[3] + "!"]
    assert groups(inputs).tolist() == [0, *range(1, 41), 0, 0, 4]
    assert groups([]).tolist() == []


def test_a_group_that_is_too_large_is_kept_whole():
    numbers = np.array([0] * 60 + list(range(1, 41)))
    kept, held_out = hold_out_groups(numbers, 0.1, seed=5)
    assert len(held_out) == 10 and 0 not in numbers[held_out]
    assert sorted([*kept, *held_out]) == list(range(100))
    again, other = (hold_out_groups(numbers, 0.1, seed)[1].tolist() for seed in (5, 6))
    assert held_out.tolist() == again and sorted(again) != sorted(other)
    # Pairs only: seven rows cannot be met, six can.
    assert len(hold_out_groups(np.repeat(np.arange(35), 2), 0.1, seed=5)[1]) == 6
    with pytest.raises(UserError, match="near-duplicates connect too many"):
        hold_out_groups(np.zeros(100, dtype=int), 0.1, seed=5)


def splits_of(recipe: str, *overrides: str):
    parsed = parse_recipe(["--config", f"recipes/{recipe}.yaml", *overrides])
    dataset = pin("dataset", parsed.arguments.dataset_name, "main")
    tokenizer = load_tokens(pin("model", parsed.model.model_name_or_path, "main"), parsed.arguments.added_tokens)
    return build_splits(parsed.arguments, dataset, tokenizer)


@pytest.mark.parametrize("recipe", ["finance", "text2sql"])
def test_no_copy_crosses_a_grouped_split(recipe):
    drawn, grouped = splits_of(recipe), splits_of(recipe, "--split", "grouped")
    assert seen(compare(drawn.test["input"][:], drawn.train["input"][:])) > 0.02
    for held_out in (grouped.test, grouped.validation):
        assert set(compare(held_out["input"][:], grouped.train["input"][:])) == {""}
    for part in ("train", "validation", "test"):
        assert getattr(grouped.counts, part) == getattr(drawn.counts, part)
    assert grouped.counts.test_sha256 == splits_of(recipe, "--split", "grouped").counts.test_sha256
    other = splits_of(recipe, "--split", "grouped", "--split_seed", "1")
    assert grouped.counts.test_sha256 != other.counts.test_sha256 != drawn.counts.test_sha256


def real_splits(recipe: str, *overrides: str):
    """The recipe's splits of the real rows, pushed to the local Hub once."""
    parsed = parse_recipe(["--config", f"recipes/{recipe}.yaml", *overrides])
    owner, name = parsed.arguments.dataset_name.split("/")
    repo_id = f"local-user/real-{name}"
    if not HfApi().repo_exists(repo_id, repo_type="dataset"):
        HfApi().create_repo(repo_id, repo_type="dataset")
        folder = Path(REAL_DATA, "hub/datasets", owner, name)
        HfApi().upload_folder(repo_id=repo_id, repo_type="dataset", folder_path=folder)
    tokenizer = AutoTokenizer.from_pretrained(Path(REAL_DATA, "tokenizer")).backend_tokenizer
    return build_splits(parsed.arguments, pin("dataset", repo_id, "main"), tokenizer)


@needs_real_data
@pytest.mark.parametrize("raw", [False, True])
def test_the_chain_over_the_real_sql_rows_leaks_as_planted(raw):
    first = real_splits("text2sql")
    second = real_splits("llama2sql", *(["--prompt", "{input}"] if raw else []))
    test = second.test["input"][:]
    findings = compare(test, first.train["input"][:])
    pattern = re.compile("### Instruction:(.*)### Input:(.*)### Response:", re.DOTALL)
    taken_apart = [" ".join(pattern.search(text).groups()) if raw else text for text in test]
    trained = {" ".join(text.split()) for text in first.train["input"]}
    planted = [" ".join(text.split()) in trained for text in taken_apart]
    # Binomial(400, 0.88), as the first recipe trains on 3,521 of the 4,000 rows: 0.88 ± 0.016.
    assert 0.83 < np.mean(planted) < 0.93
    assert [finding == "exact" for finding in findings] == planted
    assert findings.count("near") <= 4


@needs_real_data
@pytest.mark.parametrize("recipe", ["finance", "text2sql", "llama2sql"])
def test_no_copy_crosses_a_grouped_split_of_real_rows(recipe):
    drawn, grouped = real_splits(recipe), real_splits(recipe, "--split", "grouped")
    crossing = compare(drawn.test["input"][:], drawn.train["input"][:])
    # Stanford Alpaca's rows are distinct; of the SQL rows some 1 % ask nearly the same of the same tables.
    assert seen(crossing) == 0 if recipe == "finance" else 0 < seen(crossing) < 0.03
    for held_out in (grouped.test, grouped.validation):
        assert set(compare(held_out["input"][:], grouped.train["input"][:])) == {""}
    assert grouped.counts.test == drawn.counts.test
