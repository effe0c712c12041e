"""`pubrep hub`: the local Hub in the foreground."""

import os
import sys

import click

from record.command_line import Command
from record.signs_of_life import silence


@click.command(cls=Command, examples=("pubrep hub", "pubrep hub --port 9000"))
@click.option("--port", type=click.IntRange(0, 65_535), default=8765, show_default=True, help="0 takes a free one.")
def hub(port: int) -> None:
    """Run the local Hub in the foreground, until Ctrl-C."""
    with silence():
        os.execv(sys.executable, [sys.executable, "-m", "local_hub", "serve", "--port", str(port)])
