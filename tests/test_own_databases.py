"""Rows with databases of their own, laid out as Spider's: from a folder through the Hub to a stranger's check."""

import json
import sqlite3
from random import Random

import pytest
import yaml
from huggingface_hub import HfApi
from short_runs import publish, reproduced

from evaluation import evaluate
from evaluation.checks import check_scores, read_predictions, rebuild_splits
from evaluation.findings import Drift
from hub.release import pull
from push.publish_data import publish_data
from recipes import train
from recipes.config import RecipeArguments, arguments_from_record, parse_recipe
from recipes.data.database_files import find_databases
from recipes.data.tokenizer import load_tokens
from record.errors import Slip, UserError
from record.predictions import load_predictions
from record.published_recipe import refused_key
from record.run_record import load_record
from scoring.databases import score_databases

PLACE = "database/{db_id}/{db_id}.sqlite"
# By database: its table, its text column and the texts in it.
SHOPS = {
    "bakery": ("bread", "flour", ["rye", "wheat", "spelt"]),
    "garage": ("car", "colour", ["red", "blue", "white"]),
    "library": ("book", "shelf", ["north", "south", "attic"]),
}
KEYS = {
    "title": "SQL on real rows", "adapter_name": "sql-own-databases", "model_name_or_path": "google/flan-t5-base",
    "use_peft": True, "lora_task_type": "SEQ_2_SEQ_LM", "prompt": "{question} {schema}", "target": "{query}",
    "sql_schema": "{schema}", "sql_database": PLACE, "max_steps": 2, "per_device_train_batch_size": 8, "test_size": 0.3,
    "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "max_new_tokens": 6,
}  # fmt: skip


def lay_out(folder):
    """A folder as Spider's: rows that name a database, and below `database` a folder for each with its file."""
    rows, random = [], Random(16)
    for name, (table, column, texts) in SHOPS.items():
        schema = f"CREATE TABLE {table} (id INTEGER, {column} TEXT, price INTEGER)"
        (folder / "database" / name).mkdir(parents=True)
        connection = sqlite3.connect(folder / PLACE.format(db_id=name))
        connection.execute(schema)
        values = [(number, random.choice(texts), random.randint(1, 9)) for number in range(20)]
        connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", values)
        connection.commit()
        connection.close()
        for text in texts:
            for most in range(1, 5):
                rows.append({"db_id": name, "question": f"Which {table} with {column} {text} costs over {most}?",
                             "query": f"SELECT id FROM {table} WHERE {column} = '{text}' AND price > {most}",
                             "schema": schema})  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def recipe_in(folder, **keys):
    path = folder / "own-databases.yaml"
    path.write_text(yaml.safe_dump(KEYS | {"dataset_name": str(folder / "spider")} | keys))
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    lay_out(folder / "spider")
    train.main(["--config", recipe_in(folder), "--output_dir", str(folder / "run")])
    evaluate.main([str(folder / "run")])
    return folder / "run"


def test_from_a_folder_through_the_hub_to_a_check_by_a_stranger(run, capsys):
    record = load_record(run)
    local = record.scores.databases
    assert (local.rows, local.not_executable, local.files) == (record.scores.rows, 0, len(SHOPS))
    assert set(local.base) == {"sql_execution_match"} and local.both == record.scores.rows
    pinned = publish_data(run, "local-user/spider-in-small")
    files = {f"database/{name}/{name}.sqlite" for name in SHOPS} | {"rows.jsonl"}
    there = set(HfApi().list_repo_files(pinned.id, repo_type="dataset", revision=pinned.revision))
    assert there - {".gitattributes"} == files
    commit = publish(run)
    code, printed = reproduced(capsys, "local-user/sql-own-databases", "--level", "score")
    assert code == 0 and "REPRODUCED" in printed
    card = (run / "release" / "README.md").read_text()
    assert f"On the dataset's own databases (3 SQLite files), over the {local.rows} test rows" in card
    assert "Made rows and own rows say the same of 100.0 % of the base model's outputs" in card
    assert f"sha256 `{local.sha256}`" in card

    # Any other number, or a file with other rows, is found.
    published = pull("local-user/sql-own-databases", commit)
    assert published.record.scores.databases == local
    tokens = load_tokens(published.record.pins.base_model, [])
    test, predictions = rebuild_splits(published.record, tokens).test, read_predictions(published.folder)
    for field, value in (("sha256", "0" * 64), ("adapter_agree", local.adapter_agree - 1), ("not_executable", 1)):
        forged = published.record.model_copy(deep=True)
        setattr(forged.scores.databases, field, value)
        with pytest.raises(Drift, match=rf"databases\.{field}"):
            check_scores(published.folder, forged, predictions, tokens, test)
    forged.scores.databases = None
    with pytest.raises(Drift, match="databases"):
        check_scores(published.folder, forged, predictions, tokens, test)


def test_own_rows_and_made_rows_may_say_otherwise(run):
    record, predictions = load_record(run), load_predictions(run)
    recipe = arguments_from_record(dict(record.recipe))
    test = rebuild_splits(record, load_tokens(record.pins.base_model, [])).test
    # What no row of any file tells from the reference, made rows do; and nothing at all.
    predictions.adapter = [f"{query} AND price < 100" for query in predictions.reference]
    predictions.base = ["SELECT 1"] * len(predictions.reference)
    own = score_databases(recipe, record.pins.dataset, test, predictions, record.contract)
    assert own.adapter["sql_execution_match"].mean == 1 and own.base["sql_execution_match"].mean == 0
    assert own.difference["sql_execution_match"].low == 1
    assert own.adapter_agree < own.both == own.base_agree == len(test)


def test_what_is_no_file_of_the_dataset_is_refused_in_one_line(run, tmp_path):
    record = load_record(run)
    recipe = arguments_from_record(dict(record.recipe))

    def of(name, **keys):
        arguments = RecipeArguments(**(vars(recipe) | {"sql_database": "{db_id}"} | keys))
        return find_databases([name], arguments, record.pins.dataset)

    for name in ("../../etc/passwd", "/etc/passwd", "a/../../b", "", "a" * 300, "a\nb"):
        with pytest.raises(UserError, match="is no file's place") as line:
            of(name)
        assert "\n" not in str(line.value)
    with pytest.raises(UserError, match="`sql_database` names: correct it"):
        of("database/absent.sqlite")
    file = tmp_path / "here.sqlite"
    sqlite3.connect(file).close()
    file.write_bytes(b"x")
    assert of(str(file), sql_database=str(file)).bytes == 1
    # What only this machine has is trained and scored on, not published.
    assert "place in the dataset's repository" in refused_key({"sql_database": str(file)})
    assert refused_key({"sql_database": str(file)}, own=True) is None and refused_key({"sql_database": PLACE}) is None
    with pytest.raises(Slip, match="`sql_database` has no effect without SQL metrics"):
        parse_recipe(["--config", recipe_in(tmp_path, sql_schema=None)])
