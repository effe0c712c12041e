"""README's results: what is kept of each published adapter, and how the table tells it."""

import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download
from short_runs import copy_of, publish

from readme.claims import renew_all
from readme.render import Claim, Listed, block, listed, load_claim, rendered
from record.errors import UserError
from record.run_record import load_record
from record.scores import SqlCounts
from record.verdict import Verdict

ADAPTER = "local-user/claimed"
FOLDER = f"docs/claims/{ADAPTER.replace('/', '--')}"
README = "Before.\n<!-- rendered: results -->\nnothing yet\n<!-- /rendered -->\nAfter.\n"
OLD_DATE = "2020-02-29T12:00:00+00:00"


@pytest.fixture(scope="module")
def published(scored_run, tmp_path_factory):
    """A published run: its folder and its commit."""
    run = copy_of(scored_run, tmp_path_factory.mktemp("runs") / "finance", ADAPTER.partition("/")[2])
    return run, publish(run)


@pytest.fixture(scope="module")
def claimed(published, tmp_path_factory):
    """A checked-out folder after the first renewal, in which an unknown adapter was listed, too; do not change it."""
    root = tmp_path_factory.mktemp("claimed")
    (root / "README.md").write_text(README)
    listing(root, f"{ADAPTER}, hub: local, pictures: true", "local-user/never-published, hub: local")
    assert renew_all(root, check=False, level="generate") == ["local-user/never-published"]
    return root


@pytest.fixture
def root(claimed, tmp_path):
    """A copy of `claimed` that lists the published adapter alone and was checked long ago."""
    shutil.copytree(claimed, tmp_path, dirs_exist_ok=True)
    listing(tmp_path, f"{ADAPTER}, hub: local")
    claim = load_claim(tmp_path / FOLDER)
    claim.verdict.date = OLD_DATE
    claim.save(tmp_path / FOLDER)
    return tmp_path


def listing(root: Path, *entries: str) -> None:
    (root / "claims.yaml").write_text("".join(f"- {{adapter: {entry}}}\n" for entry in entries))


def line(root: Path, adapter: str = ADAPTER) -> str:
    """The adapter's line of the rendered table."""
    return next(row for row in (root / "README.md").read_text().splitlines() if row.startswith(f"| {adapter}"))


def rows_of(entry: Listed, claim: Claim, record) -> list[str]:
    """One adapter's lines of the results table, below its head."""
    return block("results", claims=lambda: [(entry, claim, record)]).split("\n\n")[0].splitlines()[2:]


def test_the_table_gives_the_published_record_and_its_verdict(published, claimed):
    run, commit = published
    scores = load_record(run).scores
    cells = [text.strip() for text in line(claimed).strip("|").split(" | ")]
    assert cells[0] == (
        f"{ADAPTER}<br>Financial question answering (finance)<br>a miniature of google/flan-t5-large"
        "<br>361,472 parameters"
    )
    many = sum(scores.seen.values())
    assert cells[1] == f"343<br>{many} ({100 * many / 343:.1f} %) seen in training" and many > 0
    numbers = [
        f"{x.mean:{sign}.3f} [{x.low:{sign}.3f}, {x.high:{sign}.3f}]"
        for x, sign in ((scores.base["rougeL"], ""), (scores.adapter["rougeL"], ""), (scores.difference["rougeL"], "+"))
    ]
    assert cells[2:4] == [f"ROUGE-L<br>{numbers[0]}", "<br>".join(numbers[1:])]
    verdict = load_claim(claimed / FOLDER).verdict
    assert (verdict.verdict, verdict.evidence, verdict.revision) == ("REPRODUCED", "tokens", commit)
    assert cells[4] == f"REPRODUCED<br>level generate, {verdict.date[:10]}<br>`{commit[:12]}`"
    readme = (claimed / "README.md").read_text()
    assert readme.startswith("Before.\n") and readme.endswith("After.\n") and "nothing yet" not in readme
    assert "No adapter is published on the real Hub yet." in readme


def test_record_and_plots_are_kept_as_published(published, claimed):
    _, commit = published
    for name in ("record.json", "plots/loss.png", "plots/scores.png"):
        there = Path(hf_hub_download(ADAPTER, name, revision=commit)).read_bytes()
        assert (claimed / FOLDER / name).read_bytes() == there
    assert "rows" not in json.loads((claimed / FOLDER / "claim.json").read_text())["verdict"]


def test_the_files_alone_give_the_same_text(claimed, hub):
    readme = (claimed / "README.md").read_text()
    hub.clear_requests()
    assert rendered(README, claimed) == readme
    assert not hub.requests()


def test_an_adapter_out_of_reach_keeps_its_row_and_the_others_are_renewed(root, capsys):
    gone = "local-user/gone"
    listing(root, f"{gone}, hub: local", "local-user/never-published, hub: local", f"{ADAPTER}, hub: local")
    shutil.copytree(root / FOLDER, root / "docs/claims/local-user--gone")
    shutil.rmtree(root / FOLDER)
    assert renew_all(root, check=False, level="score") == [gone, "local-user/never-published"]
    told = capsys.readouterr().err
    assert f"error: {gone}: no such repository" in told and "error: local-user/never-published: no such" in told
    assert "REPRODUCED<br>level generate, 2020-02-29" in line(root, gone)
    assert "| not asked for yet: `make claims` |" in line(root, "local-user/never-published")
    assert "REPRODUCED<br>level score, " in line(root) and "2020" not in line(root)


def test_a_kept_verdict_is_renewed_on_demand_only(root):
    assert renew_all(root, check=False, level="score") == []
    assert "REPRODUCED<br>level generate, 2020-02-29" in line(root)
    assert renew_all(root, check=True, level="score") == []
    assert "REPRODUCED<br>level score, " in line(root) and "2020" not in line(root)


