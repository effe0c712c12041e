"""The HTTP application: OpenAI's `/v1/completions` and `/v1/models`, `/health`, and `/metrics` for Prometheus."""

import asyncio
import logging
import secrets
import time

import torch
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from record.errors import one_line
from scoring.decoding.generate import decode
from serving.engine import Engine, Full, PendingRow, Stopping
from serving.loading import Served
from serving.requests import LEAST_TEMPERATURE, Completion, Refused, read, refusal

log = logging.getLogger("serving")

# What T5 was pre-trained on (Raffel et al. 2020, section 3.1.1): the model reads on, at a loss.
TRAINED_TOKENS = 512
# Attention takes memory that grows with the square of it.
MAX_PROMPT_TOKENS = 1024
BODY_SECONDS = 30


class Service:
    """What the routes share: the engine, the models by id, and the figures.

    Parameters:
        timeout: seconds after which a request is given up.
    """

    def __init__(self, models: list[Served], engine: Engine, timeout: float):
        self.models = {one.id: one for one in models}
        self.engine, self.timeout = engine, timeout
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

    async def answer(self, completion: Completion, request: Request) -> dict:
        """OpenAI's completion object; `warnings` is added where there is something to warn of.

        Raises:
            `Refused`: with 400, 404, 429, 499 (the client has gone), 503 or 504.
        """
        served = self.models.get(completion.model)
        if served is None:
            names = ", ".join(self.models)
            raise Refused(
                404, f"there is no model {one_line(completion.model, 100)!r}: use {names}", "model", "model_not_found"
            )
        limit = completion.max_tokens or served.max_tokens
        if limit > self.engine.most:
            raise Refused(400, f"`max_tokens`: more than {self.engine.most} are not written", "max_tokens")
        prompts = (await run_in_threadpool(served.tokenizer, completion.prompt, verbose=False))["input_ids"]
        warnings = _check_lengths(prompts)
        rows = _rows(completion, prompts, limit)
        try:
            self.engine.submit(served.id, rows)
        except Full:
            raise Refused(
                429, "too many requests wait already: try again in a second", None, "queue_full", Retry_After="1"
            ) from None
        except Stopping:
            raise _stopping() from None
        outputs = await self._outputs(rows, request)
        texts = await run_in_threadpool(decode, served.tokenizer, outputs)
        count, written = sum(map(len, prompts)), sum(map(len, outputs))
        self.prompt_tokens.labels(served.id).inc(count)
        self.tokens.labels(served.id).inc(written)
        request.state.note = f" model={served.id} rows={len(rows)} prompt_tokens={count} tokens={written}"
        answer = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": served.id,
            "choices": [
                _choice(place, text, len(ids) < limit, completion.stop or [])
                for place, (text, ids) in enumerate(zip(texts, outputs, strict=True))
            ],
            "usage": {"prompt_tokens": count, "completion_tokens": written, "total_tokens": count + written},
        }
        return answer | ({"warnings": warnings} if warnings else {})

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
            raise Refused(
                504, f"not answered within {self.timeout:g} seconds: ask for fewer tokens, or when less is asked"
            )
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


def _check_lengths(prompts: list[list[int]]) -> list[str]:
    """Warnings about prompts that are longer than what the base model was trained on."""
    warnings = []
    for place, ids in enumerate(prompts):
        if len(ids) > MAX_PROMPT_TOKENS:
            raise Refused(400, f"prompt {place} has {len(ids)} tokens, more than {MAX_PROMPT_TOKENS}", "prompt")
        if len(ids) > TRAINED_TOKENS:
            warnings.append(
                f"prompt {place} has {len(ids)} tokens: all were read, but T5 was trained on {TRAINED_TOKENS} at most"
            )
    return warnings


def _rows(completion: Completion, prompts: list[list[int]], limit: int) -> list[PendingRow]:
    """A row an answer, those of one prompt together; with a seed, row k draws by seed + k."""
    temperature = completion.temperature or 0.0
    if temperature < LEAST_TEMPERATURE:
        return [PendingRow(ids, limit) for ids in prompts for _ in range(completion.n or 1)]
    seed = secrets.randbits(63) if completion.seed is None else completion.seed
    rows = []
    for ids in prompts:
        for _ in range(completion.n or 1):
            draws = torch.Generator().manual_seed(seed + len(rows))
            rows.append(PendingRow(ids, limit, temperature, completion.top_p or 1.0, draws))
    return rows


def _choice(place: int, text: str, ended: bool, stops: list[str]) -> dict:
    end = min((text.find(stop) for stop in stops if stop in text), default=None)
    reason = "stop" if ended or end is not None else "length"
    return {"index": place, "text": text[:end], "logprobs": None, "finish_reason": reason}


def _stopping() -> Refused:
    return Refused(503, "the service is stopping: ask another, or try again later", Retry_After="5", Connection="close")


async def completions(request: Request) -> Response:
    service: Service = request.app.state.service
    if service.engine.draining:
        raise _stopping()
    start = time.monotonic()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            completion = await read(request)
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {BODY_SECONDS} seconds", Connection="close") from None
    except ClientDisconnect:
        raise Refused(499, "the client has gone") from None
    answer = await service.answer(completion, request)
    service.seconds.labels(answer["model"]).observe(time.monotonic() - start)
    return JSONResponse(answer)


async def models(request: Request) -> Response:
    service: Service = request.app.state.service
    data = [
        {"id": name, "object": "model", "created": service.started, "owned_by": name.partition("/")[0]}
        | {"max_tokens": one.max_tokens, **one.about}
        for name, one in service.models.items()
    ]
    return JSONResponse({"object": "list", "data": data})


async def health(request: Request) -> Response:
    engine = request.app.state.service.engine
    if engine.draining or not engine.thread.is_alive():
        return JSONResponse({"status": "stopping"}, 503)
    return JSONResponse({"status": "ok"})


async def metrics(request: Request) -> Response:
    return PlainTextResponse(generate_latest(request.app.state.service.registry))


async def _refused(request: Request, error: Refused) -> Response:
    return refusal(error)


async def _no_route(request: Request, error: HTTPException) -> Response:
    reasons = {404: "there is no such path", 405: f"this path does not take {one_line(request.method, 20)}"}
    refused = Refused(error.status_code, reasons.get(error.status_code, error.detail), **(error.headers or {}))
    return refusal(refused)


async def _bug(request: Request, error: Exception) -> Response:
    return refusal(Refused(500, "the service failed on this request: its log tells more"))


class Logged:
    """Writes one line a request, without the prompt's text, and counts it."""

    def __init__(self, app: ASGIApp, service: Service):
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status = time.monotonic(), 500

        async def sending(message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        scope["state"] = {"note": ""}
        try:
            await self.app(scope, receive, sending)
        finally:
            path = scope["path"] if scope["path"] in PATHS else "other"
            self.service.requests.labels(path, status).inc()
            line = one_line(f"{scope['method']} {scope['path']}", 200)
            log.info("%s %s %.3fs%s", line, status, time.monotonic() - start, scope["state"]["note"])


ROUTES = [
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/models", models),
    Route("/health", health),
    Route("/metrics", metrics),
]
PATHS = {route.path for route in ROUTES}


def build(models: list[Served], engine: Engine, timeout: float) -> ASGIApp:
    """The application that answers with `engine`, which somebody else starts."""
    service = Service(models, engine, timeout)
    app = Starlette(routes=ROUTES, exception_handlers={Refused: _refused, HTTPException: _no_route, Exception: _bug})
    app.router.redirect_slashes = False
    app.state.service = service
    return Logged(app, service)
