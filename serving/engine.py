"""One thread decodes for all requests: their rows share every step, and each enters and leaves by itself."""

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from scoring.decoding.slot_decoding import SlotBatch, SlotRow, likeliest
from serving.loading import Served

log = logging.getLogger("serving")

# That any request may ask for; a recipe that scores longer outputs raises it.
MAX_TOKENS = 512


class Full(Exception):
    """More rows wait than may."""


class Stopping(Exception):
    """The service takes no new rows."""


@dataclass(eq=False)
class PendingRow:
    """A prompt to be answered: token ids with `</s>`, at most `limit` tokens.

    With `temperature` 0 the likeliest tokens are taken, else some are drawn, from those that make up `top_p` of the
    probability, by `draws`. `answer` comes to hold the token ids without `</s>`; cancelled, it gives the row up.

    Parameters:
        stops: the first token after which the text holds one of them is the last.
        forced: the first tokens, whatever the model finds likely; needs `likeliest`.
        likeliest: how many of the likeliest tokens `probabilities` tells at each place; None for no figures.
        progress: called by the engine's thread with the ids so far, after each step but the last.
        probabilities: per token its log probability (nats) before temperature and `top_p`, and those of the likeliest
            by id. It may be longer than the answer.
    """

    prompt: list[int]
    limit: int
    temperature: float = 0.0
    top_p: float = 1.0
    draws: torch.Generator | None = None
    stops: Sequence[str] = ()
    forced: Sequence[int] = ()
    likeliest: int | None = None
    progress: Callable[[list[int]], object] | None = None
    probabilities: list[tuple[float, dict[int, float]]] = field(default_factory=list)
    answer: Future[list[int]] = field(default_factory=Future)


class Engine:
    """Decodes in a thread of its own, from `start` until all rows are answered after `drain`.

    Parameters:
        slots: rows of one model that are decoded at once.
        queue: rows, of all models, that may wait for a slot.
        stopped: called by the thread when it ends.
    """

    def __init__(self, models: list[Served], slots: int, queue: int, stopped: Callable[[], object] = lambda: None):
        self.most = max(MAX_TOKENS, *(one.max_tokens for one in models))
        self.slots, self.queue, self.stopped = slots, queue, stopped
        self.lanes = {one.id: Lane(one, slots, self.most) for one in models}
        self.leaving: list[Lane] = []
        self.draining = False
        self.steps = 0
        # Reentrant: `drain` is called by a signal, in whatever line of `submit` the main thread is.
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._run, name="decoding", daemon=True)
        self.start = self.thread.start

    def submit(self, model: str, rows: list[PendingRow]) -> None:
        """Queues the rows of one request, all or none.

        Raises:
            `Full`, `Stopping`; `KeyError`, where the model has been removed.
        """
        with self.changed:
            if self.draining:
                raise Stopping
            if self.waiting() + len(rows) > self.queue:
                raise Full
            self.lanes[model].waiting.extend(rows)
            self.changed.notify()

    def add(self, model: Served) -> None:
        """Decodes for one model more."""
        lane = Lane(model, self.slots, self.most)
        with self.changed:
            self.lanes[model.id] = lane

    def remove(self, model: str) -> None:
        """Takes no new rows for a model; those it has are answered."""
        with self.changed:
            self.leaving.append(self.lanes.pop(model))
            self.changed.notify()

    def drain(self) -> None:
        """Takes no new rows; the thread ends when those it has are answered."""
        with self.changed:
            self.draining = True
            self.changed.notify()

    def waiting(self) -> int:
        """How many rows wait for a slot."""
        return sum(len(lane.waiting) for lane in self._all())

    def decoding(self) -> int:
        """How many rows have one."""
        return sum(len(lane.rows) for lane in self._all())

    def _all(self) -> list["Lane"]:
        return [*self.lanes.values(), *self.leaving]

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._work():
                    with self.changed:
                        lanes = self._all()
                    for lane in lanes:
                        with self.changed:
                            entering = lane.entering()
                        self.steps += lane.step(entering)
                    self._forget()
        finally:
            self.stopped()

    def _forget(self) -> None:
        with self.changed:
            self.leaving = [lane for lane in self.leaving if lane.waiting or lane.rows]

    def _work(self) -> bool:
        """Waits for rows; False when there are none and no more will come."""
        with self.changed:
            self.changed.wait_for(lambda: self.draining or self.leaving or self.waiting() or self.decoding())
            return bool(self.leaving or self.waiting() or self.decoding())


