"""A bad version is marked and stays: its card says why, its tag lies beside the old one, a check says it first."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import HfApi, hf_hub_download
from publishers import told
from short_runs import copy_of

from evaluation import reproduce
from push.withdraw import command, withdraw
from record.errors import UserError
from record.run_record import load_record

WHY = "the test rows were trained on; <!-- /free --> take v2"


@pytest.fixture(scope="module")
def repo_id(run, tmp_path_factory):
    """An adapter in two versions, the first of them withdrawn."""
    from contextlib import redirect_stdout
    from io import StringIO

    from push import publish

    name, output = "two-versions", StringIO()
    folder = copy_of(run, tmp_path_factory.mktemp("withdrawn") / "run", name)
    with redirect_stdout(output):
        publish.main([str(folder)])
        record = load_record(folder)
        record.training.seconds += 1
        record.save(folder)
        publish.main([str(folder)])
    return f"local-user/{name}"


def checked(repo_id, revision, capsys):
    capsys.readouterr()
    verdict, _ = reproduce.reproduce(repo_id, revision, "score")
    assert verdict.verdict == "REPRODUCED", verdict.line
    return verdict.concerns, capsys.readouterr().out.splitlines()


def test_a_withdrawn_version_is_marked_and_told_first(repo_id, run, tmp_path, capsys):
    api = HfApi()
    before = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id).tags}
    files = set(api.list_repo_files(repo_id, revision="v1"))
    for _ in range(2):
        answer = CliRunner().invoke(command, [f"{repo_id}@v1", "--why", WHY])
        assert answer.exit_code == 0 and "the tag v1-withdrawn is set" in answer.output, answer.output
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id).tags}
    assert tags == before | {"v1-withdrawn": before["v1"]}
    assert set(api.list_repo_files(repo_id, revision="v1")) == files
    card = Path(hf_hub_download(repo_id, "README.md")).read_text(encoding="utf-8")
    assert card.count("**Withdrawn**: v1") == 1
    concerns, lines = checked(repo_id, "v1", capsys)
    assert lines[0] == f"Concern: {concerns[0]}" and concerns[0] == f"its publisher has withdrawn it: {WHY}"
    # The other version, and the commit on main that edited the card, are not meant.
    for revision in ("v2", "main"):
        concerns, lines = checked(repo_id, revision, capsys)
        assert not any("withdrawn" in line for line in [*concerns, *lines])


def test_the_newest_version_can_be_withdrawn_and_a_new_one_published(repo_id, run, tmp_path, capsys):
    withdraw(f"{repo_id}@v2", "wrong prompt")
    concerns, _ = checked(repo_id, "main", capsys)
    assert concerns[0] == "its publisher has withdrawn it: wrong prompt"
    folder = copy_of(run, tmp_path / "run", repo_id.partition("/")[2], seconds=2)
    code, line = told(capsys, folder)
    assert code == 0 and "(v3)" in line, line
    assert not any("withdrawn" in concern for concern in checked(repo_id, "main", capsys)[0])
    assert checked(repo_id, "v2", capsys)[0][0] == "its publisher has withdrawn it: wrong prompt"


@pytest.mark.parametrize(
    ("version", "why", "said"),
    [
        ("local-user/two-versions", "bad", "names no version: write local-user/two-versions@v2"),
        ("local-user/two-versions@v1", " ", "the reason has 1 to 300 characters"),
        ("google/flan-t5-large@main", "bad", "holds no record.json"),
    ],
)
def test_what_is_no_version_is_refused(repo_id, version, why, said):
    with pytest.raises(UserError, match=said):
        withdraw(version, why)
