"""A Hub on 127.0.0.1 for the unmodified Hugging Face clients.

python -m local_hub serve                  # in the foreground, on port 8765
python -m local_hub run -- COMMAND ...     # for one command, whose clients it points at the local Hub
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from record.signs_of_life import signs_of_life, silence


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="local_hub", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    root = os.environ.get("LOCAL_HUB_ROOT", ".local_hub")
    user = os.environ.get("HUB_USER") or "local-user"

    serve = commands.add_parser("serve", help="serve in the foreground")
    run = commands.add_parser("run", help="run a command whose clients use the local Hub, starting one if needed")
    for command in (serve, run):
        command.add_argument(
            "--root", type=Path, default=Path(root), help="where everything is kept (default: %(default)s)"
        )
        command.add_argument("--user", default=user, help="the user whose token is given out (default: %(default)s)")
        command.add_argument(
            "--org",
            action="append",
            default=[],
            metavar="NAME",
            help="make the user a member who writes",
        )
        command.add_argument("--no-seed", action="store_true", help="do not put the miniatures in")
    serve.add_argument("--port", type=int, default=8765, help="0 takes a free one (default: %(default)s)")
    serve.add_argument("--page-size", type=int, default=1000, help="entries per page of a list (default: %(default)s)")
    serve.add_argument(
        "--lfs-part-size",
        type=int,
        default=64 << 20,
        help="bytes above which LFS uploads come in parts (default: 64 MiB)",
    )
    serve.add_argument("--while-in-use", action="store_true", help=argparse.SUPPRESS)
    run.add_argument("--hf-home", type=Path, help="the clients' HF_HOME (default: ROOT/hf_home)")
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    return parser


def _run(options: argparse.Namespace, argv: list[str]) -> int:
    from . import access, server

    root = options.root.resolve()
    seeding = ["--no-seed"] if options.no_seed else []
    with signs_of_life("Starting the local Hub"), server.using(root, seeding) as url:
        token = access.add_user(root, options.user)["write"]
        hf_home = (options.hf_home or root / "hf_home").resolve()
        environment = server.client_environment(url, token, hf_home, os.environ)
        try:
            process = subprocess.Popen(argv, env=environment)
        except OSError as error:
            print(f"local_hub: cannot run {argv[0]}: {error.strerror}", file=sys.stderr)
            return 127
        # A terminal sends Ctrl-C to the command as well; a SIGTERM comes to this process alone.
        signal.signal(signal.SIGINT, lambda number, frame: None)
        signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
        with silence():
            code = process.wait()
        return code if code >= 0 else 128 - code


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    """Run the command line; the exit status. Errors are one line."""
    parser = _parser()
    options = parser.parse_args()
    # Until the command runs, a SIGTERM must still pass through the code that stops the server.
    signal.signal(signal.SIGTERM, _stop)
    from . import access, errors, server

    try:
        for org in options.org:
            access.add_org(options.root.resolve(), org, {options.user: "write"})
        if options.command == "run":
            argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
            if not argv:
                parser.error("run needs a command: python -m local_hub run -- COMMAND ...")
            return _run(options, argv)
        settings = {"page_size": options.page_size, "lfs_part_size": options.lfs_part_size}
        root = options.root.resolve()
        server.serve(root, options.port, [options.user], not options.no_seed, options.while_in_use, settings)
    except (server.CannotServe, errors.HubError) as error:
        print(f"local_hub: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
