"""The levels of a reproduction, its sample, its outputs, and what it does without a Hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from forger import check
from near_ties import rounded_otherwise
from short_runs import copy_of, publish

from evaluation.reproduce import main, reproduce
from evaluation.tolerance import sample_rows
from hub import release
from recipes.training import dtype
from record.errors import UserError
from record.run_record import load_record

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def published(scored_run, tmp_path_factory):
    """A published short run: its folder, its adapter's id and its commit."""
    run = copy_of(scored_run, tmp_path_factory.mktemp("runs") / "finance", "levels")
    return run, "local-user/levels", publish(run)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An empty cache of a stranger."""
    return tmp_path_factory.mktemp("stranger")


def stranger(hub, home: Path, *words: str, code: str = "", **environ: str) -> subprocess.CompletedProcess:
    command = ["-c", code] if code else ["-m", "evaluation.reproduce"]
    return subprocess.run(
        [sys.executable, *command, *words],
        env={**hub.env(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environ},
        cwd=home,
        capture_output=True,
        text=True,
    )


# As on a machine where these are not installed: neither their modules nor their versions are found.
WITHOUT_TORCH = """
import sys
from importlib.machinery import PathFinder

ABSENT = {"torch", "transformers", "accelerate", "peft", "trl", "evaluate", "bitsandbytes"}

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in ABSENT else super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, context):
        return () if context.name in ABSENT else super().find_distributions(context)

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
from evaluation import reproduce
"""


def test_the_level_score_needs_neither_torch_nor_transformers(published, hub, home):
    _, adapter, commit = published
    code = f"{WITHOUT_TORCH}\nreproduce.main(sys.argv[1:])"
    answer = stranger(hub, home, adapter, "--level", "score", code=code)
    assert answer.returncode == 0, answer.stderr
    last = answer.stdout.splitlines()[-1]
    assert last.startswith(f"REPRODUCED (miniature) {adapter}@{commit} ") and "nothing was generated" in last


def test_a_bug_is_unchecked_without_torch_too(hub, tmp_path):
    broken = "def broken(*_):\n    raise KeyError('a bug of ours')\nreproduce._check = broken"
    answer = stranger(hub, tmp_path, "a/b", code=f"{WITHOUT_TORCH}\n{broken}\nreproduce.main(sys.argv[1:])")
    assert answer.returncode == 2 and answer.stdout.splitlines()[-1] == "UNCHECKED a/b KeyError, see above"


def test_offline_it_works_from_the_cache_alone(published, hub, home, tmp_path):
    _, adapter, commit = published
    assert stranger(hub, home, adapter).returncode == 0
    # Nothing listens there: whatever is asked of the Hub now fails.
    offline = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    for level in ("score", "generate"):
        answer = stranger(hub, home, adapter, "--level", level, **offline)
        assert answer.returncode == 0, answer.stdout[-500:] + answer.stderr[-2000:]
        assert answer.stdout.splitlines()[-1].startswith(f"REPRODUCED (miniature) {adapter}@{commit} ")
    answer = stranger(hub, tmp_path, adapter, **offline)
    assert answer.returncode == 2 and "check it once online" in answer.stdout.splitlines()[-1]


def test_nothing_is_downloaded_by_the_name_of_a_branch(published, hub, tmp_path):
    # It may be moved in the middle of a check, to files of any size.
    _, adapter, _ = published
    hub.clear_requests()
    assert stranger(hub, tmp_path, adapter, "--level", "score").returncode == 0
    paths = [request["path"] for request in hub.requests() if adapter in request["path"]]
    assert {path for path in paths if "/main" in path} == {f"/api/models/{adapter}/revision/main"}


def test_weights_that_the_record_does_not_speak_of_are_not_downloaded(published, monkeypatch):
    base = load_record(published[0]).pins.base_model
    monkeypatch.setattr(release, "ADAPTER_HEADER", 0)
    with pytest.raises(UserError, match=r"the weights of google/flan-t5-large have .* they are not downloaded"):
        release.refuse_large_weights(base, 1_000)
    release.refuse_large_weights(base, load_record(published[0]).model.total)


def test_json_alone_goes_to_standard_output(published, hub, home, tmp_path):
    _, adapter, commit = published
    page = tmp_path / "pages" / "report.html"
    answer = stranger(hub, home, adapter, "--level", "score", "--json", "--report", str(page))
    verdict = json.loads(answer.stdout)
    assert (verdict["verdict"], verdict["revision"], verdict["level"]) == ("REPRODUCED", commit, "score")
    assert verdict["evidence"] == "numbers" and {check["outcome"] for check in verdict["checks"]} == {"passed"}
    assert "Pulling" in answer.stderr and "Report:" in answer.stderr
    assert commit in page.read_text(encoding="utf-8")


def test_a_sample_is_a_part_of_the_rows_and_always_the_same(published):
    run, adapter, _ = published
    verdict, found = reproduce(adapter, sample=40)
    assert (verdict.verdict, verdict.evidence, verdict.sample) == ("REPRODUCED", "tokens", 40), verdict.reason
    assert len(set(found.rows)) == 40 == len(found.fresh.adapter) and max(found.rows) < load_record(run).data.test
    assert "all 80 outputs for a sample of 40 rows" in verdict.reason
    again = reproduce(adapter, sample=40)[1]
    assert again.rows == found.rows
    # The commit draws: who publishes cannot know before which rows will be looked at.
    assert sample_rows(343, 40, "a" * 40) != sample_rows(343, 40, "b" * 40)
    rouge_l = next(c for c in verdict.changes if (c.model, c.metric) == ("adapter", "rougeL"))
    assert rouge_l.published == rouge_l.now != load_record(run).scores.adapter["rougeL"].mean
    all_rows, _ = reproduce(adapter, sample=10**6)
    assert all_rows.sample is None and "all 686 outputs are equal" in all_rows.reason


def test_another_rounding_reproduces_where_the_rows_suffice(published, tmp_path):
    run, adapter, commit = published
    verdict = check(adapter, (run, commit), rounded_otherwise(0.0005, dtype="bfloat16"), tmp_path)
    assert (verdict.verdict, verdict.evidence) == ("REPRODUCED", "statistics"), verdict.line
    widest = max(
        max(-change.difference.low, change.difference.high) for change in verdict.changes if change.metric == "rougeL"
    )
    assert 0 < widest < 0.01 and f"(a change of {widest:.4f} would have shown)" in verdict.reason


@pytest.mark.parametrize("sample", [0, -3])
def test_an_empty_sample_is_refused(published, sample):
    verdict, _ = reproduce(published[1], sample=sample)
    assert verdict.verdict == "UNCHECKED" and "one row or more" in verdict.reason


def test_the_level_train_makes_the_same_adapter_from_the_record_alone(published, tmp_path, monkeypatch, capsys):
    run, adapter, commit = published
    monkeypatch.chdir(tmp_path)
    # A machine where the recipe's bfloat16 would be taken: what the record says was in float32 is checked in float32.
    monkeypatch.setattr(dtype, "NARROW", 1)
    monkeypatch.setattr(dtype, "bfloat16_gain", lambda: 4.0)
    main([adapter, "--level", "train"])
    printed = capsys.readouterr().out
    assert "trained again: the same adapter, bit for bit" in printed
    assert printed.splitlines()[-1].startswith(f"REPRODUCED (miniature) {adapter}@{commit} ")
    (folder,) = (tmp_path / "runs" / "retrained").iterdir()
    assert load_record(folder).training.adapter_sha256 == load_record(run).training.adapter_sha256
    assert load_record(folder).pins == load_record(run).pins


def test_make_passes_everything_on(hub, tmp_path):
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    words = ["ADAPTER=a/b", "REVISION=v1", "LEVEL=score", "SAMPLE=5", "VERIFY_KEY=k.pem", "REPORT=r.html", "JSON=1",
             "OFFLINE=1", f"VENV={sys.prefix}"]  # fmt: skip
    answer = subprocess.run(
        ["make", "-n", "reproduce", *words], env=environ, capture_output=True, text=True, check=True
    )
    called = " ".join(answer.stdout.replace("'", "").split())
    options = "--level score --revision v1 --sample 5 --verify-key k.pem --report r.html --json"
    assert "HF_HUB_OFFLINE=1" in called and f"reproduce a/b {options}" in called
    answer = subprocess.run(["make", "-n", "retrain", "ADAPTER=a/b", f"VENV={sys.prefix}"], env=environ,
                            capture_output=True, text=True, check=True)  # fmt: skip
    assert "pubrep retrain 'a/b'" in answer.stdout
