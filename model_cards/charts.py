"""The plots of the overview as SVG inside the page: their colours are the page's, so that they follow its theme."""

from collections.abc import Sequence

from markupsafe import Markup

from model_cards.escape import cut
from model_cards.html import reveal, visible
from model_cards.plots import is_ragged, training_losses
from record.run_record import Record
from record.scores import METRIC_NAMES, Compared

# Units of a drawing are pixels where it is as narrow as a telephone; it grows up to a third more.
WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 12, 36
# Points of a line: as many as it has pixels.
POINTS = 400
ROW = 46
LABEL = 30


def loss_chart(name: str, record: Record) -> Markup:
    """Training and validation loss (nats a target token) over optimizer steps; empty where none is known."""
    training = record.training
    if training is None:
        return Markup("")
    train = _subsample(training_losses(training, is_ragged(record)))
    held_out = _subsample([(point.step, point.eval_loss) for point in training.history if point.eval_loss is not None])
    points = [*train, *held_out]
    if not points:
        return Markup("")
    steps = _ticks(0, max(step for step, _ in points), 4)
    losses = _ticks(0.0, max(loss for _, loss in points), 4)
    x, y = _scale(steps, LEFT, WIDTH - RIGHT), _scale(losses, HEIGHT - BOTTOM, TOP)
    parts = [_grid_y(losses, y)]
    for step in steps:
        parts.append(_text(x(step), HEIGHT - BOTTOM + 16, f"{step:,.0f}", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "optimizer step", "middle"))
    for kind, line in (("train", train), ("eval", held_out)):
        path = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in line)
        parts.append(Markup('<polyline class="{}" points="{}"/>').format(kind, path))
    for step, loss in held_out:
        best = "best" if step == training.best_step else ""
        parts.append(
            Markup('<circle class="eval {}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(
                best, x(step), y(loss), 5 if best else 3
            )
        )
    label = f"Loss of {name} over {training.steps:,} steps:"
    label += f" training from {train[0][1]:.3f} to {train[-1][1]:.3f}" if train else ""
    label += f", validation at its lowest {min(loss for _, loss in held_out):.3f}" if held_out else ""
    return _svg(HEIGHT, label, parts)


def score_chart(metric: str, adapters: Sequence[tuple[str, Compared]]) -> Markup:
    """One metric of every adapter that has it: base model and adapter as points with their intervals."""
    rows = [(name, scores.base[metric], scores.adapter[metric]) for name, scores in adapters if metric in scores.base]
    ticks = _ticks(0.0, max(max(base.high, tuned.high) for _, base, tuned in rows), 5)
    x = _scale(ticks, 10, WIDTH - RIGHT - 6)
    bottom = TOP + 14 + ROW * len(rows)
    parts = [_text(0, 14, METRIC_NAMES[metric], "start", "title")]
    for tick in ticks:
        parts.append(Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="24" y2="{1}"/>').format(x(tick), bottom))
        parts.append(_text(x(tick), bottom + 16, f"{tick:g}", "middle"))
    for place, (name, base, tuned) in enumerate(rows):
        y = TOP + 18 + ROW * place
        parts.append(_text(0, y + 14, cut(name, LABEL), "start", "name"))
        parts.append(_text(WIDTH, y + 14, f"{base.figure(base.mean)} → {tuned.figure(tuned.mean)}", "end", "name"))
        for kind, interval, line in (("base", base, y + 25), ("adapter", tuned, y + 32)):
            parts.append(
                Markup('<line class="{0}" x1="{1:.1f}" x2="{2:.1f}" y1="{3}" y2="{3}"/>').format(
                    kind, x(interval.low), x(interval.high), line
                )
            )
            shape = '<circle class="{0}" cx="{1:.1f}" cy="{2}" r="4.5"/>'
            if kind == "base":
                shape = '<rect class="{0}" x="{3:.1f}" y="{4}" width="8" height="8"/>'
            parts.append(Markup(shape).format(kind, x(interval.mean), line, x(interval.mean) - 4, line - 4))
    label = "; ".join(f"{name}: {base.figure(base.mean)} to {tuned.figure(tuned.mean)}" for name, base, tuned in rows)
    return _svg(bottom + 22, f"{METRIC_NAMES[metric]}, base model to adapter. {label}", parts)


def _svg(height: float, label: str, parts: list[Markup]) -> Markup:
    opening = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        WIDTH, height, reveal(cut(label, 2_000))
    )
    return opening + Markup("").join(parts) + Markup("</svg>")


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, visible(text)
    )


def _grid_y(ticks: Sequence[float], y) -> Markup:
    line = Markup('<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>')
    parts = []
    for tick in ticks:
        parts += [line.format(LEFT, WIDTH - RIGHT, y(tick)), _text(LEFT - 6, y(tick) + 4, f"{tick:g}", "end")]
    return Markup("").join(parts)


def _ticks(low: float, high: float, bins: int) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    return list(MaxNLocator(nbins=bins, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high if high > low else low + 1))


def _scale(ticks: Sequence[float], start: float, end: float):
    first, last = ticks[0], ticks[-1]
    return lambda value: start + (value - first) / (last - first) * (end - start)


def _subsample(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    stride = -(-len(points) // POINTS) or 1
    return [*points[:-1:stride], points[-1]] if points else []
