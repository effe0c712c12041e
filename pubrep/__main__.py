"""The front door: `pubrep VERB`, one verb for each thing that make does.

Each verb is a click command in the module that does the work; it is imported when it is asked for.
"""

import os
import sys
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click

from record.command_line import RUNS, SETTINGS, run_command
from record.errors import ON_LOCAL_HUB
from record.signs_of_life import signs_of_life, silence

# By verb: where its command stands, what it does, and whether it speaks with a Hub.
VERBS: dict[str, tuple[str, str, bool]] = {
    "plan": ("pubrep.plan:plan", "Say what a recipe needs, before hours are spent.", True),
    "train": ("pubrep.train:train", "Train a recipe's adapter; continue an interrupted run.", True),
    "sweep": ("pubrep.sweep:sweep", "Train and score a recipe with several settings.", True),
    "evaluate": ("evaluation.evaluate:command", "Score base model and adapter on the test rows.", True),
    "publish": ("push.publish:command", "Publish scored runs to the Hub, one commit each.", True),
    "publish-data": ("push.publish_data:command", "Put rows of your own on the Hub.", True),
    "reproduce": ("evaluation.reproduce:command", "Check a published adapter's numbers.", True),
    "vouch": ("push.vouch:command", "Check a published adapter, and propose the verdict.", True),
    "check": ("evaluation.check:command", "Score anybody's adapter, and judge a claimed score.", True),
    "retrain": ("evaluation.reproduce:retrain", "Train a published adapter again, and compare.", True),
    "withdraw": ("push.withdraw:command", "Mark a published version as withdrawn.", True),
    "export": ("serving.export.make:command", "Convert an adapter for hosts without a GPU.", True),
    "serve": ("serving.server:command", "Answer over HTTP as OpenAI does.", True),
    "space": ("serving.space.publish:space", "Try an adapter in a browser, on this machine.", True),
    "publish-space": ("serving.space.publish:command", "Publish that page as a Space.", True),
    "export-results": (
        "model_cards.results.export:command",
        "Write scores in formats that others read.",
        True,
    ),
    "report": ("model_cards.overview:command", "Put scored runs on one page, row by row.", True),
    "compare": ("model_cards.compare:command", "Put base models side by side.", False),
    "claims": ("readme.claims:command", "Bring README's results up to date from the Hub.", True),
    "readme": ("readme.render:command", "Render README's tables from kept files.", False),
    "hub": ("pubrep.hub:hub", "Run the local Hub in the foreground.", False),
    "demo": ("pubrep.demo:demo", "Go the whole loop on the local Hub.", False),
    "help": ("pubrep.help:show", "Show this, or one verb; with --json for programs.", False),
    "bench": ("benchmarks.__main__:command", "Measure this project next to its peers.", False),
}


def enter_local_hub(context: click.Context, option: click.Parameter, hub: str) -> None:
    """Starts this command again as a client of the local Hub: clients read its address when they are imported."""
    if hub != "local" or ON_LOCAL_HUB in os.environ:
        return
    root = os.environ.get("LOCAL_HUB_ROOT") or ".local_hub"
    environ = {RUNS: f"{root}/runs"} | os.environ | {ON_LOCAL_HUB: "1"}
    # A miniature gains nothing from a second thread, and loses much where threads have to wait for a core.
    environ.setdefault("OMP_NUM_THREADS", "1")
    organisation = ["--org", name] if (name := _option("--org")) else []
    words = [sys.executable, "-m", "local_hub", "run", *organisation, "--", sys.executable, "-m", "pubrep"]
    with silence():
        os.execve(sys.executable, [*words, *sys.argv[1:]], environ)


def _option(name: str) -> str | None:
    """The value that the command line gives an option of the verb: it is not parsed yet."""
    for place, word in enumerate(sys.argv):
        if word == name and place + 1 < len(sys.argv):
            return sys.argv[place + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


class Verbs(click.Group):
    """The verbs, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        # What is installed lacks the rooms that only a clone has.
        return [verb for verb, (place, _, _) in VERBS.items() if find_spec(place.partition(".")[0])]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            near = get_close_matches(cmd_name, VERBS, 1)
            raise click.UsageError(f"There is no verb '{cmd_name}'{f': did you mean {near[0]}?' if near else '.'}", ctx)
        place, _, speaks_with_hub = VERBS[cmd_name]
        module, _, name = place.partition(":")
        try:
            command: click.Command = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "benchmarks":
                raise click.UsageError(
                    f"`{cmd_name}` needs a clone of the project: it is not installed with it."
                ) from None
            raise
        command.name = cmd_name
        if speaks_with_hub and all(option.name != "hub" for option in command.params):
            command.params.append(
                click.Option(
                    ["--hub"],
                    type=click.Choice(["real", "local"]),
                    default="real",
                    is_eager=True,
                    expose_value=False,
                    callback=enter_local_hub,
                    help="The Hugging Face Hub, or the local Hub with its miniatures.",
                    show_default=True,
                )
            )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, line) for verb, (_, line, _) in VERBS.items()])


@click.command(cls=Verbs, context_settings=SETTINGS)
@click.option("--json", "as_json", is_flag=True, help="With `help`: every verb and option as JSON.")
@click.pass_context
def pubrep(context: click.Context, as_json: bool) -> None:
    """Train adapters, publish them with their numbers, and check anybody's.

    \b
    pubrep demo                                      # the whole loop, no account
    pubrep reproduce owner/name --level score        # check numbers, no model

    Completion for your shell: eval "$(_PUBREP_COMPLETE=bash_source pubrep)", also
    zsh_source and fish_source.
    """
    if as_json and context.invoked_subcommand != "help":
        raise click.UsageError("--json stands before `help` alone: `pubrep --json help`.")


def quiet_libraries() -> None:
    """Bars of libraries: none in a log, and on a terminal none for work of less than a second, nor one that stays.

    They read the environment when they are imported, and so do the processes that this one starts.
    """
    bars = {"TQDM_DELAY": "1", "TQDM_LEAVE": "", "TQDM_DYNAMIC_NCOLS": "1"}
    none = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    for name, value in (bars if sys.stderr.isatty() else none).items():
        os.environ.setdefault(name, value)


def main(argv: list[str] | None = None) -> None:
    """The command `pubrep`."""
    # So that `python -m pubrep` finds a clone's own recipes, whatever folder it is called in.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        dict.fromkeys([str(Path(__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    ).rstrip(os.pathsep)
    quiet_libraries()
    with signs_of_life():
        run_command(pubrep, sys.argv[1:] if argv is None else argv, "pubrep")


if __name__ == "__main__":
    main()
