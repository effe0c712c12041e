"""Brings README's results up to date: the records and last verdicts of the published adapters that claims.yaml lists.

    python -m readme.claims [--check] [--level score|prefill|generate]

Takes the record of each from the Hub and the verdicts by others beside it, checks each whose present commit has no
verdict yet, keeps all of it in docs/claims/, and renders README. An adapter that cannot be reached keeps its last known
row, and the exit code is 1.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import click

from evaluation.reproduce import reproduce
from hub.pins import locate
from hub.release import pull
from hub.retry import requests_left, waiting_out_limits
from hub.vouchers import accepted, read_release, read_vouchers
from readme.history import add_to_history, render_claims
from readme.render import ROOT, Claim, Listed, folder_of, listed, load_claim, render
from record.command_line import Command, run_command
from record.errors import UserError, one_line_errors
from record.release_files import CARD_FILE, PLOTS, RECORD_FILE
from record.verdict import Level
from record.vouchers import agreement

STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 900px; margin: 24px auto; color: #1f2328 }
table { border-collapse: collapse; margin: 12px 0 }
td, th { border: 1px solid #d1d9e0; padding: 5px 10px }
blockquote { border-left: 4px solid #d1d9e0; margin: 0; padding: 0 12px; color: #59636e }
code, pre { background: #f0f2f4; border-radius: 4px; padding: 2px 5px }
pre { padding: 12px; overflow: auto }
pre code { padding: 0 }
img { max-width: 100% }
"""


@click.command(cls=Command, examples=("pubrep claims", "pubrep claims --check --level score"))
@click.option("--check", is_flag=True, help="Check every adapter, also where a verdict is kept.")
@click.option(
    "--level",
    type=click.Choice(["score", "prefill", "generate"]),
    default="generate",
    show_default=True,
    help="How much is done again.",
)
@click.option(
    "--page", type=click.Path(path_type=Path), metavar="FILE", help="Write a page (HTML) of all verdicts ever kept."
)
def command(check: bool, level: Level, page: Path | None) -> None:
    """Bring README's results up to date: the adapters that claims.yaml lists.

    Takes the record of each from the Hub, and the verdicts by others that lie beside
    it, checks each whose present commit has no verdict yet, keeps all in
    docs/claims/, and renders README. An adapter that cannot be reached keeps its
    last known row, and the exit code is 1.
    """
    with one_line_errors():
        failed = renew_all(ROOT, check, level)
        if page is not None:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(render_claims(ROOT), encoding="utf-8")
            print(f"Page: {page}", flush=True)
        if failed:
            sys.exit(1)


def main(argv: list[str]) -> None:
    run_command(command, argv, "python -m readme.claims")


def renew_all(root: Path, check: bool, level: Level) -> list[str]:
    """Renews the claims that the listing in the folder `root` names, and renders the README there.

    Returns:
        The adapters that could not be reached or checked.

    Raises:
        `UserError`: the listing cannot be read.
    """
    from huggingface_hub import constants

    hub = "local" if urlsplit(constants.ENDPOINT).hostname in ("127.0.0.1", "localhost") else "real"
    failed = []
    for entry in listed(root):
        if entry.hub != hub:
            print(f"{entry.adapter} stays as it is: it was published on the {entry.hub} Hub", flush=True)
            continue
        try:
            with one_line_errors(f"error: {entry.adapter}:"), waiting_out_limits():
                renew(entry, folder_of(root, entry), check, level)
        except SystemExit:
            failed.append(entry.adapter)
        if left := requests_left():
            print(f"  {left}", flush=True)
    render(root)
    return failed


def renew(entry: Listed, folder: Path, check: bool, level: Level) -> None:
    """Keeps an adapter's present record in `folder`, with the last verdict about it and all that came before.

    A check that came to nothing replaces no verdict that was reached.

    Raises:
        `UserError`: the adapter has no scores, or could not be checked.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    adapter, commit = locate(entry.adapter, entry.revision)
    published = pull(adapter, commit, names=[])
    if published.record.scores is None:
        raise UserError(f"the {RECORD_FILE} at {commit} holds no scores")
    claim, new = load_claim(folder), []
    release = read_release(adapter, commit)
    vouched = agreement(accepted(read_vouchers(release)), release.publisher)
    verdict = unchecked = None
    if claim is not None and claim.verdict.verdict != "UNCHECKED":
        verdict = claim.verdict
    if check or verdict is None or verdict.revision != commit:
        present, _ = reproduce(adapter, commit, level)
        print(present.line, flush=True)
        new.append(present)
        unchecked = present.reason if present.verdict == "UNCHECKED" else None
        verdict = verdict if unchecked and verdict else present
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(published.folder / RECORD_FILE, folder / RECORD_FILE)
    agree, disagree = len(vouched.agree), len(vouched.disagree)
    Claim(commit=commit, verdict=verdict, agree=agree, disagree=disagree).save(folder)
    add_to_history(folder, new, vouched)
    if entry.pictures:
        keep_pictures(adapter, commit, folder)
    if unchecked:
        raise UserError(f"not checked: {unchecked}")


def keep_pictures(adapter: str, commit: str, folder: Path) -> None:
    """Keeps the published plots in `folder`, and a picture of the published card.

    Raises:
        `UserError`: one of them is not the file that the record names.
    """
    record = pull(adapter, commit, names=[]).record
    # What is evaluation-only has no plots.
    plots = [path for path in PLOTS.values() if path in record.files]
    published = pull(adapter, commit, names=[CARD_FILE, *plots])
    if published.differing:
        raise UserError(f"its pictures stay as they are: {', '.join(published.differing)} differ from its record")
    for path in plots:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(published.folder / path, folder / path)
    picture(published.folder / CARD_FILE, folder / "card.png")


def picture(card: Path, png: Path) -> None:
    """A picture of the card's first screen, if there is Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("No Chromium: the card's picture stays as it is")
        return
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(card.read_text(encoding="utf-8").split("\n---\n", 1)[1])
    page = f"<base href='{card.parent.resolve().as_uri()}/'><style>{STYLE}</style>{body}"
    with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as file:
        file.write(f"<!doctype html><meta charset=utf-8>{page}")
        file.flush()
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=980,1150", f"--screenshot={png}"]
        subprocess.run([chromium, *options, Path(file.name).as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    main(sys.argv[1:])
