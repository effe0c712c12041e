"""`pubrep help`, for people; `pubrep --json help`, for programs: what click knows of every verb."""

import json
from typing import Any

import click

from record.command_line import Command

# What every verb ends with; `reproduce` and `retrain` end as their verdict says.
EXIT_CODES = {
    0: "it is done",
    1: "it failed: one line on standard error says why, and what to do",
    2: "a slip on the command line or in the recipe: nothing was done",
    130: "interrupted: the same command continues",
}


@click.command(cls=Command, examples=("pubrep help", "pubrep help train", "pubrep --json help"))
@click.argument("verb", required=False)
@click.pass_context
def show(context: click.Context, verb: str | None) -> None:
    """Show what pubrep does, or one VERB; with `pubrep --json help` as JSON.

    The JSON holds every verb with its usage, arguments, options, types, defaults,
    texts, examples and exit codes.
    """
    root = context.find_root()
    assert isinstance(root.command, click.Group)
    command = root.command if verb is None else root.command.get_command(root, verb)
    assert command is not None
    asked = root if verb is None else click.Context(command, info_name=verb, parent=root)
    click.echo(json.dumps(described(asked), indent=1, default=str) if root.params["as_json"] else asked.get_help())


def described(context: click.Context) -> dict[str, Any]:
    """A command and those below it, as click describes them, with their exit codes."""
    info = context.to_info_dict()
    verbs = info["command"].get("commands", {str(context.info_name): info["command"]})
    for verb, command in verbs.items():
        command["exit_codes"] = EXIT_CODES | (_verdicts() if verb in ("reproduce", "retrain") else {})
    return info


def _verdicts() -> dict[int, str]:
    from evaluation.reproduce import EXIT_CODES as BY_VERDICT

    return {code: f"{verdict}, on the last line" for verdict, code in BY_VERDICT.items()}
