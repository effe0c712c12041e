"""Puts scored runs side by side: base models zero-shot and tuned, with their size, memory, time and scores.

    python -m model_cards.compare runs/finance-base runs/finance runs/finance-xl --into runs/compare

Writes `compare.md` (one table) and `compare.png` (one plot), both rendered from the runs' records.
"""

import sys
from pathlib import Path

import click

from model_cards.escape import cell
from record.command_line import Command, Run, run_command, runs
from record.errors import UserError, make, one_line_errors
from record.run_record import Record, load_record
from record.scores import METRIC_NAMES
from record.swept_run import run_label

DEFAULT = ("finance-base", "finance", "finance-xl")


@click.command(cls=Command, examples=("pubrep compare", "pubrep compare finance-base finance --into tables"))
@click.argument("folders", nargs=-1, type=Run(), metavar="[RUN]...")
@click.option("--into", type=click.Path(path_type=Path), help="Folder for the table and the plot (RUNS/compare).")
def command(folders: tuple[Path, ...], into: Path | None) -> None:
    """Put scored RUNs side by side: size, memory, time and scores.

    A RUN is a run's folder, or the name of its recipe; finance-base, finance and
    finance-xl unless given. Writes compare.md (one table) and compare.png.
    """
    into = into or runs() / "compare"
    with one_line_errors():
        records = [scored_run(run) for run in folders or [runs() / name for name in DEFAULT]]
        into.mkdir(parents=True, exist_ok=True)
        metric = shared_metric(records)
        table = compare_table(records, metric)
        (into / "compare.md").write_text(
            f"{table}\n\n![{METRIC_NAMES[metric]} of every run](compare.png)\n", encoding="utf-8"
        )
        draw(records, into / "compare.png", metric)
        print(f"{table}\n\nTable: {into / 'compare.md'}   plot: {into / 'compare.png'}")


def main(argv: list[str]) -> None:
    run_command(command, argv, "python -m model_cards.compare")


def scored_run(run: Path) -> Record:
    """The record of a scored run.

    Raises:
        `UserError`: it is not scored yet.
    """
    record = load_record(run)
    if record.training is None or record.scores is None:
        train, evaluate = make(f"train-{record.name}"), make(f"evaluate-{record.name}")
        raise UserError(f"{run} is not scored yet: run {train} and {evaluate} first")
    return record


def shared_metric(records: list[Record]) -> str:
    """The first run's leading metric, or else the first that all runs are scored by."""
    first = records[0]
    names = [*first.contract.deciding(first.scores.adapter), *first.scores.adapter]
    shared = (name for name in names if all(name in record.scores.adapter for record in records))
    if (metric := next(shared, None)) is None:
        raise UserError("no metric is common to these runs: compare runs whose recipes name the same `metrics`")
    return metric


def compare_table(records: list[Record], metric: str) -> str:
    """One markdown row a run; its scores by `metric` with their intervals, the base model's zero-shot score first."""
    label = METRIC_NAMES[metric]
    lines = [
        f"| run | base model | parameters | trainable | weights | trained in | {label} zero-shot | {label} tuned |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        base, tuned = record.scores.base[metric], record.scores.adapter[metric]
        cells = [
            f"{cell(run_label(record, record.name))}{' (miniature)' if record.miniature else ''}",
            cell(record.pins.base_model.id),
            f"{record.model.total:,}",
            f"{record.model.trainable:,}",
            f"{record.model.memory_bytes / 1e6:,.1f} MB",
            f"{record.training.seconds:,.0f} s on {cell(record.environment.device)}",
            base.text(),
            tuned.text(),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(records: list[Record], path: Path, metric: str) -> None:
    """The scores of every run by `metric`, zero-shot and tuned, with its intervals."""
    from model_cards.plots import bars, new_axes, save

    figure, axes = new_axes(
        f"{METRIC_NAMES[metric]} on the test rows" + (" (miniatures)" if any(r.miniature for r in records) else "")
    )
    bars(axes, [run_label(r, r.name) for r in records], [r.scores.base[metric] for r in records],
         [r.scores.adapter[metric] for r in records])  # fmt: skip
    path.write_bytes(save(figure))


if __name__ == "__main__":
    main(sys.argv[1:])
