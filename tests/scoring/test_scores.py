import os
import unicodedata
from pathlib import Path

import evaluate
import numpy as np
import pytest
import regex
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import BootstrapAggregator, Score

from benchmarks.scoring import time_rouge
from recipes.config import parse_recipe
from recipes.data.letters import hidden_share, rouge_remark
from record.scores import Interval
from scoring.bootstrap import intervals
from scoring.contract import contract_of
from scoring.metrics import rows_of
from scoring.metrics.rouge import rouge_rows, split_sentences

PREDICTIONS = ["The cat sat on the mat.", "Rates rise. Bonds fall.", "", "running runs"]
REFERENCES = ["A cat is on the mat.", "Bonds fall. Rates rise.", "nothing", "run"]


def test_every_row_equals_rouge_score():
    rows = rouge_rows(PREDICTIONS, REFERENCES, stemmer=True)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    for row, (prediction, reference) in enumerate(zip(PREDICTIONS, REFERENCES, strict=True)):
        expected = scorer.score(reference, prediction)
        for name in ("rouge1", "rouge2", "rougeL"):
            assert rows[name][row] == expected[name].fmeasure
    assert rows["rougeLsum_flat"] == [
        scorer.score(reference.replace("\n", " "), prediction.replace("\n", " "))["rougeLsum"].fmeasure
        for prediction, reference in zip(PREDICTIONS, REFERENCES, strict=True)
    ]
    # Two sentences in another order: equal as sentences (Lsum), not as one text (L).
    assert rows["rougeLsum"][1] == 1.0 and rows["rougeL"][1] == 0.5
    assert rows["rouge1"][2] == 0.0 and rows["rouge1"][3] == pytest.approx(2 / 3)


def test_the_stemmer_can_be_turned_off():
    rows = rouge_rows(["runs"], ["run"], stemmer=False)
    assert rows["rouge1"] == [0.0]


class Characters:
    """As `rouge_score` takes a tokenizer: the letters and digits of a text, each with its marks."""

    def tokenize(self, text):
        plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        return [part for part in regex.findall(r"\X", plain) if regex.search(r"[\p{Alphabetic}\p{N}]", part)]


# Chinese, Arabic with vowel signs, Hindi, German, full-width letters, and nothing at all.
SCRIPTS = [
    "今天天气很好。我喜欢学习中文！",
    "我喜欢中文。今天天气好。",
    "كَتَبَ الوَلَدُ رِسالَة",
    "كتب الولد رسالة",
    "नमस्ते दुनिया। नमस्ते",
    "दुनिया नमस्ते",
    "Zinsen für Übermorgen",
    "Zinsen fur ubermorgen",
    "ＡＢＣ １２ ﬁ",
    "abc 12 fi",
    "",
    "。！",
]


def test_characters_are_counted_as_rouge_score_counts_them():
    pairs = [(prediction, reference) for prediction in SCRIPTS for reference in SCRIPTS]
    rows = rouge_rows(*zip(*pairs, strict=True), stemmer=False, tokenizer="characters")
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], tokenizer=Characters())
    for row, (prediction, reference) in enumerate(pairs):
        divided = [split_sentences(text, "characters") for text in (reference, prediction)]
        expected = scorer.score(*divided)
        assert {name: rows[name][row] for name in expected} == {name: expected[name].fmeasure for name in expected}
    # The first two: 10 common characters of 13 and 10; sentences in another order count as sentences only.
    assert rows["rouge1"][1] == pytest.approx(2 * 10 / 23) and rows["rougeLsum"][1] > rows["rougeL"][1]
    assert rouge_rows(SCRIPTS[:1], SCRIPTS[:1], stemmer=True)["rouge1"] == [0.0]


@pytest.mark.parametrize(
    ("texts", "share"),
    [(["abc 12"], 0), (["今天", "ab"], 0.5), (["Müller"], 1 / 6), (["+", "-"], 1), ([""], 0), (["a, b!"], 0)],
)
def test_what_words_cannot_hold_is_counted(texts, share):
    assert hidden_share(texts) == share
    remark = rouge_remark(texts, "words")
    assert (remark is not None) == (share > 0.05) and rouge_remark(texts, "characters") is None
    if remark:
        assert f"cannot see {100 * share:.1f} % of the references' letters. Set `rouge_tokenizer: characters`" in remark


def test_a_recipe_that_asks_for_characters_has_them_in_its_contract():
    overrides = ["--config", "recipes/finance.yaml", "--rouge_tokenizer", "characters"]
    contract = contract_of(parse_recipe(overrides).arguments, "float32", 8)
    assert (contract.rouge_tokenizer, contract.stemmer) == ("characters", False)
    rows = rows_of(SCRIPTS[:1], SCRIPTS[:1], [""], contract)
    assert rows["rouge1"] == [1.0]
    assert contract_of(parse_recipe(overrides[:2]).arguments, "float32", 8).rouge_tokenizer == "words"


