"""The page over several adapters, as a file: what stands in it, and that foreign text stays text. The browser's part is
in test_overview_browser.py."""

import base64
import hashlib
import json
import re

import pytest
from html_page import Page
from overview_entries import HOSTILE, entry

from model_cards.overview import ROWS, TEXT, lineage, main, read_all, render_overview
from record.errors import UserError
from record.run_record import Pin
from record.verdict import Verdict
from scoring.metrics.rouge import rouge_rows


def continuing(found, parent):
    found.record.pins.parent_adapter = Pin(kind="model", id=parent, revision="9" * 40)
    return found


def names(nodes):
    return [(node["kind"], node["name"], names(node["children"])) for node in nodes]


def data_of(html):
    return [json.loads(text) for text in re.findall(r'<script type="application/json".*?>(.*?)</script>', html, re.S)]


def test_scores_verdict_and_leakage_stand_in_it(record, predictions):
    checked = entry(record, predictions, "someone/checked")
    checked.verdict = Verdict(verdict="REPRODUCED", adapter="someone/checked", revision="7" * 40, level="score",
                              date="2026-11-23T09:00:00+00:00")  # fmt: skip
    checked.record.scores.seen = {"exact": 1, "near": 0}
    local = entry(record, predictions, "local")
    local.commit, local.record.leakage = None, None
    html = render_overview([checked, local])
    page = Page(re.sub(r"<script.*?</script>|<input[^>]*>", "", html, flags=re.S))
    for told in (
        "2 adapters side by side",
        "– publisher says: REPRODUCED at level score on 2026-11-23",
        "– no check published here yet",
        "! 1 of 2 test rows (50.0 %) seen in training",
        "test rows not compared with the training rows",
    ):
        assert told in page.text, told
    # The one beside a run is of the reader's own check.
    local.verdict = checked.verdict
    assert "✓</span> REPRODUCED at level score on 2026-11-23" in render_overview([local])
    scores = record.scores
    mean, low, high = (f"{getattr(scores.adapter['rougeL'], name):.3f}" for name in ("mean", "low", "high"))
    assert page.row("ROUGE-L")[1] == f"{mean} [{low}, {high}]"
    assert 'href="https://huggingface.co/someone/checked/tree/' in html and "huggingface.co/local" not in html
    assert f"{scores.base['rougeL'].mean:.3f} → {scores.adapter['rougeL'].mean:.3f}" in html


def test_the_rows_carry_their_own_rouge_l_and_cut_texts(record, predictions):
    predictions.prompt[1] = "w" * (TEXT + 500)
    (rows,) = data_of(render_overview([entry(record, predictions)]))
    for who in ("base", "adapter"):
        scored = rouge_rows(getattr(predictions, who), predictions.reference, stemmer=True)["rougeL"]
        assert rows["score"][who] == pytest.approx(scored, abs=5e-5)
        assert rows[who] == getattr(predictions, who)
    assert rows["all"] == 2 and rows["cut"]["prompt"] == {"1": TEXT + 500} and len(rows["prompt"][1]) == TEXT


