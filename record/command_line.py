"""What all commands share: one line for a slip on the command line, and names for what people type again and again."""

import inspect
import os
import sys
from pathlib import Path
from typing import Any

import click

from record.errors import INTERRUPTED, last_word, one_line

RECIPES = Path(__file__).parents[1] / "recipes"
# Where runs lie: `pubrep --hub local` and make set it.
RUNS = "PUBREP_RUNS"
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 78}


identity_token_option = click.option(
    "--identity-token",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File with the token that names you (OpenID Connect).",
)
trust_config_option = click.option(
    "--trust-config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Sigstore instance that certifies identities (ClientTrustConfig); the public one unless given.",
)


class Command(click.Command):
    """A command whose help ends with examples, one a line."""

    def __init__(self, name: str | None, examples: tuple[str, ...] = (), **options: Any) -> None:
        self.examples = examples
        lines = "\n".join(f"  {example}" for example in examples)
        options["context_settings"] = SETTINGS | options.get("context_settings", {})
        options["epilog"] = f"\b\nExamples:\n{lines}"
        super().__init__(name, **options)

    def to_info_dict(self, ctx: click.Context) -> dict[str, Any]:
        """As click's, with usage and examples as programs read them."""
        info = super().to_info_dict(ctx) | {"usage": self.get_usage(ctx), "examples": list(self.examples)}
        info["help"] = inspect.cleandoc((self.help or "").replace("\b", ""))
        del info["epilog"]
        return info


class Run(click.ParamType[Path]):
    """The folder of a run, or the name of a recipe whose run lies in the folder of runs."""

    name = "run"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(value)
        return runs() / value if not path.exists() and os.sep not in value and recipe_path(value).is_file() else path


class RunOrId(Run):
    """As `Run`, or the id of a published adapter: a text."""

    name = "adapter"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return str(super().convert(value, param, ctx))


def runs() -> Path:
    """The folder of runs."""
    return Path(os.environ.get(RUNS) or "runs")


def recipe_path(name: str) -> Path:
    """Where the YAML of a shipped recipe lies, or would lie."""
    return RECIPES / f"{name}.yaml"


def find_recipe(recipe: str) -> Path:
    """The YAML file that is named, or that of the shipped recipe of that name.

    Raises:
        `click.UsageError`: there is neither.
    """
    path = recipe_path(recipe) if not Path(recipe).exists() and recipe_path(recipe).is_file() else Path(recipe)
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
        raise click.UsageError(f"There is no recipe {recipe!r}: name a YAML file, or one of {shipped}.")
    return path


def run_command(command: click.Command, argv: list[str], name: str) -> None:
    """Runs a command line; returns only where it succeeded.

    A slip (an unknown option, a wrong value, a missing argument) ends the process with one line and exit code 2.
    """
    try:
        code = command.main(argv, name, standalone_mode=False)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else name
        if last_word(2):
            print(f"error: {one_line(error.format_message())} See `{where} --help`.", file=sys.stderr, flush=True)
        sys.exit(2)
    except click.Abort:
        if last_word(130):
            print(INTERRUPTED, file=sys.stderr, flush=True)
        sys.exit(130)
    if isinstance(code, int) and code:
        sys.exit(code)
