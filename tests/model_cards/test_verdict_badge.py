"""The verdict that a release carries: what it must speak of, how the card shows it, how a check holds it."""

import re

import pytest
from huggingface_hub import ModelCard

from evaluation import checks
from evaluation.findings import Drift
from model_cards.card import render_card
from model_cards.fingerprint import renderer
from model_cards.plots import draw_plots
from record.errors import UserError
from record.hashes import sha256_file
from record.release_files import ADAPTER_FILE, PLOTS, VERDICT_FILE, largest_size
from record.run_record import Renderer
from record.scores import Interval
from record.verdict import Change, Check, Verdict, load_verdict, why_unrelated

REPO = "someone/adapter"


def around(mean):
    return Interval(mean=mean, low=mean, high=mean)


@pytest.fixture
def run(record, predictions, tmp_path):
    """A scored run's folder, as far as card and verdict read it."""
    predictions.save(tmp_path)
    return tmp_path


@pytest.fixture
def verdict(record, run):
    published = record.scores.adapter["rougeL"].mean
    return Verdict(
        verdict="REPRODUCED",
        reason=f"ROUGE-L {published:.4f}: all 4 outputs are equal token for token",
        adapter=REPO,
        revision="7" * 40,
        level="generate",
        evidence="tokens",
        changes=[Change(model="adapter", metric="rougeL", published=published, now=published, difference=around(0.0))],
        environment=record.environment,
        date="2026-11-23T09:00:00+00:00",
        adapter_sha256=record.training.adapter_sha256,
        predictions_sha256=sha256_file(run / "predictions.parquet"),
    )


def released(run, record, predictions, verdict):
    """Card and plots in the run's folder, as a publisher puts them there."""
    record.rendered = renderer()
    if verdict is not None:
        (run / VERDICT_FILE).write_text(verdict.model_dump_json())
    draw_plots(record, run, verdict)
    (run / "README.md").write_text(render_card(record, predictions, REPO, verdict=verdict), encoding="utf-8")
    return run


def test_a_verdict_of_this_run_speaks_of_it(record, run, verdict):
    assert why_unrelated(verdict, REPO, record, run) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"verdict": "UNCHECKED"}, "says nothing"),
        ({"revision": None}, "says nothing"),
        ({"adapter": "someone/else"}, "speaks of someone/else"),
        ({"adapter_sha256": "0" * 64}, "other adapter weights"),
        ({"adapter_sha256": None}, "other adapter weights"),
        ({"predictions_sha256": "0" * 64}, "other predictions"),
        ({"predictions_sha256": None}, "other predictions"),
        ({"reason": "ROUGE-L 0.9912: checked by the Hub team"}, "states ROUGE-L 0.9912, the record"),
        ({"evidence": "numbers"}, "at level generate nothing is reproduced by numbers"),
        ({"evidence": None}, "reproduced by nothing"),
        ({"level": "score"}, "at level score nothing is reproduced by tokens"),
        ({"level": "train"}, "no training is among its checks"),
        ({"moved": "weights"}, "names what is not as published"),
        ({"checks": [Check(part="card", outcome="failed", detail="x")]}, "names what is not as published"),
        ({"rows": {"adapter": [2]}}, "more rows than the 2 test rows"),
        ({"sample": 3}, "more rows than the 2 test rows"),
    ],
)
def test_a_verdict_of_anything_else_does_not(record, run, verdict, change, told):
    assert told in why_unrelated(verdict.model_copy(update=change), REPO, record, run)


def test_a_verdict_of_equal_outputs_and_other_scores_contradicts_itself(record, run, verdict):
    verdict.changes[0].now -= 0.1
    assert "that all outputs are equal, and that scores moved" in why_unrelated(verdict, REPO, record, run)
    moved = {"evidence": "statistics", "reason": f"ROUGE-L {verdict.changes[0].now:.4f}: no score moved"}
    assert why_unrelated(verdict.model_copy(update=moved), REPO, record, run) is None


def test_a_verdict_of_a_new_training_speaks_of_it(record, run, verdict):
    trained = {"level": "train", "checks": [Check(part="training", outcome="passed", detail="x")]}
    assert why_unrelated(verdict.model_copy(update=trained), REPO, record, run) is None


def test_a_verdict_on_other_scores_does_not(record, run, verdict):
    record.scores.adapter["rougeL"].mean += 1e-6
    assert "another rougeL of the adapter" in why_unrelated(verdict, REPO, record, run)
    # Of a sample the means are others by right.
    assert why_unrelated(verdict.model_copy(update={"sample": 1}), REPO, record, run) is None
    verdict.changes[0].metric = "bleu"
    assert "another bleu" in why_unrelated(verdict, REPO, record, run)


