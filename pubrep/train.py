"""`pubrep train`: starts `recipes.train` through `accelerate launch`.

What is launched is this module: it gives signs of life while `recipes.train` is imported.
"""

import shutil
import sys
from pathlib import Path

import click

from recipes.launch import accelerate_option, launch
from record.command_line import RECIPES, Command, find_recipe, runs
from record.signs_of_life import LOADING, signs_of_life


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
@accelerate_option
def train(recipe: str, keys: tuple[str, ...], output_dir: Path | None, accelerate: Path | None) -> None:
    """Train RECIPE, a shipped recipe's name or a YAML file of yours.

    Every key of the recipe can be overridden: --KEY VALUE. Started again after an
    interruption, it continues.
    """
    path = find_recipe(recipe)
    if stray := next((word for word in keys[:1] if not word.startswith("--")), None):
        raise click.UsageError(f"{stray!r} is not an override: write --KEY VALUE.")
    device = "gpu" if has_gpu() else "cpu"
    config = ["--quiet", "--config_file", str(accelerate or RECIPES / "accelerate" / f"{device}.yaml")]
    run = ["--config", str(path), "--output_dir", str(output_dir or runs() / path.stem), *keys]
    sys.exit(launch([*config, "-m", "pubrep.train", *run]))


def has_gpu() -> bool:
    """Whether this machine seems to have a GPU of NVIDIA; no torch, which takes seconds to load."""
    return shutil.which("nvidia-smi") is not None


if __name__ == "__main__":
    with signs_of_life(LOADING):
        from recipes.train import main

        main(sys.argv[1:])
