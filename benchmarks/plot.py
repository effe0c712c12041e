"""The pictures of what `python -m benchmarks` measured, drawn from its JSON alone."""

from pathlib import Path

from model_cards.plots import ADAPTER, BASE, GRID, new_axes, save


def draw(result: dict, folder: Path, name: str) -> list[Path]:
    """Draws the training and growth of one device's results into `folder`, as `NAME-….png`.

    Returns:
        The files that were drawn; a part that was not measured has none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for part, drawing in (("training", draw_training), ("growth", draw_growth)):
        measured = result["parts"].get(part)
        if measured and "missing" not in measured:
            drawing(measured, result["device"], path := folder / f"{name}-{part}.png")
            paths.append(path)
    return paths


def draw_training(training: dict, device: str, path: Path) -> None:
    """A bar a contender: real tokens a second, with the range of its rounds and how much faster ours is."""
    contenders = sorted(training["contenders"].items(), key=lambda item: item[1]["tokens_per_second"])
    figure, axes = new_axes(f"Training FLAN-T5-{training['size']}, LoRA r=32, on {device}")
    figure.set_size_inches(8, 1.2 + 0.42 * len(contenders))
    axes.grid(visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    speeds = [measured["tokens_per_second"] for _, measured in contenders]
    ranges = [measured["tokens_per_second_range"] for _, measured in contenders]
    errors = [
        [speed - low for speed, (low, _) in zip(speeds, ranges, strict=True)],
        [high - speed for speed, (_, high) in zip(speeds, ranges, strict=True)],
    ]
    colours = [ADAPTER if name == "ours" else BASE for name, _ in contenders]
    axes.barh(range(len(contenders)), speeds, 0.6, color=colours, xerr=errors, capsize=3, error_kw={"linewidth": 1})
    for place, ((name, measured), (_, high)) in enumerate(zip(contenders, ranges, strict=True)):
        label = "" if name == "ours" else f"this project is {measured['ours_is_faster']:.1f}x as fast"
        axes.annotate(label, (high, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(contenders)), ["this project" if name == "ours" else name for name, _ in contenders])
    axes.set_xlim(0, 1.4 * max(high for _, high in ranges))
    axes.set_xlabel("tokens a second, padding not counted")
    path.write_bytes(save(figure))


def draw_growth(growth: dict, device: str, path: Path) -> None:
    """Seconds of a step by the length of its rows, where none needs padding."""
    lines = growth["length"]
    rows = lines[0]["tokens"] // (2 * lines[0]["length"])
    figure, axes = new_axes(f"A training step of {rows} {'row' if rows == 1 else 'rows of one length'}, on {device}")
    lengths = [line["length"] for line in lines]
    for name, colour, label in (("ours", ADAPTER, "this project"), ("stock", BASE, "Seq2SeqTrainer")):
        seconds = [line[f"{name}_seconds"] for line in lines]
        axes.plot(lengths, seconds, color=colour, marker="o", markersize=5, linewidth=1.8, label=label)
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("source tokens, and as many target tokens")
    axes.set_ylabel("seconds")
    axes.legend(frameon=False)
    path.write_bytes(save(figure))
