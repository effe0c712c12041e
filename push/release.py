"""A release: the folder whose files are exactly what is uploaded, chosen by an allow-list."""

import re
import shutil
from pathlib import Path

from evaluation.predictions import FORGETTING_FILE, PREDICTIONS_FILE, load_predictions
from model_cards.card import render_card
from model_cards.check import renderer
from model_cards.plots import draw_plots
from recipes.adapter_config import check_adapter_config
from recipes.allowed import refused_key
from recipes.config import recipe_yaml
from recipes.errors import UserError
from recipes.pins import ADAPTER_FILE
from recipes.record import RECORD_FILE, Record, load_record, sha256_file, sha256_published

# The only files of a run folder that are ever uploaded. `training_args.bin` and checkpoints are pickles.
REQUIRED_FILES = ("adapter_config.json", ADAPTER_FILE, "tokenizer.json", "tokenizer_config.json",
                  PREDICTIONS_FILE)  # fmt: skip
SECRETS = re.compile(
    rb"hf_[A-Za-z0-9]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}"
)


def stage(run: Path, repo_id: str, previous_card: str | None, folder: Path) -> Record:
    """Writes the release of a scored run into `folder`, replacing what stood there.

    Returns:
        The record as published: with the sha256 of every other file.

    Raises:
        `UserError`: the run is not trained or scored to its end, its adapter is not the recorded one, or a file holds
        what must not leave this machine.
    """
    record = load_record(run)
    if record.training is None or record.scores is None:
        step = "train" if record.training is None else "evaluate"
        raise UserError(f"{run} is not ready to be published: run make {step}-{record.name} first")
    if not (run / ADAPTER_FILE).is_file():
        raise UserError(f"{run} holds no {ADAPTER_FILE}: train it again")
    if sha256_file(run / ADAPTER_FILE) != record.training.adapter_sha256:
        raise UserError(f"{run}/{ADAPTER_FILE} is not the adapter that its record speaks of: train it again")
    _refuse_unreadable(run, record)
    predictions = load_predictions(run)
    forgetting = [FORGETTING_FILE] if record.forgetting is not None else []
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in (*REQUIRED_FILES, *forgetting):
        if not (run / name).is_file():
            raise UserError(f"{run} holds no {name}: train and score it again")
        shutil.copyfile(run / name, folder / name, follow_symlinks=False)
    record.rendered = renderer()
    draw_plots(record, folder)
    (folder / f"{record.name}.yaml").write_text(recipe_yaml(record.recipe), encoding="utf-8")
    (folder / "README.md").write_text(render_card(record, predictions, repo_id, previous_card), encoding="utf-8")
    record.files = {path: sha256_published(folder / path) for path in tree(folder)}
    (folder / RECORD_FILE).write_bytes(record.to_bytes())
    # Inside the parquet file the texts are compressed.
    texts = "\n".join(
        text for column in ("prompt", "reference", "base", "adapter") for text in getattr(predictions, column)
    )
    _refuse_secrets(folder, texts.encode())
    return record


def _refuse_unreadable(run: Path, record: Record) -> None:
    """Refuses what a check by others would not even look at."""
    check_adapter_config(run, record.pins.base_model)
    if refused := refused_key(record.recipe):
        raise UserError(f"{run} cannot be published, others would not train it: {refused}")


def tree(folder: Path) -> list[str]:
    """Paths of all files in a release, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _refuse_secrets(folder: Path, predictions: bytes) -> None:
    if SECRETS.search(predictions):
        raise UserError(f"{PREDICTIONS_FILE} holds what looks like a token or private key: remove it from the dataset")
    for path in tree(folder):
        if (folder / path).is_symlink():
            raise UserError(f"{path} is a symbolic link: a release holds plain files only")
        if SECRETS.search((folder / path).read_bytes()):
            raise UserError(
                f"{path} holds what looks like a token or private key: remove it from the run, then publish"
            )
