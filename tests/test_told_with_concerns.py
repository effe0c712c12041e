"""A release that says what is true of it, and a reader who is told what that is worth."""

from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download
from short_runs import publish, reproduced, train_short

from evaluation import evaluate

TOLD = "the prompt holds `output`, which the model is to write"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """An adapter whose prompt contains the answer, and what evaluating it printed."""
    run = tmp_path_factory.mktemp("runs") / "finance"
    train_short(run, "--adapter_name", "told", "--prompt", "Say it: {instruction} {output}")
    evaluate.main([str(run)])
    return "local-user/told", publish(run)


def test_a_prompt_that_holds_the_answer_is_reproduced_with_that_concern(release, tmp_path, capsys):
    adapter, commit = release
    page = tmp_path / "page.html"
    code, printed = reproduced(capsys, adapter, "--level", "score", "--report", str(page))
    last = printed.strip().splitlines()[-1]
    assert code == 0 and last.startswith(f"REPRODUCED (miniature) {adapter}@{commit} ") and "; with " in last
    assert f"Concern: {TOLD}" in printed.splitlines()
    assert TOLD in page.read_text()
    card = Path(hf_hub_download(adapter, "README.md")).read_text()
    assert "- the prompt holds &#96;output&#96;, which the model is to write\n" in card


def test_strict_makes_of_a_concern_a_failure(release, capsys):
    code, printed = reproduced(capsys, release[0], "--level", "score", "--strict")
    assert code == 1 and printed.strip().splitlines()[-1].startswith("REPRODUCED (miniature) ")