class Lane:
    """The rows of one model: those that wait, and by number those that are decoded."""

    def __init__(self, served: Served, slots: int, most: int):
        self.served, self.slots, self.most = served, slots, most
        self.waiting: deque[PendingRow] = deque()
        self.numbers = itertools.count()
        self._begin()

    def _begin(self) -> None:
        self.rows: dict[int, PendingRow] = {}
        self.prompts: dict[int, list[int]] = {}
        self.limits: dict[int, int] = {}
        one = self.served
        self.batch = SlotBatch(one.model, one.weights, self.prompts, self.limits, self.most, self.slots, self._choose)
        self.steps = self.batch.steps

    def entering(self) -> list[PendingRow]:
        """Takes from the queue what a slot is free for."""
        entering = []
        while self.waiting and len(entering) < self.slots - len(self.rows):
            row = self.waiting.popleft()
            if not row.answer.cancelled():
                entering.append(row)
        return entering

    def step(self, entering: list[PendingRow]) -> bool:
        """Lets the rows in and all write their next token; whether there were any."""
        for row in sorted(entering, key=lambda row: -len(row.prompt)):
            number = next(self.numbers)
            self.rows[number], self.prompts[number], self.limits[number] = row, row.prompt, row.limit
            self.batch.queue.append(number)
        if not self.rows:
            return False
        try:
            if self.batch.admit():
                # A stream's first token waits for no other.
                self.batch.steps = (
                    1 if any(row.progress and not slot.written for slot, row in self._slots()) else self.steps
                )
                for number, ids in self.batch.advance():
                    row = self._leave(number)
                    _answer(row, self._until_stop(row, ids) or ids)
                self._watch()
            for number in [number for number, row in self.rows.items() if row.answer.cancelled()]:
                self.batch.remove(number)
                self._leave(number)
            self.batch.shrink()
        except Exception as error:
            log.exception("decoding with %s failed: %d rows are given up", self.served.id, len(self.rows))
            for row in self.rows.values():
                _answer(row, error)
            self._begin()
        return True

    def _watch(self) -> None:
        """Ends the rows whose text holds a stop, and tells those who follow a row how far it is."""
        if not any(row.stops or row.progress for row in self.rows.values()):
            return
        for slot, row in self._slots():
            ids = self._until_stop(row, slot.written)
            if ids:
                self.batch.remove(slot.number)
                _answer(self._leave(slot.number), ids)
            elif row.progress:
                row.progress(list(slot.written))

    def _slots(self) -> list[tuple[SlotRow, PendingRow]]:
        return [(slot, self.rows[slot.number]) for cache in self.batch.caches for slot in cache.rows]

    def _until_stop(self, row: PendingRow, ids: list[int]) -> list[int] | None:
        """The tokens up to the one that completes a stop; None where there is none."""
        # What was written before the last look holds none.
        for end in range(max(1, len(ids) - self.batch.steps + 1), len(ids) + 1) if row.stops else ():
            text = self.served.tokenizer.decode(ids[:end], skip_special_tokens=True)
            if any(stop in text for stop in row.stops):
                return ids[:end]
        return None

    def _leave(self, number: int) -> PendingRow:
        del self.prompts[number], self.limits[number]
        return self.rows.pop(number)

    def _choose(self, rows: list[SlotRow], logits: Tensor) -> Tensor:
        tokens = likeliest(logits)
        for place, one in enumerate(rows):
            row = self.rows[one.number]
            if (written := len(row.probabilities)) < len(row.forced):
                tokens[place] = row.forced[written]
            elif row.temperature:
                tokens[place] = draw(logits[place], row.temperature, row.top_p, row.draws)
            if row.likeliest is not None:
                row.probabilities.append(_probabilities(logits[place], int(tokens[place]), row.likeliest))
        return tokens


def draw(logits: Tensor, temperature: float, top_p: float, draws: torch.Generator | None) -> Tensor:
    """A token drawn from the likeliest ones that together have the probability `top_p`.

    Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration".
    """
    scores = TemperatureLogitsWarper(temperature)(None, logits[None])
    scores = TopPLogitsWarper(top_p)(None, scores)
    return torch.multinomial(scores.softmax(1), 1, generator=draws)[0, 0]


def _probabilities(logits: Tensor, token: int, count: int) -> tuple[float, dict[int, float]]:
    """The token's log probability, and those of the `count` likeliest ones by id, in nats."""
    likelihoods = logits.log_softmax(0)
    values, ids = likelihoods.topk(count)
    return likelihoods[token].item(), dict(zip(ids.tolist(), values.tolist(), strict=True))


def _answer(row: PendingRow, result: list[int] | Exception) -> None:
    if row.answer.set_running_or_notify_cancel():
        row.answer.set_exception(result) if isinstance(result, Exception) else row.answer.set_result(result)
