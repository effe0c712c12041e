"""The HTTP application: OpenAI's completions, chat completions and models, and what those who run it ask."""

import asyncio
from collections.abc import AsyncIterator

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from record.errors import one_line
from serving.access import Keys, Logged
from serving.answers import Job
from serving.engine import PendingRow
from serving.loading import Served
from serving.openapi import document
from serving.requests import Body, Chat, Completion, LoadAdapter, Refused, UnloadAdapter, read, refusal
from serving.service import BUG, Service, stopping

BODY_SECONDS = 30


async def completions(request: Request) -> Response:
    return await _complete(request, Completion)


async def chat_completions(request: Request) -> Response:
    return await _complete(request, Chat)


async def _body(request: Request, shape: type[Body]) -> Body:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await read(request, shape)
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {BODY_SECONDS} seconds", Connection="close") from None
    except ClientDisconnect:
        raise Refused(499, "the client has gone") from None


async def _complete(request: Request, shape: type[Completion] | type[Chat]) -> Response:
    service: Service = request.app.state.service
    if service.engine.draining:
        raise stopping()
    job = await service.begin(await _body(request, shape))
    if not job.asked.stream:
        return JSONResponse(await service.answer(job, request))
    parts = _followed(job.rows)
    service.submit(job)
    return EventStream(job, service.events(job, parts, request))


class EventStream(StreamingResponse):
    """Server-sent events; the job's rows are given up however it ends, be it before the first event."""

    media_type = "text/event-stream"

    def __init__(self, job: Job, events: AsyncIterator[bytes]):
        # A proxy that collects an answer before it passes it on (nginx) is told not to.
        super().__init__(events, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            for row in self.job.rows:
                row.answer.cancel()


def _followed(rows: list[PendingRow]) -> asyncio.Queue[tuple[int, list[int] | None]]:
    """A queue into which the engine's thread puts each row's place with its ids so far, and at its end with None."""
    loop, parts = asyncio.get_running_loop(), asyncio.Queue()

    def follow(place: int, row: PendingRow) -> None:
        row.progress = lambda ids: loop.call_soon_threadsafe(parts.put_nowait, (place, ids))
        row.answer.add_done_callback(lambda _: loop.call_soon_threadsafe(parts.put_nowait, (place, None)))

    for place, row in enumerate(rows):
        follow(place, row)
    return parts


def _about(service: Service, one: Served) -> dict:
    about = {"id": one.id, "object": "model", "created": service.started, "owned_by": one.id.partition("/")[0]}
    return about | {"max_tokens": one.max_tokens, **one.about}


async def models(request: Request) -> Response:
    service: Service = request.app.state.service
    return JSONResponse({"object": "list", "data": [_about(service, one) for one in service.models.by_id.values()]})


async def model(request: Request) -> Response:
    service: Service = request.app.state.service
    return JSONResponse(_about(service, service.served(request.path_params["id"])))


async def load_adapter(request: Request) -> Response:
    service = _growing(request)
    asked = await _body(request, LoadAdapter)
    await service.load(asked.lora_name, asked.lora_path)
    return PlainTextResponse(f"Success: LoRA adapter '{one_line(asked.lora_name)}' added successfully.")


async def unload_adapter(request: Request) -> Response:
    service = _growing(request)
    asked = await _body(request, UnloadAdapter)
    await service.unload(asked.lora_name)
    return PlainTextResponse(f"Success: LoRA adapter '{one_line(asked.lora_name)}' removed successfully.")


def _growing(request: Request) -> Service:
    service: Service = request.app.state.service
    if service.engine.draining:
        raise stopping()
    if not service.models.growing:
        raise Refused(403, "adapters are not loaded while the service runs: start it with --allow-loading")
    return service


async def health(request: Request) -> Response:
    engine = request.app.state.service.engine
    # After a SIGTERM the thread ends before the process does.
    if not engine.thread.is_alive() and not engine.draining:
        return JSONResponse({"status": "stopped"}, 503)
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> Response:
    engine = request.app.state.service.engine
    if engine.draining or not engine.thread.is_alive():
        return JSONResponse({"status": "stopping"}, 503)
    return JSONResponse({"status": "ready"})


async def openapi(request: Request) -> Response:
    return JSONResponse(document())


async def metrics(request: Request) -> Response:
    return Response(generate_latest(request.app.state.service.registry), media_type=CONTENT_TYPE_LATEST)


async def _refused(request: Request, error: Refused) -> Response:
    return refusal(error)


async def _no_route(request: Request, error: HTTPException) -> Response:
    reasons = {404: "there is no such path", 405: f"this path does not take {one_line(request.method, 20)}"}
    refused = Refused(error.status_code, reasons.get(error.status_code, error.detail), **(error.headers or {}))
    return refusal(refused)


async def _bug(request: Request, error: Exception) -> Response:
    return refusal(BUG)


ROUTES = [
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    Route("/v1/load_lora_adapter", load_adapter, methods=["POST"]),
    Route("/v1/unload_lora_adapter", unload_adapter, methods=["POST"]),
    Route("/v1/models", models),
    Route("/v1/models/{id:path}", model),
    Route("/health", health),
    Route("/ready", ready),
    Route("/openapi.json", openapi),
    Route("/metrics", metrics),
]
PATHS = {route.path for route in ROUTES}


def build(service: Service, keys: list[str], origins: list[str]) -> ASGIApp:
    """The application that answers for a service, whose engine somebody else starts.

    Parameters:
        keys: one of which a request must bear; empty for anybody.
        origins: of the web pages that may ask from a browser; `*` for every one.
    """
    starlette = Starlette(
        routes=ROUTES, exception_handlers={Refused: _refused, HTTPException: _no_route, Exception: _bug}
    )
    starlette.router.redirect_slashes = False
    starlette.state.service = service
    app: ASGIApp = Keys(starlette, keys) if keys else starlette
    if origins:
        # Outside of the keys: a browser asks first, without one, whether it may send it.
        app = CORSMiddleware(
            app, origins, ["GET", "POST"], allow_headers=["*"], expose_headers=["x-request-id", "Retry-After"]
        )
    return Logged(app, service.requests, PATHS)
