"""Publishes a page on which anybody can try an adapter, as a Space; or runs it on this machine.

    python -m serving.space.publish owner/name [--revision COMMIT] [--user NAME] [--space OWNER/NAME] [--private]
    pubrep space owner/name [--port 7860]       (on this machine; also a folder: runs/finance)

The Space holds the files of serving/space/ as they are, and in space.json the adapter's id and commit: it needs nothing
of this repository. Published again it is the same commit, unless something changed.
"""

import argparse
import json
import os
import re
import runpy
import shutil
import signal
import socket
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from record.command_line import Command, RunOrId, run_command
from record.errors import UserError, make, one_line_errors
from record.release_files import CARD_FILE, RUN_FILES, VERDICT_FILE
from record.signs_of_life import silence

SPACE = Path(__file__).with_name("page")
CONFIG_FILE, TEMPLATE = "space.json", "README.md.jinja"
MINUTES = 30


ADAPTER = click.argument("adapter", type=RunOrId())
REVISION = click.option("--revision", default="main", show_default=True, help="The adapter's commit, branch or tag.")


@click.command(cls=Command, examples=("pubrep space owner/name", "pubrep space finance --port 7000"))
@ADAPTER
@REVISION
@click.option("--port", type=click.IntRange(1, 65535), help="Where it listens (the first free one from 7860 on).")
def space(adapter: str, revision: str, port: int | None) -> None:
    """Try ADAPTER, an id or the folder of a scored run, in a browser on this machine."""
    with one_line_errors(), tempfile.TemporaryDirectory() as folder:
        run_here(adapter, revision, Path(folder), port)


@click.command(cls=Command, examples=("pubrep publish-space owner/name", "pubrep publish-space owner/name --private"))
@ADAPTER
@REVISION
@click.option("--user", help="Owner of the Space (your own name on the Hub unless given).")
@click.option("--space", metavar="OWNER/NAME", help="Id of the Space (USER/ADAPTER'S NAME-space unless given).")
@click.option("--private", is_flag=True, help="Make a new Space private.")
def command(**options: Any) -> None:
    """Publish a page on which anybody can try ADAPTER, as a Space.

    Published again it is the same commit, unless something changed.
    """
    with one_line_errors(), tempfile.TemporaryDirectory() as folder:
        publish(argparse.Namespace(**options), Path(folder))


def main(argv: list[str]) -> None:
    run_command(command, argv, "python -m serving.space.publish")


