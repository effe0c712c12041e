"""A release: the folder whose files are exactly what is uploaded, chosen by an allow-list."""

import shutil
import tempfile
from pathlib import Path

from model_cards.card import render_card
from model_cards.fingerprint import renderer
from model_cards.free_text import hidden_by_free_text
from model_cards.plots import draw_plots
from push.leaks import refuse_foreign_files, refuse_leaks
from recipes.config import recipe_yaml
from record.adapter_config import check_adapter_config
from record.errors import UserError, make
from record.hashes import sha256_published
from record.predictions import load_predictions
from record.published_recipe import refused_key
from record.release_files import (
    CARD_FILE,
    FORGETTING_FILE,
    RECORD_FILE,
    RUN_FILES,
    VERDICT_FILE,
    recipe_file,
)
from record.run_record import FilePin, Record, load_record
from record.trained_run import load_trained_run
from record.verdict import load_verdict, why_unrelated


def stage(run: Path, repo_id: str, previous_card: str | None, folder: Path, keep_rows: bool = False) -> Record:
    """Writes the release of a scored run into `folder`, replacing what stood there, and takes a last look at it.

    Returns and raises as `lay_out`; besides:
        `UserError`: a file holds what must not leave this machine.
    """
    record = lay_out(run, repo_id, previous_card, folder, keep_rows)
    refuse_leaks(folder, run, record)
    return record


def lay_out(run: Path, repo_id: str, previous_card: str | None, folder: Path, keep_rows: bool = False) -> Record:
    """Writes the release of a scored run into `folder`, replacing what stood there.

    Parameters:
        keep_rows: the run's rows are files of one's own, and neither they nor their place are published.

    Returns:
        The record as published: with the sha256 of every other file.

    Raises:
        `UserError`: the run is not trained or scored to its end, its adapter is not the recorded one, one of its files
        is no plain file of its own, or what people wrote on the card hides what was measured.
    """
    record = load_trained_run(run)
    if record.scores is None:
        raise UserError(f"{run} is not ready to be published: run {make(f'evaluate-{record.name}')} first")
    if isinstance(record.pins.dataset, FilePin) and not record.pins.more_datasets:
        record.recipe = {**record.recipe, "dataset_name": record.pins.dataset.dataset_name}
    _refuse_unreadable(run, record, keep_rows)
    forgetting = [FORGETTING_FILE] if record.forgetting is not None else []
    names = (*RUN_FILES, *forgetting)
    refuse_foreign_files(run, (*names, VERDICT_FILE), folder, record)
    predictions = load_predictions(run)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in names:
        if not (run / name).is_file():
            raise UserError(f"{run} holds no {name}: train and score it again")
        shutil.copyfile(run / name, folder / name)
    if isinstance(record.pins.dataset, FilePin):
        predictions.without_rows().save(folder)
    verdict = load_verdict(run)
    if verdict is not None and (reason := why_unrelated(verdict, repo_id, record, folder)):
        print(f"{run / VERDICT_FILE} is left out: {reason}", flush=True)
        verdict = None
    if verdict is not None:
        shutil.copyfile(run / VERDICT_FILE, folder / VERDICT_FILE)
    record.rendered = renderer()
    draw_plots(record, folder, verdict)
    (folder / recipe_file(record.name)).write_text(recipe_yaml(dict(record.recipe)), encoding="utf-8")
    card = render_card(record, predictions, repo_id, previous_card, verdict)
    if hidden := hidden_by_free_text(card):
        raise UserError(f"{hidden}: correct that text in the {CARD_FILE} of {repo_id}, then publish again")
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    record.files = {path: sha256_published(folder / path) for path in tree(folder)}
    (folder / RECORD_FILE).write_bytes(record.to_bytes())
    return record


def _refuse_unreadable(run: Path, record: Record, keep_rows: bool) -> None:
    """Refuses what a check by others would not even look at."""
    check_adapter_config(run, record.pins.base_model)
    file = record.pins.file
    own_rows = file is not None
    if file is not None and record.pins.more_datasets:
        raise UserError(
            f"{file.id}, one of the datasets of {run}, is a file that nobody else has: put it on the Hub by "
            "`pubrep publish-data FILE owner/name`, name that in `datasets`, and train again"
        )
    if own_rows and not keep_rows:
        raise UserError(
            f"{run} was trained on {record.pins.dataset.id}, which nobody else has: put it on the Hub first, by "
            f"`pubrep publish-data {run} owner/name`, or keep it to yourself by --keep-rows: then only who has the "
            "same file can check the numbers"
        )
    if keep_rows and not own_rows:
        raise UserError(f"the rows of {run} are on the Hub, as {record.pins.dataset.id}: leave out --keep-rows")
    if refused := refused_key(record.recipe):
        raise UserError(f"{run} cannot be published, others would not train it: {refused}")


def adopt_verdict(path: Path, run: Path, repo_id: str) -> None:
    """Keeps the verdict in the file `path`, as `reproduce --json` prints it, in the run's folder: releases carry it.

    Raises:
        `UserError`: it is none, or it does not speak of this run.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            shutil.copyfile(path, Path(folder, VERDICT_FILE))
        except OSError as error:
            raise UserError(f"cannot read the verdict {path}: {error.strerror}") from None
        verdict, record = load_verdict(Path(folder)), load_record(run)
        published = run
        if isinstance(record.pins.dataset, FilePin):
            published = Path(folder)
            load_predictions(run).without_rows().save(published)
        if verdict and (reason := why_unrelated(verdict, repo_id, record, published)):
            raise UserError(f"{path} does not fit {run}: {reason}")
        shutil.move(Path(folder, VERDICT_FILE), run / VERDICT_FILE)


def tree(folder: Path) -> list[str]:
    """Paths of all files in a release, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
