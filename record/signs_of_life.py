"""Signs of life while a command works, whatever it does meanwhile.

On a terminal they are a line that says what is waited for and since when, rewritten each second; where a bar is shown,
its time goes on. In a log, where both streams go to one place, they are dots in a line of their own. Where a program
reads the streams apart there are none: it finds what the command says, and no more.
"""

import atexit
import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from record.errors import ON_LOCAL_HUB

# What is waited for most.
LOADING = "Loading PyTorch and transformers"
# Seconds of silence until a sign is given on a terminal, and in a log. Three are promised: importing PyTorch holds
# Python's lock for up to 0.4 s at a time on two cores of AMD's Zen 3, and so keeps a sign back.
ON_TERMINAL, IN_LOG = 1.0, 2.0
# Seconds until the first sign of a process.
FIRST = 0.5
# Seconds between two looks at the clock.
LOOK = 0.2
# Dots in a line of a log: two minutes.
DOTS = 60


@contextmanager
def signs_of_life(what: str = "") -> Iterator[None]:
    """Gives signs of life on standard error until its end; of several processes the first one does.

    Parameters:
        what: as in `waiting_for`.
    """
    global _signs
    # Before it ends Python looks through all objects once more: after PyTorch is loaded that is a second of silence.
    atexit.register(gc.freeze)
    if _signs is None and os.environ.get("RANK", "0") == "0":
        _signs = _watch_streams()
    if _signs is None or _signs.thread is not None:
        yield
        return
    # A command on the local Hub is its third process: on a terminal the two before have been silent long enough.
    at_once = _signs.terminal and ON_LOCAL_HUB in os.environ
    _signs.start(what, 0.0 if at_once else FIRST)
    try:
        yield
    finally:
        _signs.stop()


@contextmanager
def silence() -> Iterator[None]:
    """Gives none meanwhile: another process speaks, or what is done has no end."""
    if _signs is None or _signs.thread is None:
        yield
        return
    _signs.stop()
    try:
        yield
    finally:
        _signs.start()


def waiting_for(what: str) -> None:
    """Says what the next line is waited for, where there are signs of life.

    Parameters:
        what: what is being done ("Loading PyTorch").
    """
    if _signs is not None and _signs.thread is not None:
        _signs.expect(what)


