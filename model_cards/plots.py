"""The card's plots, drawn from the record; they hold no number of their own."""

import hashlib
import io
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_cards import escape
from model_cards.escape import INVISIBLE, REPLACEMENT, cut
from record.cache import cached_bytes, code_of
from record.release_files import PLOTS
from record.run_record import Record, Training
from record.scores import METRIC_NAMES, Compared, Interval, Scores
from record.verdict import Verdict

# Pictures have no ground of their own, so that they stand on the page's, white or dark. Of all greys this one is read
# best on both: its contrast is 4.3 or more on white and on the Hub's dark page.
INK, GRID = "#787878", "#78787840"
# Okabe & Ito's palette, told apart by readers with any common colour vision deficiency, the grey darker: each has a
# contrast of 3 or more on both (WCAG 2.2, 1.4.11).
BASE, ADAPTER, EVAL = "#878787", "#1A7FBF", "#D55E00"
TITLE = 90
# Of a title and a base model's id, the characters that a plot's title has room for.
PART = 40
# What draws, with matplotlib: kiwisolver lays out, numpy counts, pillow writes. The fonts are matplotlib's own.
LIBRARIES = ("kiwisolver", "numpy", "pillow")
# White letters have a contrast of 7 or more on it (WCAG 2.2, 1.4.6).
GREY = "#4c535c"
# Colour alone tells nothing.
SIGNS = {"REPRODUCED": "✓", "DRIFTED": "✗", "UNCHECKED": "–"}


def draw_plots(record: Record, folder: Path, verdict: Verdict | None = None) -> list[str]:
    """Draws the plots and the badge into `folder`; the same record and verdict give the same bytes.

    Parameters:
        verdict: the one that the release carries.

    Returns:
        Their paths inside `folder`.
    """
    small = " (a miniature)" if record.miniature else ""
    subject = f"{cut(record.recipe['title'], PART)}, {cut(record.pins.base_model.id, PART)}{small}"
    drawings = {
        "verdict": (_badge, verdict),
        "loss": (_loss, subject, record.training, is_ragged(record)),
        "scores": (_scores, subject, record.scores, record.contract.confidence),
    }
    for name, (draw, *values) in drawings.items():
        path = folder / PLOTS[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_plot(draw, values))
    return list(PLOTS.values())


def _plot(draw: Callable[..., bytes], values: list[Any]) -> bytes:
    """The plot of the values, which are all that `draw` gets to see; drawn once for them and this code."""
    key = hashlib.sha256((code() + draw.__name__ + repr(values)).encode()).hexdigest()
    return cached_bytes(draw.__name__.strip("_"), lambda: draw(*values), key)


def code() -> str:
    """The hash of all that decides what a plot of the same values looks like."""
    parts = (sys.modules[__name__], escape, Compared)
    return code_of(parts, ["matplotlib", *LIBRARIES]) + repr(METRIC_NAMES)


def start_pyplot():
    """Pyplot as it comes, whatever the user's own style; a `$` in a text is a dollar and starts no formula."""
    import matplotlib

    matplotlib.rcdefaults()
    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    matplotlib.rcParams |= dict.fromkeys(inked, INK)
    import matplotlib.pyplot as plt

    return plt


