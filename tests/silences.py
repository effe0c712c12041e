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

    `silences` holds the seconds of each, and what was seen after it. Seconds in which the command was ready to run and
    had no core do not count: how busy a machine is with other tests says nothing about the command.
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

    @property
    def lines(self) -> list[str]:
        """The lines that stand on the terminal in the end."""
        lines = []
        for line in self.text.replace("\r\n", "\n").split("\n"):
            cells: list[str] = []
            for part in line.split("\r"):
                cells[: len(part)] = part
            lines.append("".join(cells).rstrip())
        return lines


def watch(command: list[str], environ: dict[str, str], terminal: bool) -> Seen:
    """Runs a command on a terminal of 80 columns, or into one pipe, and watches it to its end."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:
        termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    silences, parts = [], []
    last, before, waited = time.monotonic(), {}, {}
    while True:
        ready, _, _ = select.select([ours], [], [], LOOK)
        waited |= _without_core(process.pid)
        if not ready:
            continue
        try:
            part = os.read(ours, 65_536)
        except OSError:
            # The last process that had the terminal has ended.
            part = b""
        now, lost = time.monotonic(), max((waited[one] - before.get(one, 0) for one in waited), default=0)
        silences.append((now - last - lost, part.decode(errors="replace")))
        last, before = now, dict(waited)
        if not part:
            break
        parts.append(part)
    os.close(ours)
    return Seen(process.wait(), b"".join(parts).decode(errors="replace"), silences)


def _without_core(pid: int) -> dict[int, float]:
    """Seconds that each of a process and its descendants has waited for a core so far.

    The second number of schedstat: https://docs.kernel.org/scheduler/sched-stats.html
    """
    waited: dict[int, float] = {}
    with suppress(psutil.NoSuchProcess):
        for process in [(top := psutil.Process(pid)), *top.children(recursive=True)]:
            with suppress(OSError):
                tasks = [(task / "schedstat").read_text() for task in Path(f"/proc/{process.pid}/task").iterdir()]
                waited[process.pid] = sum(int(task.split()[1]) for task in tasks) / 1e9
    return waited
