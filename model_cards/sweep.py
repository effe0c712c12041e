"""The runs of a sweep in one table and one plot: mean and standard deviation over seeds, interval over rows, apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model_cards.escape import cell, cut
from record.errors import UserError
from record.predictions import load_predictions
from record.run_record import load_record
from record.scored_record import ScoredRecord, require_scores
from record.scores import METRIC_NAMES, Interval
from record.sweep import SweptRun, mean_and_deviation, settings_text
from record.swept_run import swept_run

# Okabe & Ito's palette, and marks that tell settings apart without colour.
MARKS = [("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#000000", "P")]
TITLE = 60
EXPLANATION = (
    "SD is the standard deviation over seeds; the interval is one over rows, of the mean of the seeds' scores. Memory "
    "is the peak in training. A time with * lacks what came before an interruption."
)
# What the plot sets scores against. The time of a run that was continued is not all of it.
AGAINST = {
    "trained parameters": lambda record: record.model.trainable,
    "peak memory in training (GB)": lambda record: record.training.peak_memory_bytes / 1e9,
    "training time (s)": lambda record: None if record.training.resumed_from else record.training.seconds,
}


@dataclass
class Scored:
    """A scored run of the sweep."""

    folder: Path
    record: ScoredRecord
    run: SweptRun


@dataclass
class Group:
    """Runs that differ in nothing but the seed.

    `rows` is the mean with its interval over the test rows, `deviation` that of the runs' scores, None of a single run;
    `seconds`, `bytes` and `trainable` are means over the runs. `continued` counts the runs whose time is not all of it.
    """

    settings: dict[str, str]
    runs: int
    rows: Interval
    deviation: float | None
    trainable: float
    bytes: float
    seconds: float
    continued: int


def read_scored(folders: Sequence[Path], keys: list[str]) -> list[Scored]:
    """The scored runs of a sweep over `keys`.

    Raises:
        `UserError`: their scores cannot be compared.
    """
    records = [require_scores(load_record(folder)) for folder in folders]
    if len({record.data.test_sha256 for record in records}) > 1:
        raise UserError(
            f"the runs in {folders[0].parent} have different test rows, so their scores cannot be compared: sweep what "
            "decides the rows apart"
        )
    return [Scored(folder, r, swept_run(r, keys)) for folder, r in zip(folders, records, strict=True)]


def group_runs(scored: list[Scored], metric: str) -> list[Group]:
    """The runs by their settings without the seed, in the order of the sweep."""
    by_settings: dict[str, list[Scored]] = {}
    for one in scored:
        by_settings.setdefault(settings_text(one.run.others()), []).append(one)
    return [_group(runs, metric) for runs in by_settings.values()]


def _group(runs: list[Scored], metric: str) -> Group:
    trainings = [one.record.training for one in runs]
    _, deviation = mean_and_deviation([one.run.scores[metric] for one in runs])
    return Group(
        settings=runs[0].run.others(),
        runs=len(runs),
        rows=runs[0].record.scores.adapter[metric] if len(runs) == 1 else _over_rows(runs, metric),
        deviation=deviation,
        trainable=sum(one.record.model.trainable for one in runs) / len(runs),
        bytes=sum(training.peak_memory_bytes for training in trainings) / len(runs),
        seconds=sum(training.seconds for training in trainings) / len(runs),
        continued=sum(training.resumed_from > 0 for training in trainings),
    )


def _over_rows(runs: list[Scored], metric: str) -> Interval:
    from scoring.bootstrap import interval_of_mean
    from scoring.scores import metric_rows

    contract = runs[0].record.contract
    rows = [metric_rows(load_predictions(one.folder), "adapter", contract)[metric] for one in runs]
    return interval_of_mean(rows, contract)


def chosen(scored: list[Scored]) -> Scored | None:
    """The run with the lowest validation loss; None where one of them has none."""
    losses = [one.run.validation_loss for one in scored]
    return None if None in losses else min(scored, key=lambda one: one.run.validation_loss or 0)


def cells_of(group: Group) -> list[str]:
    """A group's figures: runs, mean, deviation, interval, trained parameters, memory, time."""
    mean, interval = group.rows.text().split(maxsplit=1)
    return [
        f"{group.runs:,}",
        mean,
        "-" if group.deviation is None else group.rows.figure(group.deviation),
        interval,
        f"{group.trainable:,.0f}",
        f"{group.bytes / 1e9:.2f} GB",
        f"{group.seconds:,.0f} s" + ("*" if group.continued else ""),
    ]


