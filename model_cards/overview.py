"""Puts adapters on one page: scores, losses, lineage, verdicts, and every test row with what both models wrote.

    python -m model_cards.overview runs/finance runs/text2sql --into runs/report.html
    python -m model_cards.overview owner/name owner/other --into report.html

The page is one file that loads nothing. Folders of runs are read without any Hub; ids are taken from the Hub, or with
HF_HUB_OFFLINE=1 from the cache. What is not scored yet is named and left out.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from record.command_line import Command, RunOrId, run_command, runs
from record.errors import UserError, make, one_line_errors
from record.predictions import Predictions, load_predictions
from record.release_files import CARD_FILE, PREDICTIONS_FILE, RECORD_FILE, VERDICT_FILE
from record.run_record import Record, load_record
from record.scores import BASELINES, METRIC_NAMES
from record.swept_run import run_label
from record.verdict import Verdict, load_verdict, why_unrelated
from record.vouchers import Agreement, agreement, days_ago, row_numbers

# Rows of one adapter, and characters of one text, that the page holds: 11,490 news articles come to 33 MB so.
ROWS, TEXT = 20_000, 2_000
HERE = Path(__file__).parent
TEXTS = ("prompt", "reference", "schema", "base", "adapter")


@dataclass
class Entry:
    """A scored adapter: `name` is its id on the Hub, or of a local run the name that it would be published under.

    `commit` is the one that it was taken from, None of a local run. `verdict` speaks of these very numbers, and so do
    the `vouchers`, others' verdicts beside the release.
    """

    name: str
    commit: str | None
    record: Record
    predictions: Predictions
    verdict: Verdict | None
    vouchers: Agreement | None = None


@click.command(
    cls=Command,
    examples=("pubrep report", "pubrep report finance text2sql", "pubrep report owner/name --into page.html"),
)
@click.argument("adapters", nargs=-1, type=RunOrId(), metavar="[RUN_OR_ID]...")
@click.option("--into", type=click.Path(path_type=Path), metavar="FILE", help="The page to write (RUNS/report.html).")
def command(adapters: tuple[str, ...], into: Path | None) -> None:
    """Put adapters on one page: scores, losses, lineage, verdicts, and every row.

    Takes folders of runs, names of recipes and ids on the Hub; every scored run
    unless given. The page is one HTML file that loads nothing.
    """
    into = into or runs() / "report.html"
    with one_line_errors():
        entries = read_all(adapters or [str(path.parent) for path in sorted(runs().glob("*/record.json"))])
        page = render_overview(entries)
        into.parent.mkdir(parents=True, exist_ok=True)
        into.write_text(page, encoding="utf-8")
        rows = sum(len(entry.predictions.prompt) for entry in entries)
        many = "1 adapter" if len(entries) == 1 else f"{len(entries)} adapters"
        print(f"Report: {into} ({many}, {rows:,} rows, {len(page.encode()) / 1e6:,.1f} MB)")


def main(argv: list[str]) -> None:
    run_command(command, argv, "python -m model_cards.overview")


def read_all(adapters: Sequence[str]) -> list[Entry]:
    """The scored ones among folders and ids; says which are left out.

    Raises:
        `UserError`: one is neither a folder nor an id or is not as its record says, or none is scored.
    """
    entries = []
    for adapter in adapters:
        entry = read_run(Path(adapter)) if Path(adapter).is_dir() else read_published(adapter)
        if entry is None:
            print(f"{adapter} is left out: it is not scored yet", flush=True)
        else:
            entries.append(entry)
    if not entries:
        train, evaluate = make("train-finance"), make("evaluate-finance")
        raise UserError(f"there is no scored run to show: {train} and {evaluate}, or ADAPTERS=id")
    return entries


def read_run(run: Path) -> Entry | None:
    """The run in a folder; None where it is not scored."""
    record = load_record(run)
    if record.scores is None:
        return None
    return _entry(run_label(record, record.recipe["adapter_name"]), None, record, run)


def read_published(adapter: str) -> Entry | None:
    """The adapter published under an id, at its newest commit; None where it is not scored."""
    from huggingface_hub import constants

    from hub.pins import locate
    from hub.release import pull
    from hub.vouchers import accepted, read_release, read_vouchers

    if adapter.count("/") != 1 or adapter.startswith("."):
        raise UserError(f"{adapter} is neither the folder of a run nor an id on the Hub (owner/name)")
    adapter, commit = locate(adapter, "main")
    record = pull(adapter, commit, names=[]).record
    if record.scores is None:
        return None
    names = [name for name in (CARD_FILE, PREDICTIONS_FILE, VERDICT_FILE) if name in record.files]
    published = pull(adapter, commit, names).require_whole()
    entry = _entry(adapter, commit, published.record, published.folder)
    # Offline nobody knows what lies beside it.
    if not constants.HF_HUB_OFFLINE:
        release = read_release(adapter, commit)
        entry.vouchers = agreement(accepted(read_vouchers(release)), release.publisher)
    return entry


def _entry(name: str, commit: str | None, record: Record, folder: Path) -> Entry:
    if record.contract is None or (record.training is None and record.evaluated is None):
        raise UserError(f"{folder / RECORD_FILE} holds scores without the training or the contract behind them")
    predictions = load_predictions(folder, rows=record.scores.rows)
    return Entry(name, commit, record, predictions, related_verdict(name, commit, record, folder))


def related_verdict(name: str, commit: str | None, record: Record, folder: Path) -> Verdict | None:
    """The verdict of a release, or of a run where `commit` is None; None, and a line, where it speaks of another."""
    from model_cards.card_check import name_on_card

    verdict = load_verdict(folder)
    # A published verdict speaks of the name that its card states: the Hub may call the adapter otherwise since.
    if verdict and (
        reason := why_unrelated(verdict, name_on_card(folder) or name if commit else verdict.adapter, record, folder)
    ):
        print(f"{name}: its {VERDICT_FILE} is left out: {reason}", flush=True)
        return None
    return verdict


def render_overview(entries: list[Entry]) -> str:
    """The page as one HTML file that loads nothing; its script is its own, and the texts of the rows are data."""
    from model_cards.card import HUB
    from model_cards.charts import loss_chart, score_chart
    from model_cards.html import PAGE_STYLE, render_page, source
    from model_cards.plots import SIGNS, badge_text
    from scoring.concerns import find_concerns

    deciding = [entry.record.contract.deciding(entry.record.scores.base) for entry in entries]
    metrics = [metric for metric in METRIC_NAMES if any(metric in names for names in deciding)]
    return render_page(
        HERE / "overview.html.jinja",
        style=source(PAGE_STYLE, HERE / "overview.css"),
        script=source(HERE / "overview.js"),
        hub=HUB,
        entries=entries,
        metric_names=METRIC_NAMES,
        baseline_names=BASELINES,
        concerns=[find_concerns(entry.record, entry.predictions) for entry in entries],
        deciding=metrics,
        badges=SIGNS,
        badge_text=badge_text,
        losses=[loss_chart(entry.name, entry.record) for entry in entries],
        plots=[score_chart(metric, [(entry.name, entry.record.scores) for entry in entries]) for metric in metrics],
        lineage=lineage(entries),
        rows=[row_columns(entry) for entry in entries],
        text=TEXT,
        row_numbers=row_numbers,
        days_ago=days_ago,
    )


def row_columns(entry: Entry) -> dict[str, Any]:
    """An adapter's rows, column by column, as the page's script reads them: texts are cut, scores are ROUGE-L."""
    from model_cards.html import reveal
    from scoring.metrics.rouge import rouge_rows

    rows = entry.predictions.take(range(min(ROWS, len(entry.predictions.prompt))))
    contract = entry.record.contract

    def score(texts: list[str]) -> list[float]:
        rouge = rouge_rows(texts, rows.reference, contract.stemmer, contract.rouge_tokenizer)
        return [round(value, 4) for value in rouge["rougeL"]]

    return {
        "all": len(entry.predictions.prompt),
        "seen": rows.seen,
        "cut": {
            name: {row: len(text) for row, text in enumerate(getattr(rows, name)) if len(text) > TEXT} for name in TEXTS
        },
        **{name: [reveal(text[:TEXT]) for text in getattr(rows, name)] for name in TEXTS},
        "score": {who: score(getattr(rows, who)) for who in ("base", "adapter")},
    }


def lineage(entries: list[Entry]) -> list[dict[str, Any]]:
    """What came of what, as a forest: base models, the adapters trained on them, and those that continue these.

    A parent that is not among the entries stands in the forest too. Parents are told by their ids; a local run has no
    owner yet and is told by its name.
    """
    nodes = [_node("adapter", entry.name, entry) for entry in entries]
    bases: dict[str, dict[str, Any]] = {}
    missing: dict[str, dict[str, Any]] = {}
    for node, entry in zip(nodes, entries, strict=True):
        pins = entry.record.pins
        base = bases.setdefault(pins.base_model.id, _node("base", pins.base_model.id))
        above = base
        if pins.parent_adapter is not None:
            parent = _parent(entry, entries)
            if parent is not None:
                above = nodes[parent]
            else:
                above = missing.setdefault(pins.parent_adapter.id, _node("absent", pins.parent_adapter.id))
                if above not in base["children"]:
                    base["children"].append(above)
        above["children"].append(node)
    return list(bases.values())


def _node(kind: str, name: str, entry: Entry | None = None) -> dict[str, Any]:
    return {"kind": kind, "name": name, "entry": entry, "children": []}


def _parent(entry: Entry, entries: list[Entry]) -> int | None:
    """The place of the entry that this one continues; None where it is not there, or continues this one in turn."""
    line, parent = {entry.name}, None
    while (pin := entry.record.pins.parent_adapter) is not None:
        names = (pin.id, pin.id.rpartition("/")[2])
        place = next((place for place, other in enumerate(entries) if other.name in names), None)
        if place is None:
            return parent
        if entries[place].name in line:
            return None
        parent = place if parent is None else parent
        entry = entries[place]
        line.add(entry.name)
    return parent


if __name__ == "__main__":
    main(sys.argv[1:])
