"""Publishes scored runs to the Hub: one commit each, then pulled back and checked.

    python -m push.publish runs/finance [runs/text2sql ...] [--user NAME | --org NAME] [--dry-run] [--sign KEY.pem]

Runs go in the order of their chain; what fails does not stop the others. Run again after any failure or interruption,
it finishes what is missing and repeats nothing. Exit 0: everything is published and checked; 1: something is not, and
what.
"""

import argparse
import os
import sys
import traceback
from dataclasses import fields
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from record.command_line import Command, Run, identity_token_option, run_command, runs, trust_config_option
from record.errors import UserError, explanation, make, one_line_errors
from record.run_record import Pin, Record, load_record

if TYPE_CHECKING:
    from push.delivery import Delivery, Options

# Minutes for a last look at the repository after a failure.
LAST_LOOK = 0.2


@click.command(
    cls=Command,
    examples=(
        "pubrep publish finance --dry-run",
        "pubrep publish finance --org acme --private",
        "pubrep publish --all",
    ),
)
@click.argument("runs", nargs=-1, type=Run())
@click.option("--all", "every", is_flag=True, help="Publish every scored run.")
@click.option("--user", help="Owner of the repositories (your own name on the Hub unless given).")
@click.option("--org", help="Organisation that owns the repositories, of which you are a member.")
@click.option("--revision", default="main", show_default=True, help="Branch to publish on; made if it does not exist.")
@click.option("--pr", is_flag=True, help="Open a pull request instead of a commit.")
@click.option("--private", is_flag=True, help="Make new repositories private.")
@click.option("--collection", metavar="TITLE", help="Put the adapters into the owner's collection of this title.")
@click.option(
    "--overwrite", metavar="COMMIT", help="Replace what somebody else wrote, if this is still the newest commit."
)
@click.option(
    "--sign", type=click.Path(path_type=Path), metavar="KEY", help="PEM file of the private key that signs the release."
)
@click.option("--sign-identity", is_flag=True, help="Sign as whom a token names: of a file, the CI job or the browser.")
@identity_token_option
@trust_config_option
@click.option(
    "--verdict",
    type=click.Path(path_type=Path),
    metavar="JSON",
    help="Show this verdict of `reproduce --json` on the card.",
)
@click.option(
    "--keep-rows",
    is_flag=True,
    help="Publish runs on files of your own without their rows: who has the file can check them.",
)
@click.option("--time-limit", type=float, default=60, metavar="MINUTES", show_default=True, help="For each run.")
@click.option("--dry-run", is_flag=True, help="Print what would be uploaded; upload nothing.")
def command(every: bool, **options: Any) -> None:
    """Publish scored RUNS to the Hub: one commit each, then pulled back and checked.

    RUNS are folders, or names of recipes. They go in the order of their chain; what
    fails does not stop the others. Run again after any failure, it finishes what is
    missing and repeats nothing.
    """
    if every == bool(options["runs"]):
        raise click.UsageError("Name the runs to publish, or --all.")
    if options["user"] and options["org"]:
        raise click.UsageError("--user and --org exclude each other: name one owner.")
    if options["sign"] and options["sign_identity"]:
        raise click.UsageError("--sign and --sign-identity exclude each other: a release has one signature.")
    if (options["identity_token"] or options["trust_config"]) and not options["sign_identity"]:
        raise click.UsageError("--identity-token and --trust-config are for --sign-identity: add that.")
    if every:
        options["runs"] = [path.parent for path in sorted(runs().glob("*/record.json"))] or [runs() / "finance"]
    with one_line_errors():
        publish(argparse.Namespace(**options))


def main(argv: list[str]) -> None:
    run_command(command, argv, "python -m push.publish")


def publish(arguments: argparse.Namespace) -> None:
    """Publishes every run that the command line names, and tells at the end what came of each.

    Raises:
        `UserError`: not everything is published and checked.
    """
    from hub.retry import bounded_silence, time_limit
    from push.delivery import Delivery, Options

    if arguments.time_limit <= 0:
        raise UserError(f"`--time-limit` is a number of minutes above 0, not {arguments.time_limit:g}")
    options = Options(**{item.name: getattr(arguments, item.name) for item in fields(Options)})
    minutes, deliveries = arguments.time_limit, []
    with bounded_silence():
        with time_limit(minutes):
            owner = owner_of(arguments.user, arguments.org)
        for run in in_chain_order(arguments.runs):
            delivery = Delivery(run)
            deliveries.append(delivery)
            record = _readable(run)
            if len(arguments.runs) > 1 and record is not None and record.scores is None:
                delivery.state = "left out: not scored yet"
                continue
            try:
                with time_limit(minutes):
                    _deliver(delivery, owner, options)
            except KeyboardInterrupt:
                raise UserError(f"interrupted: {_what_is_left(delivery, options)}") from None
            except Exception as error:
                line = explanation(error)
                if line is None:
                    traceback.print_exc()
                    line = f"{type(error).__name__}, see above: a bug of this program"
                delivery.state, delivery.failure = "FAILED", f"{line}; {_what_is_left(delivery, options)}"
        uncollected = None
        if arguments.collection and any(delivery.tag for delivery in deliveries):
            try:
                with time_limit(minutes):
                    _collect(owner, arguments.collection, deliveries, arguments.private)
            except Exception as error:
                uncollected = explanation(error)
                if uncollected is None:
                    raise
    _print_outcome(deliveries)
    if uncollected is not None:
        raise UserError(f"published, but not put into {arguments.collection!r}: {uncollected}; run the command again")


