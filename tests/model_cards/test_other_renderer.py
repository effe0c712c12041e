"""A card that another version rendered: what its reader sees is the record's, or the verdict does not speak of it."""

import re

import pytest

from evaluation import checks
from evaluation.findings import Drift
from model_cards.card import render_card
from model_cards.fingerprint import renderer
from model_cards.plots import draw_plots
from record.verdict import Verdict

REPO = "someone/adapter"


@pytest.fixture
def release(record, predictions, tmp_path):
    """Checks the card after a change, as one by another version."""
    record.rendered = renderer().model_copy(update={"code": "0" * 64})
    draw_plots(record, tmp_path)
    predictions.save(tmp_path)

    def check(change):
        (tmp_path / "README.md").write_text(change(render_card(record, predictions, REPO)), encoding="utf-8")
        return checks.check_card(REPO, tmp_path, record, predictions)

    check.predictions = predictions
    return check


def replaced(old, new):
    def change(card):
        assert old in card
        return card.replace(old, new, 1)

    return change


def below_the_title(text):
    return replaced("\n[![", f"\n{text}\n\n[![")


def test_other_words_for_the_same_numbers_are_the_records(release):
    def reworded(card):
        for old, new in (
            ("The difference is paired by row.", "Differences are of the same rows, and never of others."),
            ("| test (the scores above, nothing else)", "| test, for the scores above"),
            ("## Results in detail", "## Details"),
            ("This repository holds no check", "Here is no check"),
            ("rows of the shuffled test split, not chosen", "rows of the test split"),
        ):
            card = replaced(old, new)(card)
        return card

    rest, told = release(reworded)
    assert rest is None and "every number, row count and name that it shows is the record's" in told


def test_four_decimals_and_zeros_of_earlier_versions_are_the_records(release, record):
    scores = record.scores
    scores.adapter_outputs.cut = 0
    score, base = scores.adapter["rougeL"], scores.base["rougeL"]

    def as_before(card):
        for part in (*scores.adapter.values(), *scores.base.values(), *scores.difference.values()):
            for value in (part.mean, part.low, part.high):
                card = re.sub(rf"(?<![\d.]){abs(value):.3f}(?!\d)".replace("0.", r"0\."), f"{abs(value):.4f}", card)
        return re.sub(r"\| rows cut at 3 tokens .*", "| rows cut at 3 tokens | 1 (50.0 %) | 0 (0.0 %) |", card)

    assert f"{base.mean:.4f} [" in as_before(render_card(record, release.predictions, REPO))
    rest, told = release(as_before)
    assert rest is None, told
    for wrong in (f"{score.mean + 0.0002:.4f}", f"{score.mean:.2f}"):
        with pytest.raises(Drift, match="states other numbers for ROUGE-"):
            release(lambda card, wrong=wrong: as_before(card).replace(f"**{score.mean:.4f}**", f"**{wrong}**"))


STRANGE = {
    "10,000 rows": below_the_title("Trained on 10,000 rows."),
    "10k examples": below_the_title("Trained on 10k examples."),
    "99.1 %": below_the_title("It is right in 99.1 % of the cases."),
    "99.1 percent": below_the_title("It is right in ９９.１ percent of the cases."),
    "a-row-of-another-number-that-is-there": below_the_title("ROUGE-L on held-out data: 0.5000"),
    "a-metric-that-was-not-measured": below_the_title("Accuracy: 0.95"),
    "words": below_the_title("It is right in ninety-nine of a hundred cases."),
    "gpt": below_the_title("It is on par with GPT-4."),
    "another-base": below_the_title("A LoRA adapter for google/flan-t5-xxl."),
    "a-verdict": below_the_title("REPRODUCED by the Hub team."),
    "a-picture": below_the_title("![scores](https://x.example/scores.png)"),
    "a-link": below_the_title("[the paper](https://x.example)"),
    "hidden": below_the_title("<div hidden>"),
    "a-style": below_the_title("<style>table{display:none}</style>"),
    "other-columns": replaced("| | base model | **with this adapter** |", "| | **with this adapter** | base model |"),
    "a-free-text": lambda card: f"{card}\n<!-- free: own -->\nText.\n<!-- /free -->\nTrained on 10,000 rows.\n",
    "depth": below_the_title("<i>" * 200),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_what_does_not_follow_from_the_record_takes_the_card_out_of_the_word(release, name):
    try:
        rest, told = release(STRANGE[name])
    except Drift as drift:
        # Nesting as deep as that hides the tables, too.
        assert name == "depth" and "nests its elements" in str(drift)
        return
    assert rest is not None and rest.part == "card" and told.startswith("another version rendered the card, and"), told


def test_the_word_says_what_was_not_checked():
    verdict = Verdict(verdict="REPRODUCED", adapter=REPO, level="score", date="2026-11-23T09:00:00+00:00")
    for unchecked, word in (
        (None, "REPRODUCED"),
        ("card", "REPRODUCED (scores; the card was not checked)"),
        ("pictures", "REPRODUCED (the card's pictures were not checked)"),
    ):
        assert verdict.model_copy(update={"unchecked": unchecked}).line.startswith(f"{word} {REPO}")


def test_a_table_that_nobody_sees_or_that_states_other_scores_is_drift(release, record):
    def in_a_comment(card):
        table = card[card.index("| | base model") : card.index("## Use it")]
        return card.replace(table, f"<!--\n{table}-->\n\n")

    def in_code(card):
        table = card[card.index("| | base model") : card.index("## Use it")]
        return card.replace(table, f"```text\n{table}```\n\n")

    score = record.scores.adapter["rougeL"].mean
    for change, told in (
        # The first table that is seen is then that of the clean rows.
        (in_a_comment, "states other numbers for ROUGE-1"),
        (in_code, "states other numbers for ROUGE-1"),
        (lambda card: card.replace("| ROUGE-L |", "| ROUGE |"), "shows no row of scores for ROUGE-L"),
        (replaced(f"**{score:.3f}**", "**0.991**"), "states other numbers for ROUGE-"),
    ):
        with pytest.raises(Drift, match=told):
            release(change)


def test_pictures_by_another_version_are_not_vouched_for(release, tmp_path):
    (tmp_path / "plots/scores.png").write_bytes((tmp_path / "plots/loss.png").read_bytes())
    rest, told = release(lambda card: card)
    assert rest.part == "pictures" and "drew plots/scores.png" in told
