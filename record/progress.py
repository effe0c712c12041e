"""How much of some work is done: on a terminal one bar at a time, in a log a line now and then."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

from record.signs_of_life import waiting_for

# Seconds between two lines of progress in a log.
EVERY = 30


def time_left(seconds: float) -> str:
    """Seconds as minutes and seconds, or hours, minutes and seconds."""
    return str(tqdm.format_interval(seconds))


@contextmanager
def progress(total: int, unit: str, title: str) -> Iterator[Callable[[int], object]]:
    """Shows how much of some work is done, on standard error; of several processes the first one does.

    Returns:
        What is called with the units that were done since the last call.
    """
    if os.environ.get("RANK", "0") != "0":
        yield lambda units: None
        return
    if sys.stderr.isatty():
        with tqdm(total=total, unit=unit, desc=title) as bar:
            yield bar.update
        return
    waiting_for(f"{title}: {total:,} {unit}s")
    begun = last = time.monotonic()
    done = 0

    def update(units: int) -> None:
        nonlocal done, last
        done += units
        now = time.monotonic()
        if now - last >= EVERY and done:
            last = now
            left = time_left((total - done) * (now - begun) / done)
            print(f"{title}: {done:,} of {total:,} {unit}s, {left} left", file=sys.stderr, flush=True)

    yield update
