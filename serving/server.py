"""Serves adapters over HTTP, in OpenAI's format.

    python -m serving.server owner/name [owner/other@revision runs/finance …] [--host 127.0.0.1] [--port 8000]

One process holds the base model once, and every adapter of it; the `model` of a request picks one. A prompt is taken as
it is: the recipe's template, which /v1/models tells, is the client's to fill in; a chat's last message is put into it.
To let others than this machine in, give them keys, and put a proxy that encrypts (TLS) in front.
"""

import argparse
import contextlib
import logging
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import click

from record.command_line import Command, RunOrId, run_command
from record.errors import UserError, one_line_errors
from record.signs_of_life import silence


@click.command(
    cls=Command, examples=("pubrep serve owner/name", "pubrep serve owner/name owner/other@v2 runs/finance --port 8080")
)
@click.argument("adapters", nargs=-1, required=True, type=RunOrId(), metavar="ADAPTER...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, default=8000, show_default=True, help="0 takes a free one.")
@click.option("--slots", type=int, default=32, show_default=True, help="Rows of a model decoded at once.")
@click.option("--queue", type=int, default=256, show_default=True, help="Rows that may wait, then 429.")
@click.option("--timeout", type=float, default=60, show_default=True, help="Seconds for an answer, then 504.")
@click.option("--api-key", multiple=True, metavar="KEY", help="Taken from a client; may be given several times.")
@click.option("--api-key-file", type=click.Path(path_type=Path), metavar="FILE", help="More of them, one a line.")
@click.option("--cors", multiple=True, metavar="ORIGIN", help="Web pages of this origin may ask; * for all.")
@click.option("--allow-loading", is_flag=True, help="Adapters come and go by request; more memory.")
def command(**options: Any) -> None:
    """Answer over HTTP as OpenAI's API does, for every ADAPTER.

    An ADAPTER is owner/name[@revision], or the folder of a run; all must be of one
    base model, which is held once.
    """
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("serving").setLevel(logging.INFO)
    with one_line_errors():
        serve(argparse.Namespace(**options))


def main(argv: list[str]) -> None:
    run_command(command, argv, "python -m serving.server")


def serve(options: argparse.Namespace) -> None:
    """Loads the models and answers until SIGTERM or Ctrl-C, then finishes what was begun; a second one ends at once.

    Raises:
        `UserError`: the address is taken, or a setting makes no sense; and as `serving.loading.load`.
    """
    # Before the models are loaded, which takes minutes.
    listener = _listen(options)

    import uvicorn

    from serving.access import check_keys, read_keys
    from serving.app import build
    from serving.engine import Engine
    from serving.loading import load
    from serving.requests import MAX_ROWS
    from serving.service import Service

    if options.slots < 1 or options.timeout <= 0 or options.queue < MAX_ROWS:
        raise UserError(f"`--slots` is 1 or more, `--timeout` more than 0, `--queue` {MAX_ROWS} or more")
    keys = list(options.api_key)
    check_keys(keys, "--api-key")
    if options.api_key_file:
        keys += read_keys(options.api_key_file)
    models = load(options.adapters, options.allow_loading)

    class Server(uvicorn.Server):
        def handle_exit(self, number, frame):
            if engine.draining:
                super().handle_exit(signal.SIGINT, frame)
            engine.drain()

        def stop(self):
            self.should_exit = True

    engine = Engine(list(models.by_id.values()), options.slots, options.queue, lambda: server.stop())
    config = uvicorn.Config(
        build(Service(models, engine, options.timeout), keys, list(options.cors)),
        http="h11",
        loop="asyncio",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # More connections would only hold memory; what they ask is bounded by the queue.
        limit_concurrency=1000,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )
    server = Server(config)
    engine.start()
    host, port = listener.getsockname()[:2]
    print(f"Serving {', '.join(models.by_id)} at http://{host}:{port}", flush=True)
    with contextlib.suppress(KeyboardInterrupt), silence():
        server.run(sockets=[listener])


def _listen(options: argparse.Namespace) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        return socket.create_server((options.host, options.port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on {options.host}:{options.port}: {error}: choose another PORT") from None


if __name__ == "__main__":
    main(sys.argv[1:])