def test_the_metric_loads_as_a_module_of_this_repository(tmp_path):
    metric = evaluate.load("scoring/rouge.py", cache_dir=str(tmp_path))
    assert metric.compute(predictions=["a b"], references=["a c"])["rouge1"] == [0.5]


def test_sentences_are_split_at_their_ends_only():
    assert split_sentences("Up 3.5 percent. Really? Yes!\nDone") == "Up 3.5 percent.\nReally?\nYes!\nDone"


def test_intervals_are_those_of_rouge_scores_own_bootstrap():
    scores = np.random.default_rng(0).beta(2, 5, size=300)
    ours = intervals({"m": scores.tolist()}, 1_000, 0.95, seed=1)["m"]
    assert ours.mean == pytest.approx(scores.mean(), abs=1e-12)
    aggregator = BootstrapAggregator(confidence_interval=0.95, n_samples=1_000)
    for score in scores:
        aggregator.add_scores({"m": Score(score, score, score)})
    np.random.seed(1)
    theirs = aggregator.aggregate()["m"]
    assert (ours.low, ours.high) == pytest.approx((theirs.low.fmeasure, theirs.high.fmeasure), abs=1e-12)


def test_rows_to_which_a_metric_does_not_apply_do_not_count():
    some = intervals({"m": [1.0, float("nan"), 0.0, float("nan"), 1.0]}, 1_000, 0.95, seed=1)["m"]
    assert some.mean == pytest.approx(2 / 3) and 0 <= some.low < some.mean < some.high <= 1
    assert intervals({"m": [float("nan")] * 3}, 10, 0.95, seed=1)["m"] == Interval(mean=0, low=0, high=0)


def test_interval_is_seeded_and_paired():
    one = intervals({"a": [0.0, 0.5, 0.5], "b": [0.5, 1.0, 1.0]}, 100, 0.95, seed=3)
    assert one == intervals({"a": [0.0, 0.5, 0.5], "b": [0.5, 1.0, 1.0]}, 100, 0.95, seed=3)
    assert one["b"].low - one["a"].low == pytest.approx(0.5) == one["b"].high - one["a"].high
    many = [0.0, 1.0] * 20
    assert intervals({"a": many}, 100, 0.95, seed=3) != intervals({"a": many}, 100, 0.95, seed=4)


def test_figures_have_the_digits_that_the_interval_bears():
    wide, narrow = Interval(mean=-0.00041, low=-0.012, high=0.01), Interval(mean=0.41234, low=0.41194, high=0.41274)
    assert (wide.text("+"), wide.figure(0.00049)) == ("+0.000 [-0.012, +0.010]", "0.000")
    assert (narrow.text(), narrow.figure(-0.5, "+")) == ("0.4123 [0.4119, 0.4127]", "-0.5000")


@pytest.mark.skipif("REAL_DATA" not in os.environ, reason="REAL_DATA names no folder with Google's test pairs")
def test_googles_thousand_pairs():
    folder = Path(os.environ["REAL_DATA"], "rouge")
    targets, predictions = (
        (folder / f"{name}_large.txt").read_text(encoding="utf-8").splitlines() for name in ("target", "prediction")
    )
    ours = {stemmer: rouge_rows(predictions, targets, stemmer) for stemmer in (False, True)}
    for stemmer, rows in ours.items():
        scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=stemmer)
        theirs = [scorer.score(target, prediction) for target, prediction in zip(targets, predictions, strict=True)]
        for name in ("rouge1", "rouge2", "rougeL"):
            assert rows[name] == [row[name].fmeasure for row in theirs]
        assert rows["rougeLsum_flat"] == [row["rougeLsum"].fmeasure for row in theirs]
    # F-measures by rouge_score 0.1.2, and by Google's Perl script (testdata of the rouge package), over these pairs.
    for stemmer, metric, rouge_score, perl in (
        (False, "rouge1", 0.38553, 0.38554),
        (True, "rouge1", 0.40512, 0.40524),
        (True, "rougeL", 0.40265, 0.40275),
    ):
        assert np.mean(ours[stemmer][metric]) == pytest.approx(rouge_score, abs=1e-5)
        assert np.mean(ours[stemmer][metric]) == pytest.approx(perl, abs=2e-4)


def test_it_is_many_times_as_fast_as_evaluates_way():
    # 20x and more with 5,000 pairs (`make bench`); here it is few pairs beside other tests.
    assert time_rouge(rows=1_000, repeats=3)["ratio"] > 10
