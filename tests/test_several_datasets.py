"""A recipe of two datasets with different columns: from training to a stranger's check from the record alone."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Dataset
from forger import check, found_out
from forger import record as changed_record
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, SpaceCard, hf_hub_download
from short_runs import SHORT, publish, reproduced

from evaluation import evaluate
from recipes import train
from record.predictions import load_predictions
from record.run_record import load_record
from serving.export import make
from serving.space import publish as space
from serving.space.page.template import Template, asked_keys

REPO = "local-user/mixed"
BONDS, TOWNS = "local-user/bonds", "local-user/towns"
DATASETS = [
    {"dataset_name": "Local-User/bonds", "prompt": "Question: {question}", "target": "{answer}",
     "dataset_splits": ["train"]},
    {"dataset_name": TOWNS, "prompt": ["Where is {town.name}?", "Say where {town.name} is."], "target": "{place}",
     "share": 0.4},
]  # fmt: skip


def upload(repo: str, **files: list[dict]) -> str:
    HfApi().create_repo(repo, repo_type="dataset", exist_ok=True)
    operations = [
        CommitOperationAdd(f"{name}.jsonl", "\n".join(map(json.dumps, rows)).encode()) for name, rows in files.items()
    ]
    return HfApi().create_commit(repo, operations, commit_message="Rows", repo_type="dataset").oid


@pytest.fixture(scope="module")
def commits() -> tuple[str, str]:
    bonds = [{"question": f"What is bond {n} worth to bank {n * n}?", "answer": f"a price of {n}"} for n in range(30)]
    towns = [{"town": {"name": f"the town number {n}"}, "place": f"north of {n}"} for n in range(50)]
    # Half of the towns ask what a bond's question asks: whatever side it falls on, the joined rows hold copies.
    for n in range(0, 50, 2):
        towns[n]["town"]["name"] = bonds[n % 30]["question"]
    return upload(BONDS, train=bonds, unused=bonds[:5]), upload(TOWNS, rows=towns)


@pytest.fixture(scope="module")
def published(commits, tmp_path_factory) -> tuple[Path, str]:
    """A published run of both: its folder and its commit."""
    folder = tmp_path_factory.mktemp("mixed")
    shipped = yaml.safe_load(Path("recipes/finance.yaml").read_text(encoding="utf-8"))
    keys = {key: shipped[key] for key in ("model_name_or_path", "use_peft", "lora_task_type")}
    keys |= {"title": "Bonds and towns", "adapter_name": "mixed", "datasets": DATASETS, "metrics": ["squad", "chrf"]}
    (folder / "mixed.yaml").write_text(yaml.safe_dump(keys | {"test_size": 0.3}), encoding="utf-8")
    run = folder / "mixed"
    train.main(["--config", str(folder / "mixed.yaml"), "--output_dir", str(run), *SHORT])
    evaluate.main([str(run)])
    # What comes later is none of its rows.
    upload(TOWNS, rows=[{"town": {"name": "another"}, "place": "elsewhere"}])
    return run, publish(run)


def drawn(record: dict) -> tuple[list[str], list[int]]:
    """The references of the test rows and the datasets that they are of, by what the record says and nothing else."""
    rows, seed = [], record["recipe"].get("split_seed", 2137)
    pins = [record["pins"]["dataset"], *record["pins"]["more_datasets"]]
    for number, (pinned, entry) in enumerate(zip(pins, record["recipe"]["datasets"], strict=True)):
        file = f"{entry.get('dataset_splits', ['rows'])[0]}.jsonl"
        path = hf_hub_download(pinned["id"], file, repo_type="dataset", revision=pinned["revision"])
        there = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
        if (share := entry.get("share")) is not None:
            taken = np.random.default_rng(seed).permutation(len(there))[: int(np.ceil(share * len(there)))]
            there = [there[row] for row in sorted(taken)]
        rows += [{"target": entry["target"].format(**row), "dataset": number} for row in there]
    test = Dataset.from_list(rows).train_test_split(record["recipe"]["test_size"], seed=seed)["test"]
    return test["target"][:], test["dataset"][:]


def test_who_has_the_record_alone_draws_the_same_rows(published, commits):
    run, _ = published
    record = load_record(run / "release")
    assert [(pinned.id, pinned.revision) for pinned in record.pins.datasets] == [
        *zip((BONDS, TOWNS), commits, strict=True)
    ]
    references, datasets = drawn(json.loads((run / "release" / "record.json").read_bytes()))
    assert load_predictions(run / "release").reference == references and set(datasets) == {0, 1}
    counts = [(one.dataset, one.rows, one.loaded, one.test) for one in record.data.by_dataset]
    assert counts == [(BONDS, 30, 30, datasets.count(0)), (TOWNS, 50, 20, datasets.count(1))]
    parts = [one.train + one.validation + one.test for one in record.data.by_dataset]
    assert parts == [30, 20] and record.data.loaded == 50 and len(datasets) == 15


def test_copies_are_found_across_the_datasets_and_counted_by_each(published):
    run, _ = published
    record = load_record(run)
    assert [(one.adapter, one.dataset) for one in record.leakage] == [(None, BONDS), (None, TOWNS)]
    assert [one.training_rows for one in record.leakage] == [
        one.train + one.validation for one in record.data.by_dataset
    ]
    rows, (_, datasets) = load_predictions(run), drawn(json.loads((run / "record.json").read_bytes()))
    asked = [prompt.partition("bond ")[2].partition(" ")[0] for prompt in rows.prompt]
    bonds = {text for text, dataset in zip(asked, datasets, strict=True) if text and dataset}
    assert bonds and record.leakage[0].exact > 0
    assert sum(record.scores.seen.values()) < len(rows.seen)


def test_the_card_names_every_dataset_with_its_own_rows_and_scores(published, commits):
    run, _ = published
    record, card = load_record(run), ModelCard.load(run / "release" / "README.md")
    assert card.data.datasets == [BONDS, TOWNS]
    stated = {
        (one.dataset_type, one.metric_type, one.dataset_revision, one.metric_value) for one in card.data.eval_results
    }
    for (name, commit), scores in zip(zip((BONDS, TOWNS), commits, strict=True), record.scores.by_dataset, strict=True):
        assert (name, "chrf", commit, round(scores.adapter["chrf"].mean, 4)) in stated
        link = f"[{name}](https://huggingface.co/datasets/{name}/tree/{commit})"
        assert f"Of these, the {scores.rows} rows of {link}:" in card.text
        assert f"| training data | {link} at `{commit[:12]}` |" in card.text
        assert f"`dataset_revision: {commit}` below {name}" in card.text
    assert re.search(rf"trained on \[{BONDS}\]\(\S+\) and \[{TOWNS}\]\(\S+\)\.", card.text)
    assert "| local-user/towns | 20 of 50 |" in card.text
    means = [one.adapter["squad_f1"].mean * one.rows for one in record.scores.by_dataset]
    assert sum(means) / 15 == pytest.approx(record.scores.adapter["squad_f1"].mean)


@pytest.mark.parametrize("level", ["generate", "train"])
def test_a_stranger_reproduces_it_at_every_level(published, level, tmp_path, monkeypatch, capsys):
    _, commit = published
    monkeypatch.chdir(tmp_path)
    code, said = reproduced(capsys, REPO, "--level", level)
    assert code == 0 and said.splitlines()[-1].startswith(f"REPRODUCED (miniature) {REPO}@{commit} SQuAD F1"), said
    assert f"15 test rows rebuilt from {BONDS}, {TOWNS}, as recorded" in said
    assert level != "train" or "trained again: the same adapter, bit for bit" in said


def test_export_space_and_verdict_page_know_both(published, tmp_path, monkeypatch, capsys):
    run, commit = published
    make.main(["--adapter", REPO, "--format", "merged", "--into", str(tmp_path / "exports"), "--force"])
    card = ModelCard.load(next((tmp_path / "exports").rglob("README.md")))
    assert card.data.datasets == [BONDS, TOWNS]
    folder = tmp_path / "space"
    folder.mkdir()
    space.lay_out(REPO, commit, folder)
    assert SpaceCard.load(folder / "README.md").data.datasets == [BONDS, TOWNS]
    keys, rows = asked_keys(load_record(run).recipe), load_predictions(run)
    template = Template(keys["prompt"], keys.get("sql_schema"))
    shown = [target for target, prompt in zip(rows.reference, rows.prompt, strict=True) if template.read(prompt)]
    assert shown and all(target.startswith("a price") for target in shown)
    code, _ = reproduced(capsys, REPO, "--level", "score", "--report", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert code == 0 and page.count('<th scope="row">Dataset</th>') == 2 and "Parent adapter" not in page


@pytest.mark.parametrize(
    ("part", "line", "changes"),
    [
        ("data", "gives other rows than the record states", {"recipe__datasets__1__share": 0.42}),
        ("data", "gives other rows than the record states", {"data__by_dataset__1__train": lambda rows: rows + 1}),
        ("scoring", "predictions give by_dataset", {"scores__by_dataset__0__rows": lambda rows: rows + 1}),
        ("lineage", "the recipe names 2 datasets, the record pins 1", {"pins__more_datasets": []}),
        ("lineage", "the recipe's `dataset_name` is local-user/towns, the record pins local-user/bonds", {
            "pins__more_datasets": lambda pins: [pins[0] | {"id": BONDS}]}),
        ("leakage", "the training rows hold other copies", {"leakage__1__exact": lambda rows: rows + 1}),
    ],
)  # fmt: skip
def test_what_is_changed_in_the_record_is_found(published, part, line, changes, tmp_path):
    found_out(check(REPO, published, changed_record(**changes), tmp_path, level="score"), part, line)
