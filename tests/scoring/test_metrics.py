"""Each family of metrics against an independent implementation, and what it takes to add one."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from evaluation.tolerance import MARGIN, change_interval, corpus_change_interval, outcome
from model_cards.card import render_card
from model_cards.plots import draw_plots
from model_cards.rendered import body_of, read
from recipes.config import RecipeArguments
from record.errors import UserError
from record.scores import METRICS, Baseline, Contract, Interval
from scoring.bootstrap import compared, draws, mean, take
from scoring.concerns import find_concerns
from scoring.contract import contract_of
from scoring.metrics import rows_of
from scoring.scores import score_predictions

ROOT = Path(__file__).parents[2]
SACREBLEU = {"sacrebleu": "bleu", "chrf": "chrf", "ter": "ter"}
WORDS = 'the a bond share, of company is loan. Why? Ünïted 今天 天气很好 سهم कंपनी 🎉 3.5% don\'t <b> "so"'.split()  # noqa: SIM905


def texts(seed: int, rows: int) -> list[str]:
    """Sentences of words of several scripts; some are empty."""
    random = Random(seed)
    return [" ".join(random.choices(WORDS, k=random.randint(0, 14))) for _ in range(rows)]


def close_to(references: list[str], seed: int) -> list[str]:
    """The references with words left out, doubled and moved."""
    random, outputs = Random(seed), []
    for text in references:
        words = [word for word in text.split() for _ in range(random.choice((0, 1, 1, 1, 2)))]
        if len(words) > 4 and random.random() < 0.5:
            words = words[3:] + words[:3]
        outputs.append(" ".join(words))
    return outputs


REFERENCES = texts(1, 60)
BASE, ADAPTER = texts(2, 60), close_to(REFERENCES, 3)


def recipe(**keys) -> RecipeArguments:
    needed = {"title": "x", "adapter_name": "x", "dataset_name": "a/b", "prompt": "{q}", "target": "{a}"}
    return RecipeArguments(**needed | keys)


def contract_for(*metrics: str) -> Contract:
    schema = "{t}" if "sql" in metrics else None
    return contract_of(recipe(metrics=list(metrics), sql_schema=schema), "float32", 8)


def rows(outputs: list[str], contract: Contract, references: list[str] = REFERENCES):
    return rows_of(outputs, references, [""] * len(outputs), contract)


def command(tmp_path: Path, outputs: list[str], references: list[str]) -> dict[str, dict]:
    """What sacrebleu's own command line prints, by the name of its metric."""
    for name, lines in (("outputs", outputs), ("references", references)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    words = ["references", "-i", "outputs", "-m", "bleu", "chrf", "ter", "-w", "6", "--format", "json"]
    answer = subprocess.run(
        [sys.executable, "-m", "sacrebleu", *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    return {item["name"].lower().removesuffix("2"): item for item in json.loads(answer.stdout)}


def test_digits_and_signature_are_those_of_sacrebleus_own_command(tmp_path):
    contract = contract_for(*SACREBLEU)
    scored = rows(ADAPTER, contract)
    theirs = command(tmp_path, ADAPTER, REFERENCES)
    for family, name in SACREBLEU.items():
        assert f"{100 * mean(scored[name]):.6f}" == f"{theirs[name]['score']:.6f}"
        assert contract.signatures[family] == theirs[name]["signature"]
    # Of 0 and 100 all metrics would agree.
    assert all(0.05 < mean(scored[name]) < 0.95 for name in scored)


def test_each_resample_is_scored_as_the_corpus_that_it_is():
    from sacrebleu.metrics import METRICS as CLASSES

    contract = contract_for(*SACREBLEU).model_copy(update={"resamples": 5})
    base, adapter = rows(BASE, contract), rows(ADAPTER, contract)
    both = compared(base, adapter, contract)
    counts = draws(5, len(REFERENCES), contract.seed)
    for name in ("bleu", "chrf", "ter"):
        scores = {}
        for who, outputs in (("base", BASE), ("adapter", ADAPTER)):
            resamples = [
                CLASSES[name.upper()]().corpus_score(
                    np.repeat(outputs, count).tolist(), [np.repeat(REFERENCES, count).tolist()]
                )
                for count in counts
            ]
            scores[who] = np.array([result.score / 100 for result in resamples])
        scores["difference"] = scores["adapter"] - scores["base"]
        for part, values in scores.items():
            interval = both[part][name]
            assert [interval.low, interval.high] == pytest.approx(np.quantile(values, [0.025, 0.975]).tolist())
    one = both["difference"]["bleu"]
    assert one.mean == pytest.approx(both["adapter"]["bleu"].mean - both["base"]["bleu"].mean)


def test_squad_is_that_of_an_independent_implementation():
    from torchmetrics.functional.text import squad

    # It gives two texts without a word an F1 of 1, as SQuAD 2.0 does; the first script, and `evaluate`, 0.
    references = [f"{text} bond" for text in texts(4, 1_000)]
    outputs = close_to(references, 5)
    scored = rows(outputs, contract_for("squad"), references)
    said = [{"prediction_text": text, "id": str(row)} for row, text in enumerate(outputs)]
    wanted = [{"answers": {"answer_start": [0], "text": [x]}, "id": str(row)} for row, x in enumerate(references)]
    for some in (slice(None), *(slice(row, row + 1) for row in range(20))):
        theirs = squad(said[some], wanted[some])
        for name, theirs_by in (("squad_exact_match", "exact_match"), ("squad_f1", "f1")):
            assert mean(scored[name][some]) == pytest.approx(theirs[theirs_by].item() / 100, abs=1e-5)
    assert 0.01 < mean(scored["squad_exact_match"]) < 0.5 < mean(scored["squad_f1"]) < 0.95
    assert rows(["the"], contract_for("squad"), ["a"]) == {"squad_exact_match": [1.0], "squad_f1": [0.0]}


def test_exact_match_is_of_letters():
    outputs, references = ["Yes.", "yes.", "Yes", " Yes.", ""], ["Yes.", "Yes.", "Yes.", "Yes.", ""]
    assert rows(outputs, contract_for("exact_match"), references)["exact_match"] == [1, 0, 0, 0, 1]


def test_a_script_without_words_is_scored_by_characters():
    # 5 of 7 characters are right; the one "word" is not.
    scored = rows(["今天天气不错"], contract_for("chrf", "rouge"), ["今天天气很好"])
    assert mean(scored["rougeL"]) == 0 and 0.3 < mean(scored["chrf"]) < 0.9


def test_a_metric_that_applies_to_no_row_is_absent_and_said(record, predictions):
    broken = replace(predictions, reference=["no sql"] * 2, schema=["CREATE TABLE t (a INT)"] * 2)
    record.contract = contract_for("sql").model_copy(update={"resamples": 50, "max_new_tokens": 3})
    record.scores = score_predictions(broken, record.contract, 1.0, 1.0)
    assert list(record.scores.adapter) == list(record.scores.difference) == ["sql_parsed"]
    said = [line for line in find_concerns(record, broken) if "applies to none of the 2 test rows" in line]
    assert [line.partition(" is not")[0] for line in said] == ["SQL exact match", "SQL execution match"]
    assert record.contract.deciding(record.scores.adapter) == ["sql_parsed"]
    card = render_card(record, broken, "someone/x")
    assert "name: SQL execution match" not in card and "| SQL execution match |" not in card
    # Records before version 5 hold it as 0.
    zero = record.contract.model_copy(update={"without_rows": "zero"})
    assert score_predictions(broken, zero, 1.0, 1.0).adapter["sql_execution_match"] == Interval(mean=0, low=0, high=0)


@pytest.mark.parametrize(
    ("metrics", "deciding"),
    [
        ([], ["rougeL"]),
        (["sql"], ["sql_execution_match"]),
        (["rouge", "sql"], ["rougeL", "sql_execution_match"]),
        (["chrf", "rouge", "sql"], ["chrf", "sql_execution_match"]),
        (["squad", "sacrebleu"], ["squad_f1"]),
    ],
)
def test_the_first_named_metric_decides(metrics, deciding):
    contract = contract_for(*metrics)
    named = contract.families
    scored = [name for name, kind in METRICS.items() if kind.family in named]
    assert contract.deciding(scored) == deciding
    assert contract.deciding(["of a stranger"]) == []


def test_the_default_is_what_it_was():
    assert contract_for().families == ["rouge"] and contract_for().metrics == []
    assert contract_of(recipe(sql_schema="{t}"), "float32", 8).families == ["rouge", "sql"]


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"metrics": ["sql"]}, "set `sql_schema`"),
        ({"metrics": ["chrf", "chrf"]}, "names a family twice"),
        ({"metrics": ["bleu"]}, "`metrics` should be 'rouge', 'sacrebleu', 'chrf'"),
        ({"metrics": "chrf", "expect": {"published": {"base": {"rouge1": 0.1}}}}, "add `rouge` to `metrics`"),
    ],
)
def test_metrics_that_make_no_sense_are_refused(keys, line):
    with pytest.raises(UserError, match=line):
        recipe(**keys)


