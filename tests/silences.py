"""Runs a command as a person sees it, and says how long nothing was seen."""

import os
import pty
import select
import subprocess
import termios
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

# Seconds between two looks at what the command's processes are waiting for.
LOOK = 0.2


@dataclass(frozen=True)
class Seen:
    """What a command showed: its exit code, its text, and its silences.

    `silences` holds the seconds of each, and what was seen after it. Seconds in which a thread of the command was ready to
    run and had no core do not count: how busy a machine is with other tests says nothing about the command.
    """

    code: int
    text: str
    silences: list[tuple[float, str]]

    @property
    def first(self) -> float:
        return self.silences[0][0]

    @property
    def longest(self) -> tuple[float, str]:
        return max(self.silences)


def watch(command: list[str], environ: dict[str, str], terminal: bool) -> Seen:
    """Runs a command on a terminal of 80 columns, or into one pipe, and watches it to its end."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:
        termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    waited: dict[tuple[int, str], int] = {}
    silences, parts = [], []
    last, before = time.monotonic(), 0.0
    while True:
        ready, _, _ = select.select([ours], [], [], LOOK)
        delay = _without_core(process.pid, waited)
        if not ready:
            continue
        try:
            part = os.read(ours, 65_536)
        except OSError:
            # The last process that had the terminal has ended.
            part = b""
        now = time.monotonic()
        silences.append((now - last - (delay - before), part.decode(errors="replace")))
        last, before = now, delay
        if not part:
            break
        parts.append(part)
    os.close(ours)
    return Seen(process.wait(), b"".join(parts).decode(errors="replace"), silences)


def _without_core(pid: int, waited: dict[tuple[int, str], int]) -> float:
    """Seconds that the threads of a process and its descendants have waited for a core so far; `waited` keeps each's.

    The second number of schedstat: https://docs.kernel.org/scheduler/sched-stats.html
    """
    with suppress(psutil.NoSuchProcess):
        for process in [(top := psutil.Process(pid)), *top.children(recursive=True)]:
            with suppress(OSError):
                for task in Path(f"/proc/{process.pid}/task").iterdir():
                    waited[process.pid, task.name] = int((task / "schedstat").read_text().split()[1])
    return sum(waited.values()) / 1e9
