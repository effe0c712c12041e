"""A recipe that names its own metrics, from training to a stranger's check."""

import json
import subprocess
import sys

import pytest
from forger import check, found_out, record
from short_runs import FEW_ROWS, publish, train_short

from evaluation import evaluate
from evaluation.reproduce import main
from model_cards.rendered import body_of, read
from record.predictions import load_predictions
from record.run_record import load_record

METRICS = ("sacrebleu", "rouge", "chrf", "ter", "squad", "exact_match")
REPO = "local-user/by-metrics"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A published run of few rows: its folder and its commit."""
    folder = tmp_path_factory.mktemp("runs") / "finance"
    keys = ("--adapter_name", "by-metrics", "--per_device_train_batch_size", "4", *FEW_ROWS)
    train_short(folder, *keys, "--metrics", *METRICS)
    evaluate.main([str(folder)])
    return folder, publish(folder)


def test_scores_are_published_and_checked_by_every_metric_that_the_recipe_names(published, tmp_path, capsys):
    run, commit = published
    rows, bleu = load_predictions(run), load_record(run).scores.adapter["bleu"].mean
    (tmp_path / "outputs").write_text("".join(f"{text}\n" for text in rows.adapter))
    (tmp_path / "references").write_text("".join(f"{text}\n" for text in rows.reference))
    answer = subprocess.run(
        [sys.executable, "-m", "sacrebleu", "references", "-i", "outputs", "-w", "6"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    theirs = json.loads(answer.stdout)
    assert f"{100 * bleu:.6f}" == f"{theirs['score']:.6f}" and bleu > 0
    page = tmp_path / "page.html"
    main([REPO, "--report", str(page)])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"REPRODUCED (miniature) {REPO}@{commit} BLEU {bleu:.3f}: all 180 outputs are equal")
    assert theirs["signature"] in page.read_text()
    card = read(body_of((run / "release" / "README.md").read_text()))
    assert theirs["signature"] in "".join(block.text for block in card.blocks)
    for label in ("BLEU", "ROUGE-L", "chrF2", "TER (lower is better)", "SQuAD F1", "Exact match"):
        assert any(block.cells[:1] == (label,) and "[" in block.text for block in card.blocks)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"scores__adapter__bleu__mean": lambda mean: mean + 0.001}, "published predictions give adapter.bleu.mean"),
        ({"contract__signatures__sacrebleu": lambda line: line.replace("13a", "char")}, "contract is not the recipe's"),
    ],
    ids=["another score", "another signature"],
)
def test_what_is_not_so_is_found(published, tmp_path, change, line):
    found_out(check(REPO, published, record(**change), tmp_path, level="score"), "scoring", line)
