"""Speed and memory of several ways to run an adapter on this CPU, at batch 1, side by side."""

import multiprocessing
import time
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager

from record.errors import UserError
from record.field_types import Section
from record.run_record import Amount, Count, Positive


class Speed(Section):
    """What one way took for a row at a time, on `threads` threads.

    `tokens_per_second` counts written tokens, `p50` and `p95` are quantiles of a row's seconds. `peak_bytes` is the
    most memory that its process held, libraries included; `model_bytes` is by how much that exceeds what it held once
    its libraries were loaded.
    """

    rows: Positive
    tokens_per_second: Amount
    p50: Amount
    p95: Amount
    peak_bytes: Count
    model_bytes: Count
    threads: Positive


def time_rows(
    contenders: dict, prompts: Sequence[list[int]], most: int, fewest: int = 0, rounds: int = 1
) -> dict[str, Speed]:
    """Runs every prompt through every `serving.export.formats.Contender`, one row at a time.

    Each contender has a process of its own, and each row goes through all of them before the next: whatever else the
    machine does meets all alike. The first row is run once more before, and not counted.

    Parameters:
        prompts: token ids.
        most, fewest: tokens to write for a row; the same where a measurement wants lengths that no model chooses.
        rounds: how often all rows are run.

    Raises:
        `UserError`: a process ended early.
    """
    with ExitStack() as stack:
        pipes = {name: stack.enter_context(_process(one)) for name, one in contenders.items()}
        threads = {name: _hear(name, pipe) for name, pipe in pipes.items()}
        seconds = {name: [] for name in contenders}
        for number, prompt in enumerate([prompts[0], *(list(prompts) * rounds)]):
            for name, pipe in pipes.items():
                pipe.send((prompt, most, fewest))
                took = _hear(name, pipe)
                if number:
                    seconds[name].append(took)
        memory = {}
        for name, pipe in pipes.items():
            pipe.send(None)
            memory[name] = _hear(name, pipe)
    return {name: _speed(rows, *memory[name], threads[name]) for name, rows in seconds.items()}


def _hear(name: str, pipe):
    try:
        return pipe.recv()
    except EOFError:
        raise UserError(
            f"the process that timed the {name} ended early: where no error stands above, the memory did not suffice"
        ) from None


def _speed(rows: list[tuple[float, int]], before: int, peak: int, threads: int) -> Speed:
    import numpy as np

    seconds = [took for took, _ in rows]
    p50, p95 = np.quantile(seconds, [0.5, 0.95])
    return Speed(
        rows=len(rows), tokens_per_second=sum(tokens for _, tokens in rows) / sum(seconds), p50=p50, p95=p95,
        peak_bytes=peak, model_bytes=peak - before, threads=threads,
    )  # fmt: skip


@contextmanager
def _process(contender):
    # Forked from one process that has imported everything and computed nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["serving.export.formats", "transformers.models.t5.modeling_t5"])
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(contender, theirs), daemon=True)
    process.start()
    # So that a process that fails closes the pipe, and no one waits for it.
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join()


def _serve(contender, pipe) -> None:
    import torch

    from recipes.environment import peak_resident_bytes
    from serving.export.formats import writer

    before = peak_resident_bytes()
    write = writer(contender)
    pipe.send(torch.get_num_threads())
    while (arguments := pipe.recv()) is not None:
        start = time.perf_counter()
        tokens = len(write(*arguments))
        pipe.send((time.perf_counter() - start, tokens))
    pipe.send((before, peak_resident_bytes()))
