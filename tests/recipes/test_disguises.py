"""Leakage in disguise: copies whose disguise is undone, prompts that templates and rules made the same."""

import json
import os
import random
import time
import unicodedata
from pathlib import Path

import pytest
from datasets import Dataset

from benchmarks.data import lines
from hub.pins import pin
from local_hub.miniatures import finance
from recipes.config import parse_recipe
from recipes.data.disguises import fold
from recipes.data.leakage import compare, groups
from recipes.data.lineage import _same_prompts, find_seen_rows
from recipes.data.splits import Splits, build_splits
from recipes.data.tokenizer import load_tokens
from record.run_record import Data, Pins

REAL_DATA = os.environ.get("REAL_DATA")
needs_real_data = pytest.mark.skipif(REAL_DATA is None, reason="REAL_DATA names no folder with real rows")

# Letters that are drawn alike: Cyrillic, and Greek capitals.
LOOK_ALIKES = str.maketrans("aeopcxyisABEKMHOPCTXIN", "аеорсхуіѕАВЕКМНОРСТХІΝ")
AROUND = (
    "please read this carefully and then give me an answer that is short and correct since my boss wants to see it by "
    "noon on friday without any further words or excuses thanks"
)


def within(rng: random.Random, text: str, inserted: str) -> str:
    """The text with something inserted in every second longer word."""

    def changed(word: str) -> str:
        place = rng.randrange(1, max(len(word), 2))
        return word[:place] + rng.choice(inserted) + word[place:] if len(word) > 3 and rng.random() < 0.5 else word

    return " ".join(map(changed, text.split(" ")))


def around(rng: random.Random, words: int) -> str:
    return " ".join(rng.sample(AROUND.split(), words))


WAYS = {
    "format characters": lambda rng, text: within(rng, text, "\u200b\u200d\u2060\ufeff\u00ad"),
    "a format character after each letter": lambda rng, text: "\u200b".join(text),
    "control characters": lambda rng, text: within(rng, text, "\x00\x01\x08\x1b\x7f"),
    "look-alike letters": lambda rng, text: text.translate(LOOK_ALIKES),
    "some look-alikes": lambda rng, text: "".join(
        letter.translate(LOOK_ALIKES) if rng.random() < 0.3 else letter for letter in text
    ),
    "accents": lambda rng, text: unicodedata.normalize("NFC", "".join(
        letter + rng.choice("\u0301\u0308\u0323") if letter.isalpha() and rng.random() < 0.4 else letter
        for letter in text
    )),
    "another order": lambda rng, text: " ".join(rng.sample(words := text.split(), len(words))),
    "split words": lambda rng, text: within(rng, text, " "),
    "a prefix": lambda rng, text: f"{around(rng, rng.randint(5, 30))} {text}",
    "a suffix": lambda rng, text: f"{text} {around(rng, rng.randint(5, 30))}",
    "punctuation and case": lambda rng, text: "; ".join(map(str.swapcase, text.split())) + "!!",
    "punctuation within words": lambda rng, text: within(rng, text, "-_'"),
}  # fmt: skip


def made_up() -> list[str]:
    """Texts of 5 to 25 words of the miniature, none like another."""
    rng = random.Random(0)
    vocabulary = sorted({word for row in finance.rows()[:500] for word in row["output"].split() if word.isalpha()})
    return [" ".join(rng.sample(vocabulary, rng.randint(5, 25))) for _ in range(1_200)]


def real(dataset: str) -> list[str]:
    """The inputs of the shipped recipes over real rows, in a fixed order."""
    path, columns = {
        "finance": ("gbharti/finance-alpaca/Cleaned_date.json", ("instruction", "input")),
        "sql": ("b-mc2/sql-create-context/sql_create_context_v4.json", ("question", "context")),
    }[dataset]
    rows = json.loads(Path(REAL_DATA, "hub/datasets", path).read_text(encoding="utf-8"))
    return random.Random(1).sample([" ".join(row[column] for column in columns).strip() for row in rows], len(rows))


def share_of(way: str, texts: list[str], disguised: str) -> float:
    """The share of 60 copies that is found: among the test rows, or among the training rows."""
    rng = random.Random(2)
    test, training = texts[:200], texts[200:]
    if disguised == "test":
        findings = compare([*test, *(WAYS[way](rng, text) for text in training[:60])], training)[200:]
    else:
        findings = compare(test, [*training, *(WAYS[way](rng, text) for text in test[:60])])[:60]
    return sum(map(bool, findings)) / 60


@pytest.mark.parametrize("disguised", ["test", "training"])
@pytest.mark.parametrize("way", WAYS)
def test_a_disguised_copy_is_found(way, disguised):
    assert share_of(way, made_up(), disguised) >= 0.95


@needs_real_data
@pytest.mark.parametrize("dataset", ["finance", "sql"])
@pytest.mark.parametrize("way", WAYS)
def test_a_disguised_copy_of_a_real_row_is_found(way, dataset):
    texts = real(dataset)
    assert min(share_of(way, texts, disguised) for disguised in ("test", "training")) >= 0.95


@needs_real_data
@pytest.mark.parametrize("dataset", ["finance", "sql"])
def test_real_rows_without_copies_are_not_called_disguised(dataset):
    texts = real(dataset)
    for start in range(0, 2_000, 400):
        findings = compare(texts[start : start + 400], texts[:start] + texts[start + 400 :])
        assert findings.count("disguised") <= 0.01 * 400


