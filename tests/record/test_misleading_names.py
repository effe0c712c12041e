"""A name that states a score, or another base model, is told."""

from pathlib import Path

import pytest
from small_run import predictions, record  # noqa: F401

from recipes.config import parse_recipe
from record.names import misleading_names
from record.run_record import Pin

BASE = "the base model is google/flan-t5-large"


@pytest.mark.parametrize(
    ("key", "name", "told"),
    [
        ("title", "Finance (ROUGE-L 0.99)", ["the title states 0.99, which is none of the scores"]),
        ("title", "Finance, 99.1 % right", ["the title states 99.1 %, which is none of the scores"]),
        ("title", "Finance, F1 of 97", ["the title states 97, which is none of the scores"]),
        ("title", "Finance ９９％", ["the title states 99%, which is none of the scores"]),
        ("title", "As good as GPT-4", [f"the title says gpt-4; {BASE}"]),
        ("adapter_name", "flan-t5-xxl-x", [f"the adapter's name says flan-t5-xxl; {BASE}"]),
        ("adapter_name", "finance-rouge-l-0.93", ["the adapter's name states 0.93, which is none of the scores"]),
        ("adapter_name", "llama-3.1-8b", [f"the adapter's name says llama-3.1; {BASE}",
                                          f"the adapter's name says 8b; {BASE}"]),
        ("prompt", "{accuracy_99}", ["the column accuracy_99 states 99, which is none of the scores"]),
        ("prompt", ["{x}", "{gpt4_answer}"], [f"the column gpt4_answer says gpt4; {BASE}"]),
    ],
)  # fmt: skip
def test_a_name_that_states_what_was_not_measured_is_told(record, key, name, told):  # noqa: F811
    record.recipe |= {"title": "x", "adapter_name": "x"} | {key: name}
    assert misleading_names(record) == told


@pytest.mark.parametrize(
    "title",
    ["FLAN-T5 for finance", "T5 v1.1?", "ROUGE-1 and ROUGE-2 explained", "Top 100 of 2024", "Release 1.2.3", "Albert"],
)
def test_other_numbers_and_the_chains_own_names_are_not(record, title):  # noqa: F811
    record.pins.dataset = Pin(kind="dataset", id="google/t5-v1_1-rows", revision="b" * 40)
    record.recipe["title"] = title
    assert misleading_names(record) == []


def test_a_score_of_the_record_may_stand_in_a_title(record):  # noqa: F811
    record.recipe["title"] = f"Finance: ROUGE-L {record.scores.adapter['rougeL'].mean:.3f}"
    assert misleading_names(record) == []


@pytest.mark.parametrize("recipe", sorted(Path("recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_shipped_recipe_misleads(record, recipe):  # noqa: F811
    resolved = parse_recipe(["--config", str(recipe)]).resolved
    record.name, record.recipe, record.scores = recipe.stem, resolved, None
    record.pins.base_model.id, record.pins.dataset.id = resolved["model_name_or_path"], resolved["dataset_name"]
    assert misleading_names(record) == []