def test_the_file_is_read_as_it_was_printed_or_refused_in_one_line(run, verdict):
    assert load_verdict(run) is None
    path = run / VERDICT_FILE
    path.write_text(verdict.model_dump_json(indent=1))
    assert load_verdict(run) == verdict
    for text, told in (
        ("{}", "not a verdict as `reproduce --json` prints it: adapter"),
        ("nonsense", "not a verdict"),
        (verdict.model_dump_json().replace("REPRODUCED", "PERFECT"), "verdict: Input should be"),
        (verdict.model_dump_json().replace("2026-11-23T", "](x)"), "date"),
        (" " * (largest_size(VERDICT_FILE) + 1), "larger than"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=re.escape(told)) as error:
            load_verdict(run)
        assert "\n" not in str(error.value)


def test_the_card_says_who_found_what_when_and_where(record, predictions, verdict):
    card = render_card(record, predictions, REPO, verdict=verdict)
    head = card.partition("## Results")[0]
    assert (
        "[![publisher says&#58; REPRODUCED at level generate on 2026-11-23](plots/verdict.png)](#check-these-numbers)"
        in head
    )
    for fact in ("**REPRODUCED**", "level generate", "decided by tokens", "2026-11-23", "on CPU x", "7" * 12):
        assert fact in ModelCard(head).text.partition("make reproduce")[2], fact
    assert "&#58; all 4 outputs are equal token for token" in head
    assert "The publisher says that this command found" in head and "Nobody else has signed that" in head
    section = card.partition("## Check these numbers")[2].partition("\n## ")[0]
    assert "`" + "7" * 40 + "`" in section and "anybody could write such" in section and "verdict.json" in section
    sampled = render_card(record, predictions, REPO, verdict=verdict.model_copy(update={"sample": 1}))
    assert "![publisher says&#58; REPRODUCED at level generate, 1 sampled row, on 2026-11-23]" in sampled
    drifted = verdict.model_copy(update={"verdict": "DRIFTED", "moved": "generation"})
    head = render_card(record, predictions, REPO, verdict=drifted).partition("## Results")[0]
    assert (
        "![publisher says&#58; DRIFTED at level generate on 2026-11-23]" in head
        and "**DRIFTED**" in head
        and "REPRODUCED" not in head
    )


def test_without_a_verdict_the_card_says_so(record, predictions):
    card = render_card(record, predictions, REPO)
    assert "![no check published here yet](plots/verdict.png)" in card
    assert "This repository holds no check of these numbers yet" in card
    assert "verdict.json" not in card


def test_what_the_publisher_says_is_grey(record, verdict, tmp_path):
    import matplotlib.image

    found = {}
    for name in ("REPRODUCED", "DRIFTED", None):
        draw_plots(record, tmp_path, name and verdict.model_copy(update={"verdict": name}))
        found[name] = matplotlib.image.imread(tmp_path / PLOTS["verdict"])
        pixels = found[name].reshape(-1, 4)
        # A pill on nothing: clear corners, white letters on an opaque colour.
        assert found[name][0, 0, 3] == 0 and 0.7 < (pixels[:, 3] == 1).mean() < 1
        solid = pixels[pixels[:, 3] == 1][:, :3]
        linear = ((solid + 0.055) / 1.055) ** 2.4
        # White letters on grey leave no place for a colour.
        assert (solid.max(1) - solid.min(1)).max() < 0.1
        luminance = linear @ [0.2126, 0.7152, 0.0722]
        # Contrast as of WCAG 2.2: (lighter + .05) / (darker + .05).
        assert 1.05 / (luminance.min() + 0.05) >= 7 and luminance.max() > 0.99
    assert len({image.shape for image in found.values()}) == 3


@pytest.mark.parametrize("carried", [True, False])
def test_a_check_renders_the_badge_again(record, predictions, run, verdict, carried):
    released(run, record, predictions, verdict if carried else None)
    assert checks.check_card(REPO, run, record, predictions)[0] is None


def other_badge(run):
    (run / PLOTS["verdict"]).write_bytes((run / PLOTS["loss"]).read_bytes())


def replace_in(name, old, new):
    return lambda run: (run / name).write_bytes((run / name).read_bytes().replace(old.encode(), new.encode()))


@pytest.mark.parametrize(
    ("forge", "told"),
    [
        (replace_in(VERDICT_FILE, "REPRODUCED", "DRIFTED"), "of the card reads"),
        (replace_in(VERDICT_FILE, "2026-11-23", "2026-11-22"), "of the card reads"),
        (lambda run: (run / VERDICT_FILE).unlink(), "of the card reads"),
        (
            replace_in(VERDICT_FILE, "e" * 64, "0" * 64),
            "does not belong here: the verdict speaks of other",
        ),
        (lambda run: (run / VERDICT_FILE).write_text("{"), "verdict.json is not a verdict"),
        (replace_in("README.md", "**REPRODUCED**", "**REPRODUCED AT CERN**"), "of the card reads"),
        (
            lambda run: (run / "plots/verdict.png").write_bytes((run / "plots/loss.png").read_bytes()),
            "verdict.png is not",
        ),
    ],
)
def test_a_badge_that_does_not_follow_from_the_file_is_drift(record, predictions, run, verdict, forge, told):
    forge(released(run, record, predictions, verdict))
    with pytest.raises(Drift, match=told) as drift:
        checks.check_card(REPO, run, record, predictions)
    assert drift.value.part == "card"


def test_a_release_may_list_a_verdict_and_no_evaluation_results(record):
    record.rendered = Renderer(code="0" * 64, matplotlib="1")
    names = ["README.md", "adapter_config.json", ADAPTER_FILE, "tokenizer.json", "tokenizer_config.json",
             "predictions.parquet", "finance.yaml", *PLOTS.values()]  # fmt: skip
    record.files = dict.fromkeys(names, "0" * 64)
    checks.check_files(record)
    record.files[VERDICT_FILE] = "0" * 64
    checks.check_files(record)
    record.files[".eval_results/rouge.yaml"] = "0" * 64
    with pytest.raises(Drift, match=r"no part of a release: \.eval_results"):
        checks.check_files(record)
