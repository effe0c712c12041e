"""What a training run prints: the pinned data and model before training, the result after it."""

import os

from record.energy import Forecast
from record.errors import one_line
from record.run_record import Record, Unwritable

# Seconds of training from which on a forecast is told.
WORTH_SAYING = 2.0


def say(line: str) -> None:
    """Prints a line at once, from the first process only."""
    if os.environ.get("RANK", "0") == "0":
        print(line, flush=True)


def say_shapes(record: Record) -> None:
    """Base model, dataset and adapter, each with its commit and its size."""
    data, model, base = record.data, record.model, record.pins.base_model
    label = " — a miniature, not the real model" if base.miniature else ""
    say(f"Base model: {base.id}@{base.revision[:12]}{label}")
    if record.pins.parent_adapter is not None:
        say(f"Continues:  {record.pins.parent_adapter.id}@{record.pins.parent_adapter.revision[:12]}")
    for dataset, loaded in zip(
        record.pins.datasets, [one.loaded for one in data.by_dataset] or [data.loaded], strict=True
    ):
        say(f"Dataset:    {dataset.id}@{dataset.revision[:12]}, {loaded:,} rows")
    for rule, rows in data.dropped.items():
        say(f"            {rule}: {rows:,} rows dropped")
    for rule, rows in data.truncated.items():
        say(f"            {rule}: {rows:,} rows cut")
    say(f"            {data.train:,} train, {data.validation:,} validation, {data.test:,} test rows")
    for one in data.by_dataset:
        say(f"            of {one.dataset} {one.train:,}, {one.validation:,} and {one.test:,}")
    if data.test_dropped:
        say(f"            of the dataset's own test split, {data.test_dropped:,} rows are dropped")
    for source in record.leakage or []:
        say(
            f"            {source.exact:,} test inputs stand among the {source.training_rows:,} training rows of "
            f"{source.adapter or 'this run'}{f' of {source.dataset}' if record.pins.more_datasets else ''}, "
            f"{source.near:,} more nearly" + (f", {source.disguised:,} in disguise" if source.disguised else "")
        )
        if same := max(source.prompts or 0, source.token_ids or 0):
            say(f"            {same:,} test prompts are the same as training prompts once filled, cut and tokenized")
    if record.unwritable.unwritable:
        say(f"            {_unwritable_line(record.unwritable)}")
    say(
        f"Adapter:    {model.trainable:,} of {model.total:,} parameters trainable ({model.percent:.2f} %), "
        f"{model.memory_bytes:,} bytes, base in {model.dtype}"
    )


def length_remarks(rows, limit: int, base: str) -> list[str]:
    """One line for prompts, and one for targets, where some are longer than what the base model was trained with.

    Parameters:
        rows: token ids of the training rows, as `recipes.data.splits.tokenize` gives them.
        limit: tokens.
    """
    import pyarrow.compute as pc

    table, remarks = rows.with_format("arrow")[:], []
    for name, ids, rule in (("prompt", "input_ids", "truncate"), ("target", "labels", "drop")):
        counts = pc.list_value_length(table[ids])
        if longer := pc.sum(pc.greater(counts, limit)).as_py():
            remarks.append(
                f"{longer:,} of {len(counts):,} training {name}s have more than the {limit:,} tokens that {base} was "
                f"trained with, the longest {pc.max(counts).as_py():,}: see `length_rules` "
                f"({rule} tokens({name}) > {limit})"
            )
    return remarks


def longest_row(rows, lengths) -> str:
    """Which training row has the most tokens, and how it begins, for a line that refuses it."""
    number = int(lengths.argmax())
    start = one_line(" ".join(rows[number]["prompt"][:200].split()), 40)
    return f"training row {number:,} ({start})"


def _unwritable_line(references: Unwritable) -> str:
    first = list(references.characters.items())[:5]
    characters = ", ".join(f"{character} ({rows:,} rows)" for character, rows in first)
    more = ", …" if len(references.characters) > 5 else ""
    cure = f": no token for {characters}{more}; add them with `added_tokens`" if characters else ""
    return f"{references.percent:.1f} % of the references cannot be written{cure}"


def validation_loss(record: Record) -> str:
    """That of the weights that were kept, for the line that ends training; "" where none was taken.

    No training loss stands there: that of the last steps is one of few rows, with dropout.
    """
    loss = record.training.validation_loss
    return "" if loss is None else f", validation loss {loss:.3f}"


def size(number: float) -> str:
    """Bytes as `3.2 GB`."""
    unit, name = next((pair for pair in ((10**9, "GB"), (10**6, "MB")) if number >= pair[0]), (1000, "kB"))
    return f"{number / unit:.1f} {name}"


def duration(seconds: float) -> str:
    """Seconds as `9.4 h`, `12 min` or `40 s`."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def forecast_line(forecast: Forecast | None, seconds: float) -> str | None:
    """How far the forecast was off; None where it has not been judged, or was of too short a time.

    Parameters:
        seconds: what training took.
    """
    if forecast is None or forecast.ratio is None or forecast.seconds < WORTH_SAYING:
        return None
    off = 100 * (forecast.ratio - 1)
    return f"Took {duration(seconds)}, {abs(off):.0f} % {'more' if off > 0 else 'less'} than foretold"
