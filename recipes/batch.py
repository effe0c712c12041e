"""How an optimizer step is cut into micro-batches; the effective batch stays the recipe's."""

from collections.abc import Callable
from typing import Any

from recipes.errors import UserError
from recipes.record import Batch


def plan(arguments: Any, previous: Batch | None) -> Batch:
    """The first cut to try.

    `per_device_train_batch_size · gradient_accumulation_steps` is the effective batch, over all processes together.
    With `auto_find_batch_size` a micro-batch starts at the whole share of a process; a run that is continued starts at
    the size that it had found.

    Raises:
        `UserError`: the effective batch cannot be cut evenly.
    """
    if arguments.auto_find_batch_size and arguments.world_size > 1:
        raise UserError(
            "`auto_find_batch_size` works on one process: find the size there, then set `per_device_train_batch_size`"
        )
    effective = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    processes = arguments.world_size
    share, rest = divmod(effective, processes)
    if rest:
        raise UserError(f"an effective batch of {effective} rows cannot be shared by {processes} processes evenly")
    if previous is not None and previous.effective == effective and previous.processes == processes:
        return previous
    per_device = share if arguments.auto_find_batch_size else min(arguments.per_device_train_batch_size, share)
    if share % per_device:
        raise UserError(f"{share} rows a process cannot be cut into micro-batches of {per_device}")
    return Batch(per_device=per_device, accumulation=share // per_device, processes=processes)


def smaller(batch: Batch) -> Batch | None:
    """The next smaller cut of the same effective batch, at most half as large; None when a micro-batch is one row."""
    share = batch.per_device * batch.accumulation
    sizes = [size for size in range(1, batch.per_device // 2 + 1) if share % size == 0]
    if not sizes:
        return None
    too_large = [*batch.too_large, batch.per_device]
    return Batch(per_device=sizes[-1], accumulation=share // sizes[-1], processes=batch.processes, too_large=too_large)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or the CPU."""
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, Exception) and should_reduce_batch_size(error)


def fit(batch: Batch, automatic: bool, attempt: Callable[[Batch], Any], say: Callable[[str], None]) -> Any:
    """Runs `attempt` with ever smaller micro-batches (if `automatic`) until memory suffices.

    Raises:
        `UserError`: memory runs out at a fixed size, or at one row.
    """
    from accelerate.utils.memory import clear_device_cache

    while True:
        try:
            return attempt(batch)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            next_batch = smaller(batch)
        # Outside the handler, which holds on to the failed attempt's tensors.
        clear_device_cache(garbage_collection=True)
        if not automatic or next_batch is None:
            raise UserError(
                f"memory does not suffice for micro-batches of {batch.per_device} rows: set "
                "`auto_find_batch_size: true`, `activation_checkpointing: true` or a smaller model"
            )
        say(f"Memory does not suffice for {batch.per_device} rows at once: {next_batch.per_device} rows, "
            f"{next_batch.accumulation} times, from the last checkpoint on")  # fmt: skip
        batch = next_batch
