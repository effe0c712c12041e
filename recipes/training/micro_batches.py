"""How an optimizer step is cut into micro-batches by their tokens; the effective batch stays the recipe's."""

import heapq
import math
from collections.abc import Callable, Sequence
from typing import Any

from record.errors import UserError
from record.run_record import Batch


def plan(arguments: Any, previous: Batch | None, tokens: int | None) -> Batch:
    """The first cut to try.

    `per_device_train_batch_size · gradient_accumulation_steps` is the effective batch, over all processes together.

    Parameters:
        previous: the cut of this run before it was interrupted, or of the run that is repeated. Its token budget is
            taken again where it was one for as many rows and processes.
        tokens: the recipe's own budget; None to find one.

    Raises:
        `UserError`: the effective batch cannot be shared evenly.
    """
    effective = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    processes = arguments.world_size
    share, rest = divmod(effective, processes)
    if rest:
        raise UserError(f"an effective batch of {effective} rows cannot be shared by {processes} processes evenly")
    if previous is not None and previous.tokens and (previous.effective, previous.processes) == (effective, processes):
        return previous
    return Batch(per_device=share, accumulation=1, processes=processes, tokens=tokens)


def cut(lengths: Sequence[int], processes: int, tokens: int | None) -> list[list[list[int]]]:
    """Shares a step's rows among processes, and each share among as many micro-batches.

    The longest row goes first, each to the micro-batch with the fewest tokens so far: so processes get about as many
    tokens, and every process as many micro-batches (where there are too few rows, an empty one).

    Parameters:
        lengths: source and target tokens of each row.
        tokens: the most that a micro-batch may hold, unless it is a single row; None for no bound.

    Returns:
        Row numbers, by process and micro-batch.
    """
    by_length = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    rows_each = max(1, math.ceil(len(lengths) / processes))
    each = min(rows_each, math.ceil(sum(lengths) / (processes * tokens))) if tokens else 1
    while True:
        batches: list[list[int]] = [[] for _ in range(processes * each)]
        loads = [(0, number) for number in range(len(batches))]
        for row in by_length:
            load, number = loads[0]
            batches[number].append(row)
            heapq.heapreplace(loads, (load + lengths[row], number))
        if tokens is None or all(load <= tokens or len(batches[number]) == 1 for load, number in loads):
            return [batches[process::processes] for process in range(processes)]
        each += 1


def smaller(batch: Batch, longest: int) -> Batch | None:
    """The cut by half the tokens; None where a micro-batch is a single row already.

    Parameters:
        longest: tokens of the longest row.
    """
    if batch.tokens <= longest:
        return None
    return batch.model_copy(update={"tokens": batch.tokens // 2, "too_large": [*batch.too_large, batch.tokens]})


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or the CPU."""
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, Exception) and should_reduce_batch_size(error)


def fit_memory(
    batch: Batch, longest: int, row: str, fixed: bool, attempt: Callable[[Batch], Any], say: Callable[[str], None]
) -> Any:
    """Runs `attempt` with ever smaller micro-batches until memory suffices.

    Parameters:
        longest: tokens of the longest row.
        row: which one that is, in words.
        fixed: the recipe states the token budget.
        attempt: may set the batch's `tokens`, if it has none, to what it has found.

    Raises:
        `UserError`: memory runs out at a fixed budget, next to other processes, or at one row.
    """
    from accelerate.utils.memory import clear_device_cache

    while True:
        try:
            return attempt(batch)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            # Without a budget yet, memory did not suffice to measure the longest row.
            next_batch = batch.tokens and smaller(batch, longest)
        # Outside the handler, which holds on to the failed attempt's tensors.
        clear_device_cache(garbage_collection=True)
        if not batch.tokens or (next_batch is None and not fixed):
            raise UserError(
                f"memory does not suffice for {row} alone, which has {longest:,} tokens: drop such rows by "
                f"`length_rules` (`drop tokens(prompt + target) > {min(longest - 1, 1024)}`), or set "
                "`activation_checkpointing: true`"
            )
        if fixed or batch.processes > 1:
            # A single process may try again; one of several would leave the others waiting.
            raise UserError(
                f"memory does not suffice for micro-batches of {batch.tokens:,} tokens: set a smaller "
                "`tokens_per_micro_batch`, `activation_checkpointing: true` or a smaller model"
            )
        say(f"Memory does not suffice for {batch.tokens:,} tokens at once: {next_batch.tokens:,}, from the last "
            "checkpoint on")  # fmt: skip
        batch = next_batch
