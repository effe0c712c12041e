"""A run that was trained to its end, in a folder of this machine."""

from pathlib import Path

from record.errors import UserError, make
from record.hashes import sha256_file
from record.release_files import ADAPTER_FILE
from record.run_record import Record, load_record


def load_trained_run(run: Path) -> Record:
    """The record of the run in the folder `run`, trained to its end, its adapter the recorded one.

    Raises:
        `UserError`: it is not.
    """
    record = load_record(run)
    if record.evaluated is not None:
        raise UserError(
            f"{run} holds scores of {record.evaluated.source.id}, which was not trained here: publish it by "
            f"`hf upload OWNER/NAME {run}`"
        )
    if record.training is None:
        raise UserError(f"{run} is not trained to its end: run {make(f'train-{record.name}')} again, it continues")
    if not (run / ADAPTER_FILE).is_file():
        raise UserError(f"{run} holds no {ADAPTER_FILE}: train it again")
    if sha256_file(run / ADAPTER_FILE) != record.training.adapter_sha256:
        raise UserError(f"{run}/{ADAPTER_FILE} is not the adapter that its record speaks of: train it again")
    return record
