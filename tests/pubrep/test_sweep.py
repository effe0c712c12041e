"""A sweep: killed in its middle and continued, one table of all runs, and a card that says of how many it is one."""

import itertools
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from evaluation import checks, evaluate
from evaluation.findings import Drift
from model_cards import compare, overview
from model_cards.sweep import Scored, chosen, group_runs, read_scored
from pubrep.sweep import PLAN_FILE, combine, read_settings, remember
from recipes import train
from record.errors import Slip, UserError
from record.predictions import load_predictions
from record.run_record import load_record
from record.scored_record import require_scores
from record.sweep import Sweep
from scoring.metrics.rouge import rouge_rows
from tests.short_runs import publish, reproduced

ADAPTER = "local-user/flan-t5-large-swept"
RECIPE = {
    "title": "Financial question answering",
    "adapter_name": "flan-t5-large-swept",
    "model_name_or_path": "google/flan-t5-large",
    "dtype": "float32",
    "use_peft": True,
    "lora_task_type": "SEQ_2_SEQ_LM",
    "lora_target_modules": ["q", "v"],
    "dataset_name": "gbharti/finance-alpaca",
    "prompt": "Answer the financial question. {instruction} {input}",
    "target": "{output}",
    "test_size": 0.02,
    "validation_size": 0.01,
    "learning_rate": 3.0e-3,
    "max_steps": 10,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 64,
    "logging_steps": 5,
    "eval_strategy": "steps",
    "eval_steps": 5,
    "save_steps": 2,
    "save_total_limit": 1,
    "report_to": "none",
    "max_new_tokens": 12,
}
KEYS = ("--set", "seed=1,2", "--set", "lora_r=4,32")
FOLDERS = ["seed-1_lora_r-4", "seed-1_lora_r-32", "seed-2_lora_r-4", "seed-2_lora_r-32"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "swept.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def start(recipe: Path, into: Path, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "pubrep", "sweep", str(recipe), "--into", str(into), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.fixture(scope="module")
def swept(hub, recipe, tmp_path_factory):
    """A sweep of four runs, killed with all its processes in its second run; what it held then, and what came after."""
    into = tmp_path_factory.mktemp("sweep") / "runs"
    first = start(recipe, into, *KEYS)
    checkpoint = into / FOLDERS[1] / "checkpoint-2" / "trainer_state.json"
    while not checkpoint.exists() and first.poll() is None:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    before = {path: path.stat().st_mtime_ns for path in into.glob("*/adapter_model.safetensors")}
    # The last one by hand, as a sweep does it: that takes a third of the time, without two more processes.
    last = into / FOLDERS[3]
    train.main(["--config", str(recipe), "--output_dir", str(last), "--seed", "2", "--lora_r", "32"])
    evaluate.main([str(last)])
    second = start(recipe, into, *KEYS)
    out, err = second.communicate()
    assert second.returncode == 0, err
    return into, before, out


def runs_of(into: Path) -> list[Scored]:
    return read_scored([into / name for name in FOLDERS], ["seed", "lora_r"])


def test_a_killed_sweep_continues_where_it_was(swept):
    into, before, out = swept
    (done,) = before
    assert done.parent.name == FOLDERS[0] and done.stat().st_mtime_ns == before[done]
    for line in ("1/4  seed=1, lora_r=4: scored already", "2/4  seed=1, lora_r=32", "3/4  seed=2, lora_r=4",
                 "4/4  seed=2, lora_r=32: scored already"):  # fmt: skip
        assert f"{line}\n" in out
    continued = load_record(into / FOLDERS[1]).training
    assert continued.resumed_from >= 2 and continued.steps == 10
    assert [load_record(into / name).training.resumed_from for name in FOLDERS[2:]] == [0, 0]


def test_the_table_holds_mean_deviation_and_interval_of_each_setting(swept):
    into, _, out = swept
    scored = runs_of(into)
    contract = scored[0].record.contract
    for group, pair in zip(group_runs(scored, "rougeL"), ((0, 2), (1, 3)), strict=True):
        means, rows = [], []
        for place in pair:
            texts = load_predictions(scored[place].folder)
            score = rouge_rows(texts.adapter, texts.reference, contract.stemmer, contract.rouge_tokenizer)["rougeL"]
            means.append(np.mean(score))
            rows.append(score)
        # The bootstrap in plain words: rows drawn with replacement, of the mean of both seeds' scores.
        state, both = np.random.RandomState(contract.seed), np.mean(rows, axis=0)
        drawn = [both[state.randint(len(both), size=len(both))].mean() for _ in range(contract.resamples)]
        assert group.rows.mean == pytest.approx(np.mean(means)) and group.deviation == pytest.approx(
            np.std(means, ddof=1)
        )
        assert (group.rows.low, group.rows.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
        line = next(line for line in out.splitlines() if line.startswith(f"lora_r={group.settings['lora_r']} "))
        assert f"{group.rows.mean:.3f}  {group.deviation:.3f}  [{group.rows.low:.3f}, {group.rows.high:.3f}]" in line
        assert f" {group.trainable:,.0f} " in line and len(line) <= 80
    page = (into / "sweep.md").read_text()
    for one in scored:
        score, loss = one.record.scores.adapter["rougeL"], one.run.validation_loss
        assert f"| {loss:.4f} | {score.mean:.3f} [{score.low:.3f}, {score.high:.3f}] |" in page
    # What an interruption cut off is missing in the time of one run, and of its group.
    assert [line.count("s*") for line in page.splitlines() if line.count("GB")] == [0, 1, 0, 1, 0, 0]
    assert (into / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_the_lowest_validation_loss_is_chosen_and_the_card_says_of_how_many(swept, capsys):
    into, _, out = swept
    scored = runs_of(into)
    best = chosen(scored)
    # Without `load_best_model_at_end` the weights of the last step are kept: its loss counts, not a lower one before.
    losses = [
        next(point.eval_loss for point in one.record.training.history if point.step == 10 and point.eval_loss)
        for one in scored
    ]
    assert best.run.validation_loss == min(losses)
    assert f"publish-{best.folder.name} RUNS={into}" in out
    publish(best.folder)
    card = (best.folder / "release" / "README.md").read_text()
    scores = [one.run.scores["rougeL"] for one in scored]
    place = 1 + sum(score > best.run.scores["rougeL"] for score in scores)
    assert "one of 4 runs of the same recipe" in card and "Its validation loss is the lowest of them" in card
    assert (
        f"By ROUGE-L it is number {place} from the best of 4, whose mean is {statistics.fmean(scores):.4f} and whose "
        f"standard deviation is {statistics.stdev(scores):.4f}" in card
    )
    assert len(re.findall(r"^\| [12] \| (?:4|32) \| \d\.\d{4} \| \d\.\d{4} \|", card, re.MULTILINE)) == 4
    code, said = reproduced(capsys, ADAPTER, "--level", "score")
    assert (code, said.splitlines()[-1].partition(" ")[0]) == (0, "REPRODUCED"), said


def test_a_record_whose_sweep_states_another_number_for_its_run_has_drifted(swept):
    into, _, _ = swept
    record = require_scores(load_record(into / FOLDERS[3]))
    runs = record.sweep.runs
    others = [run for run in runs if run.adapter_sha256 != record.training.adapter_sha256]
    higher = runs[3].model_copy(update={"scores": {"rougeL": runs[3].scores["rougeL"] + 0.01}})
    for forged in ([*runs[:3], higher], others, [*runs[:3], runs[3].model_copy(update={"validation_loss": 0.1})]):
        record.sweep = Sweep(combinations=4, runs=forged)
        record.files = {"adapter_model.safetensors": record.training.adapter_sha256}
        with pytest.raises(Drift, match="does not list this run"):
            checks.check_sweep(record)
    record.sweep = Sweep(combinations=4, runs=runs)
    checks.check_sweep(record)
    with pytest.raises(ValueError, match="more runs than it has combinations"):
        Sweep(combinations=3, runs=runs)


def test_runs_of_a_sweep_can_be_told_apart_on_other_pages(swept, tmp_path):
    into, _, _ = swept
    folders = [str(into / name) for name in FOLDERS[:2]]
    compare.main([*folders, "--into", str(tmp_path)])
    table = (tmp_path / "compare.md").read_text()
    assert "seed=1, lora&#95;r=4&#41;" in table and "seed=1, lora&#95;r=32&#41;" in table
    assert len({entry.name for entry in overview.read_all(folders)}) == 2


# Last: it adds a run to the sweep.
def test_a_run_that_fails_is_one_line_and_the_others_go_on(swept, recipe):
    into, _, _ = swept
    (into / "seed-3_lora_r-4").write_text("a file where the run's folder would be")
    again = start(recipe, into, "--set", "seed=3,1", "--set", "lora_r=4")
    out, err = again.communicate()
    assert again.returncode == 1
    lines = [line for line in err.splitlines() if line.startswith(("failed", "error"))]
    assert lines[-2:] == [
        "failed: seed=3, lora_r=4 (training ended with exit code 1, see above)",
        "error: 1 of 2 runs failed (see above): the same command tries them again",
    ]
    assert "2/2  seed=1, lora_r=4: scored already\n" in out and "4 of 5 runs; base model" in out
    assert {load_record(into / name).sweep.combinations for name in FOLDERS} == {5}


SLIPS = {
    ("seed",): "--set seed is not KEY=VALUE,VALUE",
    ("seed=1,,2",): "is not KEY=VALUE,VALUE",
    ("seed=1,2", "seed=3"): "--set seed is given twice",
    ("seed=1,2,1",): "--set seed has the value 1 twice",
    ("num_beams=1,2",): "`num_beams` has no effect on the adapter",
    ("test_size=0.1,0.2",): "`test_size` decides the test rows",
    ("seed=1",): "a single combination is no sweep",
    (f"seed={','.join(map(str, range(11)))}", f"lora_r={','.join(map(str, range(1, 11)))}"): "add --limit 110",
    (f"seed={','.join(map(str, range(1001)))}",): "1,000 are the most",
}


@pytest.mark.parametrize("words", SLIPS, ids=lambda words: words[0][:20])
def test_what_makes_no_sweep_is_refused(words):
    with pytest.raises(Slip, match=re.escape(SLIPS[words])):
        read_settings(words, 100)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sead": ["1", "2"]}, "unknown key `sead`: did you mean `seed`?"),
        ({"lora_r": ["4", "many"]}, "lora_r=many: "),
        ({"learning_rate": ["1e-3", "0.001"]}, "two combinations are learning_rate=0.001: remove a value"),
        ({"fp16": ["true", "false"]}, "`fp16` is refused"),
        ({"warmup_steps": ["1", "2"], "lr_scheduler_type": ["constant"]}, "`warmup_steps` has no effect with"),
    ],
)
def test_a_combination_that_does_not_train_is_refused_before_any_run(recipe, values, said):
    with pytest.raises(Slip, match=re.escape(said)):
        combine(recipe, values)


def test_combinations_go_through_every_value_and_have_folders_of_their_own(recipe, tmp_path):
    values = {"seed": ["1", "2"], "lora_target_modules": ["q v", "q k v"]}
    combinations = combine(recipe, values)
    assert [(one.resolved["seed"], one.resolved["lora_target_modules"]) for one in combinations] == [
        *itertools.product([1, 2], (["q", "v"], ["q", "k", "v"]))
    ]
    assert combinations[0].folder == "seed-1_lora_target_modules-q-v"
    assert remember(tmp_path, combinations[:2]) == [one.folder for one in combinations[:2]]
    assert remember(tmp_path, combinations[1:]) == [one.folder for one in combinations]
    with pytest.raises(UserError, match="holds a sweep over seed, lora_target_modules: choose another folder"):
        remember(tmp_path, combine(recipe, {"seed": ["1", "2"]}))
    (tmp_path / PLAN_FILE).write_text("{")
    with pytest.raises(UserError, match=r"plan\.json is not the plan of a sweep"):
        remember(tmp_path, combinations)
