import evaluate
import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import BootstrapAggregator, Score

from evaluation.bootstrap import intervals
from evaluation.metrics import rouge_rows, split_sentences
from evaluation.verdict import equivalent
from recipes.record import Interval

PREDICTIONS = ["The cat sat on the mat.", "Rates rise. Bonds fall.", "", "running runs"]
REFERENCES = ["A cat is on the mat.", "Bonds fall. Rates rise.", "nothing", "run"]


def test_every_row_equals_rouge_score():
    rows = rouge_rows(PREDICTIONS, REFERENCES, stemmer=True)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    for row, (prediction, reference) in enumerate(zip(PREDICTIONS, REFERENCES, strict=True)):
        expected = scorer.score(reference, prediction)
        for name in ("rouge1", "rouge2", "rougeL"):
            assert rows[name][row] == expected[name].fmeasure
    # Two sentences in another order: equal as sentences (Lsum), not as one text (L).
    assert rows["rougeLsum"][1] == 1.0 and rows["rougeL"][1] == 0.5
    assert rows["rouge1"][2] == 0.0 and rows["rouge1"][3] == pytest.approx(2 / 3)


def test_the_stemmer_can_be_turned_off():
    rows = rouge_rows(["runs"], ["run"], stemmer=False)
    assert rows["rouge1"] == [0.0]


def test_the_metric_loads_as_a_module_of_this_repository(tmp_path):
    metric = evaluate.load("evaluation/rouge.py", cache_dir=str(tmp_path))
    assert metric.compute(predictions=["a b"], references=["a c"])["rouge1"] == [0.5]


def test_sentences_are_split_at_their_ends_only():
    assert split_sentences("Up 3.5 percent. Really? Yes!\nDone") == "Up 3.5 percent.\nReally?\nYes!\nDone"


def test_interval_agrees_with_rouge_scores_own_bootstrap():
    rng = np.random.default_rng(0)
    scores = rng.beta(2, 5, size=300)
    ours = intervals({"m": scores.tolist()}, 2_000, 0.95, seed=1)["m"]
    assert ours.mean == pytest.approx(scores.mean(), abs=1e-12)
    np.random.seed(1)
    aggregator = BootstrapAggregator(confidence_interval=0.95, n_samples=2_000)
    for score in scores:
        aggregator.add_scores({"m": Score(score, score, score)})
    theirs = aggregator.aggregate()["m"]
    # Both are Monte Carlo: the standard error of the mean is .009 here, that of a quantile far less than .002.
    assert ours.low == pytest.approx(theirs.low.fmeasure, abs=2e-3)
    assert ours.high == pytest.approx(theirs.high.fmeasure, abs=2e-3)


def test_interval_is_seeded_and_paired():
    one = intervals({"a": [0.0, 1.0, 1.0], "b": [0.5, 1.5, 1.5]}, 100, 0.95, seed=3)
    assert one == intervals({"a": [0.0, 1.0, 1.0], "b": [0.5, 1.5, 1.5]}, 100, 0.95, seed=3)
    assert one["b"].low - one["a"].low == pytest.approx(0.5) == one["b"].high - one["a"].high
    many = [0.0, 1.0] * 20
    assert intervals({"a": many}, 100, 0.95, seed=3) != intervals({"a": many}, 100, 0.95, seed=4)


@pytest.mark.parametrize(
    ("low", "high", "same"),
    [(-0.1, 0.1, True), (0.0005, 0.0019, True), (-0.0019, -0.001, True), (0.001, 0.003, False), (-0.2, -0.1, False)],
)
def test_equivalence_needs_zero_or_a_tiny_interval(low, high, same):
    assert equivalent(Interval(mean=(low + high) / 2, low=low, high=high)) is same
