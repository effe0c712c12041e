"""Puts rows of one's own into a dataset repository, so that a run on them can be published and checked."""

from pathlib import Path

import click

from record.command_line import Command, Run
from record.errors import UserError, one_line_errors
from record.release_files import CARD_FILE, RECORD_FILE, may_lie_beside
from record.run_record import FilePin, Pin, Record, load_record


@click.command(
    cls=Command,
    examples=("pubrep publish-data runs/support acme/support-rows", "pubrep publish-data rows.csv acme/rows --public"),
)
@click.argument("what", metavar="RUN_OR_FILE", type=Run())
@click.argument("repo_id", metavar="OWNER/NAME")
@click.option("--public", is_flag=True, help="Let everybody read a new repository.")
def command(what: Path, repo_id: str, public: bool) -> None:
    """Put rows of your own into the dataset repository OWNER/NAME.

    RUN_OR_FILE is a file of rows, a folder of them, or a run that was trained on
    such. A new repository is private unless --public: then only those who may read
    it can check the numbers. The recipe of a run then names the repository, if its
    rows are the same there, and the run can be published without training again.
    """
    with one_line_errors():
        publish_data(what, repo_id, public)


def publish_data(what: Path, repo_id: str, public: bool = False) -> Pin:
    """Uploads the files in one commit, again without effect, and prints the recipe's lines; the commit's pin.

    Raises:
        `UserError`: the files are not those of the run, the repository holds other things or is public unasked, or the
            rows are other ones there.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    from hub.pins import pin
    from recipes.data.local_files import pin_files, row_files

    record = load_record(what) if (what / RECORD_FILE).is_file() else None
    if record is not None and record.pins.more_datasets:
        raise UserError(f"{what} has several datasets: publish each file by its own name, and train again with those")
    name = str(what) if record is None else str(record.recipe["dataset_name"])
    if record is not None and not isinstance(record.pins.dataset, FilePin):
        raise UserError(f"{what} was trained on {record.pins.dataset.id}, which is on a Hub already: publish the run")
    files = row_files(name)
    if record is not None and pin_files(name).revision != record.pins.dataset.revision:
        raise UserError(f"{name} has changed since {what} was trained on it: restore it, or train again")
    if record is not None and record.recipe.get("sql_database"):
        files += _databases(record)
    revision = _upload(name, files, repo_id, public)
    pinned = pin("dataset", repo_id, revision)
    if record is not None:
        _name_repository(what, pinned)
    print(f"{len(files):,} files are in the dataset {pinned.id} at commit {revision}. The recipe's lines:")
    print(f"dataset_name: {pinned.id}\ndataset_revision: {revision}", flush=True)
    return pinned


def _databases(record: Record) -> list[Path]:
    """The SQLite files that the run was scored on, below the folder of its rows."""
    from recipes.config import arguments_from_record
    from recipes.data.database_files import find_databases
    from recipes.data.splits import build_splits
    from recipes.data.tokenizer import load_tokens

    recipe = arguments_from_record(dict(record.recipe))
    if not Path(recipe.dataset_name).expanduser().is_dir():
        raise UserError(f"`sql_database` needs a folder: put {recipe.dataset_name} and its databases into one")
    tokens = load_tokens(record.pins.base_model, recipe.added_tokens)
    test = build_splits(recipe, record.pins.dataset, tokens, record.data.rules).test
    found = find_databases(test["database"][:], recipe, record.pins.dataset)
    scored = None if record.scores is None else record.scores.databases
    if scored is not None and scored.sha256 != found.sha256:
        raise UserError("the databases have changed since the run was scored: restore them, or score it again")
    return list(dict.fromkeys(found.paths))


def _upload(name: str, files: list[Path], repo_id: str, public: bool) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api, path = HfApi(), Path(name).expanduser()
    contents: dict[str, Path | bytes] = {
        file.name if path.is_file() else file.relative_to(path).as_posix(): file for file in files
    }
    if path.is_file():
        # Otherwise a file called test.csv would be another split than it was here.
        contents[CARD_FILE] = f"---\nconfigs:\n- config_name: default\n  data_files: {path.name!r}\n---\n".encode()
    try:
        info = api.dataset_info(repo_id)
    except RepositoryNotFoundError:
        api.create_repo(repo_id, repo_type="dataset", private=not public)
        info = api.dataset_info(repo_id)
    if not public and not info.private:
        raise UserError(f"{repo_id} exists and is public: make it private in its settings, or say --public")
    there = {sibling.rfilename for sibling in info.siblings or []}
    if others := sorted(other for other in there - contents.keys() if not may_lie_beside(other)):
        raise UserError(f"{repo_id} exists and holds {others[0]}: choose another name")
    operations = [CommitOperationAdd(place, file) for place, file in contents.items()]
    commit = api.create_commit(
        repo_id, operations, commit_message="Rows", repo_type="dataset", parent_commit=info.sha
    )  # fmt: skip
    return str(commit.oid)


def _name_repository(run: Path, pinned: Pin) -> None:
    """Has the run's record name the repository instead of the files, if it gives the very same rows."""
    from recipes.config import arguments_from_record
    from recipes.data.splits import build_splits
    from recipes.data.tokenizer import load_tokens

    record = load_record(run)
    recipe = arguments_from_record(dict(record.recipe))
    splits = build_splits(recipe, pinned, load_tokens(record.pins.base_model, recipe.added_tokens), record.data.rules)
    if splits.counts != record.data:
        raise UserError(
            f"{pinned.id} gives other rows than {run} was trained on: train again with it as `dataset_name`"
        )
    files, record.pins.dataset = record.pins.dataset, pinned
    for source in record.leakage or []:
        if source.adapter is None and source.dataset == files.id:
            source.dataset = pinned.id
    record.recipe = {**record.recipe, "dataset_name": pinned.id}
    record.save(run)
