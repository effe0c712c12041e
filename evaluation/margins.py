"""Published outputs as the models read them: is every token the likeliest, or a near-tie?"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from peft import PeftModel

from evaluation.findings import Drift
from evaluation.loaded import MODELS, Loaded
from evaluation.tolerance import (
    DRAWS,
    LARGEST_NOISE,
    NEAR,
    NOISE,
    ROOM,
    SEED,
    TELLING,
    WORST_TOKEN,
    Rounding,
    largest_margin,
    sample_rows,
)
from hub.release import pull_parent
from record.errors import UserError
from record.predictions import Predictions, load_predictions
from record.release_files import FORGETTING_FILE
from record.run_record import Pin
from record.scored_record import require_scores
from record.scores import Contract
from record.verdict import Model
from scoring.decoding.margins import Margins, read_margins, why_not_greedy
from scoring.decoding.rounding import Elsewhere


class Reading(NamedTuple):
    """What a model thinks of all tokens of its published outputs.

    Parameters:
        tokens, exchanged: how many there are, and of how many it prefers another.
        mean, limit: by how much they fall short of the likeliest, and may, in nats a token.
        noise: of which the limit is made, in nats (see `noise_of`).
        worst_row, worst: the place of the row with the token that falls short by most, and by how much.
    """

    tokens: int
    exchanged: int
    mean: float
    limit: float
    noise: float
    worst_row: int
    worst: float

    @property
    def unlikely(self) -> bool:
        """Whether the model does not write such outputs, on whatever device."""
        return self.mean > self.limit or self.worst > WORST_TOKEN * self.noise


def summarize(margins: list[Margins], noise: float) -> Reading:
    """The reading of rows with these margins, where rounding makes so many nats between two logits."""
    short = np.concatenate([row.short for row in margins])
    worst = [float(row.short.max()) for row in margins]
    return Reading(
        tokens=len(short),
        exchanged=int(np.count_nonzero(short)),
        mean=float(short.mean()),
        limit=largest_margin(np.concatenate([row.gaps for row in margins]), noise),
        noise=noise,
        worst_row=int(np.argmax(worst)),
        worst=max(worst),
    )


def read_as(
    model: PeftModel,
    prompts: list[list[int]],
    outputs: list[list[int]],
    contract: Contract,
    adapter: bool,
    rounding: Rounding,
) -> Reading:
    """Has the model read outputs, and asks it for its own noise where the precision does not tell."""
    margins = read_margins(model, prompts, outputs, contract, adapter)
    noise = NOISE[rounding.precision]
    if rounding.precision in ("bfloat16", "quantized"):
        noise = noise_of(model, prompts, outputs, margins, contract, adapter, rounding.dtype) or noise
    return summarize(margins, noise)


def noise_of(
    model: PeftModel,
    prompts: list[list[int]],
    outputs: list[list[int]],
    margins: list[Margins],
    contract: Contract,
    adapter: bool,
    dtype: str,
) -> float | None:
    """The model's own noise in nats (see `NOISE`): how far the lead of a written token moves if rounding is another.

    Rows are read again, drawn at random until they hold `TELLING` near-ties; those of few near-ties `DRAWS` times at
    most.

    Parameters:
        margins: what the model thinks of the outputs.
        dtype: in what writer or reader compute, the coarser one.

    Returns:
        With some `ROOM`; None where there are too few near-ties.
    """
    near = [(row.gaps < NEAR) & (row.short < NEAR) for row in margins]
    order = np.random.default_rng(SEED).permutation(len(margins))
    found = np.cumsum([int(near[row].sum()) for row in order])
    if found[-1] * DRAWS < TELLING:
        return None
    rows = order[: int(np.searchsorted(found, TELLING)) + 1].tolist()
    squares: list[float] = []
    for draw in range(DRAWS):
        again = read_margins(
            model, [prompts[row] for row in rows], [outputs[row] for row in rows], contract, adapter,
            Elsewhere(dtype, draw),
        )  # fmt: skip
        for row, other in zip(rows, again, strict=True):
            squares += ((other.lead - margins[row].lead)[near[row]] ** 2).tolist()
        if len(squares) >= TELLING:
            break
    return min(ROOM * float(np.sqrt(np.mean(squares))), LARGEST_NOISE)


def read_outputs(loaded: Loaded, published: Predictions, numbers: list[int], contract: Contract, who: Model) -> Reading:
    """Has `who` read its published outputs, those of the test rows with the `numbers`.

    The record itself says where its scores were taken, and so whether tokens must be equal: whoever wants it otherwise
    names another version. Scores alone would then let pass what lies within their margin.

    Raises:
        `Drift`: these weights do not write them, on whatever device.
    """
    model, adapter = loaded.of(who)
    prompts, outputs = loaded.tokenizer(published.prompt)["input_ids"], getattr(published, f"{who}_tokens")
    reading = read_as(model, prompts, outputs, contract, adapter, loaded.rounding)
    if reading.unlikely:
        raise Drift(
            "weights" if who == "adapter" else "generation",
            f"these weights do not write the {who} outputs: the {reading.tokens:,} tokens fall short of the likeliest "
            f"by {reading.mean:.4f} nats in the mean, of which rounding explains {reading.limit:.4f}, and by "
            f"{reading.worst:.2f} at worst (row {numbers[reading.worst_row]})",
            "margins",
        )
    return reading


def refuse_beams(contract: Contract) -> None:
    """Refuses, before a model is loaded, what this level cannot check.

    Raises:
        `UserError`
    """
    if contract.num_beams > 1:
        raise UserError(
            f"level prefill checks greedy outputs, and these are of {contract.num_beams} beams, which do not write the "
            "likeliest token each time: use level generate"
        )


def _refuse_rules(loaded: Loaded, contract: Contract) -> None:
    refuse_beams(contract)
    if (reason := why_not_greedy(loaded.model, contract)) is not None:
        raise UserError(f"level prefill checks plainly greedy outputs, but {reason}: use level generate")


def check_readings(loaded: Loaded, published: Predictions, rows: list[int], sample: int | None) -> str:
    """Has base model and adapter read the published outputs of the test rows with the numbers `rows`.

    Returns:
        What was confirmed, in one line.

    Raises:
        `Drift`: one of them does not write such outputs.
        `UserError`: the base model's own generation config asks for what is not known here.
    """
    _refuse_rules(loaded, loaded.contract)
    subset = published.take(rows)
    readings = [read_outputs(loaded, subset, rows, loaded.contract, who) for who in MODELS]
    tokens, exchanged = (sum(getattr(one, name) for one in readings) for name in ("tokens", "exchanged"))
    of = f" for a sample of {len(rows):,} rows" if sample else ""
    line = f"of {tokens:,} published tokens{of} {tokens - exchanged:,} are the likeliest to the models that read them"
    if exchanged:
        largest = max(readings, key=lambda one: one.mean / one.limit)
        line += (
            f", the others near-ties ({largest.mean:.5f} nats short in the mean, of which rounding explains "
            f"{largest.limit:.5f})"
        )
    return f"{line}; nothing was generated"


def check_parent_rows(loaded: Loaded, pinned: Pin, folder: Path, sample: int | None, commit: str) -> str:
    """Has the adapter read its outputs for the test rows of the `pinned` parent, `FORGETTING_FILE` in `folder`.

    Returns:
        What was confirmed, in one line.

    Raises:
        `Drift`: it does not write such outputs.
        `UserError`: as `check_readings`.
    """
    published = load_predictions(folder, FORGETTING_FILE)
    rows = sample_rows(len(published.prompt), sample, commit)
    contract = require_scores(pull_parent(pinned).record).contract
    _refuse_rules(loaded, contract)
    subset = published.take(rows)
    reading = read_outputs(loaded, subset, rows, contract, "adapter")
    return (
        f"{reading.tokens - reading.exchanged:,} of {reading.tokens:,} tokens for the parent's test rows are the "
        "likeliest, the others near-ties"
    )
