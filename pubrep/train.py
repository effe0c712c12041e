"""`pubrep train`: starts `recipes.train` through `accelerate launch`."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import click

from record.command_line import RECIPES, Command, find_recipe, runs
from record.errors import SLIP


@click.command(
    cls=Command,
    context_settings={"ignore_unknown_options": True},
    examples=(
        "pubrep train finance",
        "pubrep train my-task.yaml --learning_rate 5e-4",
        "pubrep train finance --hub local --max_steps 2",
    ),
)
@click.argument("recipe")
@click.argument("keys", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
@click.option("--output_dir", type=click.Path(path_type=Path), help="Folder of the run (RUNS/RECIPE unless given).")
@click.option(
    "--accelerate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="How to launch: a configuration of accelerate (one GPU where there is one, else the CPU).",
)
def train(recipe: str, keys: tuple[str, ...], output_dir: Path | None, accelerate: Path | None) -> None:
    """Train RECIPE, a shipped recipe's name or a YAML file of yours.

    Every key of the recipe can be overridden: --KEY VALUE. Started again after an
    interruption, it continues.
    """
    path = find_recipe(recipe)
    if stray := next((word for word in keys[:1] if not word.startswith("--")), None):
        raise click.UsageError(f"{stray!r} is not an override: write --KEY VALUE.")
    device = "gpu" if shutil.which("nvidia-smi") else "cpu"
    launch = ["--quiet", "--config_file", str(accelerate or RECIPES / "accelerate" / f"{device}.yaml")]
    if sys.stdout.isatty():
        print(f"Training {path.stem}: PyTorch is loaded first, some seconds", flush=True)
    run = ["--config", str(path), "--output_dir", str(output_dir or runs() / path.stem), *keys]
    words = [sys.executable, "-m", "accelerate.commands.launch", *launch, "-m", "recipes.train", *run]
    sys.exit(_exit_code(words))


def _exit_code(words: list[str]) -> int:
    """Runs a launch of accelerate, which ends with 1 for whatever its processes end with: a slip has exit code 2."""
    with tempfile.TemporaryDirectory() as folder:
        slip = Path(folder) / "slip"
        # Signals are for `recipes.train`: whoever waits for it must not end before it, the launch among them, which
        # takes this over. Ctrl-C reaches it by itself, SIGTERM is passed on.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        process = subprocess.Popen(words, env=os.environ | {SLIP: str(slip)})
        signal.signal(signal.SIGTERM, lambda *_: _pass_on(process))
        code = process.wait()
        return 2 if slip.exists() else code if code >= 0 else 128 - code


def _pass_on(launch: subprocess.Popen[bytes]) -> None:
    # It comes with accelerate, which the package alone does not bring.
    import psutil

    for process in psutil.Process(launch.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.terminate()