def new_axes(title: str):
    """A figure and its axes in the card's style."""
    plt = start_pyplot()
    figure, axes = plt.subplots(figsize=(8, 4), dpi=120, layout="constrained")
    axes.set_title(INVISIBLE.sub(REPLACEMENT, cut(title, TITLE)), loc="left", fontsize=12, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def save(figure, **options: Any) -> bytes:
    """The figure as a clear PNG; the bytes depend on the drawing alone, not on matplotlib's version string."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True, metadata={"Software": None}, **options)
    plt.close(figure)
    return buffer.getvalue()


def badge_text(verdict: Verdict | None, own: bool = False) -> str:
    """What the badge says, in words.

    Parameters:
        own: whether the reader's own check gave the verdict; else it is no more than what the publisher says.
    """
    if verdict is None:
        return "no check published here yet"
    rows = "row" if verdict.sample == 1 else "rows"
    sample = "" if verdict.sample is None else f", {verdict.sample:,} sampled {rows},"
    who = "" if own else "publisher says: "
    return f"{who}{verdict.verdict} at level {verdict.level}{sample} on {verdict.date[:10]}"


def _badge(verdict: Verdict | None) -> bytes:
    """A pill with what the publisher says in white on grey, and nothing around: green and red are for own checks."""
    plt = start_pyplot()
    figure = plt.figure(figsize=(6, 1), dpi=110)
    # The pad of 0.7 · 10 points, which the tight box leaves out, is 0.1 inches.
    pill = {"boxstyle": "round,pad=0.7,rounding_size=1.2", "facecolor": GREY, "linewidth": 0}
    figure.text(
        0.5,
        0.5,
        f"{SIGNS['UNCHECKED']}  {badge_text(verdict)}",
        color="white",
        fontsize=10,
        fontweight="bold",
        ha="center",
        bbox=pill,
    )
    return save(figure, bbox_inches="tight", pad_inches=0.1)


def training_losses(training: Training, ragged: bool) -> list[tuple[int, float]]:
    """Steps with their losses, but for a last step of few rows (`ragged`): at the end it reads as the run's loss."""
    losses = [(point.step, point.loss) for point in training.history if point.loss is not None]
    return losses[:-1] if ragged and len(losses) > 1 and losses[-1][0] == training.steps else losses


def is_ragged(record: Record) -> bool:
    """Whether the last step of an epoch has fewer rows than the others."""
    return bool(record.data.train % record.batch.effective)


def _loss(subject: str, training: Training, ragged: bool) -> bytes:
    """Losses by step, from zero on."""
    history = training.history
    train = training_losses(training, ragged)
    held_out = [(point.step, point.eval_loss) for point in history if point.eval_loss is not None]
    figure, axes = new_axes(f"{subject}: loss")
    axes.plot(*zip(*train, strict=True), color=ADAPTER, linewidth=1.8, label="training, with dropout")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), color=EVAL, marker="o", markersize=5, linewidth=1.8, label="validation")
    best = dict(held_out).get(training.best_step)
    if best is not None:
        axes.annotate(
            f"published: step {training.best_step}, {best:.3f}",
            (training.best_step, best),
            xytext=(0, 14),
            textcoords="offset points",
            ha="right",
            fontsize=9,
        )
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("cross-entropy per target token (nats)")
    axes.set_ylim(0, 1.1 * max((loss for _, loss in (*train, *held_out)), default=0) or 1)
    axes.legend(frameon=False)
    return save(figure)


def _scores(subject: str, scores: Scores, confidence: float) -> bytes:
    figure, axes = new_axes(f"{subject}: scores")
    names = scores.shown()
    bars(axes, [METRIC_NAMES[n] for n in names], [scores.base[n] for n in names], [scores.adapter[n] for n in names])
    axes.set_ylabel(f"score of {scores.rows:,} test rows, {confidence:.0%} interval")
    return save(figure)


def bars(axes, names: list[str], base: list[Interval], adapter: list[Interval]) -> None:
    """Two bars a name, for the base model and with the adapter, each with its interval and its mean above."""
    for offset, values, colour, label in (
        (-0.2, base, BASE, "base model"),
        (0.2, adapter, ADAPTER, "with the adapter"),
    ):
        means = [interval.mean for interval in values]
        # From end to end: the bootstrap interval of a corpus score need not hold the score.
        middles, halves = [(x.low + x.high) / 2 for x in values], [(x.high - x.low) / 2 for x in values]
        places = [place + offset for place in range(len(values))]
        # Pale, so that the interval is seen inside the bar, too.
        axes.bar(places, means, 0.36, facecolor=(colour, 0.2), edgecolor=colour, linewidth=1.8, label=label)
        axes.errorbar(places, middles, yerr=halves, fmt="none", ecolor=INK, capsize=4, elinewidth=1.5)
        for place, interval in zip(places, values, strict=True):
            axes.annotate(
                interval.figure(interval.mean),
                (place, interval.high),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
    axes.set_xticks(range(len(names)), [textwrap.fill(name, 14) for name in names])
    axes.set_ylabel("F-measure or share")
    highest = max(x.high for x in (*base, *adapter))
    # Room for the numbers above; a share has no more than 1 to fill.
    axes.set_ylim(0, (min(1.05, 1.2 * highest) if highest <= 1 else 1.2 * highest) or 1)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2)
