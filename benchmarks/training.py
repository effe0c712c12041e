"""Times training side by side: transformers' `Seq2SeqTrainer` as it comes, PEFT's example loop, and this project's.

All contenders train the same model in one process, their rounds interleaved, on rows of real lengths. What counts is
real tokens (of sources and targets, no padding) a second of stepping; making models and trainers is not timed.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from random import Random
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from peft import PeftModel
from tokenizers import Tokenizer, models
from torch.nn import functional
from torch.utils.data import DataLoader, SequentialSampler
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    get_linear_schedule_with_warmup,
)
from transformers.trainer_pt_utils import LengthGroupedSampler

from benchmarks.counting import Positions, Row, padding_share, real_tokens, saved_bytes
from benchmarks.shapes import make_model, make_rows
from recipes.training.trainer import AdapterTrainer, suit_device

OURS, COMPILED, PEFT_LOOP = "ours", "this project, torch_compile", "PEFT's example loop"
# The newest release, of 2024-12, and what it asks for (METADATA of autotrain_advanced-0.8.36-py3-none-any.whl).
AUTOTRAIN = "autotrain-advanced 0.8.36 requires transformers==4.48.0, peft==0.14.0 and datasets~=3.2.0"


def stock(batch: int, grouped: bool = False) -> str:
    """The name of a stock contender."""
    return f"Seq2SeqTrainer, {'group_by_length' if grouped else 'random order'}, batch {batch}"


@dataclass(frozen=True)
class Contender:
    """One way to train.

    Parameters:
        rows: of a round's number, the rows in the order in which they are taken.
        train: trains on rows and returns the seconds that the steps took.
        model: the one that it trains.
    """

    rows: Callable[[int], list[Row]]
    train: Callable[[list[Row]], float]
    model: PeftModel


def measure(  # All contenders take turns in one loop, so that noise meets them alike.
    device: str = "cpu",
    size: str = "small",
    repeats: int = 5,
    steps: int = 1,
    effective: int = 32,
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
    grouped: tuple[int, ...] = (4, 8, 16),
    tokens: int | None = None,
    pool: int = 8_192,
) -> dict:
    """Times every contender, counts its padding, and compares the gradients.

    Parameters:
        repeats: rounds of each contender.
        steps: optimizer steps a round.
        effective: rows of an optimizer step.
        batches: rows of the stock trainer's micro-batches, in random order.
        grouped: the same, grouped by length as transformers does it.
        tokens: the budget of this project's micro-batches; None: the project's own choice.
        pool: rows that the rounds' are drawn from.
    """
    lengths_from, rows = make_rows(pool)
    settings = dict(rows=rows, steps=steps, effective=effective, batches=batches, grouped=grouped, tokens=tokens)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    contenders = make_contenders(device, size, dtype, **settings)
    memory = {name: activation_bytes(contender) for name, contender in contenders.items()}
    if device == "cuda":
        model = make_model(size, dtype=dtype).to(device)
        contenders[COMPILED] = Contender(
            contenders[OURS].rows, lambda rows: timed(our_trainer(model, rows, device, effective, tokens, True)), model
        )
    seconds, peaks = race(device, contenders, repeats)
    # The share of padding does not depend on a model's width.
    small = make_contenders(device, "tiny", torch.float32, **settings)
    padding = {name: padding_of(contender, min(repeats, 2)) for name, contender in small.items()}
    speed = {
        name: [sum(real_tokens(contenders[name].rows(number))) / took for number, took in enumerate(values)]
        for name, values in seconds.items()
    }
    bytes_a_token = {name: used / sum(real_tokens(contenders[name].rows(0))) for name, used in memory.items()}
    stocks = [name for name in contenders if name.startswith("Seq2SeqTrainer")]
    best = max(stocks, key=lambda name: statistics.median(speed[name]))
    best_random = max((stock(batch) for batch in batches), key=lambda name: statistics.median(speed[name]))
    per_batch = {f"train_vs_stock_bs{b}": ratio(speed, stock(b)) for b in (8, 16) if b in batches}
    reference = stock(8 if 8 in batches else batches[0])
    return {
        "lengths_from": lengths_from,
        "size": size,
        "dtype": str(dtype).removeprefix("torch."),
        "rounds": repeats,
        "steps_a_round": steps,
        "rows_a_step": effective,
        "best_stock": best,
        "best_stock_random": best_random,
        "train_vs_best_stock": ratio(speed, best),
        "train_vs_best_stock_random": ratio(speed, best_random),
        **per_batch,
        "train_vs_peft_loop": ratio(speed, PEFT_LOOP),
        "padding_share": round(padding[OURS], 6),
        "memory_vs_stock": round(bytes_a_token[OURS] / bytes_a_token[reference], 3),
        "memory_reference": reference,
        "gradient_relative_error": gradient_relative_error(device, rows[:effective], tokens),
        "contenders": {
            name: {
                "tokens_per_second": round(statistics.median(values), 1),
                "tokens_per_second_range": [round(min(values), 1), round(max(values), 1)],
                "ours_is_faster": ratio(speed, name),
                "padding_share": round(padding[OURS if name == COMPILED else name], 4),
                # What compiled layers keep does not pass the hooks that count it.
                "activation_bytes_per_token": round(bytes_a_token[name]) if name in bytes_a_token else None,
                "peak_bytes": peaks[name],
            }
            for name, values in speed.items()
        },
        "not_measured": {} if find_spec("autotrain") else {"autotrain-advanced": AUTOTRAIN},
    }


def ratio(speed: dict[str, list[float]], other: str) -> float:
    """How many times as fast ours is, the median over the rounds, each of which compares its own two times."""
    return round(statistics.median(a / b for a, b in zip(speed[OURS], speed[other], strict=True)), 2)


def make_contenders(
    device: str,
    size: str,
    dtype: torch.dtype,
    rows: list[Row],
    steps: int,
    effective: int,
    batches: tuple[int, ...],
    grouped: tuple[int, ...],
    tokens: int | None,
    dropout: float = 0.1,
) -> dict[str, Contender]:
    """All contenders by name; those that leave the model as it is share one, ours has its own."""
    theirs, ours = (make_model(size, dropout, dtype).to(device) for _ in range(2))
    windows = random_windows(rows, steps * effective)
    longest = [max(len(row[part]) for row in rows) for part in ("input_ids", "labels")]
    contenders = {}
    for batch in batches:
        train = stock_training(theirs, device, batch, effective)
        contenders[stock(batch)] = Contender(windows, train, theirs)
    for batch in grouped:
        train = stock_training(theirs, device, batch, effective)
        contenders[stock(batch, True)] = Contender(grouped_rows(rows, steps * effective, batch), train, theirs)
    # The slowest by far, and as slow for every row: a quarter of them suffices.
    few = random_windows(rows, steps * effective // 4)
    contenders[PEFT_LOOP] = Contender(few, lambda part: peft_loop(theirs, part, device, *longest), theirs)
    contenders[OURS] = Contender(windows, lambda part: timed(our_trainer(ours, part, device, effective, tokens)), ours)
    return contenders


def random_windows(rows: list[Row], count: int) -> Callable[[int], list[Row]]:
    """Of a round's number, `count` rows in random order, the same for everybody."""
    return lambda number: Random(number).sample(rows, count)