@pytest.mark.parametrize("way", ["another order", "split words", "look-alike letters"])
def test_a_test_disguised_as_a_whole_is_found(way):
    # Each text has the words of a layout, which the disguised ones lack.
    texts = [f"Create a table: {text} varchar" for text in made_up()]
    findings = compare([WAYS[way](random.Random(3), text) for text in texts[:300]], texts)
    assert sum(map(bool, findings)) >= 0.95 * 300


OTHERS = [f"question {n} about thing {n * n} and place {n * 7}" for n in range(40)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("what is 3.5 percent of one hundred dollars", "what is 35 percent of one hundred dollars"),
        ("the shares sold in 2012 by our bank", "the shares sold in 2021 by our bank"),
        ("rows where a < b and c", "rows where a > b and c"),
        ("who owns whom", "whom owns who"),
        ("a bond", "please explain to me in a few words what a bond is"),
        ("show the names of all colleges", "show the names of all colleges with two players"),
    ],
)
def test_texts_that_mean_something_else_are_not_disguised(one, other):
    assert compare([one], [*OTHERS, other]) == compare([other], [*OTHERS, one]) == [""]


def test_the_first_rules_see_no_disguise():
    texts = made_up()[:60]
    disguised = [WAYS["look-alike letters"](None, text) for text in texts]
    assert set(compare(disguised, texts)) == {"disguised"}
    assert set(compare(disguised, texts, rules=1)) == {""}
    assert len(set(groups([*texts, *disguised]).tolist())) == 60
    assert len(set(groups([*texts, *disguised], rules=1).tolist())) == 120


def test_rows_with_the_same_prompt_are_one_group():
    assert groups(["first", "second", "third"], ["cut", "cut", "whole"]).tolist() == [0, 0, 1]
    assert groups(["first", "second", "third"], ["cut", "cut", "whole"], rules=1).tolist() == [0, 1, 2]


def test_what_folding_leaves():
    assert fold("what is a bond?\n\tnow") == "what is a bond?\n\tnow"
    assert fold("Pа\u200byр\u0301al é \x00№") == "Payp" + "al e No"


def test_disguises_take_less_than_the_same_time_again():
    texts = [json.loads(line)["instruction"] for line in lines(5_000)]

    def seconds(rules: int) -> float:
        start = time.process_time()
        assert set(compare(texts[:500], texts[500:], rules)) == {""}
        return time.process_time() - start

    measured = [(seconds(1), seconds(2)) for _ in range(3)]
    assert min(new for _, new in measured) <= 2 * min(old for old, _ in measured)


def finance_splits(*overrides: str) -> tuple[Splits, Pins]:
    recipe = parse_recipe(["--config", "recipes/finance.yaml", *overrides])
    base = pin("model", recipe.model.model_name_or_path, "main")
    pins = Pins(base_model=base, dataset=pin("dataset", recipe.arguments.dataset_name, "main"))
    return build_splits(recipe.arguments, pins.dataset, load_tokens(base, [])), pins


def test_prompts_that_a_rule_made_the_same_are_seen():
    splits, pins = finance_splits("--length_rules", "truncate words(prompt) > 4")
    seen, (counts,) = find_seen_rows(splits, pins)
    trained = {*splits.train["prompt"], *splits.validation["prompt"]}
    same = [prompt in trained for prompt in splits.test["prompt"]]
    # "Answer the financial question." is all that is left.
    assert all(same) and len(trained) == 1
    assert "" not in seen and "prompt" in seen and counts.prompts == counts.token_ids == len(same)
    splits.counts.rules = 1
    seen, (counts,) = find_seen_rows(splits, pins)
    assert seen.count("") > len(seen) / 2 and counts.prompts is counts.token_ids is counts.disguised is None


def test_prompts_without_a_column_are_seen():
    splits, pins = finance_splits("--prompt", "Explain: {instruction} {input}", "Explain: {input}")
    seen, (counts,) = find_seen_rows(splits, pins)
    empty = [prompt == "Explain:" for prompt in splits.test["prompt"]]
    # One of two templates a row, and the other column is mostly empty.
    assert sum(empty) > 0.2 * len(empty)
    assert all(kind for kind, same in zip(seen, empty, strict=True) if same) and "prompt" in seen
    assert counts.prompts >= sum(empty)


def test_token_ids_are_compared_with_each_trainings_own_tokenizer():
    base = pin("model", "google/flan-t5-large", "main")

    def splits(train: list[str], test: list[str], added: list[str]) -> Splits:
        train, test = (Dataset.from_dict({"prompt": texts, "target": ["x"] * len(texts)}) for texts in (train, test))
        counts = Data(loaded=2, dropped={}, train=1, validation=0, test=1, test_sha256="0" * 64)
        return Splits(train, None, test, counts, load_tokens(base, added))

    # The tokenizer knows neither `<` nor `~`.
    ours = splits(["is a < b", "what  is c"], ["is a ~ b", "is a < b", "what is c", "what is d"], [])
    assert _same_prompts(ours, ours) == ([False, True, False, False], [True, True, True, False])
    parent = splits(["is a < b"], ["what is d"], ["<"])
    assert _same_prompts(ours, parent) == ([False, True, False, False], [False] * 4)
