"""Streams of the service: how soon the first token comes, and many clients at once.

    python -m benchmarks.streams owner/name [--seconds 60] [--clients 64]

Prints JSON. The numbers are of this machine, clients included: they run on the cores that the service runs on.
"""

import argparse
import contextlib
import http.client
import json
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

from benchmarks.load import QUESTIONS, Process, models_of, running
from benchmarks.shapes import make_model
from scoring.decoding.t5_weights import weights_of
from serving.engine import Engine, PendingRow
from serving.loading import Served

LONGEST = 32


def events(port: int, payload: dict) -> Iterator[tuple[float, str]]:
    """Seconds since the request, and the text, of each event of one stream.

    Raises:
        RuntimeError: another status than 200, an error as an event, or no `[DONE]` at the end.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    with contextlib.closing(connection):
        start = time.perf_counter()
        body = json.dumps({"max_tokens": LONGEST, "stream": True} | payload)
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{response.status} {response.read().decode()}")
        while line := response.readline():
            if line.strip() == b"data: [DONE]":
                return
            if line.startswith(b"data: "):
                event = json.loads(line.removeprefix(b"data: "))
                if "error" in event:
                    raise RuntimeError(event["error"]["message"])
                yield time.perf_counter() - start, event["choices"][0]["text"]
    raise RuntimeError("the stream broke off")


def answer(port: int, model: str, prompt: str) -> str:
    """The text of one answer that is not streamed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    with contextlib.closing(connection):
        body = json.dumps({"model": model, "prompt": prompt, "max_tokens": LONGEST})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        return json.load(connection.getresponse())["choices"][0]["text"]


def measure_first_token(size: str, rounds: int = 20, others: int = 31) -> dict:
    """How long a stream waits for its first token, in steps of the decoder: alone, and among `others` that are decoded.

    The engine of the service decodes for a model of that shape with random weights; a prompt has 32 tokens. HTTP, whose
    share is the same for every model, is left out.

    Returns:
        For `alone` and `among`: medians in seconds of `first` (from the request to its first token), of it `read` (the
        encoder reads the prompt), and of `step` (between two later tokens); `steps`: (first - read) / step.
    """
    model = make_model(size).eval()
    engine = Engine([Served("model", model, weights_of(model), None, LONGEST, 512, {})], others + 1, 2 * others)
    batch, read = engine.lanes["model"].batch, []
    admit = batch.admit

    def timed() -> bool:
        entering, start = len(batch.queue), time.perf_counter()
        work = admit()
        read.extend([time.perf_counter() - start] * entering)
        return work

    batch.admit = timed
    engine.start()
    draw, over = random.Random(0), threading.Event()

    def ask(limit: int = 16) -> tuple[float, list[float]]:
        prompt = [draw.randrange(3, model.config.vocab_size) for _ in range(31)]
        times: list[float] = []
        row = PendingRow([*prompt, 1], limit, forced=[5] * limit, likeliest=0,
                         progress=lambda ids: times.append(time.perf_counter()))  # fmt: skip
        start = time.perf_counter()
        engine.submit("model", [row])
        row.answer.result()
        return start, times

    def measure() -> dict:
        firsts, steps, reads = [], [], []
        for number in range(rounds + 2):
            read.clear()
            start, times = ask()
            if number >= 2:
                firsts.append(times[0] - start)
                steps.append((times[-1] - times[0]) / (len(times) - 1))
                reads.append(read[0])
        first, step, reading = (statistics.median(them) for them in (firsts, steps, reads))
        waited = statistics.median((one - of) / step for one, of in zip(firsts, reads, strict=True))
        return {"first": first, "read": reading, "step": step, "steps": waited}

    def other() -> None:
        while not over.is_set():
            ask(64)

    found = {"size": size, "others": others, "alone": measure()}
    threads = [threading.Thread(target=other) for _ in range(others)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    found["among"] = measure()
    over.set()
    for thread in threads:
        thread.join()
    engine.drain()
    engine.thread.join()
    return found


def measure_streams(service: Process, seconds: float = 60, clients: int = 64) -> dict:
    """Clients that read one stream after another, each time of one of the adapters or of the base model.

    Returns:
        `streams` that came whole, `wrong` of them (another text than the answer without a stream), `failed` by what
        was said, `per_second`, and of the seconds to the first event and to the last `first_p50`, `first_p95`, `p50`,
        `p95`.
    """
    asked = [(model, question) for model in models_of(service) for question in QUESTIONS]
    whole = {(model, question): answer(service.port, model, question) for model, question in asked}
    over, lock = threading.Event(), threading.Lock()
    firsts, lasts, failed, wrong = [], [], Counter(), 0

    def client(number: int) -> None:
        nonlocal wrong
        draw = random.Random(number)
        while not over.is_set():
            model, question = draw.choice(asked)
            try:
                parts = list(events(service.port, {"model": model, "prompt": question}))
            except (OSError, http.client.HTTPException, RuntimeError) as error:
                with lock:
                    failed[f"{type(error).__name__}: {error}"[:200]] += 1
                continue
            with lock:
                firsts.append(parts[0][0])
                lasts.append(parts[-1][0])
                wrong += "".join(text for _, text in parts) != whole[model, question]

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(clients)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    over.set()
    for thread in threads:
        thread.join()
    took = time.monotonic() - start
    firsts.sort()
    lasts.sort()
    return {
        "seconds": took, "clients": clients, "streams": len(lasts), "wrong": wrong, "failed": dict(failed),
        "per_second": len(lasts) / took, "first_p50": firsts[len(firsts) // 2],
        "first_p95": firsts[int(len(firsts) * 0.95)], "p50": lasts[len(lasts) // 2],
        "p95": lasts[int(len(lasts) * 0.95)],
    }  # fmt: skip


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.streams", description=__doc__.partition("\n")[0])
    parser.add_argument("adapters", nargs="+")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args(argv)
    with running(options.adapters) as service:
        print(json.dumps(measure_streams(service, options.seconds, options.clients)))


if __name__ == "__main__":
    main(sys.argv[1:])
