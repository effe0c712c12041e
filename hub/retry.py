"""Requests to a Hub that fails: which are worth another try, how long to wait for it, and when to give up."""

import json
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx2
from huggingface_hub import set_client_factory
from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, XetDownloadError
from huggingface_hub.utils._http import (
    RateLimitInfo,
    default_client_factory,
    hf_request_event_hook,
    parse_ratelimit_headers,
)

from record.errors import Damaged, UserError, chain

T = TypeVar("T")
# Seconds. The client itself waits without end; the Hub takes long over a large commit.
SILENCE, CONNECT = 120.0, 20.0
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
# As long as publishing takes at most unless told otherwise.
LONGEST_PATIENCE = 3600.0
# What the Hub last said of each of its limits, and when.
LIMITS: dict[str, tuple[RateLimitInfo, float]] = {}
# A request that came too late, too early or too often; every 5xx passes too.
PASSING = {408, 425, 429}


class OutOfTime(UserError):
    """The time limit is over."""


@contextmanager
def time_limit(minutes: float) -> Iterator[None]:
    """Raises `OutOfTime` in the block after so many minutes, also out of a wait of the client's."""

    def give_up(*_: object) -> None:
        raise OutOfTime(f"the time limit of {minutes:g} min is over")

    before = signal.signal(signal.SIGALRM, give_up)
    # Again every second: a library on the way may swallow the first.
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def bounded_silence() -> Iterator[None]:
    """In the block a request fails where nothing was heard for `SILENCE` seconds."""

    def client() -> httpx2.Client:
        new = default_client_factory()
        new.timeout = httpx2.Timeout(SILENCE, connect=CONNECT)
        return new

    set_client_factory(client)
    try:
        yield
    finally:
        set_client_factory(default_client_factory)


class PatientClient(httpx2.Client):
    """Waits where the Hub answers that it was asked too often, on whatever route, and asks again."""

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The answer; one of 429 only after waits of `LONGEST_PATIENCE` in all."""
        wait, waited = FIRST_WAIT, 0.0
        while True:
            response = super().send(request, **options)
            if (limit := parse_ratelimit_headers(response.headers)) is not None:
                LIMITS[limit.resource_type] = limit, time.monotonic()
            if response.status_code != 429:
                return response
            pause = _pause(response.headers)
            if pause is None:
                pause, wait = wait * random.uniform(0.5, 1), min(2 * wait, LONGEST_WAIT)
            if (waited := waited + pause) > LONGEST_PATIENCE:
                return response
            response.close()
            print(f"  the Hub answered 429, too many requests: trying again in {pause:.0f} s", flush=True)
            time.sleep(pause)


@contextmanager
def waiting_out_limits() -> Iterator[None]:
    """In the block the clients' requests wait out the Hub's limits instead of failing."""

    def client() -> httpx2.Client:
        return PatientClient(event_hooks={"request": [hf_request_event_hook]}, follow_redirects=True, timeout=None)

    set_client_factory(client)
    try:
        yield
    finally:
        set_client_factory(default_client_factory)


def requests_left() -> str | None:
    """How often the Hub may be asked still, in one line, as its last answers said; None where they said nothing.

    An anonymous address has 500 requests and 3,000 downloads in 5 minutes (https://huggingface.co/docs/hub/rate-limits).
    """
    parts = []
    for kind, (limit, when) in sorted(LIMITS.items()):
        seconds = limit.reset_in_seconds - (time.monotonic() - when)
        left = limit.remaining if seconds > 0 or limit.limit is None else limit.limit
        of = "" if limit.limit is None else f" of {limit.limit:,}"
        what = {"api": "requests", "resolvers": "downloads"}.get(kind, kind)
        parts.append(f"{left:,}{of} {what} for {max(seconds, 0):.0f} s")
    return f"the Hub lets you have {', '.join(parts)}" if parts else None


def retry(what: str, step: Callable[[], T]) -> T:
    """Does a step that may be done again, until it succeeds or fails for good.

    Waits as long as the Hub asks (`Retry-After`, `RateLimit`), else twice as long each time, with jitter.

    Parameters:
        what: the step in a few words, for the line that tells of a wait.

    Raises:
        `OutOfTime`: the time limit comes before the next try.
        all else that `step` raises and that does not pass by itself.
    """
    wait = FIRST_WAIT
    while True:
        try:
            return step()
        except Exception as error:
            reason = passing(error)
            if reason is None:
                raise
            pause = retry_after(error)
            if pause is None:
                pause, wait = wait * random.uniform(0.5, 1), min(2 * wait, LONGEST_WAIT)
            seconds_left = signal.getitimer(signal.ITIMER_REAL)[0]
            if 0 < seconds_left < pause:
                raise OutOfTime(f"{what}: {reason}, and the time limit comes before the next try") from error
        print(f"  {what}: {reason}; trying again in {pause:.0f} s", flush=True)
        time.sleep(pause)


def passing(error: BaseException) -> str | None:
    """Why a failure may pass by itself, in a few words; None for one that will not."""
    for cause in chain(error):
        if isinstance(cause, UserError):
            return None
        if isinstance(cause, HfHubHTTPError) and cause.response is not None:
            status = cause.response.status_code
            return f"the Hub answered {status}" if status in PASSING or status >= 500 else None
        if isinstance(cause, json.JSONDecodeError | UnicodeDecodeError | FileMetadataError | Damaged):
            return "an answer arrived damaged"
        if isinstance(cause, httpx2.TimeoutException | TimeoutError):
            return "the Hub was silent"
        if isinstance(cause, httpx2.TransportError | ConnectionError | XetDownloadError):
            return "the connection broke"
    return None


def retry_after(error: BaseException) -> float | None:
    """Seconds for which the Hub asked to be left alone; None where it did not."""
    for cause in chain(error):
        headers = getattr(getattr(cause, "response", None), "headers", None)
        if headers is not None and (pause := _pause(headers)) is not None:
            return pause
    return None


def _pause(headers: Mapping[str, str]) -> float | None:
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds
    return int(headers["Retry-After"]) if headers.get("Retry-After", "").isdigit() else None
