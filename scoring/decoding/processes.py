"""Scoring on several processes and hosts: the first does all that one alone would, and the others lend it their models.

It alone asks the Hub, decides, prints and writes. What takes long it announces to the others as a job: a function and
what it is called with, which each of them calls, too. So hosts may differ, and need not see each other's files.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from recipes.environment import leave_together, uses_cpu
from recipes.launch import is_launched, launch_again
from record.errors import UserError, explanation, one_line_errors
from record.release_files import ADAPTER_CONFIG_FILE, ADAPTER_FILE

# The models that jobs name by their place, each with its tokenizer, loaded on every process in the same order.
_models: list[tuple[Any, Any]] = []


def follow_first() -> bool:
    """Does the first process's jobs until it has none any more, where this is another; whether it is.

    All processes have to call it before the first one announces anything.
    """
    if not is_launched() or _rank() == 0:
        return False
    while (job := _announce(None)) is not None:
        work, arguments, shared = job
        if shared:
            _gather(_outcome(work, arguments))
        else:
            work(*arguments)
    leave_together()
    return True


def share_command(verb: str, accelerate: Path | None, prefix: str = "error:", code: int = 1) -> bool:
    """Starts a command's processes where it is to have several; in each of these but the first, helps that one.

    Parameters:
        verb, accelerate, prefix, code: as for `recipes.launch.launch_again`.

    Returns:
        Whether this process has helped, so that nothing is left for it to do.
    """
    launch_again(verb, accelerate, prefix, code)
    with one_line_errors(prefix, code, sys.stderr if prefix == "error:" else sys.stdout):
        return follow_first()


def dismiss() -> None:
    """Lets the other processes end; on the first, when all is done."""
    if is_launched():
        _announce(None)
        leave_together()


def on_all(work: Callable[..., Any], *arguments: Any) -> Any:
    """Calls `work` on every process, which speaks with the others by itself; what this process's call returns."""
    if is_launched():
        _announce((work, arguments, False))
    return work(*arguments)


def gather_from_all(work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work` returns on each process.

    Raises:
        `UserError`: on one of them.
    """
    if not is_launched():
        return [work(*arguments)]
    _announce((work, arguments, True))
    outcomes = _gather(_outcome(work, arguments))
    for outcome in outcomes:
        if isinstance(outcome, UserError):
            raise outcome
    return outcomes


def share_rows(
    work: Callable[..., list[Any]],
    model: Any,
    tokenizer: Any,
    lengths: Sequence[int],
    columns: Sequence[list],
    *rest: Any,
) -> list[Any]:
    """`work(model, tokenizer, numbers, *columns, *rest)`, one result a row, each process with its share of the rows.

    Parameters:
        lengths: by which the work is dealt, the longest rows first.
        columns: one value a row each.
    """
    place = next((place for place, (one, _) in enumerate(_models) if one is model), None)
    if place is None or not is_launched():
        return work(model, tokenizer, list(range(len(lengths))), *columns, *rest)
    results: list[Any] = [None] * len(lengths)
    for numbers, part in gather_from_all(_do_share, work, place, lengths, columns, rest):
        for number, result in zip(numbers, part, strict=True):
            results[number] = result
    return results


def deal(lengths: Sequence[int], hands: int) -> list[list[int]]:
    """The rows' numbers in as many parts of like work: each takes from the longest that are left, in turn."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    return [order[hand::hands] for hand in range(hands)]


def enroll(model: Any, tokenizer: Any) -> None:
    """Makes a model that every process has just loaded known to `share_rows`."""
    if is_launched():
        _models.append((model, tokenizer))


def adapter_files(folder: Path) -> dict[str, bytes]:
    """The files of the adapter in `folder` for the other processes: another host may not see it."""
    names = (ADAPTER_CONFIG_FILE, ADAPTER_FILE) if is_launched() else ()
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


@contextmanager
def adapter_folder(folder: Path, files: dict[str, bytes]) -> Iterator[Path]:
    """The adapter's `folder` on the first process, on others one with those `files` of it."""
    if not is_launched() or _rank() == 0:
        yield folder
        return
    with tempfile.TemporaryDirectory() as copied:
        for name, content in files.items():
            Path(copied, name).write_bytes(content)
        yield Path(copied)


def _do_share(work, place: int, lengths: Sequence[int], columns: Sequence[list], rest: tuple):
    import torch

    numbers = deal(lengths, torch.distributed.get_world_size())[_rank()]
    model, tokenizer = _models[place]
    own = [[column[number] for number in numbers] for column in columns]
    return numbers, work(model, tokenizer, numbers, *own, *rest) if numbers else []


@cache
def _channel():
    """A group of all processes that waits for as long as the first one scores: torch's own waits for half an hour."""
    import torch
    from accelerate import PartialState

    # Without `cpu` accelerate 1.15 takes several processes without an accelerator for strangers to each other.
    PartialState(cpu=uses_cpu())
    return torch.distributed.new_group(backend="gloo", timeout=timedelta(days=30))


def _rank() -> int:
    _channel()
    return int(os.environ["RANK"])


def _announce(job: tuple | None) -> tuple | None:
    import torch

    box = [job]
    torch.distributed.broadcast_object_list(box, src=0, group=_channel(), device="cpu")
    return box[0]


def _outcome(work: Callable[..., Any], arguments: tuple) -> Any:
    try:
        return work(*arguments)
    except Exception as error:
        line = explanation(error)
        if line is None:
            raise
        return UserError(line)


def _gather(outcome: Any) -> list[Any]:
    import torch

    outcomes = [None] * torch.distributed.get_world_size() if _rank() == 0 else None
    torch.distributed.gather_object(outcome, outcomes, dst=0, group=_channel())
    return outcomes or []
