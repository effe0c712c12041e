"""A release that carries the verdict on an earlier commit of itself."""

import re
from pathlib import Path

import pytest
import short_runs
from huggingface_hub import HfApi, hf_hub_download
from publishers import told
from short_runs import copy_of

from evaluation import reproduce
from push.release import lay_out
from record.errors import UserError
from record.predictions import load_predictions
from record.release_files import VERDICT_FILE


def test_a_verdict_is_shown_kept_and_checked_and_one_of_something_else_is_refused(run, tmp_path, capsys):
    folder, repo_id = copy_of(run, tmp_path / "one", "judged"), "local-user/judged"
    short_runs.publish(folder)
    verdict, _ = reproduce.reproduce(repo_id, level="score")
    (tmp_path / "verdict.json").write_text(verdict.model_dump_json())
    code, line = told(capsys, folder, "--verdict", tmp_path / "verdict.json")
    assert code == 0 and "(v2)" in line
    card = Path(hf_hub_download(repo_id, "README.md")).read_text()
    assert f"publisher says&#58; REPRODUCED at level score on {verdict.date[:10]}" in card
    assert VERDICT_FILE in HfApi().list_repo_files(repo_id)
    assert reproduce.reproduce(repo_id, level="score")[0].verdict == "REPRODUCED"
    code, line = told(capsys, folder)
    assert code == 0 and line.startswith("Unchanged") and "(v2)" in line

    other = copy_of(run, tmp_path / "two", "unjudged")
    code, line = told(capsys, other, "--verdict", tmp_path / "verdict.json")
    assert code == 1 and "the verdict speaks of local-user/judged, not of local-user/unjudged" in line
    assert not (other / VERDICT_FILE).exists() and not HfApi().repo_exists("local-user/unjudged")
    code, line = told(capsys, other, "--verdict", tmp_path / "none.json")
    assert code == 1 and "cannot read the verdict" in line
    (tmp_path / "torn.json").write_text("{")
    code, line = told(capsys, other, "--verdict", tmp_path / "torn.json")
    assert code == 1 and "is not a verdict as `reproduce --json` prints it" in line

    predictions = load_predictions(folder)
    predictions.adapter[0] += "!"
    predictions.save(folder)
    lay_out(folder, repo_id, None, folder / "release")
    assert "is left out: the verdict speaks of other predictions" in capsys.readouterr().out
    assert not (folder / "release" / VERDICT_FILE).exists()


def test_a_free_text_that_hides_what_was_measured_is_not_published_again(run, tmp_path):
    folder, written = copy_of(run, tmp_path / "one", "hiding"), "<!-- free: limits -->\n{}\n<!-- /free -->\n"
    with pytest.raises(UserError) as refusal:
        lay_out(folder, "local-user/hiding", written.format("```"), tmp_path / "release")
    assert re.fullmatch(
        "the free section `limits` opens a code block: .*: correct that text in the README.md of local-user/hiding, "
        "then publish again",
        str(refusal.value),
    )
    lay_out(folder, "local-user/hiding", written.format("```\n```"), tmp_path / "release")