def test_the_lower_the_better_where_a_metric_counts_errors(record, predictions, tmp_path):
    record.contract = contract_for("ter").model_copy(update={"resamples": 50, "max_new_tokens": 3})
    # Some three words for each of the reference: an error rate above 2.
    worse = replace(predictions, base=["wrong " * 15, "wrong " * 21])
    record.scores = score_predictions(worse, record.contract, 1.0, 1.0)
    assert record.scores.base["ter"].mean > 2 and record.scores.difference["ter"].high < 0
    score, lower, higher = (Interval(mean=x, low=x, high=x) for x in (0.5, -0.2, 0.2))
    said = []
    for difference in (lower, higher):
        record.baselines = {"nearest": Baseline(scores={"ter": score}, difference={"ter": difference})}
        said.append(any("not shown to be better" in line for line in find_concerns(record, worse)))
    assert said == [False, True]
    record.baselines = {}
    text = "\n".join(block.text for block in read(body_of(render_card(record, worse, "someone/x"))).blocks)
    assert "TER (lower is better) | " in text and record.contract.signatures["ter"] in text and "ROUGE" not in text
    draw_plots(record, tmp_path)
    # Not cut off at 1.
    other = record.model_copy(deep=True)
    other.scores.base["ter"] = Interval(mean=9, low=8, high=10)
    (tmp_path / "other").mkdir()
    draw_plots(other, tmp_path / "other")
    assert (tmp_path / "plots/scores.png").read_bytes() != (tmp_path / "other/plots/scores.png").read_bytes()


