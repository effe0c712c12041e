"""The card's metadata, and the sections that hang on what a run measured."""

import re

import pytest
from huggingface_hub import ModelCard

from model_cards.card import front_matter, log_lines, render_card
from record.energy import Energy
from record.run_record import Leakage, Lengths, LossPoint

REPO = "someone/adapter"


@pytest.fixture
def energy():
    return Energy(kwh=1.5, cpu_kwh=0.25, gpu_kwh=1.0, ram_kwh=0.25, co2_grams=993.123456, country="USA",
                  region="oregon", hardware="1 x NVIDIA T4", cpu_measured=False, codecarbon="3.3.2")  # fmt: skip


def test_the_hub_takes_the_metadata(record, predictions, energy):
    record.energy = energy
    ModelCard(render_card(record, predictions, REPO)).validate()


@pytest.mark.parametrize(
    ("stated", "metadata"),
    [
        ("apache-2.0", {"license": "apache-2.0"}),
        ("mit, apache-2.0", {"license": ["mit", "apache-2.0"]}),
        (None, {}),
        (
            "other",
            {
                "license": "other",
                "license_name": "license-of-the-base-model",
                "license_link": f"https://huggingface.co/google/flan-t5-large/blob/{'a' * 40}/README.md",
            },
        ),
    ],
)
def test_the_licence_is_the_base_models(record, predictions, stated, metadata):
    record.pins.base_model.license = stated
    card = ModelCard(render_card(record, predictions, REPO))
    assert {key: value for key, value in card.data.to_dict().items() if "license" in key} == metadata
    assert ("states none" in card.text) == (stated is None)
    if stated != "mit, apache-2.0":
        card.validate()


def test_every_dataset_of_the_chain_is_named_once(record):
    for dataset in ("b/first", "gbharti/finance-alpaca"):
        source = Leakage(adapter=f"a/p@{'9' * 40}", dataset=dataset, training_rows=1, exact=0, near=0)
        record.leakage.append(source)
    assert front_matter(record, REPO).datasets == ["gbharti/finance-alpaca", "b/first"]


def test_several_languages_are_a_list(record):
    record.recipe["language"] = "en, pl"
    assert front_matter(record, REPO).language == ["en", "pl"]


def test_energy_stands_in_metadata_and_card_only_where_measured(record, predictions, energy):
    card = render_card(record, predictions, REPO)
    assert "co2_eq_emissions" not in card and "### Energy" not in card
    record.energy = energy
    card = ModelCard(render_card(record, predictions, REPO))
    assert card.data.to_dict()["co2_eq_emissions"] == {
        "emissions": 993.1,
        "source": "codecarbon 3.3.2",
        "training_type": "fine-tuning",
        "geographical_location": "USA, oregon",
        "hardware_used": "1 x NVIDIA T4",
    }
    section = card.text.partition("### Energy")[2].partition("\n## ")[0]
    for fact in ("1.5 kWh", "993.1 g", "NVIDIA T4", "estimated from its load", "its driver", "oregon"):
        assert fact in section, fact
    assert "was not added" not in section
    record.training.resumed_from = 7
    assert "only from step 7 on; earlier steps are not included" in render_card(record, predictions, REPO)


def test_works_are_cited_where_they_were_used(record, predictions):
    def cited():
        return re.findall(r"^@\w+\{(.+),$", render_card(record, predictions, REPO), re.MULTILINE)

    assert cited() == ["adapter", "chung2022scaling", "hu2021lora", "lin-2004-rouge"]
    record.recipe["load_in_4bit"], record.pins.base_model.id = True, "google/t5-v1_1-large"
    assert cited() == ["adapter", "hu2021lora", "dettmers2023qlora", "lin-2004-rouge"]
    record.recipe["title"] = "100 % {odd} \\title"
    bibtex = render_card(record, predictions, REPO).partition("```bibtex\n")[2].partition("```")[0]
    assert bibtex.count("{") == bibtex.count("}") and "\\" not in bibtex and "%" not in bibtex
    assert f"url = {{https://huggingface.co/{REPO}}}" in bibtex


def test_lengths_and_log_stand_in_the_card(record, predictions):
    record.data.lengths = {"prompt": Lengths(min=3, mean=20.25, max=1_234), "target": Lengths(min=1, mean=2, max=99)}
    card = render_card(record, predictions, REPO)
    assert "| prompt | 3 | 20.2 | 1,234 |" in card and "prompts of up to 1,234 tokens" in card
    assert "| **20** | 2.000 | 1.500 | 1.750 | — |" in card and "Training log: 4 of 4 lines" in card
    record.training.history += [LossPoint(step=step, epoch=3, loss=1.0) for step in range(21, 300)]
    assert [point.step for point in log_lines(record)] == [10, 20]
