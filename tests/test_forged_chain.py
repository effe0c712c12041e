"""Forgeries of an adapter that continues another: its chain, what it forgot, and its scores as SQL."""

import pytest
from forger import check, drawn_anew, found_out, in_row, predictions, record, said, the_reference
from short_runs import SHORT, publish

import evaluation.retrain
from evaluation import evaluate
from recipes import train
from record.release_files import FORGETTING_FILE

CHAIN = "local-user/forged-chain"


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """text2sql and llama2sql, which continues it: folder and commit of the latter."""
    for name, adapter, parent in (
        ("text2sql", "forged-parent", ()),
        ("llama2sql", "forged-chain", ("--parent_adapter", "forged-parent")),
    ):
        run = tmp_path_factory.mktemp("runs") / name
        short = (*SHORT, "--max_steps", "2", "--max_new_tokens", "6", "--adapter_name", adapter, *parent)
        train.main(["--config", f"recipes/{name}.yaml", "--output_dir", str(run), *short])
        evaluate.main([str(run)])
        commit = publish(run)
    return run, commit


@pytest.mark.parametrize(
    ("forge", "level", "part", "told"),
    [
        pytest.param(*case, id=name)
        for name, *case in [
            ("what-was-forgotten", record(forgetting__difference__rougeL__mean=0.25), "score", "scoring", "forgetting"),
            (
                "the-parents-outputs",
                predictions(said("base", range(9), lambda *_: []), FORGETTING_FILE),
                "score",
                "data",
                "the parent's published rows",
            ),
            (
                "the-parents-references",
                predictions(in_row("reference", "SELECT 1"), FORGETTING_FILE),
                "score",
                "data",
                "the parent's published rows",
            ),
            (
                "nothing-forgotten",
                predictions(said("adapter", range(9), the_reference), FORGETTING_FILE),
                "generate",
                "weights",
                "parent's test rows differ",
            ),
            ("sql-counts", record(scores__sql__not_executable=0), "score", "scoring", "not_executable"),
            (
                "sql-scores",
                record(scores__adapter__sql_execution_match={"mean": 0.9, "low": 0.8, "high": 0.95}),
                "score",
                "scoring",
                "sql_execution_match",
            ),
            (
                "no-parent",
                drawn_anew(
                    pins__parent_adapter=None,
                    recipe__parent_adapter=None,
                    recipe__lora_task_type="SEQ_2_SEQ_LM",
                    forgetting=None,
                ),
                "train",
                "training",
                "another adapter",
            ),
            (
                "another-parent",
                record(recipe__parent_adapter="flan-t5-large-other"),
                "score",
                "lineage",
                "parent_adapter",
            ),
            ("seen-by-the-parent", record(leakage__1__exact=0), "score", "leakage", "other copies of test rows"),
            ("a-token-less", record(recipe__added_tokens=[]), "score", "lineage", "sets trainable_token_indices"),
        ]
    ],
)
def test_a_forged_chain_is_found(chain, tmp_path, monkeypatch, forge, level, part, told):
    monkeypatch.setattr(evaluation.retrain, "RETRAINED", tmp_path / "retrained")
    found_out(check(CHAIN, chain, forge, tmp_path, level=level), part, told)
