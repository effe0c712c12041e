"""What training will take, before it starts: steps, tokens and FLOP counted, the rate measured on this device."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from accelerate.utils import gather_object, send_to_device
from datasets import Dataset

from recipes.environment import refuse_full_disk
from recipes.summary import WORTH_SAYING, duration, say
from recipes.training.flop import row_flop
from recipes.training.micro_batches import out_of_memory
from recipes.training.trainer import AdapterTrainer, saved_bytes, tokens_of
from record.energy import Forecast
from record.run_record import Record
from record.signs_of_life import waiting_for

# What measuring the rate may take: seconds, and of the training's own time the share, but so many seconds in any case.
SECONDS, SHARE, SHORTEST = 4.0, 0.02, 0.3
# Bytes of state that an optimizer keeps for each trained number; AdamW's two moments unless named here.
MOMENTS = {"sgd": 0, "adafactor": 0, "adamw_bnb_8bit": 2, "adamw_8bit": 2, "paged_adamw_8bit": 2, "lomo": 0}
ADAMW = 8
# What to do where a run's folder will not fit on the disk.
SMALLER_RUN = "set a smaller `save_total_limit`, or name another folder (--output_dir)"


@dataclass(frozen=True)
class Work:
    """All that training does: `tokens` are real source and target tokens, `flop` those of training on them.

    `validation_flop` is what training on the validation rows would cost, once for each of the `evaluations`: it is
    divided by a rate of the same kind.
    """

    steps: int
    tokens: int
    flop: float
    evaluations: int
    validation_flop: float
    checkpoints: int


@dataclass(frozen=True)
class Rates:
    """FLOP a second of training and, counted as if it were training, of evaluating; over all processes."""

    training: float
    validation: float


@dataclass(frozen=True)
class Memory:
    """Bytes on one device: `row` is what the longest row's backward pass needs kept, `batch` a micro-batch's."""

    weights: int
    gradients: int
    optimizer: int
    row: int
    batch: int

    @property
    def least(self) -> int:
        """With micro-batches of a single row."""
        return self.weights + self.gradients + self.optimizer + self.row


def lengths(rows: Dataset) -> np.ndarray:
    """Source and target tokens of each row, shape (rows, 2)."""
    table = rows.with_format("arrow")[:]
    return np.stack([pc.list_value_length(table[name]).to_numpy() for name in ("input_ids", "labels")], axis=1)


def count_work(trainer: AdapterTrainer) -> Work:
    """What the trainer is about to do; fewer steps where `early_stopping_patience` ends it."""
    arguments, rows = trainer.args, len(trainer.train_dataset)
    batch = arguments.per_device_train_batch_size
    each = max(1, rows // batch if arguments.dataloader_drop_last else math.ceil(rows / batch))
    steps = arguments.max_steps if arguments.max_steps > 0 else math.ceil(arguments.num_train_epochs * each)
    epochs = steps / each
    evaluations = _times(arguments.eval_strategy, arguments.eval_steps, steps, epochs) + bool(arguments.eval_on_start)
    counts = lengths(trainer.train_dataset)
    flop = row_flop(trainer.model, counts).sum()
    validation = 0.0
    if trainer.eval_dataset is not None:
        validation = row_flop(trainer.model, lengths(trainer.eval_dataset)).sum()
    return Work(
        steps=steps,
        tokens=round(epochs * int(counts.sum())),
        flop=float(epochs * flop),
        evaluations=evaluations if validation else 0,
        validation_flop=float(evaluations * validation),
        checkpoints=_times(arguments.save_strategy, arguments.save_steps, steps, epochs),
    )


def _times(strategy: Any, interval: float | None, steps: int, epochs: float) -> int:
    """How often transformers 5.23 does it, the end included; an interval below 1 is a share of all steps."""
    if strategy == "epoch":
        return math.ceil(epochs)
    if strategy != "steps" or not interval:
        return 0
    return math.ceil(steps / (math.ceil(steps * interval) if interval < 1 else interval))


def measure_rates(trainer: AdapterTrainer, work: Work, seconds: float = SECONDS) -> Rates | None:
    """Trains on rows of the usual lengths for `seconds`, or a small share of the training itself if that is less.

    Gradients and random state are left as they were. The first row is not counted, and micro-batches grow to the size
    that training will have as far as time allows.

    Returns:
        None where the model is cut up only when training starts (FSDP, ZeRO).
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return None
    flop = row_flop(trainer.model, lengths(trainer.train_dataset))
    order = np.argsort(flop, kind="stable")
    whole = max(1, min(trainer.args.per_device_train_batch_size // trainer.args.world_size, len(order)))

    def rate(count: int, evaluating: bool = False) -> tuple[float, float]:
        # Evenly spaced by their cost: few rows then stand for all.
        rows = order[((np.arange(count) + 0.5) * len(order) / count).astype(int)]
        inputs = trainer.data_collator([trainer.train_dataset[int(row)] for row in rows], tokens=trainer.tokens)
        begun = time.perf_counter()
        _step(trainer, send_to_device(inputs, trainer.args.device), evaluating)
        return flop[rows].sum(), time.perf_counter() - begun

    # To compile would take longer than the measurement: what follows is then an upper bound.
    with torch.random.fork_rng(), torch.compiler.set_stance("force_eager"):
        done, took = rate(1)
        runs: list[tuple[int, float, float]] = []
        spent = took
        while True:
            fits = int(whole * max(0.0, seconds - spent) / 2 * (done / took) / (flop.mean() * whole))
            count = max(1, runs[-1][0] if runs else 1, min(whole, fits))
            done, took = rate(count)
            runs.append((count, done, took))
            spent += took
            if spent + took > max(SHORTEST, min(seconds, SHARE * work.flop * took / done)):
                break
        largest = [run for run in runs if run[0] == runs[-1][0]]
        # The first of a size makes place for it.
        _, flops, times = zip(*(largest[1:] or largest), strict=True)
        done, took = _within_memory(lambda count: rate(count, evaluating=True),
                                    min(runs[-1][0], trainer.args.per_device_eval_batch_size))  # fmt: skip
    trainer.model.zero_grad()
    mine = (sum(flops) / sum(times), done / took)
    # The slowest process is waited for.
    slowest = map(min, zip(*gather_object([mine]), strict=True))
    return Rates(*(trainer.args.world_size * value for value in slowest))


def _within_memory(measure: Callable[[int], tuple[float, float]], rows: int) -> tuple[float, float]:
    """What is measured with so many rows, or, where memory does not suffice, with half as many, and so on."""
    try:
        return measure(rows)
    except RuntimeError as error:
        if not out_of_memory(error) or rows == 1:
            raise
    return _within_memory(measure, rows // 2)


def _step(trainer: AdapterTrainer, inputs: dict[str, Any], evaluating: bool) -> None:
    """One forward, and unless `evaluating` backward, pass over the rows; ends when the device has."""
    if evaluating:
        trainer.model.eval()
        trainer.prediction_step(trainer.model, inputs, prediction_loss_only=False)[0].item()
    else:
        trainer.training_step(trainer.model, inputs).item()


def seconds_of(work: Work, rates: Rates) -> float:
    """What training takes; loading, checkpoints and the optimizer's own arithmetic are not in it."""
    return work.flop / rates.training + work.validation_flop / rates.validation


def memory_of(trainer: AdapterTrainer, longest: dict[str, list[int]]) -> Memory:
    """What training needs, its activations as the longest training row's forward pass keeps them."""
    trained = sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad)
    with torch.random.fork_rng():
        row = saved_bytes(trainer.model, [longest], trainer.args.device)
    return Memory(
        weights=trainer.model.get_memory_footprint(),
        gradients=4 * trained,
        optimizer=MOMENTS.get(str(trainer.args.optim), ADAMW) * trained,
        row=row,
        batch=row * max(1, (trainer.tokens or 0) // tokens_of(longest)),
    )


def disk_of(trainer: AdapterTrainer, work: Work) -> int:
    """Bytes that the run's folder will hold at most: the adapter, and the same with the optimizer's state in each
    checkpoint that is kept, with one more while the next is written."""
    trained = sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad)
    kept = min(work.checkpoints, (trainer.args.save_total_limit or work.checkpoints) + 1)
    return trained * (4 + kept * (4 + MOMENTS.get(str(trainer.args.optim), ADAMW)))


def make_forecast(trainer: AdapterTrainer, steps_done: int, run: Path) -> Forecast | None:
    """What the training that is about to start will take, printed in at most three lines.

    Parameters:
        steps_done: those of the checkpoint that it continues from.

    Returns:
        None where no rate can be measured before.

    Raises:
        `UserError`: the run does not fit on the disk.
    """
    work = count_work(trainer)
    refuse_full_disk(disk_of(trainer, work), run, SMALLER_RUN)
    left = 1 - steps_done / work.steps
    if left <= 0:
        return None
    waiting_for("Measuring how fast this machine trains")
    rates = measure_rates(trainer, work)
    what = f"{work.steps:,} steps, {work.tokens:,} tokens, {work.flop / 1e12:,.1f} TFLOP"
    if rates is None:
        say(f"Forecast:   {what}; how long that takes, the first steps tell")
        return None
    seconds = left * seconds_of(work, rates)
    if seconds >= WORTH_SAYING:
        say(
            f"Forecast:   {duration(seconds)} for {what} at {rates.training / 1e9:,.1f} GFLOP/s, measured just now"
            + (f"; {steps_done:,} steps are done" if steps_done else "")
        )
    return Forecast(tokens=work.tokens, teraflop=work.flop / 1e12, seconds=seconds)


def judge_forecast(record: Record, max_steps: int) -> None:
    """Notes how far the forecast was off. Training that ended early has done a part of what was foretold."""
    if record.forecast is not None and record.forecast.seconds:
        first, training = record.training.resumed_from, record.training
        part = (training.steps - first) / (max_steps - first) if max_steps > first else 1
        record.forecast.ratio = training.seconds / (record.forecast.seconds * part) if part else None
