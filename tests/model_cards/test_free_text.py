"""What people write on a card neither hides nor imitates what was measured; another value of a metric is told."""

import re

import pytest

from model_cards.card import render_card
from model_cards.card_check import find_difference
from model_cards.fingerprint import renderer
from model_cards.free_text import free_texts, hidden_by_free_text
from model_cards.plots import draw_plots
from model_cards.statements import stated_otherwise

REPO = "someone/adapter"


def written(card: str, text: str, section: str = "limits") -> str:
    """The card with a text in a free section, on lines of its own."""
    mark = re.compile(f"(<!-- free: {section} -->).*?(<!-- /free -->)", re.DOTALL)
    return mark.sub(lambda match: f"{match[1]}\n{text}\n{match[2]}", card)


HIDING = {
    "```\nopen": "opens a code block",
    "~~~~": "opens a code block",
    "<details>": "opens <details>",
    "<details><summary>More</summary>\n\ntext": "opens <details>",
    "<div hidden>": "opens <div hidden>",
    "<div style='display:none'>": "opens <div style=display:none>",
    "<table><tr><td>": "opens <table>",
    "<b>": "opens <b>",
    "<a href='x'>": "opens <a href=x>",
    "<template>": "that is not shown",
    "<textarea>": "opens <textarea>",
    "<plaintext>": "opens <plaintext>",
    "<![CDATA[": "opens a tag",
    "$$\nx": "opens a formula",
    "<style>table{display:none}</style>": "holds <style>",
    "<div style='position:absolute'>x</div>": "holds <div style=position:absolute>",
    "## Results\n\n99.1 %": "has the heading 'Results'",
    "RESULTS\n=======": "has the heading 'RESULTS'",
    "<h2>Results in detail</h2>": "has the heading 'Results in detail'",
    "### Check these  *numbers*": "has the heading 'Check these numbers'",
    "<i>" * 200: "nests its elements more than 100 deep",
}
HONEST = [
    "It was made on a train.",
    "<details><summary>More</summary>\n\n- one\n- two\n\n</details>",
    "```python\nprint('$$')\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |",
    "<p style='text-align: center'><img src='x.png' alt='x'></p>",
    "## Contact\n\n[me](mailto:me@x.example), $$x^2$$, <!-- a comment -->",
    "> quoted\n\n---\n\n1. one\n   - two",
    "</div></details>",
    "<!-- open",
    "[ours]: https://x.example",
]


@pytest.mark.parametrize("text", HIDING)
def test_a_text_that_changes_what_stands_around_it_is_named(record, predictions, text):
    section = "intended use" if len(text) % 2 else "limits"
    card = written(render_card(record, predictions, REPO), text, section)
    told = hidden_by_free_text(card)
    assert told.startswith(f"the free section `{section}` ") and HIDING[text] in told, told


@pytest.mark.parametrize("text", HONEST)
def test_other_texts_may_stand_there(record, predictions, text):
    card = render_card(record, predictions, REPO)
    for section in free_texts(card):
        card = written(card, text, section)
    assert hidden_by_free_text(card) is None


def test_an_interval_is_made_no_link(record, predictions):
    card = render_card(record, predictions, REPO)
    label = re.search(r"\| ROUGE-L \| \S+ (\[.*?\])", card)[1]
    assert "opens a tag or a link's definition" in hidden_by_free_text(written(card, f"{label}: https://x.example\n"))


def test_the_check_of_a_card_looks_at_it_whoever_rendered_it(record, predictions, tmp_path):
    record.rendered = renderer()
    draw_plots(record, tmp_path)
    (tmp_path / "README.md").write_text(written(render_card(record, predictions, REPO), "```"))
    for code in (record.rendered.code, "0" * 64):
        record.rendered.code = code
        told = find_difference(REPO, tmp_path, record, predictions)
        assert told.startswith("the free section `limits` opens a code block"), told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ROUGE-L is 0.99 here.", "0.99"),
        ("It reaches an accuracy of 99.1 %!", "99.1 %"),
        ("| ROUGE-1 | 0.1234 |\n|---|---|", "0.1234"),
        ("**rouge l**: ０．９９", "0.99"),
        ("Exact match .97. And more.", ".97"),
    ],
)
def test_another_value_of_a_metric_is_told(record, text, told):
    (line,) = stated_otherwise(text, record)
    assert line.endswith(f" states {told}, which is none of the scores"), line


def test_the_records_own_values_and_other_numbers_are_not(record):
    score = record.scores.adapter["rougeL"].mean
    for text in (
        f"ROUGE-L {score:.4f}, so {score:.2f} or {100 * score:.1f} %.",
        "I trained 99.1 % of it at night. ROUGE-L counts words.",
        "rouge_score 0.1.2 counts ROUGE-1 and ROUGE-2.",
        "",
    ):
        assert stated_otherwise(text, record) == [], text
