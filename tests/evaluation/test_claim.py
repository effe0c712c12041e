"""How often a claim is called what: rows drawn again and again from one population, whose mean is the true claim."""

import numpy as np
import pytest

from evaluation.claim import decide
from scoring.bootstrap import Corpus, compared, take

DRAWS = 200


def population(rng) -> np.ndarray:
    """Scores of rows as ROUGE gives them: some 0, some 1, most between."""
    scores = rng.beta(1.2, 3.0, 20_000)
    scores[rng.random(20_000) < 0.15] = 0.0
    scores[rng.random(20_000) < 0.05] = 1.0
    return scores


@pytest.mark.parametrize("rows", [20, 90])
def test_a_true_claim_is_seldom_contradicted_and_never_within_the_interval(rows, record):
    rng, contract = np.random.default_rng(rows), record.contract
    everything = population(rng)
    truth, verdicts = float(everything.mean()), []
    for number in range(DRAWS):
        drawn = rng.choice(everything, rows).tolist()
        verdicts.append(decide("rougeL", truth, 0.0, drawn, contract).verdict)
        if number % 20:
            continue
        shown = compared({"rougeL": drawn}, {"rougeL": drawn}, contract)["adapter"]["rougeL"]
        for claim in (shown.low, (shown.low + shown.high) / 2, shown.high):
            assert decide("rougeL", claim, 0.0, drawn, contract).verdict != "CONTRADICTED"
    print(f"{rows} rows: {verdicts.count('CONTRADICTED')} of {DRAWS} true claims CONTRADICTED")
    assert verdicts.count("CONTRADICTED") <= 0.05 * DRAWS


def test_a_false_claim_is_found_and_a_tolerance_is_kept(record):
    rng, contract = np.random.default_rng(1), record.contract
    everything = population(rng)
    truth = float(everything.mean())
    false = [decide("rougeL", truth + 0.1, 0.005, rng.choice(everything, 343).tolist(), contract) for _ in range(20)]
    assert [claim.verdict for claim in false].count("CONTRADICTED") >= 19
    drawn = rng.choice(everything, 343).tolist()
    score = float(np.mean(drawn))
    assert decide("rougeL", score + 0.0049, 0.005, drawn, contract).verdict == "CONFIRMED"
    assert decide("rougeL", score + 0.0051, 0.005, drawn, contract).verdict == "UNDECIDED"
    assert decide("rougeL", score + 0.1, 0.11, drawn, contract).verdict == "CONFIRMED"


def test_a_score_of_all_rows_together_is_judged_by_its_own_resamples(record):
    rng, contract = np.random.default_rng(2), record.contract.model_copy(update={"resamples": 1_000})
    hits = np.stack([rng.binomial(10, rng.beta(2, 3, 5_000)), np.full(5_000, 10)], axis=1).astype(float)
    everything = Corpus(hits, lambda sums: float(sums[0] / sums[1]))
    truth = everything.score(hits.sum(axis=0))
    verdicts = [
        decide("bleu", truth, 0.0, take(everything, rng.integers(5_000, size=90)), contract).verdict
        for _ in range(DRAWS)
    ]
    assert verdicts.count("CONTRADICTED") <= 0.05 * DRAWS
    assert decide("bleu", truth + 0.2, 0.005, take(everything, range(90)), contract).verdict == "CONTRADICTED"