def test_a_corpus_that_moved_shows_it_and_one_that_did_not_does_not():
    contract = contract_for("sacrebleu")
    references = texts(6, 400)
    was = rows(close_to(references, 7), contract, references)["bleu"]
    assert corpus_change_interval(was, was) == Interval(mean=0, low=0, high=0)
    again = close_to(references, 7)
    again[3], again[5] = close_to(references, 9)[3], close_to(references, 9)[5]
    now = rows(again, contract, references)["bleu"]
    assert outcome(corpus_change_interval(was, now), MARGIN) == "same"
    other = rows(texts(8, 400), contract, references)["bleu"]
    moved = corpus_change_interval(was, other)
    assert outcome(moved, MARGIN) == "moved" and moved.mean == pytest.approx(mean(other) - mean(was))
    few = take(was, range(20)), take(now, range(20))
    assert corpus_change_interval(*few).low <= 0 <= corpus_change_interval(*few).high


def test_the_interval_of_a_change_of_a_mean_is_about_the_same_by_both_ways():
    # A mean is a corpus score too: sums over counts.
    from scoring.bootstrap import Corpus

    rng = np.random.default_rng(1)
    was, now = rng.random(300), rng.random(300)
    corpora = [Corpus(np.stack([x, np.ones(300)], axis=1), lambda sums: sums[0] / sums[1]) for x in (was, now)]
    one, other = change_interval((now - was).tolist()), corpus_change_interval(*corpora)
    assert other.mean == pytest.approx(one.mean)
    assert [other.low, other.high] == pytest.approx([one.low, one.high], abs=0.1 * (one.high - one.low))


NEW = '''"""Share of words that are the reference's, place by place."""


def rows(predictions, references, schemas, contract):
    pairs = [(text.split(), wanted.split()) for text, wanted in zip(predictions, references, strict=True)]
    return {"places": [sum(map(str.__eq__, a, b)) / max(len(a), len(b), 1) for a, b in pairs]}
'''
ROW = '    "places": MetricKind("Words in place", "places", "accuracy", decides=True),\n'
USE = """
from pathlib import Path
from model_cards.card import render_card
from model_cards.rendered import body_of, read
from model_cards.statements import other_scores_in_table
from recipes.config import arguments_from_record
from record.predictions import load_predictions
from record.run_record import load_record
from scoring.contract import contract_of
from scoring.scores import score_predictions

predictions, record = load_predictions(Path()), load_record(Path())
record.contract = contract_of(arguments_from_record(dict(record.recipe)), "float32", 8)
record.scores = score_predictions(predictions, record.contract, 1.0, 1.0)
record = type(record).model_validate_json(record.to_bytes())
card = render_card(record, predictions, "someone/x")
assert other_scores_in_table(read(body_of(card)), record) is None
print(record.contract.deciding(record.scores.adapter), record.scores.adapter["places"].mean)
print(next(line for line in card.splitlines() if line.startswith("| Words in place")))
"""


def test_a_new_metric_is_one_row_and_one_function(tmp_path, record, predictions):
    predictions.save(tmp_path)
    record.recipe["metrics"] = ["places", "rouge"]
    record.save(tmp_path)
    for room in ("record", "hub", "recipes", "scoring", "model_cards"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    table = tmp_path / "record" / "scores.py"
    table.write_text(table.read_text().replace('    "sql_parsed": MetricKind', f'{ROW}    "sql_parsed": MetricKind', 1))
    (tmp_path / "scoring" / "metrics" / "places.py").write_text(NEW)
    answer = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    # "A bond is a loan." is right; "A share is a part." has four of the eight words of its reference.
    mean_of_both = (1 + 4 / 8) / 2
    deciding, row = answer.stdout.splitlines()[-2:]
    assert deciding.startswith("['places']") and math.isclose(float(deciding.split()[-1]), mean_of_both)
    assert f"**{mean_of_both:.3f}**" in row