class _Signs:
    """What is on the terminal, or in the log, and the thread that adds to it.

    Parameters:
        stream: where the signs go.
        terminal: whether that is a terminal, not a log.
    """

    def __init__(self, stream: TextIO, terminal: bool) -> None:
        self.stream, self.terminal = stream, terminal
        # Seconds of silence until the next.
        self.every = ON_TERMINAL if terminal else IN_LOG
        # `drawing` is the thread's, and is taken before tqdm's own lock; under tqdm's a bar is written, with `writing`.
        self.drawing, self.writing = threading.Lock(), threading.RLock()
        self.what, self.since, self.last = "", 0.0, 0.0
        # Columns of the line on the terminal, or dots of the log's last line.
        self.shown = 0
        self.at_line_start = True
        self.thread: threading.Thread | None = None
        self.ended = threading.Event()
        # A fork waits until nothing is drawn, and has no thread.
        os.register_at_fork(before=self._hold, after_in_parent=self._release, after_in_child=self._release_child)

    def start(self, what: str = "", first: float | None = None) -> None:
        self.what, self.since = what, time.monotonic()
        self.last = self.since if first is None else self.since - self.every + first
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(self.ended,), name="signs of life", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        if self.thread is not None:
            self.ended.set()
            self.thread.join()
            self.thread = None
        with suppress(OSError, ValueError):
            self.clear()

    def expect(self, what: str) -> None:
        with self.writing:
            self.clear()
            self.what, self.since = what, time.monotonic()
            if self.terminal:
                self.last = 0.0

    def clear(self) -> None:
        """Takes the line off the terminal, or ends the log's line of dots."""
        with self.writing:
            if self.shown:
                blank = "\r" + " " * self.shown + "\r"
                self.stream.write(blank if self.terminal else f" {self._clock()}\n")
                self.stream.flush()
                self.shown = 0

    def note(self, text: str, visible: bool) -> None:
        """Takes note of what the process itself has written."""
        now = time.monotonic()
        if visible and text:
            self.what, self.since, self.last = "", now, now
            self.at_line_start = text.endswith(("\n", "\r"))
        elif line := text.strip():
            self.what, self.since = line.splitlines()[-1], now

    def _run(self, ended: threading.Event) -> None:
        try:
            while True:
                with self.drawing:
                    if self._is_silent() and not self._in_background() and not self._refresh_bar():
                        self._draw()
                if ended.wait(LOOK):
                    return
        except (OSError, ValueError):
            # Whoever read this has gone, or the stream is closed.
            return

    def _refresh_bar(self) -> bool:
        """Writes the bars that are seen again, with the time of now; whether there is one."""
        # It may be half imported.
        tqdm = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
        if not self.terminal or tqdm is None or not len(tqdm._instances):
            return False
        with tqdm.get_lock():
            bars = [bar for bar in tqdm._instances if hasattr(bar, "start_t")]
        # One that waits for the time until it is shown (TQDM_DELAY) takes nothing back when it is closed.
        bars = [bar for bar in bars if bar.last_print_t >= bar.start_t + bar.delay]
        for bar in bars:
            bar.refresh()
            self.last = time.monotonic()
        return bool(bars)

    def _draw(self) -> None:
        with self.writing:
            # Something may have been written in the meantime.
            if not self._is_silent() or not self.at_line_start:
                return
            if self.terminal:
                line = f"{self.what or 'Working'}, {self._clock()}"[: self._columns() - 1]
                # The cursor goes back to the start: what another process writes stands there.
                self.stream.write("\r" + line.ljust(self.shown) + "\r")
                self.shown = len(line)
            else:
                if self.shown == DOTS:
                    self.clear()
                self.stream.write("." if self.shown or not self.what else f"{self.what} .")
                self.shown += 1
            self.stream.flush()
            self.last = time.monotonic()

    def _columns(self) -> int:
        return os.get_terminal_size(self.stream.fileno()).columns or 80

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.since), 60)
        return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"

    def _is_silent(self) -> bool:
        return time.monotonic() - self.last >= self.every

    def _in_background(self) -> bool:
        try:
            return self.terminal and os.tcgetpgrp(self.stream.fileno()) != os.getpgrp()
        except OSError:
            # A terminal, but not this process's own.
            return False

    def _hold(self) -> None:
        self.drawing.acquire()
        self.writing.acquire()

    def _release(self) -> None:
        self.writing.release()
        self.drawing.release()

    def _release_child(self) -> None:
        self.thread, self.shown = None, 0
        self._release()


class _Watched:
    """A stream of the process, whose text takes the place of the signs.

    Parameters:
        visible: whether it is seen where the signs are.
    """

    def __init__(self, stream: TextIO, signs: _Signs, visible: bool) -> None:
        self._stream, self._signs, self._visible = stream, signs, visible

    def write(self, text: str) -> int:
        with self._signs.writing:
            if self._visible:
                self._signs.clear()
            written = self._stream.write(text)
            self._signs.note(text, self._visible)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_signs: _Signs | None = None


def _watch_streams() -> _Signs | None:
    """The signs for where standard error goes; None where there are to be none, or nothing can be said of that."""
    try:
        same = os.path.samestat(os.fstat(sys.stdout.fileno()), os.fstat(sys.stderr.fileno()))
        terminal = sys.stderr.isatty()
    except (OSError, ValueError, AttributeError):
        return None
    if not terminal and not same:
        return None
    signs = _Signs(sys.stderr, terminal)
    sys.stdout = cast(TextIO, _Watched(sys.stdout, signs, same))
    sys.stderr = cast(TextIO, _Watched(sys.stderr, signs, True))
    return signs