def grouped_rows(rows: list[Row], count: int, batch: int) -> Callable[[int], list[Row]]:
    """Of a round's number, `count` rows as `group_by_length` would batch them.

    A whole epoch is ordered by transformers' own sampler and cut into batches. A round takes every n-th batch of them
    by size, starting at a random one, so that few batches stand for the epoch; the sampler gives the longest first.
    """
    generator = torch.Generator().manual_seed(0)
    order = list(LengthGroupedSampler(batch, lengths=[len(row["input_ids"]) for row in rows], generator=generator))
    batches = [[rows[at] for at in order[start : start + batch]] for start in range(0, len(order) - batch + 1, batch)]
    batches.sort(key=lambda part: sum(max(len(row[name]) for row in part) for name in ("input_ids", "labels")))
    needed = count // batch
    stride = len(batches) // needed

    def window(number: int) -> list[Row]:
        start = Random(number).randrange(stride)
        parts = batches[start : start + stride * needed : stride]
        Random(number).shuffle(parts)
        return [row for part in parts for row in part]

    return window


class Stopwatch(TrainerCallback):
    """Seconds from the start of the first step, fetching its rows included, to the end of the last."""

    def on_train_begin(self, args, state, control, **kwargs):
        synchronize(args.device.type)
        self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == state.max_steps:
            synchronize(args.device.type)
            self.seconds = time.perf_counter() - self.start


