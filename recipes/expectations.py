"""What a run should meet: the figures that a recipe's `expect:` states, held against those of the run."""

from typing import Any

from record.run_record import Expectation, Record

# The base model's commit decides whether the other figures can be compared at all; the rest is known before training,
# but for the scores.
FIGURES = {
    "base_revision": lambda record: record.pins.base_model.revision,
    # Where validation rows are drawn, they count as training rows, as they do where others draw none.
    "train_rows": lambda record: (
        record.data.train + (0 if record.recipe.get("validation_split") else record.data.validation)
    ),
    "validation_rows": lambda record: record.data.validation,
    "test_rows": lambda record: record.data.test,
    "trainable_parameters": lambda record: record.model.trainable,
    "all_parameters": lambda record: record.model.total,
    "memory_bytes": lambda record: record.model.memory_bytes,
}
# Published scores hold their fourth digit of another shuffle of the same data: a difference of a point is no surprise.
SCORE_TOLERANCE = 0.01


def compare(expect: dict[str, Any] | None, record: Record) -> list[Expectation]:
    """Every expected figure next to the run's own.

    A figure is "not comparable" on another base model commit or a miniature: the sizes are then others by right.
    Row counts are also met where only empty rows are lacking, which other trainings keep.
    """
    expect = expect or {}
    comparable = expect.get("base_revision") in (None, record.pins.base_model.revision) and not record.miniature
    expectations = []
    empty = sum(record.data.dropped.get(reason, 0) for reason in ("empty prompt", "empty target"))
    for name in FIGURES:
        if name in expect:
            figure = FIGURES[name](record)
            lacking = expect[name] - figure if name.endswith("_rows") else 0
            met = figure == expect[name] or 0 < lacking <= empty
            verdict = ("met" if met else "missed") if comparable else "not comparable"
            expectations.append(Expectation(name=name, expected=expect[name], found=figure, verdict=verdict))
    if record.scores is not None:
        for who in ("base", "adapter"):
            for metric, expected in (expect.get("published", {}).get(who) or {}).items():
                if metric not in getattr(record.scores, who):
                    continue
                figure = getattr(record.scores, who)[metric].mean
                near = "met" if abs(figure - expected) <= SCORE_TOLERANCE else "missed"
                verdict = near if comparable else "not comparable"
                expectations.append(
                    Expectation(name=f"{who} {metric}", expected=expected, found=figure, verdict=verdict)
                )
    return expectations


def block(expectations: list[Expectation]) -> str:
    """The expectations as one block of text: the figures that can be compared, and how many cannot."""
    comparable = [item for item in expectations if item.verdict != "not comparable"]
    lines = [
        f"  {item.name:<22}{format_figure(item.expected):>16}   found {format_figure(item.found):>16}   {item.verdict}"
        for item in comparable
    ]
    if others := len(expectations) - len(comparable):
        lines.append(f"  {others} figures of another base model or commit, not comparable with this one")
    return "\n".join(["Expected by the recipe:", *lines])


def format_figure(figure: int | float | str) -> str:
    """A figure for people: thousands separated, four decimals, or a text's first twelve characters."""
    return f"{figure:,}" if isinstance(figure, int) else f"{figure:.4f}" if isinstance(figure, float) else figure[:12]
