"""The splits that a dataset comes with: which rows they are, what rules take from them, what two of them share."""

import json

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from hub.pins import pin
from recipes.config import RecipeArguments
from recipes.data.lineage import find_seen_rows
from recipes.data.splits import build_splits
from recipes.data.tokenizer import load_tokens
from record.errors import UserError, one_line
from record.run_record import Pins
from scoring.concerns import find_concerns

REPO = "local-user/own-splits"
WORDS = ("bond", "share", "loan", "tax", "rent", "price", "fund", "debt", "bank", "yield")


def questions(names: str, start: int) -> list[dict[str, str]]:
    return [{"q": f"What about {WORDS[n % 10]} {names} {start + n}?", "a": f"{names} {start + n}"} for n in range(20)]


@pytest.fixture(scope="module")
def base():
    return pin("model", "google/flan-t5-large", "main")


@pytest.fixture(scope="module")
def dataset():
    # The first test question is one of training; two of the twenty are too long, one has no answer.
    train, validation, test = questions("alpha", 0), questions("beta", 100), questions("gamma", 200)
    test[0]["q"] = train[7]["q"]
    test[3]["q"] += " and" * 60
    test[9]["q"] += " and" * 60
    test[5]["a"] = ""
    files = {"train": train, "validation": validation, "test": test}
    HfApi().create_repo(REPO, repo_type="dataset")
    operations = [
        CommitOperationAdd(f"{name}.jsonl", "\n".join(map(json.dumps, rows)).encode()) for name, rows in files.items()
    ]
    HfApi().create_commit(REPO, operations, commit_message="Rows", repo_type="dataset")
    return pin("dataset", REPO, "main")


@pytest.fixture
def build(base, dataset):
    def build(**keys):
        recipe = RecipeArguments(title="x", adapter_name="x", dataset_name=REPO, prompt="{q}", target="{a}", **keys)
        return build_splits(recipe, dataset, load_tokens(base, []))

    return build


def test_rows_keep_their_split_and_order_and_dropped_test_rows_are_counted_apart(build, base, dataset, record,
                                                                                 predictions):  # fmt: skip
    splits = build(train_split="train[:50%]+train[15:]", validation_split="validation", test_split="test",
                   length_rules=["drop words(prompt) > 30"])  # fmt: skip
    assert splits.train["target"][:] == [f"alpha {n}" for n in (*range(10), *range(15, 20))]
    assert splits.validation["target"][:] == [f"beta {n}" for n in range(100, 120)]
    assert splits.test["target"][:] == [f"gamma {n}" for n in range(200, 220) if n not in (203, 205, 209)]
    counts = splits.counts
    assert (counts.loaded, counts.train, counts.validation, counts.test, counts.test_dropped) == (55, 15, 20, 17, 3)
    assert counts.dropped == {"empty target": 1, "drop words(prompt) > 30": 2}
    kinds, (leakage,) = find_seen_rows(splits, Pins(base_model=base, dataset=dataset))
    assert (kinds[0], kinds.count("exact"), leakage.exact, leakage.training_rows) == ("exact", 1, 1, 35)
    record.data, record.recipe = counts, record.recipe | {"test_split": "test"}
    line = "the recipe drops 3 of 20 (15.0 %) rows of the dataset's own test split `test`: scores that others report "
    assert line + "are of all of them" in find_concerns(record, predictions)


def test_validation_rows_are_drawn_from_the_training_rows_unless_they_are_named(build):
    splits = build(train_split="train", test_split="test[10:]", validation_size=0.2)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (16, 4, 10)
    assert sorted(splits.train["target"][:] + splits.validation["target"][:]) == sorted(f"alpha {n}" for n in range(20))
    assert build(train_split="train", test_split="test", select_on_test=True).validation is None


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"train_split": "train", "test_split": "exam"}, "`test_split: exam` names no split of local-user/own-splits"),
        ({"train_split": "train[x]", "test_split": "test"}, "`train_split: train[x]` names no split of local-user/own"),
        ({"train_split": "train[5:5]", "test_split": "test"}, "`train_split: train[5:5]` holds no rows of local-user/"),
        (
            {"train_split": "train", "test_split": "train[90%:]"},
            "`train_split` and `test_split` both take rows 18 to 19 of `train`: name splits that share none",
        ),
        (
            {"train_split": "train", "test_split": "test", "length_rules": ["drop words(prompt) > 2"]},
            "0 of 40 rows of local-user/own-splits are left",
        ),
        (
            {"train_split": "train", "test_split": "test[3:4]", "length_rules": ["drop words(prompt) > 30"]},
            "no row of `test_split: test[3:4]` is left: the recipe drops them all",
        ),
    ],
)
def test_splits_that_give_no_rows_or_share_some_are_refused_with_one_line(build, keys, line):
    with pytest.raises(UserError) as refused:
        build(**keys)
    assert str(refused.value) == one_line(str(refused.value)) and line in str(refused.value)
