"""The page of a reproduction, in each state that a reproduction can end in."""

import base64
import hashlib
import re
import time
from dataclasses import replace

import pytest
from html_page import Page

from evaluation.findings import Findings
from evaluation.verdict_page import mark_difference, render_report
from record.predictions import Predictions
from record.scores import Compared, Interval, Outputs, Scores, SqlCounts
from record.verdict import Change, Check, Verdict

# All that the page uses; a handler, a style or a source out of hostile text would be another.
ATTRIBUTES = """lang charset http-equiv content name class id href rel datetime role tabindex scope colspan aria-hidden
    aria-label aria-labelledby aria-current"""
TAGS = """html head meta title style body div header h1 h2 h3 h4 b i u a p dl dt dd ul li em nav main section table
    caption thead tbody tr th td small span strong article details summary ins del code pre time footer"""


def around(mean):
    return Interval(mean=mean, low=mean - 0.0123, high=mean + 0.0111)


@pytest.fixture
def scored(record):
    """The record with its scores, each metric another number."""
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    base, adapter = ({name: around(start + i / 50) for i, name in enumerate(names)} for start in (0.2011, 0.4022))
    for part in (base, adapter):
        part["rougeLsum_flat"] = part["rougeLsum"]
    difference = {name: around(adapter[name].mean - base[name].mean) for name in base}
    outputs = Outputs(mean_tokens=3, cut=0, empty=0, seconds=1)
    record.scores = Scores(
        rows=2, base=base, adapter=adapter, difference=difference, base_outputs=outputs, adapter_outputs=outputs
    )
    record.scored_in = record.environment
    return record


def verdict(**changes):
    known = {
        "adapter": "someone/adapter",
        "revision": "f" * 40,
        "level": "generate",
        "date": "2026-11-23T06:41:02+00:00",
    }
    return Verdict(**known | changes)


def test_reproduced(scored, predictions):
    found = Findings(scored, predictions, predictions, [0, 1])
    here = scored.environment.model_copy(update={"device": "CPU y"})
    checks = [
        Check(part="files", outcome="passed", detail="14 files"),
        Check(part="signature", outcome="not checked", detail="not signed"),
    ]
    page = Page(
        render_report(
            verdict(verdict="REPRODUCED", reason="all equal", evidence="tokens", checks=checks, environment=here), found
        )
    )
    assert "REPRODUCED someone/adapter" in page.text and "@ " + "f" * 40 in page.text and "all equal" in page.text
    assert "Tokens decided outputs, generated again" in page.text and "23 November 2026, 06:41 UTC" in page.text
    assert "✓ passed files" in page.text and "– not checked signature" in page.text and "1 of 2 passed" in page.text
    assert "All 4 outputs are as published, token for token." in page.text
    # What differs comes first: nothing but the surroundings, and what was left out; what is equal is folded.
    first = page.text.partition("What differs Nothing of what was compared.")[2].partition("What was checked")[0]
    assert "checked elsewhere than scored: device." in first and "Not checked: signature (not signed)." in first
    assert "5 that are equal" in page.text and page.inside("details") == 1
    assert page.text.count("A share is a part.") == 1 and page.inside("article") == 2
    # "ROUGE-L" of the fixture: .2011 + 2/50 and .4022 + 2/50, each with its interval.
    assert page.row("ROUGE-L") == [
        "0.241 [0.229, 0.252]",
        "0.442 [0.430, 0.453]",
        "+0.201 [+0.189, +0.212]",
    ]
    assert "undivided" not in page.text
    # Device, platform, threads, Python, torch and the code's commit.
    assert "Scored there, checked here: 1 of 6 differ" in page.text
    assert page.row("device ≠ differs") == ["CPU x", "CPU y"] and page.row("torch") == ["2.13.0", "2.13.0"]
    assert page.row("Dataset") == ["gbharti/finance-alpaca", "b" * 40]
    assert f"make reproduce ADAPTER=someone/adapter REVISION={'f' * 40}" in page.text
    assert "miniature" not in page.text


