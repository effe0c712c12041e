"""Runs a command as a person sees it, and says how long nothing was seen."""

import os
import pty
import select
import subprocess
import termios
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import psutil

# Seconds between two looks at what the command's processes have computed.
LOOK = 0.1


class Silence(NamedTuple):
    """Seconds in which nothing was seen, those that the command's processes computed in it, and what was seen then.

    Where a machine is busy with other tests the first says nothing about the command. What keeps a sign back is work
    that holds Python's lock, and the start of a process: of that it `owed` no more than it computed.
    """

    seconds: float
    computed: float
    text: str

    @property
    def owed(self) -> float:
        return min(self.seconds, self.computed)


@dataclass(frozen=True)
class Seen:
    """What a command showed: its exit code, its text, and its silences, the first one before anything was seen."""

    code: int
    text: str
    silences: list[Silence]

    @property
    def longest(self) -> Silence:
        return max(self.silences)

    @property
    def worst(self) -> Silence:
        return max(self.silences, key=lambda silence: silence.owed)

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
    last, before, computed = time.monotonic(), 0.0, 0.0
    while True:
        ready, _, _ = select.select([ours], [], [], LOOK)
        # What a process has computed is lost between its end and the moment in which it is waited for.
        computed = max(computed, _computed(process.pid))
        if not ready:
            continue
        try:
            part = os.read(ours, 65_536)
        except OSError:
            # The last process that had the terminal has ended.
            part = b""
        now = time.monotonic()
        silences.append(Silence(now - last, computed - before, part.decode(errors="replace")))
        last, before = now, computed
        if not part:
            break
        parts.append(part)
    os.close(ours)
    return Seen(process.wait(), b"".join(parts).decode(errors="replace"), silences)


def _computed(pid: int) -> float:
    """Seconds that the cores have spent on a process and its descendants so far, also on those that have ended."""
    seconds = 0.0
    with suppress(psutil.NoSuchProcess):
        for process in [(top := psutil.Process(pid)), *top.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                seconds += sum(process.cpu_times()[:4])
    return seconds