def in_chain_order(runs: list[Path]) -> list[Path]:
    """The runs, each after the one whose adapter it continues.

    Raises:
        `UserError`: two of them have the same adapter name, or continue each other.
    """
    names: dict[str, Path] = {}
    parents: dict[Path, Pin | None] = {}
    for run in runs:
        record = _readable(run)
        if record is None:
            parents[run] = None
            continue
        name = str(record.recipe.get("adapter_name"))
        if name in names:
            raise UserError(f"{names[name]} and {run} would both be published as {name}: name one of them")
        names[name], parents[run] = run, record.pins.parent_adapter
    graph = {run: [names[name]] if pin and (name := pin.id.rpartition("/")[2]) in names else []
             for run, pin in parents.items()}  # fmt: skip
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise UserError(f"these runs continue each other: {', '.join(map(str, error.args[1]))}") from None


def _readable(run: Path) -> Record | None:
    try:
        return load_record(run)
    except UserError:
        # The line about it comes when its turn does.
        return None


def owner_of(user: str | None, org: str | None = None) -> str:
    """Whose repositories are written to: the organisation, the user, or who owns the token.

    Raises:
        `UserError`: there is no token, or the organisation is not one of its owner's.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    from hub.retry import retry

    if get_token() is None:
        raise UserError("no token: run `hf auth login` or set HF_TOKEN, or add HUB=local to try on the local Hub")
    if org is not None:
        mine = [str(member["name"]) for member in retry("signing in", HfApi().whoami).get("orgs", [])]
        own = next((name for name in mine if name.casefold() == org.casefold()), None)
        if own is None:
            raise UserError(f"you are not a member of the organisation {org} (yours: {', '.join(mine) or 'none'})")
        return own
    if resource := os.environ.get("HF_OIDC_RESOURCE"):
        # A Trusted Publisher's token is the repository's, not a user's.
        return user or resource.rpartition("/")[0].rpartition("/")[2]
    try:
        me = retry("signing in", lambda: HfApi().whoami(cache=True))
    except HfHubHTTPError:
        if user is None:
            raise
        # What is wrong with the token is told where it is used.
        return user
    names = [str(account["name"]) for account in (me, *me.get("orgs", []))]
    # The Hub takes a name in any case, and has one of its own for it, which the card states.
    owner = user or names[0]
    return next((name for name in names if name.casefold() == owner.casefold()), owner)


def _deliver(delivery: "Delivery", owner: str, options: "Options") -> None:
    from huggingface_hub.constants import ENDPOINT

    from push.delivery import deliver

    print(f"Publishing {delivery.run}", flush=True)
    deliver(delivery, owner, options)
    named = f"{delivery.repo_id}@{delivery.commit}" + (f" as {delivery.tag}" if delivery.tag else "")
    if delivery.state != "dry run":
        print(
            f"  {named}: every file came back as it was sent, and the adapter wrote the first row's answer again",
            flush=True,
        )
    if delivery.private and not options.private:
        print(
            f"  {delivery.repo_id} is private, though --private was not given (an organisation may make new "
            f"repositories so): only its members can check it, until it is made public at "
            f"{ENDPOINT}/{delivery.repo_id}/settings",
            flush=True,
        )


def _what_is_left(delivery: "Delivery", options: "Options") -> str:
    """What a failure leaves behind, and what to do."""
    from hub.retry import time_limit
    from push.delivery import settle

    try:
        with time_limit(LAST_LOOK):
            settle(delivery, options)
    except Exception as error:
        if explanation(error) is None:
            raise
    if delivery.reached == "committed":
        return (
            f"{delivery.repo_id}@{delivery.commit} is committed, but not checked to its end: run the same command again"
        )
    if delivery.reached == "sent":
        return f"whether {delivery.repo_id} received the commit is not known: the same command, run again, finds out"
    return "no file of a release was changed on the Hub"


def _collect(owner: str, title: str, deliveries: "list[Delivery]", private: bool) -> None:
    from huggingface_hub import HfApi

    from hub.retry import retry
    from push.repository import collect

    notes = {delivery.repo_id: delivery.note for delivery in deliveries if delivery.tag}
    url = retry(f"collecting in {title}", lambda: collect(HfApi(), owner, title, notes, private))
    print(f"Collection: {url}", flush=True)


def _print_outcome(deliveries: "list[Delivery]") -> None:
    failed = [delivery for delivery in deliveries if delivery.failure]
    if len(deliveries) > 1:
        rows = [(d.run.name, d.state, d.tag, f"{d.repo_id}@{d.commit[:12]}" if d.commit else d.repo_id, d.note)
                for d in deliveries]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        print()
        for row in rows:
            print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        for delivery in failed:
            print(f"{delivery.run.name}: {delivery.failure}", file=sys.stderr, flush=True)
    if failed:
        line = failed[0].failure
        raise UserError(line if len(deliveries) == 1 else f"{len(failed)} of {len(deliveries)} runs failed: see above")
    states = [delivery.state for delivery in deliveries]
    if len(deliveries) > 1:
        print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)), flush=True)
        return
    (delivery,) = deliveries
    named = f"{delivery.repo_id}@{delivery.commit}" + (f" ({delivery.tag})" if delivery.tag else "")
    check = f"check it: {make(f'reproduce ADAPTER={delivery.repo_id}')}"
    match delivery.state:
        case "published":
            print(f"Published {named}; {check}", flush=True)
        case "unchanged":
            print(f"Unchanged: {named} is this release already; {check}", flush=True)
        case "proposed":
            print(
                f"Proposed {named} as pull request {delivery.pull_request}; {check} REVISION={delivery.commit}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