def test_drifted_rows_are_marked_word_by_word(scored, predictions):
    fresh = replace(
        predictions,
        base=["What is a bond?", "A share"],
        adapter=["A bond is a small loan.", "A share is a part."],
        adapter_tokens=[[8, 9], [8, 7, 10]],
    )
    predictions.seen[0] = "near"
    changes = [
        Change(model="adapter", metric="rougeL", published=0.4422, now=0.4001, difference=around(-0.0421), margin=0.02),
        Change(model="base", metric="rougeL", published=0.2411, now=0.2411, difference=around(-0.00001), margin=0.02),
    ]
    html = render_report(
        verdict(
            verdict="DRIFTED",
            reason="ROUGE-L moved",
            moved="generation",
            evidence="statistics",
            rows={"base": [1], "adapter": [0, 1]},
            changes=changes,
        ),
        Findings(scored, predictions, fresh, [0, 1]),
    )
    page = Page(html)
    first = page.text.rpartition("What differs ")[2].partition("What was checked")[0]
    assert first.startswith("Base model: 1 of 2 outputs") and "Adapter: 2 of 2 outputs" in first
    assert "Adapter, ROUGE-L: -0.042 [-0.054, -0.031] ≠ a change" in first
    assert "Base model: 1 of 2 outputs differs" in page.text and "Adapter: 2 of 2 outputs differ" in page.text
    assert "A bond is a <ins>small</ins> loan." in html
    assert "<ins>A share</ins>" in html and "(empty)" in page.text
    # Row 1 of the adapter: the same text from other tokens.
    assert "8 <del>9</del> 10" in html and "8 <ins>7</ins> 10" in html
    assert page.text.count("Test row 0 seen in training: a near-duplicate") == 1 and page.text.count("Test row 1") == 2
    assert page.text.count("= the reference") == 1
    moved = [[" ".join(cell.split()) for cell in row] for row in page.rows if row[0].split() == ["ROUGE-L", "decides"]]
    assert [row[1:] for row in moved] == [
        ["0.241", "0.241", "+0.000 [-0.012, +0.011]", "= no change ±0.020 is allowed"],
        ["0.442", "0.400", "-0.042 [-0.054, -0.031]", "≠ a change ±0.020 is allowed"],
    ]


def test_what_too_few_rows_cannot_tell(scored, predictions):
    change = Change(model="adapter", metric="rougeL", published=0.4, now=0.4, difference=around(0.0), margin=0.01)
    state = verdict(reason="too few rows", evidence="statistics", rows={"adapter": [0]}, changes=[change])
    page = Page(render_report(state, Findings(scored, predictions, predictions, [0, 1])))
    assert page.row("ROUGE-L decides")[-1] == "? too few rows ±0.010 is allowed"


@pytest.mark.parametrize("level", ["score", "generate", "train"])
def test_unchecked_without_a_record(level):
    page = Page(render_report(verdict(revision=None, reason="no such repository", level=level), Findings()))
    for line in (
        "UNCHECKED",
        "no such repository",
        "no commit was found",
        "No record was read",
        "Nothing was generated",
    ):
        assert line in page.text
    assert ("no model runs." in page.text) == (level == "score")
    assert f"LEVEL={level}" in page.text or level == "generate"


def test_drifted_before_anything_was_generated(scored):
    scored.scores = scored.contract = scored.scored_in = None
    checks = [Check(part="files", outcome="failed", detail="README.md is another")]
    page = Page(
        render_report(verdict(verdict="DRIFTED", moved="files", evidence="hashes", checks=checks), Findings(scored))
    )
    assert "What differs Files: README.md is another" in page.text
    assert "✗ failed files" in page.text and "0 of 1 passed" in page.text
    assert "The record holds no scores." in page.text and "Nothing was generated: the check ended before." in page.text
    assert "2, none of them generated again" in page.text


def test_a_sample_of_a_miniature(scored, predictions):
    scored.pins.base_model.miniature = True
    scored.data.test = 2
    fresh = Predictions(**{name: column[1:] for name, column in predictions.__dict__.items()})
    page = Page(
        render_report(
            verdict(verdict="REPRODUCED", evidence="tokens", sample=1), Findings(scored, predictions, fresh, [1])
        )
    )
    assert "a sample of 1 of 2" in page.text and "A miniature." in page.text
    assert "Test row 1" in page.text and "Test row 0" not in page.text and "A share is a part." in page.text
    assert "SAMPLE=1" in page.text
    # Neither the stand-in nor what was trained on it is at huggingface.co under this commit.
    linked = {dict(attrs)["href"] for tag, attrs in page.tags if tag == "a" and attrs["href"].startswith("http")}
    assert linked == {f"https://huggingface.co/{path}" for path in (
        f"someone/adapter/tree/{'f' * 40}", f"datasets/gbharti/finance-alpaca/tree/{'b' * 40}")}  # fmt: skip


def test_sql_scores_tables_and_the_clean_rows(scored, predictions):
    scores = scored.scores
    for part in (scores.base, scores.adapter, scores.difference):
        part["sql_execution_match"] = around(0.7777)
    scores.sql = SqlCounts(not_executable=306, base_empty=120, adapter_empty=2904)
    scores.seen = {"exact": 31, "near": 183}
    scores.clean = Compared(rows=1786, base=scores.base, adapter=scores.adapter, difference=scores.difference)
    predictions.schema[0] = "CREATE TABLE head (age INTEGER)"
    page = Page(
        render_report(
            verdict(verdict="DRIFTED", evidence="tokens", rows={"base": [0]}),
            Findings(scored, predictions, replace(predictions, base=["SELECT 1", ""]), [0, 1]),
        )
    )
    assert page.row("SQL execution match")[0] == "0.778 [0.765, 0.789]"
    scores.sql.base_empty = 0
    assert "Both results empty, base" not in render_report(verdict(), Findings(scored, predictions))
    for fact in (
        "306 of 2 rows",
        "120 rows",
        "2,904 rows",
        "the 1,786 rows that are in no training data",
        "31 stand",
        "183 stand in training rows as near",
    ):
        assert fact in page.text, fact
    assert "CREATE TABLE head (age INTEGER)" in page.text and "Adapter: none of 2 outputs differ" in page.text


