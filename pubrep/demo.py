"""`pubrep demo`: the whole loop on the local Hub.

Loading PyTorch and transformers takes a process many seconds, so one process loads them, and each step is a fork of it.
The stranger is one, too, from before anything of a Hub is loaded: with an empty folder, an empty cache and no token.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import click

from pubrep.__main__ import main
from pubrep.train import has_gpu
from record.command_line import RUNS, Command, recipe_path, runs
from record.errors import ON_LOCAL_HUB
from record.release_files import VERDICT_FILE
from record.signs_of_life import silence
from record.verdict import load_verdict

ADAPTER = "local-user/flan-t5-large-finance"
STEPS = {
    "Train: FLAN-T5 (a miniature) with LoRA on financial questions": ["train", "finance"],
    "Score: base model and adapter on the test rows": ["evaluate", "finance"],
    "Publish: adapter, card, plots, record and predictions in one commit": ["publish", "finance"],
    "Reproduce: a stranger with nothing but the id": ["reproduce", ADAPTER, "--json"],
    "Publish the verdict: the card tells what was found": ["publish", "finance", "--verdict", VERDICT_FILE],
}
# What takes seconds to load, and knows nothing of a Hub, whose clients read where it is when they are imported.
BEFORE_THE_HUB = (
    "torch",
    "torch._dynamo",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "pandas",
    "scipy.optimize",
    "scipy.stats",
)
# The rest of it.
HEAVY = ("recipes.train", "recipes.training.trainer", "recipes.training.model", "scoring.decoding.generate")
# A client of the local Hub that says how it was pointed there, and keeps the Hub for as long as this process lives.
KEEP_HUB = "import json, os, sys; print(json.dumps(dict(os.environ)), flush=True); sys.stdin.read()"
NEXT = (
    "make report HUB=local",
    "make export-finance HUB=local",
    f"make reproduce ADAPTER={ADAPTER} HUB=local",
)


@click.command(cls=Command, examples=("pubrep demo",))
def demo() -> None:
    """Train, score, publish, pull back and score again, on the local Hub.

    It needs no account and no GPU. The last line starts with REPRODUCED.
    """
    root = Path(os.environ.get("LOCAL_HUB_ROOT") or ".local_hub").resolve()
    shutil.rmtree(root / "demo", ignore_errors=True)
    # One name, whatever the reader's own: the page that is checked at the end is that of the last step.
    os.environ |= {ON_LOCAL_HUB: "1", "OMP_NUM_THREADS": "1", "HUB_USER": "local-user", RUNS: str(root / "demo")}
    print("Starting a Hub on this machine, and loading PyTorch and transformers", flush=True)
    with tempfile.TemporaryDirectory() as folder, local_hub():
        line = go_round(Path(folder))
    offer_run(root)
    print("\nNext:", *NEXT, sep="\n  ")
    print(f"\n{line}", flush=True)


@contextmanager
def local_hub() -> Iterator[None]:
    """Runs a local Hub, and makes this process its client; loads meanwhile what knows nothing of it."""
    words = [sys.executable, "-m", "local_hub", "run", "--", sys.executable, "-c", KEEP_HUB]
    # Ctrl-C is for the steps: the Hub ends after them.
    hub = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    with hub:
        load(BEFORE_THE_HUB)
        environ = hub.stdout.readline()
        if not environ:
            sys.exit(hub.wait())
        client = json.loads(environ)
        for name in os.environ.keys() - client.keys():
            del os.environ[name]
        os.environ |= client
        yield
        hub.stdin.close()


def go_round(folder: Path) -> str:
    """Goes every step, and ends the process where one fails; the line of the verdict, which lies in `folder`."""
    verdict, line = folder / VERDICT_FILE, ""
    stranger, told = start_stranger(folder)
    load(HEAVY)
    for number, (title, words) in enumerate(STEPS.items(), 1):
        bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
        print(f"\n{bold}{number}/{len(STEPS)}  {title}{plain}", flush=True)
        with silence():
            if words[0] == "reproduce":
                told.send_bytes(b"go")
                stranger.join()
                code = stranger.exitcode
            else:
                code = run_in_fork([str(verdict) if word == VERDICT_FILE else word for word in words])
        if words[0] == "reproduce" and (found := load_verdict(folder)):
            line = found.line
            print(line, flush=True)
        if code:
            sys.exit(code)
    return line


def start_stranger(folder: Path) -> tuple[BaseProcess, Connection]:
    """A process that loads all it needs, and reproduces once it is sent something; its verdict goes to `folder`."""
    waits, told = get_context("fork").Pipe(duplex=False)

    def reproduce() -> None:
        told.close()
        empty = folder / "empty"
        empty.mkdir()
        os.chdir(empty)
        os.environ["HF_HOME"] = str(empty / "cache")
        os.environ.pop("HF_TOKEN", None)
        load(HEAVY)
        try:
            waits.recv_bytes()
        except (EOFError, KeyboardInterrupt):
            # An earlier step has failed.
            return
        words = next(words for words in STEPS.values() if words[0] == "reproduce")
        # With --json the rest goes to standard error.
        with (folder / VERDICT_FILE).open("w") as file, redirect_stdout(file):
            main(words)

    stranger = get_context("fork").Process(target=reproduce)
    stranger.start()
    waits.close()
    return stranger, told


def run_in_fork(words: list[str]) -> int:
    """Runs one verb in a fork of this process; its exit code."""
    step = get_context("fork").Process(target=train if words[0] == "train" else main, args=(words,))
    step.start()
    step.join()
    return step.exitcode or 0


def train(words: list[str]) -> None:
    """Trains in this process, as `accelerate launch` has one that is alone do it."""
    from recipes.train import main

    if not has_gpu():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    main(["--config", str(recipe_path(words[1])), "--output_dir", str(runs() / words[1])])


def load(names: Sequence[str]) -> None:
    """Imports modules."""
    for name in names:
        import_module(name)


def offer_run(root: Path) -> None:
    """Puts the demo's run where `HUB=local` looks for runs, unless a run of the user's own lies there."""
    run = root / "runs" / "finance"
    if not run.exists() and not run.is_symlink():
        run.parent.mkdir(parents=True, exist_ok=True)
        run.symlink_to(Path("..", "demo", "finance"))
