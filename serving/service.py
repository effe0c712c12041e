"""What the routes share: checking a request, queueing its rows, and its answer, whole or as a stream."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence, Sized
from dataclasses import replace
from typing import Any, TypeVar

import torch
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from record.errors import explanation, one_line
from serving.answers import (
    DONE,
    Job,
    TextStream,
    event,
    head,
    logprobs,
    opening,
    part,
    reason,
    tokens_written,
    usage,
    whole,
)
from serving.engine import Engine, Full, PendingRow, Stopping
from serving.loading import Models, Served, find
from serving.prompts import check_lengths, divided, echo, prompts_of, token_ids
from serving.requests import LEAST_TEMPERATURE, MAX_ROWS, Chat, Completion, Refused, error_object

log = logging.getLogger("serving")

# Characters, or tokens, below which a request is worked on at once: it waits for no thread, and others hardly for it.
SHORT = 2_000
T = TypeVar("T")
BUG = Refused(500, "the service failed on this request: its log tells more")


async def _in_time(texts: Sequence[Sized], work: Callable[..., T], *arguments: Any) -> T:
    """Calls `work` at once where the texts are short; else in a thread, so that others are answered meanwhile."""
    if sum(map(len, texts)) < SHORT:
        return work(*arguments)
    return await run_in_threadpool(work, *arguments)


class Service:
    """What the routes share: the engine, the models, and the figures.

    Parameters:
        timeout: seconds after which a request is given up.
    """

    def __init__(self, models: Models, engine: Engine, timeout: float):
        self.models, self.engine, self.timeout = models, engine, timeout
        self.changing = asyncio.Lock()
        self.started = int(time.time())
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(Rows(engine))
        self.requests = Counter(
            "serving_requests", "Requests by path and status", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "serving_completion_seconds", "Time to a complete answer", ["model"], registry=self.registry,
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60),
        )  # fmt: skip
        self.prompt_tokens = Counter(
            "serving_prompt_tokens", "Prompt tokens answered", ["model"], registry=self.registry
        )
        self.tokens = Counter("serving_completion_tokens", "Tokens written", ["model"], registry=self.registry)

    def served(self, name: str) -> Served:
        """The model of this id.

        Raises:
            `Refused`: with 404.
        """
        if served := self.models.by_id.get(name):
            return served
        names = ", ".join(self.models.by_id)
        raise Refused(404, f"there is no model {one_line(name, 100)!r}: use {names}", "model", "model_not_found")

    async def load(self, name: str, path: str) -> None:
        """Loads an adapter under a name.

        Raises:
            `Refused`: with 400, where the name is taken, or the adapter cannot be had or does not fit.
        """
        async with self.changing:
            if name in self.models.by_id:
                raise Refused(400, f"{one_line(name, 100)!r} is loaded already: unload it first", "lora_name")
            try:
                source = await run_in_threadpool(find, path)
                served = await run_in_threadpool(self.models.load, replace(source, id=name))
            except Exception as error:
                if (line := explanation(error)) is None:
                    raise
                raise Refused(400, line, "lora_path") from None
            if served.max_tokens > (most := self.engine.most):
                raise Refused(
                    400, f"its recipe scores {served.max_tokens} tokens, and this service writes {most}: start it with "
                    "this adapter among the first", "lora_path",
                )  # fmt: skip
            self.engine.add(served)
            self.models.by_id[name] = served

    async def unload(self, name: str) -> None:
        """Answers what was asked of an adapter, and no more.

        Raises:
            `Refused`: with 400 for the base model, 404 where there is none of this name.
        """
        async with self.changing:
            self.served(name)
            if name == self.models.pin.id:
                raise Refused(400, "the base model stays: only adapters are unloaded", "lora_name")
            del self.models.by_id[name]
            self.engine.remove(name)

    async def begin(self, asked: Completion | Chat) -> Job:
        """The request, checked and put into words for the engine.

        Raises:
            `Refused`: with 400 or 404.
        """
        started = time.monotonic()
        served = self.served(asked.model)
        if asked.rows > MAX_ROWS:
            raise Refused(400, f"`n` times the prompts makes {asked.rows} answers, more than {MAX_ROWS}", "n")
        limit = asked.limit or served.max_tokens
        prompts, warnings = prompts_of(asked, served)
        ids = await _in_time(prompts, token_ids, served, prompts)
        warnings += check_lengths(served, ids)
        rows = _rows(asked, [divided(asked, served, *both) for both in zip(prompts, ids, strict=True)], limit)
        if any(row.limit > self.engine.most for row in rows):
            also = ", what stands after </s> in the prompt included" if asked.forced else ""
            raise Refused(400, f"`max_tokens`: more than {self.engine.most} are not written{also}", "max_tokens")
        before = [""] * len(rows)
        if isinstance(asked, Completion) and asked.echo:
            texts = [echo(asked, served, *both) for both in zip(prompts, ids, strict=True)]
            before = [text for text in texts for _ in range(asked.n or 1)]
        return Job(asked, served, rows, before, sum(map(len, ids)), warnings, started)

    def submit(self, job: Job) -> None:
        """Queues the rows.

        Raises:
            `Refused`: with 404, 429 or 503.
        """
        try:
            self.engine.submit(job.served.id, job.rows)
        except Full:
            raise Refused(
                429, "too many requests wait already: try again in a second", None, "queue_full", Retry_After="1"
            ) from None
        except Stopping:
            raise stopping() from None
        except KeyError:
            # It was unloaded while the prompts were read.
            self.served(job.served.id)

    async def answer(self, job: Job, request: Request) -> dict:
        """The whole answer.

        Raises:
            `Refused`: with 429, 499 (the client has gone), 503 or 504.
        """
        self.submit(job)
        outputs = await self._outputs(job.rows, request)
        answer = await _in_time(outputs, whole, job, outputs)
        self._count(job, tokens_written(job, outputs), request)
        return answer

    async def events(self, job: Job, parts: asyncio.Queue[tuple[int, list[int] | None]], request: Request
                     ) -> AsyncIterator[bytes]:  # fmt: skip
        """The events of a stream: parts of the answers as they are written; an error, where one happens, is the last.

        Parameters:
            parts: places of rows with their ids so far, or with None once the row is answered.
        """
        texts = [TextStream(job.served.tokenizer, job.stops) for _ in job.rows]
        told = [0] * len(job.rows)
        written = 0
        try:
            for place in range(len(job.rows)):
                yield event(opening(job, place))
            open_rows = len(job.rows)
            while open_rows:
                async with asyncio.timeout(max(0, job.started + self.timeout - time.monotonic())):
                    place, ids = await parts.get()
                row, ended = job.rows[place], None
                if ids is None:
                    ids = row.answer.result()
                    text = texts[place].rest(ids)
                    ended = reason(job, row, ids, texts[place].sent)
                    open_rows -= 1
                    written += len(ids)
                else:
                    text = texts[place].more(ids)
                figures = logprobs(job, row, ids, told[place])
                told[place] = len(ids)
                if text or ended or figures:
                    yield event(part(job, place, text, figures, ended))
            if job.asked.usage_in_stream:
                yield event(head(job, ".chunk") | {"choices": [], "usage": usage(job, written)})
            yield DONE
        except TimeoutError:
            yield event(error_object(self._late()))
        except Exception:
            log.exception("a stream broke off")
            yield event(error_object(BUG))
        finally:
            self._count(job, written, request)

    def _count(self, job: Job, written: int, request: Request) -> None:
        name = job.served.id
        self.prompt_tokens.labels(name).inc(job.prompt_tokens)
        self.tokens.labels(name).inc(written)
        self.seconds.labels(name).observe(time.monotonic() - job.started)
        request.state.note = f" model={name} rows={len(job.rows)} prompt_tokens={job.prompt_tokens} tokens={written}"

    def _late(self) -> Refused:
        return Refused(
            504, f"not answered within {self.timeout:g} seconds: ask for fewer tokens, or when less is asked"
        )

    async def _outputs(self, rows: list[PendingRow], request: Request) -> list[list[int]]:
        """Waits for the rows; gives them up when the time is over or the client has gone."""
        answers = asyncio.gather(*(asyncio.wrap_future(row.answer) for row in rows))
        disconnect = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait({answers, disconnect}, timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED)
            if answers.done():
                return answers.result()
            if disconnect.done():
                raise Refused(499, "the client has gone")
            raise self._late()
        finally:
            disconnect.cancel()
            for row in rows:
                row.answer.cancel()
            answers.cancel()


class Rows(Collector):
    """The engine's rows, counted when they are asked for."""

    def __init__(self, engine: Engine):
        self.engine = engine

    def collect(self):
        yield GaugeMetricFamily("serving_rows_waiting", "Rows that wait for a slot", self.engine.waiting())
        yield GaugeMetricFamily("serving_rows_decoding", "Rows that are decoded", self.engine.decoding())
        yield CounterMetricFamily("serving_steps", "Steps, each of which writes a token a row", self.engine.steps)


def _rows(asked: Completion | Chat, prompts: list[tuple[list[int], list[int]]], limit: int) -> list[PendingRow]:
    """A row an answer, those of one prompt together; with a seed, row k draws by seed + k."""
    temperature = asked.temperature or 0.0
    drawn = temperature >= LEAST_TEMPERATURE
    seed = secrets.randbits(63) if asked.seed is None else asked.seed
    rows: list[PendingRow] = []
    for ids, forced in prompts:
        for _ in range(asked.n or 1):
            row = PendingRow(
                ids, len(forced) + limit, stops=asked.stop or (), forced=forced, likeliest=asked.likeliest
            )  # fmt: skip
            if drawn:
                row.temperature, row.top_p = temperature, asked.top_p or 1.0
                row.draws = torch.Generator().manual_seed(seed + len(rows))
            rows.append(row)
    return rows


def stopping() -> Refused:
    return Refused(503, "the service is stopping: ask another, or try again later", Retry_After="5", Connection="close")