HOSTILE = [
    "</script><script>alert(1)</script>",
    "</style><style>*{display:none}</style>",
    "{{ 7*7 }}{% for x in y %}",
    "\u202egnp.exe\u2066 \u200b\u061c\U000e0041",
    "<img src=x onerror=alert(1)>",
    "\" onclick='x' x=\"",
    "<!--",
    "]]><a href=https://evil.example>x</a>",
    "w" * 100_000,
    "w " * 50_000,
    "\x00\x1b[31m\r\n\n",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(scored, predictions, text):
    for place, column in enumerate(("prompt", "reference", "schema", "seen", "base", "adapter")):
        getattr(predictions, column)[0] = text + "!" * place
    fresh = replace(predictions, base=["x" + text, text], adapter=[text + "y", text])
    there = scored.environment.model_copy(update={"device": text, "packages": {text: text}})
    scored.scored_in, scored.pins.dataset.id, scored.contract.sentences = there, text, text
    for part in (scored.scores.base, scored.scores.adapter, scored.scores.difference):
        part[text] = around(0.5)
    state = verdict(
        adapter=text,
        verdict="DRIFTED",
        reason=text,
        rows={"base": [0, 1], "adapter": [0, 1]},
        checks=[Check(part="files", outcome="failed", detail=text)],
        changes=[Change(model="base", metric=text, published=0.1, now=0.2, difference=around(0.1))],
        environment=scored.environment,
    )
    started = time.monotonic()
    html = render_report(state, Findings(scored, predictions, fresh, [0, 1]))
    assert time.monotonic() - started < 20
    page = Page(html)
    assert {tag for tag, _ in page.tags} <= set(TAGS.split())
    assert {name for _, attrs in page.tags for name in attrs} <= set(ATTRIBUTES.split())
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links and all(re.match(r"#\w+$|https://huggingface\.co/[\w.~%/-]+$", link) for link in links)
    assert page.inside("a") == len(links) and page.inside("style") == 1
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\U000e0041]", html)
    assert len(html) < 400_000
    if len(text) < 1000 and text.isprintable():
        assert page.text.count(text) >= 10


def test_nothing_is_loaded(scored, predictions):
    page = Page(render_report(verdict(), Findings(scored, predictions, predictions, [0, 1])))
    policy = next(attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    hashed = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{hashed}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in page.style and "@import" not in page.style
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    named = {attrs["aria-labelledby"] for _, attrs in page.tags if "aria-labelledby" in attrs}
    targets = {attrs["href"][1:] for tag, attrs in page.tags if tag == "a" and attrs["href"].startswith("#")}
    assert named | targets <= set(ids)


@pytest.mark.parametrize("words", [8, 400])
def test_the_page_is_bounded(scored, words):
    rows = 5_000
    texts = [" ".join(f"<{row}&{word}>" for word in range(words)) for row in range(rows)]
    tokens = [[row] for row in range(rows)]
    old = Predictions(texts, texts, texts, [""] * rows, texts, texts, tokens, tokens)
    fresh = replace(old, base=[f"{text} x" for text in texts], adapter=[f"x {text}" for text in texts])
    differing = list(range(rows))
    html = render_report(
        verdict(verdict="DRIFTED", rows={"base": differing, "adapter": differing}),
        Findings(scored, old, fresh, differing),
    )
    page = Page(html)
    shown = [int(number) for number in re.findall(r"The first (\d+) of the 5,000 are shown", page.text)]
    assert len(html.encode()) < 2_000_000 and len(shown) == 2 and page.inside("article") == sum(shown)
    assert shown == [200, 200] if words == 8 else min(shown) > 10
    assert "5,000 of 5,000 outputs differ" in page.text and shown[0] > 20 and f"{shown[0] - 20} more rows" in page.text


def test_of_a_long_text_the_first_difference_is_shown():
    same = "equal " * 2_000
    old, new = mark_difference(f"{same}old end", f"{same}new end")
    assert old.endswith("equal <del>old</del> end") and new.endswith("equal <ins>new</ins> end")
    # 6 characters a repetition, shown from 200 before the difference on.
    assert old.startswith("<i>… after 11,800 equal characters: </i>")
    assert mark_difference("a", "a" + " b" * 4_000)[1].endswith("<i> … 5,001 more characters</i>")
