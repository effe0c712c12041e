"""Several datasets in one recipe: which of their rows there are, and every contradiction in one line."""

import json
import math
import re
from pathlib import Path

import pytest
import yaml

from evaluation.own_rows import refuse_other_rows
from hub.pins import pin
from push.publish_data import publish_data
from push.release import _refuse_unreadable
from recipes.config import RecipeArguments, arguments_from_record
from recipes.data.local_files import pin_files
from recipes.data.splits import build_splits, datasets_of
from recipes.data.tokenizer import load_tokens
from recipes.mixture import refuse_idle_keys, refuse_same_rows, sources
from record.errors import UserError, one_line
from record.published_recipe import refused_key

BOND, TOWN = "What is bond {} of bank {} worth?", "Where is the town number {} of {}?"


@pytest.fixture(scope="module")
def tokens():
    return load_tokens(pin("model", "google/flan-t5-large", "main"), [])


@pytest.fixture
def files(tmp_path):
    """Two datasets of one's own: a CSV with one split, and a folder with three. Two towns ask what two bonds do."""
    bonds, towns = tmp_path / "bonds.csv", tmp_path / "towns"
    bonds.write_text("q,a\n" + "".join(f"{BOND.format(n, n * n)},bond {n}\n" for n in range(30)))
    towns.mkdir()
    rows = [{"text": {"question": TOWN.format(n, n * n)}, "place": f"town {n}"} for n in range(40)]
    rows[3]["text"]["question"], rows[35]["text"]["question"] = BOND.format(7, 49), BOND.format(8, 64)
    for name, part in {"train": rows[:20], "validation": rows[20:30], "test": rows[30:]}.items():
        (towns / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    return str(bonds), str(towns)


def entries(files, bonds=(), towns=()):
    return [
        {"dataset_name": files[0], "prompt": "{q}", "target": "{a}", **dict(bonds)},
        {"dataset_name": files[1], "prompt": "Town: {text.question}", "target": "{place}", **dict(towns)},
    ]


def recipe(datasets, **keys):
    return RecipeArguments(title="x", adapter_name="x", datasets=datasets, **keys)


@pytest.fixture
def build(files, tokens):
    def build(bonds=(), towns=(), **keys):
        made = recipe(entries(files, bonds, towns), **keys)
        return build_splits(made, [pin_files(source.dataset_name) for source in sources(made)], tokens)

    return build


def test_test_rows_are_drawn_from_all_rows_together(build):
    splits = build()
    assert (splits.counts.loaded, len(splits.test)) == (70, math.ceil(0.1 * 70))
    assert {name.partition(" ")[0] for name in splits.test["target"][:]} == {"bond", "town"}
    assert [target.startswith("town") for target in splits.train["target"][:]] == [
        number == 1 for number in datasets_of(splits.train)
    ]
    assert splits.test["target"][:] == build().test["target"][:] != build(split_seed=3).test["target"][:]


def test_a_share_is_a_fraction_or_a_number_of_rows(build):
    counts = build({"share": 0.31}, {"share": 7}).counts
    assert [(one.rows, one.loaded) for one in counts.by_dataset] == [(30, 10), (40, 7)] and counts.loaded == 17
    assert build({"share": 30}).test["target"][:] == build().test["target"][:]


def test_a_key_above_holds_for_each_dataset_that_has_none_of_its_own(files, tokens):
    second = {"dataset_splits": ["test"], "target": "at {place}"}
    made = recipe(
        [{"dataset_splits": ["train"]}, second], dataset_name=files[1], prompt="{text.question}", target="{place}"
    )
    splits = build_splits(made, [pin_files(files[1])] * 2, tokens)
    assert [(one.rows, one.loaded) for one in splits.counts.by_dataset] == [(20, 20), (10, 10)]
    assert {target for target in splits.train["target"][:] if target.startswith("at")} <= {
        f"at town {n}" for n in range(30, 40)
    }
    assert all(prompt[0] in "WB" for prompt in splits.train["prompt"][:])


def test_own_splits_of_each_are_joined_in_their_order_and_a_share_leaves_the_test_rows(build):
    own = {"train_split": "train[:20]", "test_split": "train[20:]"}
    splits = build(own | {"share": 5}, {"train_split": "train", "test_split": "test"}, validation_size=0.0)
    assert splits.test["target"][:] == [*(f"bond {n}" for n in range(20, 30)), *(f"town {n}" for n in range(30, 40))]
    assert [(one.train, one.test) for one in splits.counts.by_dataset] == [(5, 10), (20, 10)]
    assert splits.counts.test_dropped == 0 and set(splits.train["target"][5:]) == {f"town {n}" for n in range(20)}


def test_groups_of_copies_reach_across_datasets(build):
    # Without the word before it a town asks what a bond does.
    splits = build({}, {"prompt": "{text.question}"}, split="grouped", test_size=0.5)
    test, train = set(splits.test["prompt"][:]), set(splits.train["prompt"][:])
    assert not test & train and {BOND.format(7, 49), BOND.format(8, 64)} <= test | train


@pytest.mark.parametrize(
    ("bonds", "towns", "keys", "line"),
    [
        ({}, {}, {"test_split": "test", "train_split": "train"}, "`train_split` names rows of one dataset: move it"),
        ({}, {}, {"sql_database": "x.sqlite"}, "`sql_database` names files of one dataset"),
        ({"target": ""}, {}, {}, "`datasets.target` should have at least 1 character"),
        ({"target": "answer"}, {}, {}, "bonds.csv): `target` names no column: write one as {column}"),
        ({"prompt": "{q"}, {}, {}, "bonds.csv): the template '{q' is not valid"),
        ({"share": 0}, {}, {}, "`datasets.share` should be at least 1, not 0"),
        ({"share": 1.5}, {}, {}, "`datasets.share` should be less than 1, not 1.5"),
        ({"share": -0.5}, {}, {}, "`datasets.share` should be greater than 0, not -0.5"),
        ({"shares": 0.5}, {}, {}, "`datasets.shares` is not one of dataset_name, "),
        ({"run_name": "x"}, {}, {}, "`datasets.run_name` is not one of dataset_name, "),
        ({"test_split": "test", "train_split": "train"}, {}, {}, "some of `datasets` have `train_split`, others"),
        ({"sql_schema": "{a}"}, {}, {}, "some of `datasets` have `sql_schema`, others do not"),
        ({"dataset_splits": ["train"], "test_split": "x", "train_split": "y"}, {}, {}, "`dataset_splits` are joined"),
        ({"share": 31}, {}, {}, "`share: 31` asks for 31 rows of bonds.csv, which has 30: ask for fewer"),
        ({"prompt": "{text.question}"}, {}, {}, "bonds.csv has no column `text`, but q, a"),
        ({"dataset_splits": ["exam"]}, {}, {}, "bonds.csv has no split `exam`, but train"),
        ({"extract": {"q": "(?P<x>never)"}, "prompt": "{x}"}, {}, {}, "no row of bonds.csv is left: `extract` matches"),
        ({}, {}, {"length_rules": ["drop words(prompt) > 8"]}, "no row of towns is left: correct its keys"),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused_with_one_line(build, bonds, towns, keys, line):
    with pytest.raises(UserError) as refused:
        build(bonds, towns, **keys)
    assert str(refused.value) == one_line(str(refused.value)) and line in str(refused.value)


@pytest.mark.parametrize(
    ("datasets", "keys", "line"),
    [
        ([{"dataset_name": "a/b", "prompt": "{q}"}], {"target": "{a}"}, "`datasets` names one dataset: write its keys"),
        ([{"dataset_name": "a/b"}, {"prompt": "{x}"}], {"prompt": "{q}", "target": "{a}"},
         "number 2 of `datasets` (None): the recipe lacks `dataset_name`"),
        ([{"dataset_name": "a/b"}, {"dataset_name": "a/c", "target": "{x}"}], {"prompt": "{q}"},
         "number 1 of `datasets` (a/b): the recipe lacks `target`"),
        (["a/b", "a/c"], {"prompt": "{q}", "target": "{a}"}, "`datasets` should be a valid dictionary, not 'a/b'"),
    ],
)  # fmt: skip
def test_an_entry_without_what_it_needs_is_refused_with_one_line(datasets, keys, line):
    with pytest.raises(UserError) as refused:
        recipe(datasets, **keys)
    assert str(refused.value) == one_line(str(refused.value)) and line in str(refused.value)


def test_the_same_rows_twice_are_refused_and_other_templates_of_them_are_not(files):
    def look(**second):
        each = sources(
            recipe([{"dataset_splits": ["train"]}, second], dataset_name=files[1], prompt="{place}", target="{q}")
        )
        refuse_same_rows(each, [pin_files(files[1])] * 2)

    for second in ({}, {"dataset_splits": ["test", "train"]}, {"share": 3}):
        with pytest.raises(
            UserError, match="`datasets` names towns twice with the same rows and templates: remove one"
        ):
            look(**second)
    look(dataset_splits=["test"])
    look(prompt="{q}", target="{place}")


def test_a_key_above_that_each_overrides_is_refused(files):
    with pytest.raises(UserError, match="`prompt` has no effect: each of `datasets` has its own: remove it above them"):
        refuse_idle_keys(recipe(entries(files), prompt="{x}"))
    refuse_idle_keys(recipe([*entries(files), {"dataset_name": "a/b", "target": "{y}"}], prompt="{x}"))


def test_the_recipe_in_the_docs_is_one():
    page = Path("docs/several-datasets.md").read_text(encoding="utf-8")
    keys = yaml.safe_load(re.search("```yaml\n(.*?)```", page, re.DOTALL)[1])
    assert refused_key(keys) is None
    support, manuals = sources(arguments_from_record(keys))
    assert (support.dataset_name, support.target) == ("acme/support", "{answer}")
    assert (manuals.dataset_splits, manuals.prompt, manuals.target) == (["train"], ["Explain {topic.name}."], "{text}")


def test_files_train_here_and_are_published_and_checked_only_from_the_hub(files, record, tmp_path, monkeypatch):
    monkeypatch.setattr("push.release.check_adapter_config", lambda run, base: None)
    record.pins.more_datasets = [pin_files(files[0])]
    for refuse, line in (
        (
            lambda: _refuse_unreadable(tmp_path, record, keep_rows=True),
            "put it on the Hub by `pubrep publish-data FILE",
        ),
        (lambda: _refuse_unreadable(tmp_path, record, keep_rows=False), "name that in `datasets`, and train again"),
        (lambda: refuse_other_rows(record, None), "is a file that only its publisher has: nothing can be checked"),
        (lambda: publish_data(record.save(tmp_path) or tmp_path, "a/b"), "has several datasets: publish each file by"),
    ):
        with pytest.raises(UserError) as refused:
            refuse()
        assert str(refused.value) == one_line(str(refused.value)) and line in str(refused.value)
    assert "dataset_name" in refused_key({"datasets": entries(files)}) and not refused_key(
        {"datasets": entries(files)}, own=True
    )
