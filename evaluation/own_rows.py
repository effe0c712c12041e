"""A release whose rows stayed with its publisher: what is checked without them, and how they are put back.

Such a record pins its rows by their sha256 alone (`record.run_record.FilePin`), and its predictions hold only what the
models wrote.
"""

from dataclasses import replace
from pathlib import Path

from datasets import Dataset
from tokenizers import Tokenizer

from evaluation.checks import check_texts, read_predictions
from evaluation.findings import Drift
from recipes.data.local_files import pin_files
from recipes.data.splits import equals_of
from record.errors import UserError
from record.predictions import Predictions
from record.release_files import PREDICTIONS_FILE
from record.run_record import FilePin, Record
from record.verdict import Part

# What nobody can check without the rows.
NEEDS_ROWS: dict[Part, str] = {
    "data": "the test rows",
    "leakage": "copies of test rows among the training rows",
    "scoring": "the scores",
    "card": "the card and its pictures",
    "generation": "what the models write",
}


def refuse_other_rows(record: Record, data: Path | None) -> None:
    """Refuses a file for `--data` that is not the one that the record pins; and one file among several datasets.

    Raises:
        `UserError`: it is another one, there is none, or the rows of the record are on the Hub.
    """
    pinned = record.pins.dataset
    if record.pins.more_datasets and (file := record.pins.file) is not None:
        raise UserError(
            f"{file.id}, one of its datasets, is a file that only its publisher has: nothing can be checked"
        )
    if data is None:
        return
    if not isinstance(pinned, FilePin):
        raise UserError(f"the rows of this run are on the Hub, as {pinned.id}: leave out --data")
    found = pin_files(str(data))
    if found.revision != pinned.revision:
        raise UserError(
            f"{data} is not the {pinned.id} of this run: its sha256 is {found.revision}, the record pins "
            f"{pinned.revision}. Ask the publisher for that one"
        )
    if Path(found.id).suffix.lower() != Path(pinned.id).suffix.lower():
        # Another reader would make other rows of the same bytes.
        raise UserError(f"{data} holds the right bytes under another kind of name: call it {pinned.id}")


def check_without_rows(folder: Path, record: Record, tokens: Tokenizer) -> str:
    """Checks of the published outputs what needs no row: that there is one a test row, and that they are their tokens.

    Raises:
        `Drift`: they are not, or the release holds rows after all.
    """
    predictions = read_predictions(folder, rows=record.data.test)
    refuse_rows(predictions)
    check_texts(predictions, PREDICTIONS_FILE, tokens)
    return f"{len(predictions.base):,} outputs of each model, each what its tokens say"


def refuse_rows(predictions: Predictions) -> None:
    """Refuses prompts, references and tables in a release whose rows stayed with the publisher.

    Raises:
        `Drift`: there are some.
    """
    if predictions != predictions.without_rows():
        raise Drift("data", f"{PREDICTIONS_FILE} holds rows, of which the record says that they were not published")


def with_rows(predictions: Predictions, test: Dataset) -> Predictions:
    """The published outputs next to the test rows that they answer.

    Raises:
        `Drift`: the release holds rows after all.
    """
    refuse_rows(predictions)
    columns = {"prompt": "prompt", "reference": "target", "schema": "schema"}
    rows = {name: test[column][:] for name, column in columns.items()}
    return replace(predictions, **rows, references=equals_of(test))


def how_to_check(record: Record) -> str:
    """Why a check ends without the rows, what it did not look at, and how to go on, in one line."""
    pinned = record.pins.dataset
    return (
        f"only its publisher has its rows. Not checked: {', '.join(NEEDS_ROWS.values())}. Whoever has {pinned.id} "
        f"(sha256 {pinned.revision}) checks the rest with --data {pinned.id}"
    )