# The commit is a forger's: huggingface_hub warns of every one that holds parquet.
@pytest.mark.filterwarnings("ignore:It seems that you are about to commit a data file:UserWarning")
def test_drift_stands_in_the_row_and_its_reason_below(published, root):
    _, commit = published
    damaged = HfApi().upload_file(
        path_or_fileobj=b"PAR1 damaged", path_in_repo="predictions.parquet", repo_id=ADAPTER, create_pr=True,
        revision="main", parent_commit=commit,
    )  # fmt: skip
    listing(root, f"{ADAPTER}, hub: local, revision: {damaged.pr_revision}")
    assert renew_all(root, check=False, level="score") == []
    assert f"| **DRIFTED** (files)<br>level score, {load_claim(root / FOLDER).verdict.date[:10]}" in line(root)
    assert f"`{damaged.oid[:12]}` |" in line(root) and commit[:12] not in line(root)
    note = f"- {ADAPTER}: DRIFTED, not the files that the record names&#58; predictions.parquet"
    assert note in (root / "README.md").read_text().splitlines()


def test_the_verdict_of_an_earlier_commit_is_not_given_to_a_new_one(published, root, hub, capsys):
    _, commit = published
    new = HfApi().upload_file(
        path_or_fileobj=b"# another\n", path_in_repo=".gitattributes", repo_id=ADAPTER, create_pr=True, revision="main",
        parent_commit=commit,
    )  # fmt: skip
    listing(root, f"{ADAPTER}, hub: local, revision: {new.pr_revision}")
    hub.fault("resolve", "status", code=403, path=f"{new.oid}/predictions.parquet", times=-1)
    try:
        assert renew_all(root, check=False, level="score") == [ADAPTER]
        assert f"error: {ADAPTER}: not checked: " in capsys.readouterr().err
        told = f"REPRODUCED of an earlier commit<br>level generate, 2020-02-29<br>`{commit[:12]}`"
        assert f"{told}<br>now `{new.oid[:12]}`, not checked |" in line(root)
        shutil.rmtree(root / FOLDER)
        assert renew_all(root, check=False, level="score") == [ADAPTER]
        assert f"| **UNCHECKED**<br>level score, {load_claim(root / FOLDER).verdict.date[:10]}" in line(root)
        assert f"\n- {ADAPTER}: UNCHECKED, " in (root / "README.md").read_text()
    finally:
        hub.clear_faults()
    assert renew_all(root, check=False, level="score") == []
    assert f"`{new.oid[:12]}` |" in line(root) and "REPRODUCED<br>level score" in line(root)


def test_what_is_left_of_the_hub_s_limit_is_told_after_each_adapter(root, hub, capsys):
    hub.limit(api=500, resolvers=3000, seconds=300)
    try:
        assert renew_all(root, check=True, level="score") == []
    finally:
        hub.clear_limits()
    told = re.search(r"the Hub lets you have (\d+) of 500 requests .*of 3,000 downloads for", capsys.readouterr().out)
    assert told and 400 < int(told[1]) < 500


def test_an_adapter_of_the_other_hub_is_not_asked_for(root, hub):
    listing(root, ADAPTER)
    hub.clear_requests()
    assert renew_all(root, check=True, level="score") == [] and not hub.requests()
    assert "2020-02-29" in (root / "README.md").read_text()


def test_a_real_adapter_is_linked_and_hostile_text_stays_text(record):
    verdict = Verdict(adapter="someone/a_b", level="generate", date=OLD_DATE, verdict="REPRODUCED", revision="1" * 40)
    claim = Claim(commit="1" * 40, verdict=verdict)
    record.recipe["title"] = "a | b <script>"
    (row,) = rows_of(Listed(adapter="someone/a_b"), claim, record)
    assert f"](https://huggingface.co/someone/a_b/tree/{'1' * 40})<br>" in row and "miniature" not in row
    assert "a &#124; b &lt;script&gt;" in row and row.count("|") == 6
    assert "google/flan-t5-large<br>783,150,080 parameters" in row


def test_sql_recipes_have_a_second_line(record):
    scores = record.scores
    scores.sql = SqlCounts(not_executable=1, base_empty=0, adapter_empty=0)
    for part in (scores.base, scores.adapter, scores.difference):
        part["sql_execution_match"] = part["rouge1"].model_copy(update={"mean": 0.125})
    claim = Claim(commit="1" * 40, verdict=Verdict(adapter="a/b", level="score", date=OLD_DATE))
    first, second = rows_of(Listed(adapter="a/b"), claim, record)
    assert "ROUGE-L" in first and "execution" not in first and "**UNCHECKED**<br>level score, 2020-02-29" in first
    # Of the record's two test rows one reference does not run.
    assert "| 1 whose reference runs | SQL execution match<br>0.125 [" in second and "<br>+0.125 [" in second
    assert first.count("|") == second.count("|") == 6


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- {adapter: a/b, revison: main}", "0 revison: Extra inputs"),
        ("- {adapter: ../secrets}", "0 adapter: String should match"),
        ("- a/b", "not a list of adapters"),
        ("- {adapter: a/b}\n- {adapter: a/b, revision: v1}", "lists a/b twice"),
        ("- {adapter: [", "is not YAML"),
    ],
)
def test_a_bad_listing_is_one_clear_line(tmp_path, text, told):
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(UserError, match=r"^claims\.yaml ") as refused:
        listed(tmp_path)
    assert told in str(refused.value) and "\n" not in str(refused.value)
