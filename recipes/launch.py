"""Starts a module on several processes, and hosts, by accelerate's launcher.

    python -m recipes.launch --config_file FILE [--machine_rank 1 --main_process_ip HOST …] -m MODULE …

It takes the options of `accelerate launch`. What ends one process ends all of them: in one line, with the exit code of
that process, where `accelerate launch` prints some hundred lines and ends with 1.
"""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import click

from record.errors import LAST_WORD, last_word
from record.signs_of_life import LOADING, signs_of_life, silence

# What each command that starts processes says of its option.
HELP = "How to launch: a configuration of accelerate (one GPU where there is one, else the CPU)."
accelerate_option = click.option(
    "--accelerate", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=HELP
)


def is_launched() -> bool:
    """Whether a launcher has started this process as one of several; no torch, since scores are checked without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def launch_again(verb: str, accelerate: Path | None, prefix: str = "error:", code: int = 1) -> None:
    """Runs this process's command line once more as accelerate's configuration says, and ends with its exit code.

    Returns where there is no configuration, or where this process was itself launched so.

    Parameters:
        prefix, code: of the line where a process is lost, as `record.errors.one_line_errors` has them.
    """
    if accelerate is None or LAST_WORD in os.environ:
        return
    given = sys.argv[1:] if click.get_current_context().parent is not None else [verb, *sys.argv[1:]]
    sys.exit(launch(["--quiet", "--config_file", str(accelerate), "-m", "pubrep", *given], prefix, code))


def launch(words: list[str], prefix: str = "error:", code: int = 1) -> int:
    """Runs a launch with the words of `accelerate launch`; the exit code of the process that was first to end.

    Parameters:
        prefix, code: as for `launch_again`.
    """
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "exit-code"
        # Signals are for the processes: whoever waits for them must not end before them, the launcher among them, which
        # takes this over. Ctrl-C reaches them by itself, SIGTERM is passed on.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        command = [sys.executable, "-c", "from recipes.launch import start; start()", prefix, str(code), *words]
        # torch's warnings of a host without a name in DNS, and of a connection that ends, say nothing more.
        environ = {"TORCH_CPP_LOG_LEVEL": "ERROR"} | os.environ | {LAST_WORD: str(said)}
        process = subprocess.Popen(command, env=environ)
        signal.signal(signal.SIGTERM, lambda *_: _pass_on(process))
        with silence():
            ended = process.wait()
        if said.exists():
            return int(said.read_text())
        return ended if ended >= 0 else 128 - ended


def start() -> None:
    """accelerate's launcher itself, with one line in place of its report of what failed."""
    import logging

    with signs_of_life(LOADING):
        from accelerate.commands.launch import launch_command, launch_command_parser
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # Its log tells in a hundred lines what ended; what it would warn of is refused or said here.
    logging.disable(logging.CRITICAL)
    prefix, code, *words = sys.argv[1:]
    arguments = launch_command_parser().parse_args(words)
    line = None
    try:
        _keep_to_cpu(arguments)
        launch_command(arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        how = failure.signal_name() if failure.exitcode < 0 else f"exit code {failure.exitcode}"
        line = f"process {rank} of this run has ended with {how}, and so have the others: run the same command again"
    except SignalException as error:
        line = f"ended by {error.sigval.name}: run the same command again to go on"
    except SystemExit as end:
        if end.code:
            line = "the process was killed, for lack of memory maybe: run the same command again"
    except (ValueError, ConnectionError, RuntimeError) as error:
        line = f"accelerate cannot launch this: {' '.join(str(error).split())}"
    if line is not None:
        if last_word(int(code)):
            print(f"{prefix} {line}", file=sys.stderr if prefix == "error:" else sys.stdout, flush=True)
        sys.exit(int(code))


def _keep_to_cpu(arguments) -> None:
    """Where the configuration says `use_cpu`: tells the processes, and gives each its share of the threads.

    accelerate 1.15 tells one process alone, and gives several one thread each, or each as many as there are.
    """
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(arguments.config_file)
    if not config.use_cpu:
        return
    os.environ["ACCELERATE_USE_CPU"] = "true"
    processes = (arguments.num_processes or config.num_processes) // (arguments.num_machines or config.num_machines)
    if arguments.num_cpu_threads_per_process is None and processes > 1:
        threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
        arguments.num_cpu_threads_per_process = max(1, threads // processes)


def _pass_on(launcher: subprocess.Popen[bytes]) -> None:
    # It comes with accelerate, which the package alone does not bring.
    import psutil

    for process in psutil.Process(launcher.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.terminate()


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