def synchronize(device: str) -> None:
    """Waits until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


class InOrder:
    """A trainer's rows in the order in which they are given: it was drawn before."""

    def _get_train_sampler(self, *_):
        return SequentialSampler(self.train_dataset)


class StockTrainer(InOrder, Seq2SeqTrainer):
    pass


class OurTrainer(InOrder, AdapterTrainer):
    pass


def training_arguments(device: str, batch: int, accumulation: int, **more: Any) -> Seq2SeqTrainingArguments:
    """One epoch over the rows, and nothing around the steps."""
    return Seq2SeqTrainingArguments(
        output_dir=f"{tempfile.gettempdir()}/benchmark",
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=1,
        learning_rate=1e-3,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        report_to=[],
        **more,
    )


def collator(model: PeftModel) -> DataCollatorForSeq2Seq:
    """Pads to the longest row of a batch, as transformers' own example scripts do."""
    pieces = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1}, "<pad>"))
    return DataCollatorForSeq2Seq(
        PreTrainedTokenizerFast(tokenizer_object=pieces, pad_token="<pad>", eos_token="</s>"), model=model
    )


def token_mean_loss(outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the optimizer step's real target tokens, as `Trainer` believes that T5 takes it."""
    logits = outputs["logits"].flatten(0, 1).float()
    return functional.cross_entropy(logits, labels.flatten(), ignore_index=-100, reduction="sum") / num_items_in_batch


def stock_trainer(model: PeftModel, rows: list[Row], device: str, batch: int, effective: int) -> Seq2SeqTrainer:
    """transformers' trainer as it comes, but for its loss, which it multiplies by the accumulation steps."""
    return StockTrainer(
        model=model,
        args=training_arguments(device, batch, effective // batch),
        train_dataset=rows,
        data_collator=collator(model),
        compute_loss_func=token_mean_loss,
    )


def our_trainer(
    model: PeftModel, rows: list[Row], device: str, effective: int, tokens: int | None, compiled: bool = False
) -> AdapterTrainer:
    """This project's trainer as `recipes.train` sets it up; an optimizer step's rows come as one batch, which it cuts
    by itself (tokens None: as memory allows)."""
    arguments = training_arguments(device, effective, 1, torch_compile=compiled)
    suit_device(arguments)
    return OurTrainer(model=model, args=arguments, train_dataset=rows, tokens=tokens)


def stock_training(model: PeftModel, device: str, batch: int, effective: int) -> Callable[[list[Row]], float]:
    return lambda rows: timed(stock_trainer(model, rows, device, batch, effective))


def timed(trainer: Seq2SeqTrainer) -> float:
    """Seconds of the trainer's steps."""
    watch = Stopwatch()
    trainer.add_callback(watch)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return watch.seconds


def peft_loop(model: PeftModel, rows: list[Row], device: str, source: int, target: int, batch: int = 8) -> float:
    """Seconds of a loop as in PEFT's examples/conditional_generation: an optimizer step every `batch` (8) rows.

    That example pads every row to a fixed length. Here that is the longest row's, so that nothing is cut off.

    Parameters:
        source: positions of every source, padding included.
        target: positions of every target.
    """

    def padded(row: Row) -> dict[str, torch.Tensor]:
        ids, labels = row["input_ids"], row["labels"]
        return {
            "input_ids": torch.tensor(ids + [0] * (source - len(ids))),
            "attention_mask": torch.tensor([1] * len(ids) + [0] * (source - len(ids))),
            "labels": torch.tensor(labels + [-100] * (target - len(labels))),
        }

    loader = DataLoader([padded(row) for row in rows], batch_size=batch, pin_memory=device == "cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=0, num_training_steps=len(loader))
    model.train()
    total = 0.0
    synchronize(device)
    start = time.perf_counter()
    for cpu_batch in loader:
        loss = model(**{name: values.to(device) for name, values in cpu_batch.items()}).loss
        total += loss.detach().float()
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    synchronize(device)
    return time.perf_counter() - start


def activation_bytes(contender: Contender) -> int:
    """What the first round's forward passes keep for their backward passes, together."""
    with saved_bytes(contender.model) as saved:
        contender.train(contender.rows(0))
    return saved.total


def race(device: str, contenders: dict[str, Contender], repeats: int) -> tuple[dict[str, list[float]], dict]:
    """Seconds of every contender's rounds, interleaved, and its peak memory in bytes on a GPU (None on a CPU).

    The first round is run once before, untimed, on a GPU: kernels are chosen and compiled then.
    """
    seconds, peaks = {name: [] for name in contenders}, dict.fromkeys(contenders)
    weights = {id(c.model): sum(p.nbytes for p in c.model.parameters()) for c in contenders.values()}
    if device == "cuda":
        for contender in contenders.values():
            contender.train(contender.rows(0))
    for number in range(repeats):
        print(f"  round {number + 1} of {repeats}", flush=True)
        for name, contender in contenders.items():
            if device == "cuda":
                clear_device_cache(garbage_collection=True)
                torch.cuda.reset_peak_memory_stats()
            seconds[name].append(contender.train(contender.rows(number)))
            if device == "cuda":
                others = sum(weights.values()) - weights[id(contender.model)]
                peaks[name] = max(peaks[name] or 0, torch.cuda.max_memory_allocated() - others)
    return seconds, peaks


def padding_of(contender: Contender, rounds: int) -> float:
    """The share of padding among the positions in linear layers, counted over all rounds."""
    with Positions(contender.model) as positions:
        for number in range(rounds):
            contender.train(contender.rows(number))
    return padding_share(positions, [row for number in range(rounds) for row in contender.rows(number)])


class KeepGradients(TrainerCallback):
    """Keeps the adapter's gradients as they are just before the optimizer takes them."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients = {n: p.grad.double().clone() for n, p in model.named_parameters() if p.grad is not None}


def gradients(trainer: Seq2SeqTrainer) -> dict[str, torch.Tensor]:
    """The adapter's gradients of the trainer's only step, unclipped."""
    callback = KeepGradients()
    trainer.args.max_grad_norm = 0.0
    trainer.add_callback(callback)
    timed(trainer)
    return callback.gradients


def gradient_relative_error(device: str, rows: list[Row], tokens: int | None) -> float:
    """‖ours − stock‖ / ‖stock‖ of a step's gradient in float32 without dropout; stock pads all rows into one batch."""
    theirs = gradients(stock_trainer(make_model("tiny", 0.0).to(device), rows, device, len(rows), len(rows)))
    ours = gradients(our_trainer(make_model("tiny", 0.0).to(device), rows, device, len(rows), tokens))
    difference = math.sqrt(sum(float((ours[name] - theirs[name]).square().sum()) for name in theirs))
    return difference / math.sqrt(sum(float(values.square().sum()) for values in theirs.values()))
