"""Rows with several right answers: by every metric as its own makers count them, and from a recipe to a check."""

import json
from pathlib import Path

import pytest
import yaml
from forger import check, found_out, predictions
from huggingface_hub import HfApi
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF, TER
from short_runs import SHORT, publish, reproduced

from evaluation import evaluate
from recipes import train
from recipes.config import RecipeArguments
from record.errors import UserError
from record.predictions import load_predictions
from record.run_record import load_record
from scoring.bootstrap import mean
from scoring.contract import contract_of
from scoring.metrics import rows_of

OUTPUTS = ["the cat sat on the mat today", "a dog barks", "it rains in the north"]
REFERENCES = [
    ["a cat was sitting there", "the cat sat on a mat", "the cat was on the mat today"],
    ["a dog barks"],
    ["rain falls up north", "it rains in the north of it"],
]
REPO = "local-user/several"


def needed(**keys):
    return {"title": "x", "adapter_name": "several", "dataset_name": "local-user/answers", "prompt": "{question}",
            "target": "{answers.text.0}", "references": "{answers.text}"} | keys  # fmt: skip


def rows(*metrics):
    contract = contract_of(RecipeArguments(**needed(metrics=list(metrics))), "float32", 8)
    others = [json.dumps(texts[1:]) if texts[1:] else "" for texts in REFERENCES]
    return contract, rows_of(OUTPUTS, [texts[0] for texts in REFERENCES], [""] * 3, contract, others)


@pytest.mark.parametrize(("family", "name", "metric"), [("sacrebleu", "bleu", BLEU), ("chrf", "chrf", CHRF),
                                                        ("ter", "ter", TER)])  # fmt: skip
def test_sacrebleu_counts_all_references_of_a_row_together(family, name, metric):
    contract, scored = rows(family)
    theirs = metric()
    streams = [[texts[place] if place < len(texts) else None for texts in REFERENCES] for place in range(3)]
    assert 100 * mean(scored[name]) == theirs.corpus_score(OUTPUTS, streams).score
    assert contract.signatures[family] == theirs.get_signature().format() and "nrefs:var" in contract.signatures[family]


def test_the_best_reference_of_a_row_counts_where_scores_are_means_over_rows():
    scored = rows("rouge", "squad", "exact_match")[1]
    assert scored["exact_match"] == [0, 1, 0] and scored["squad_exact_match"] == [0, 1, 0]
    # By hand, without articles: 4 words in common of 5 and 4 (the second reference), of 3 and 3, of 4 and 6.
    assert scored["squad_f1"] == pytest.approx([2 * 4 / 9, 1, 2 * 4 / 10])
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for name in ("rouge1", "rouge2", "rougeL"):
        pairs = zip(REFERENCES, OUTPUTS, strict=True)
        assert scored[name] == [scorer.score_multi(answers, text)[name].fmeasure for answers, text in pairs]


def test_sql_has_one_reference():
    with pytest.raises(UserError, match="SQL is scored against the target alone"):
        RecipeArguments(**needed(sql_schema="{context}"))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A published run on questions with one to three answers: its folder and its commit."""
    folder = tmp_path_factory.mktemp("several")
    lines = [{"question": f"What is number {n}?",
              "answers": {"text": [f"a bond of {n}", f"the bond {n}", f"a bond of {n}"][: n % 3 + 1]}}
             for n in range(40)]  # fmt: skip
    HfApi().create_repo("local-user/answers", repo_type="dataset", exist_ok=True)
    HfApi().upload_file(path_or_fileobj="\n".join(map(json.dumps, lines)).encode(), path_in_repo="rows.jsonl",
                        repo_id="local-user/answers", repo_type="dataset")  # fmt: skip
    shipped = yaml.safe_load(Path("recipes/finance.yaml").read_text(encoding="utf-8"))
    keys = {key: shipped[key] for key in ("model_name_or_path", "use_peft", "lora_task_type")}
    (folder / "several.yaml").write_text(yaml.safe_dump(keys | needed(metrics=["squad", "chrf"], test_size=0.3)))
    run = folder / "several"
    train.main(["--config", str(folder / "several.yaml"), "--output_dir", str(run), *SHORT])
    evaluate.main([str(run)])
    return run, publish(run)


def test_a_run_with_several_references_is_published_and_checked(published, capsys):
    run, commit = published
    record, rows = load_record(run), load_predictions(run)
    assert record.contract.references == "several" and len(rows.references) == 12
    for first, others in zip(rows.reference, rows.references, strict=True):
        number = int(first.rpartition(" ")[2])
        assert others == (json.dumps([f"the bond {number}"]) if number % 3 else "")
    card = (run / "release" / "README.md").read_text(encoding="utf-8")
    assert "Rows have several references" in card and "nrefs&#58;var" in card
    code, said = reproduced(capsys, REPO)
    assert code == 0 and said.splitlines()[-1].startswith(f"REPRODUCED (miniature) {REPO}@{commit} SQuAD F1"), said


def test_other_references_are_found(published, tmp_path):
    def easier(rows, tokens):
        rows.references = [json.dumps([text]) for text in rows.adapter]
        return rows

    told = check(REPO, published, predictions(easier), tmp_path, level="score")
    found_out(told, "data", "other further references than the dataset")
