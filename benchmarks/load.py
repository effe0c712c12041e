"""Loads the HTTP service with concurrent clients, and kills it once in between.

    python -m benchmarks.load owner/name [--seconds 60] [--clients 64] [--kill]

Prints JSON. The numbers are of this machine, clients included: they run on the cores that the service runs on.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

START_SECONDS = 120
QUESTIONS = ("What is a bond?", "How do I pay back a loan?", "Why do shares fall?", "What is a tax?")


class Process:
    """The service in a process of its own; `start` again after its end takes the same port. `log` is what it printed.

    Parameters:
        environ: its environment; None for this process's.
    """

    def __init__(self, adapters: list[str], *options: str, environ: dict[str, str] | None = None):
        self.environ = environ
        self.argv = [sys.executable, "-m", "serving.server", *adapters, *options]
        self.port = 0
        self.output = Path(tempfile.mkstemp(prefix="serving-", suffix=".log")[1])

    def start(self) -> None:
        """Starts it, without waiting for it."""
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [*self.argv, "--port", str(self.port)], stdout=file, stderr=subprocess.STDOUT, env=self.environ
            )

    def ready(self) -> "Process":
        """Waits until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if match := re.search(r"^Serving .* at http://[\d.]+:(\d+)$", self.log, re.MULTILINE):
                self.port = int(match[1])
                with contextlib.suppress(OSError):
                    if self.get("/health")[0] == 200:
                        return self
            time.sleep(0.05)
        raise RuntimeError(f"the service did not start: {self.log[-2000:]}")

    @property
    def log(self) -> str:
        return self.output.read_text(errors="replace")

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of one GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def figure(self, name: str) -> float:
        """One figure without labels of `/metrics`."""
        return float(re.search(rf"^{name} (\S+)$", self.get("/metrics")[1], re.MULTILINE)[1])

    def end(self) -> None:
        """Ends it at once, if it has not ended."""
        self.process.kill()
        self.process.wait()
        self.output.unlink(missing_ok=True)


@contextlib.contextmanager
def running(adapters: list[str], *options: str, environ: dict[str, str] | None = None) -> Iterator[Process]:
    """A service that answers, until the end of the block."""
    process = Process(adapters, *options, environ=environ)
    process.start()
    try:
        yield process.ready()
    finally:
        process.end()


def models_of(service: Process) -> list[str]:
    """The ids that a request's `model` may be."""
    return [one["id"] for one in json.loads(service.get("/v1/models")[1])["data"]]


# One load from start to end: every step needs the process and the clients of the one before.
def measure(service: Process, seconds: float, clients: int, kill: bool = False) -> dict:
    """Clients that ask one question after another, each time one of the adapters or the base model.

    Parameters:
        kill: the service is killed (SIGKILL) half-way and started again on its port; the time it takes is added.

    Returns:
        `requests`, `statuses` (how often each HTTP status came), `broken` (connections that broke or were refused,
        which is right while there is no service), `per_second`, `p50` and `p95` in seconds, `rss_before` and
        `rss_after` in bytes: of the service after a first eighth of the time, and at the end (of the second process
        after a kill).
    """
    models = models_of(service)
    over, lock = threading.Event(), threading.Lock()
    statuses, latencies, failures = Counter(), [], Counter()

    def client(number: int) -> None:
        draw = random.Random(number)
        while not over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=100)
            try:
                while not over.is_set():
                    payload = {"model": draw.choice(models), "prompt": draw.choice(QUESTIONS), "max_tokens": 32}
                    start = time.monotonic()
                    headers = {"Content-Type": "application/json"}
                    connection.request("POST", "/v1/completions", json.dumps(payload), headers)
                    response = connection.getresponse()
                    body = response.read()
                    with lock:
                        latencies.append(time.monotonic() - start)
                        statuses[response.status] += 1
                        if response.status != 200:
                            print(body.decode(), file=sys.stderr)
            except (OSError, http.client.HTTPException) as error:
                with lock:
                    failures[type(error).__name__] += 1
                time.sleep(0.1)
            finally:
                connection.close()

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(clients)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    restart = {}
    try:
        if kill:
            time.sleep(seconds / 2)
            before = sum(statuses.values())
            service.process.kill()
            service.process.wait()
            died = time.monotonic()
            service.start()
            service.ready()
            restart = {"requests_before_kill": before, "restart_seconds": time.monotonic() - died}
            seconds /= 2
        time.sleep(seconds / 8)
        rss_before = service.figure("process_resident_memory_bytes")
        time.sleep(seconds * 7 / 8)
    finally:
        over.set()
    for thread in threads:
        thread.join()
    whole = time.monotonic() - start - restart.get("restart_seconds", 0)
    latencies.sort()
    return restart | {
        "seconds": whole,
        "clients": clients,
        "requests": len(latencies),
        "statuses": dict(statuses),
        "broken": dict(failures),
        "per_second": len(latencies) / whole,
        "p50": latencies[len(latencies) // 2],
        "p95": latencies[int(len(latencies) * 0.95)],
        "rss_before": rss_before,
        "rss_after": service.figure("process_resident_memory_bytes"),
    }


def measure_miniature(seconds: float = 60, clients: int = 64, size: str = "base") -> dict:
    """A miniature's adapter served under load; killed half-way, for half the time (`killed`).

    And streams (`streams`), whose first token is timed with a model of that size.
    """
    from benchmarks.scoring import run
    from benchmarks.streams import measure_first_token, measure_streams
    from local_hub.miniatures import repositories
    from local_hub.testing import running as running_hub

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with running_hub(root / "hub", repositories()) as hub:
            environ = hub.env(root / "home") | {"OMP_NUM_THREADS": str(os.cpu_count())}
            short = ["--max_steps", "2", "--eval_strategy", "no", "--save_strategy", "no", "--validation_size", "0"]
            run(
                environ, "recipes.train", "--config", "recipes/finance.yaml", "--output_dir", str(root / "finance"),
                "--load_best_model_at_end", "false", *short,
            )  # fmt: skip
            with running([str(root / "finance")], environ=environ) as service:
                result = measure(service, seconds, clients)
                streams = measure_streams(service, seconds, clients)
            with running([str(root / "finance")], environ=environ) as service:
                killed = measure(service, seconds / 2, clients, kill=True)
    return result | {"streams": streams | {"first_token": measure_first_token(size)}, "killed": killed}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.load", description=__doc__)
    parser.add_argument("adapters", nargs="+")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--kill", action="store_true", help="kill the service half-way and start it again")
    options = parser.parse_args(argv)
    with running(options.adapters) as service:
        print(json.dumps(measure(service, options.seconds, options.clients, options.kill), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