def test_more_rows_than_the_page_holds_are_counted(record, predictions):
    (rows,) = data_of(render_overview([entry(record, predictions.take([0, 1] * (ROWS // 2 + 1)))]))
    assert rows["all"] == ROWS + 2 and len(rows["prompt"]) == ROWS


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(record, predictions, text):
    for column in (predictions.prompt, predictions.reference, predictions.base, predictions.adapter, predictions.seen):
        column[0] = text
    clean = render_overview([entry(record, predictions.take([1, 1]))])
    record.recipe["title"] = text
    html = render_overview([entry(record, predictions, text[:80])])
    # The same tags in the same order, and no character that hides others.
    assert re.findall(r"<[/\w]+", html) == re.findall(r"<[/\w]+", clean)
    assert "\u202e" not in html and "</script><b" not in html
    (rows,) = data_of(html)
    assert rows["base"][0].replace("⟨U+202E⟩", "\u202e").replace("⟨U+2028⟩", "\u2028") == text


def test_nothing_but_its_own_script_and_style_may_run_or_load(record, predictions):
    html = render_overview([entry(record, predictions)])
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', html)
    hashes = [
        base64.b64encode(hashlib.sha256(re.search(rf"<{tag}>(.*?)</{tag}>", html, re.S)[1].encode()).digest()).decode()
        for tag in ("style", "script")
    ]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"\ssrc=|\son\w+=|\sstyle=|<link|url\(|@import|innerHTML", html)


def test_the_lineage_leads_from_the_base_model_to_the_last_adapter(record, predictions):
    first, second, third = (entry(record, predictions, name) for name in ("a/first", "second", "third"))
    continuing(second, "a/first")
    continuing(third, "me/second")
    base = record.pins.base_model.id
    assert names(lineage([third, second, first])) == [
        ("base", base, [("adapter", "a/first", [("adapter", "second", [("adapter", "third", [])])])])
    ]
    # Another owner's adapter of the same name is another one; a parent may be elsewhere.
    continuing(second, "b/first")
    assert names(lineage([first, second])) == [
        ("base", base, [("adapter", "a/first", []), ("absent", "b/first", [("adapter", "second", [])])])
    ]


def test_adapters_that_continue_each_other_are_all_shown(record, predictions):
    one, other = (entry(record, predictions, name) for name in ("a/one", "a/other"))
    continuing(one, "a/other")
    continuing(other, "a/one")
    itself = continuing(entry(record, predictions, "a/itself"), "a/itself")
    (base,) = names(lineage([one, other, itself]))
    assert {name for _, name, _ in base[2]} == {"a/one", "a/other", "a/itself"}


def test_runs_are_read_from_their_folders_alone(record, predictions, tmp_path, capsys):
    scored, unscored = tmp_path / "scored", tmp_path / "unscored"
    for folder in (scored, unscored):
        folder.mkdir()
        record.save(folder)
    record.model_copy(update={"scores": None}).save(unscored)
    predictions.save(scored)
    foreign = Verdict(verdict="REPRODUCED", adapter="a/b", revision="7" * 40, level="score",
                      date="2026-11-23T09:00:00+00:00", adapter_sha256="0" * 64)  # fmt: skip
    (scored / "verdict.json").write_text(foreign.model_dump_json())
    main([str(scored), str(unscored), "--into", str(tmp_path / "pages" / "report.html")])
    printed = capsys.readouterr().out
    assert f"{unscored} is left out: it is not scored yet" in printed and "(1 adapter, 2 rows, " in printed
    assert "its verdict.json is left out: the verdict speaks of other adapter weights" in printed
    assert "One adapter and its base model" in (tmp_path / "pages" / "report.html").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="there is no scored run to show"):
        read_all([str(unscored)])


@pytest.mark.parametrize(
    ("adapters", "told"),
    [
        ([], "error: there is no scored run to show: make train-finance and make evaluate-finance, or ADAPTERS=id"),
        (["nowhere"], "error: nowhere is neither the folder of a run nor an id on the Hub (owner/name)"),
        (["nobody/nothing"], "error: no such repository, or your token may not see it"),
    ],
)
def test_what_cannot_be_shown_is_one_line(tmp_path, capsys, adapters, told):
    with pytest.raises(SystemExit):
        main([*adapters, "--into", str(tmp_path / "page.html")])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(told) and not (tmp_path / "page.html").exists()


def test_the_plots_are_drawn_from_the_record(record, predictions):
    html = render_overview([entry(record, predictions, "someone/a")])
    # The conftest's history: 3.0, 2.0 and 1.5, the last step of few rows, in training, 2.1 and 1.75 in validation.
    assert "over 20 steps: training from 3.000 to 2.000, validation at its lowest 1.750" in html
    (line,) = re.findall(r'<polyline class="train" points="([^"]*)"', html)
    heights = [float(point.split(",")[1]) for point in line.split()]
    assert len(heights) == 2 and heights == sorted(heights)
    assert len(re.findall(r'<circle class="eval ', html)) == 2 and len(re.findall(r'class="eval best"', html)) == 1
