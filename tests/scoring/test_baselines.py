"""Answers without a model: what they are, found in another way here, and what they score."""

import random
import re

from datasets import Dataset

from recipes.data.splits import Splits
from record.predictions import Predictions
from record.scores import BASELINES
from scoring import baselines
from scoring.baselines import baseline_outputs, nearest_rows, score_baselines


def by_hand(text: str, training: list[str]) -> int | None:
    """The first of the training texts with the greatest share of common words; None where no word is shared."""
    words = [set(re.findall(r"\w+", other.lower())) for other in training]
    mine = set(re.findall(r"\w+", text.lower()))
    shares = [len(mine & other) / max(len(mine | other), 1) for other in words]
    best = max(shares)
    return shares.index(best) if best else None


def test_the_nearest_is_the_first_of_the_most_similar(monkeypatch):
    monkeypatch.setattr(baselines, "CHUNK", 7)
    draw = random.Random(1)
    texts = [" ".join(draw.choices(["Bond", "share", "tax?", "loan", "é", "fee-2", "..."], k=4)) for _ in range(90)]
    training, test = texts[:60], [*texts[60:], "no such words", ""]
    expected = [by_hand(text, training) for text in test]
    assert nearest_rows(test, training) == expected
    assert expected[-2:] == [None, None] and len(set(expected)) > 10


def test_words_of_nearly_all_inputs_tell_none_from_another(monkeypatch):
    monkeypatch.setattr(baselines, "COMMON_ROWS", 2)
    training = [f"what is {name}" for name in ("a bond", "a share", "a tax", "interest")]
    # Without the rule, "what is a" would be nearest to the first.
    assert nearest_rows(["what is a thing", "what is interest, a tax"], training) == [None, 2]


def splits() -> Splits:
    train = Dataset.from_dict(
        {"input": ["what is a bond", "what is a share", "name a tax"], "target": ["a loan", "a part", "a part"]}
    )
    test = Dataset.from_dict({"input": ["a bond", "unheard"], "target": ["a loan", "a part"]})
    return Splits(train, None, test, counts=None, tokenizer=None)


def test_what_each_answers_and_scores(record):
    outputs = baseline_outputs(splits(), seed=1)
    assert outputs["copied"] == ["a bond", "unheard"]
    assert outputs["frequent"] == ["a part", "a part"]
    assert outputs["nearest"] == ["a loan", "a part"]
    assert (
        set(outputs["random"]) <= {"a loan", "a part"} and outputs["random"] == baseline_outputs(splits(), 1)["random"]
    )
    predictions = Predictions(
        prompt=["?", "?"], reference=["a loan", "a part"], schema=["", ""], seen=["", ""], base=["", ""],
        adapter=["a loan", "x"], base_tokens=[[], []], adapter_tokens=[[1], [2]],
    )  # fmt: skip
    scored = score_baselines(splits(), predictions, record.contract)
    assert scored.keys() == BASELINES.keys() == outputs.keys()
    assert (scored["nearest"].scores["rouge1"].mean, scored["nearest"].difference["rouge1"].mean) == (1.0, -0.5)
    # One of two words of "a part" stands in "a loan".
    assert (scored["frequent"].scores["rouge1"].mean, scored["frequent"].difference["rouge1"].mean) == (0.75, -0.25)