# Long by the checks that come before the one thing done, in the order in which they cost.
def lay_out(adapter: str, revision: str, folder: Path) -> dict[str, Any]:
    """Writes the Space of a published adapter, or of the scored run in the folder `adapter`, into `folder`.

    Whatever of the release the page will load is looked at here, at the commit that the page is pinned to.

    Returns:
        What space.json says: `adapter`, its commit `revision`, None for a folder, and of its card the `verdict` in a
        line, None where it has none, and the `concerns`.

    Raises:
        `UserError`: it is no scored adapter of this project, files differ from its record, its configuration asks for
            what no adapter here does, or its base model is none that is loaded here.
    """
    from huggingface_hub import SpaceCard, SpaceCardData

    from hub.pins import locate
    from hub.release import pull
    from model_cards.overview import related_verdict
    from model_cards.plots import badge_text
    from recipes.base_model import base_config
    from record.adapter_config import check_adapter_config
    from record.predictions import load_predictions
    from record.run_record import load_record
    from scoring.concerns import find_concerns

    if Path(adapter).is_dir():
        release, commit = Path(adapter).resolve(), None
        record = load_record(release)
    else:
        adapter, commit = locate(adapter, revision)
        listed = pull(adapter, commit, names=[]).record.files
        files = [CARD_FILE, *RUN_FILES, *({VERDICT_FILE} & listed.keys())]
        published = pull(adapter, commit, files).require_whole()
        release, record = published.folder, published.record
    if record.training is None or record.scores is None or record.contract is None:
        raise UserError(f"{adapter} has no scores yet: run {make(f'evaluate-{record.name}')} first")
    base = record.pins.base_model
    check_adapter_config(release, base)
    predictions = load_predictions(release, rows=record.scores.rows)
    if commit is not None and record.pins.file is not None:
        raise UserError(f"the rows of {adapter} were not published, and the page shows examples of them: no Space")
    base_config(base)
    for path in SPACE.glob("*"):
        if path.suffix in (".py", ".txt"):
            shutil.copyfile(path, folder / path.name)
    config = {
        "adapter": str(release) if commit is None else adapter,
        "revision": commit,
        "verdict": f"{badge_text(verdict, own=commit is None)}, of commit {(verdict.revision or '')[:12]}"
        if (verdict := related_verdict(adapter, commit, record, release))
        else None,
        "concerns": find_concerns(record, predictions),
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    if commit is not None:
        title = record.recipe["title"]
        card = SpaceCardData(
            title=title,
            sdk="gradio",
            sdk_version=pinned("gradio"),
            python_version="3.11",
            app_file="app.py",
            license="apache-2.0",
            models=[adapter, base.id],
            datasets=list(dict.fromkeys(dataset.id for dataset in record.pins.datasets)),
            short_description="Base model and adapter, side by side",
        )
        filled = SpaceCard.from_template(
            card, template_path=str(SPACE / TEMPLATE), adapter=adapter, revision=commit, base=base.id
        )
        (folder / CARD_FILE).write_text(str(filled), encoding="utf-8")
    return config


def pinned(package: str) -> str:
    """The version of a package that the Space installs."""
    return re.search(rf"^{package}==(\S+)", (SPACE / "requirements.txt").read_text(), re.MULTILINE)[1]


def run_here(adapter: str, revision: str, folder: Path, port: int | None) -> None:
    """Runs the page until it is stopped."""
    if find_spec("gradio") is None:
        raise UserError("the page needs Gradio: install the extra, pip install -r requirements-space.txt")
    if port is not None:
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as error:
            raise UserError(f"cannot listen on port {port}: {error}: choose another with --port") from None
    print(f"Preparing the page of {adapter}: its files first, then the models", flush=True)
    lay_out(adapter, revision, folder)
    if port is not None:
        os.environ["GRADIO_SERVER_PORT"] = str(port)
    # So that a stop, too, removes the folder.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.path.insert(0, str(folder))
    with silence():
        runpy.run_path(str(folder / "app.py"), run_name="__main__")


def publish(arguments: argparse.Namespace, folder: Path) -> None:
    """Puts the Space into its repository in one commit, and checks what came of it; what is there already stays.

    Raises:
        `UserError`: the adapter is a folder or cannot be shown, or the Space's name is taken by something else.
    """
    from huggingface_hub import constants

    from hub.pins import name_on_hub
    from hub.retry import bounded_silence, time_limit
    from push.one_commit import publish_folder
    from push.publish import owner_of
    from push.repository import Target

    adapter = arguments.adapter
    if Path(adapter).is_dir():
        raise UserError(f"{adapter} is a folder: publish the adapter first, then its Space by the adapter's id")
    with bounded_silence(), time_limit(MINUTES):
        owner = owner_of(arguments.user or (arguments.space or "").partition("/")[0] or None)
    space = name_on_hub("space", arguments.space or f"{owner}/{adapter.rpartition('/')[2][:90]}-space")

    def lay_out_page(card: str | None) -> str:
        lay_out(adapter, arguments.revision, folder)
        return f"A page to try {adapter}"

    progress = publish_folder(
        Target(space, private=arguments.private, kind="space"), folder, CONFIG_FILE, lay_out_page,
        "exists and is another Space: choose a name with --space OWNER/NAME", MINUTES,
    )  # fmt: skip
    word = "Unchanged:" if progress.state == "unchanged" else "Published"
    print(f"{word} {constants.ENDPOINT}/spaces/{space} at commit {progress.commit}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