def text_table(groups: list[Group]) -> str:
    """The groups as plain text, for a terminal of 80 columns where settings are short."""
    lines = [["", "runs", "mean", "SD", "over rows", "trained", "memory", "time"]]
    lines += [[settings_text(group.settings) or "all", *cells_of(group)] for group in groups]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(width) for c, width in zip(line[1:], widths[1:], strict=True))]
        ).rstrip()
        for line in lines
    )


def page(scored: list[Scored], groups: list[Group], metric: str, combinations: int) -> str:
    """The sweep as markdown: the groups, the plot, and every run."""
    first, label = scored[0].record, METRIC_NAMES[metric]
    base, keys = first.scores.base[metric], list(scored[0].run.settings)
    where = f"{label} on {first.scores.rows:,} test rows{' (a miniature)' if first.miniature else ''}"
    lines = [
        f"# {cell(first.name)}: a sweep over {', '.join(map(cell, keys))}",
        "",
        f"{where}; {len(scored):,} of {combinations:,} runs are scored. The base model has {base.text()}. "
        f"{EXPLANATION}",
        "",
        f"| settings | runs | {label}: mean | SD | interval over rows | trained parameters | memory | time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join([cell(settings_text(g.settings) or 'all'), *cells_of(g)])} |" for g in groups]
    lines += ["", f"![{label} against trained parameters, memory and time](sweep.png)", ""]
    lines += [
        f"| {' | '.join(map(cell, keys))} | validation loss | {label} | trained parameters | memory | time | folder |"
    ]
    lines.append("|---" * (len(keys) + 6) + "|")
    for one in scored:
        score, training = one.record.scores.adapter[metric], one.record.training
        loss = one.run.validation_loss
        figures = [
            *map(cell, one.run.settings.values()),
            "-" if loss is None else f"{loss:.4f}",
            score.text(),
            f"{one.record.model.trainable:,}",
            f"{training.peak_memory_bytes / 1e9:.2f} GB",
            f"{training.seconds:,.0f} s" + ("*" if training.resumed_from else ""),
            cell(one.folder.name),
        ]
        lines.append(f"| {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def draw(scored: list[Scored], metric: str) -> bytes:
    """Every run's score with its interval over rows, against trained parameters, memory and time: a PNG."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    from model_cards.plots import BASE, GRID, INK, save, start_pyplot

    plt = start_pyplot()
    figure, panels = plt.subplots(1, 3, figsize=(11, 4.4), dpi=120, layout="constrained", sharey=True)
    first, best = scored[0].record, chosen(scored)
    names = list(dict.fromkeys(settings_text(one.run.others()) for one in scored))
    told_apart = 1 < len(names) <= len(MARKS)
    for axes, (name, value) in zip(panels, AGAINST.items(), strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.axhline(first.scores.base[metric].mean, color=BASE, linewidth=1.5, linestyle="--", label="base model")
        for one in scored:
            if (x := value(one.record)) is None:
                continue
            score, group = one.record.scores.adapter[metric], settings_text(one.run.others())
            colour, marker = MARKS[names.index(group) if told_apart else 0]
            # From end to end: the bootstrap interval of a corpus score need not hold the score.
            middle, half = (score.low + score.high) / 2, (score.high - score.low) / 2
            axes.errorbar(x, middle, half, fmt="none", ecolor=colour, capsize=3, elinewidth=1.2, alpha=0.6)
            axes.plot(x, score.mean, color=colour, marker=marker, markersize=7, linestyle="none",
                      label=group if told_apart else "a run", zorder=3)  # fmt: skip
            if one is best:
                axes.plot(x, score.mean, marker="o", markersize=14, markerfacecolor="none", markeredgecolor=INK,
                          linestyle="none", label="lowest validation loss", zorder=4)  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(name)
        axes.margins(x=0.15)
    panels[0].xaxis.set_major_formatter(EngFormatter())
    panels[0].set_ylabel(METRIC_NAMES[metric])
    labels = {text: handle for axes in panels for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(labels.values(), labels, frameon=False, loc="outside lower left", ncols=4)
    title = cut(f"{first.name}: {len(scored):,} runs{' of a miniature' if first.miniature else ''}", TITLE)
    figure.suptitle(
        f"{title}, with {first.contract.confidence:.0%} intervals over rows", x=0.01, ha="left", fontsize=12
    )
    return save(figure)
