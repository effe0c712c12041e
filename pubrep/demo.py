"""`pubrep demo`: the whole loop on the local Hub.

Loading PyTorch and transformers takes a process many seconds, so one process loads them, and each step is a fork of it.
The stranger is one, too, from before anything of a Hub is loaded: with an empty folder, an empty cache and no token.
"""

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import click

from pubrep.__main__ import main
from pubrep.train import has_gpu
from record.command_line import RUNS, Command, recipe_path, runs
from record.errors import ON_LOCAL_HUB
from record.release_files import VERDICT_FILE
from record.signs_of_life import LOADING, silence, waiting_for

FORK = get_context("fork")
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
)
# What training loads, and what scoring, publishing and checking do.
FOR_TRAINING = ("recipes.train", "recipes.training.trainer", "recipes.training.model")
FOR_CHECKING = ("evaluation.checks", "evaluation.regenerate", "push.delivery", "matplotlib.pyplot")
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
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as hub:
        waiting_for(LOADING)
        load(BEFORE_THE_HUB)
        environ = hub.stdout.readline()
        if not environ:
            sys.stderr.write(hub.stderr.read())
            sys.exit(hub.wait())
        client = json.loads(environ)
        for name in os.environ.keys() - client.keys():
            del os.environ[name]
        os.environ |= client
        yield


def go_round(folder: Path) -> str:
    """Goes every step, and ends the process where one fails; the line of the verdict, which lies in `folder`."""
    from record.verdict import load_verdict

    verdict, line = folder / VERDICT_FILE, ""
    with a_stranger(folder) as stranger:
        load(FOR_TRAINING)
        for number, (title, words) in enumerate(STEPS.items(), 1):
            bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
            print(f"\n{bold}{number}/{len(STEPS)}  {title}{plain}", flush=True)
            if words[0] == "reproduce":
                code = stranger()
                if found := load_verdict(folder):
                    line = found.line
                    print(line, flush=True)
            else:
                code = run_in_fork([str(verdict) if word == VERDICT_FILE else word for word in words])
            if code:
                sys.exit(code)
    return line


@contextmanager
def a_stranger(folder: Path) -> Iterator[Callable[[], int]]:
    """A process that loads all it needs, and reproduces when this is called; its verdict goes to `folder`."""
    waits, tells = FORK.Pipe(duplex=False)

    def reproduce() -> None:
        tells.close()
        empty = folder / "empty"
        empty.mkdir()
        os.chdir(empty)
        os.environ["HF_HOME"] = str(empty / "cache")
        os.environ.pop("HF_TOKEN", None)
        try:
            load([*FOR_TRAINING, *FOR_CHECKING])
            waits.recv_bytes()
        except (EOFError, KeyboardInterrupt):
            # An earlier step has failed, or was stopped.
            return
        words = next(words for words in STEPS.values() if words[0] == "reproduce")
        # With --json the rest goes to standard error.
        with (folder / VERDICT_FILE).open("w") as file, redirect_stdout(file):
            main(words)

    def told() -> int:
        with silence():
            tells.send_bytes(b"now")
            process.join()
        return process.exitcode or 0

    process = FORK.Process(target=reproduce)
    process.start()
    waits.close()
    try:
        yield told
    finally:
        tells.close()
        process.join()


def run_in_fork(words: list[str]) -> int:
    """Runs one verb in a fork of this process, which loads meanwhile what later steps need; the exit code."""
    step = FORK.Process(target=train if words[0] == "train" else main, args=(words,))
    with silence():
        step.start()
        load(FOR_CHECKING)
        step.join()
    return step.exitcode or 0


def train(words: list[str]) -> None:
    """Trains in this process, as `accelerate launch` has one that is alone do it."""
    from recipes.train import main

    if not has_gpu():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    main(["--config", str(recipe_path(words[1])), "--output_dir", str(runs() / words[1])])


def load(names: Sequence[str]) -> None:
    """Imports modules, as one does before forks (https://docs.python.org/3/library/gc.html#gc.freeze).

    Looking for garbage meanwhile takes time, and finds none.
    """
    gc.disable()
    for name in names:
        import_module(name)
    gc.freeze()
    gc.enable()


def offer_run(root: Path) -> None:
    """Puts the demo's run where `HUB=local` looks for runs, unless a run of the user's own lies there."""
    run = root / "runs" / "finance"
    if not run.exists() and not run.is_symlink():
        run.parent.mkdir(parents=True, exist_ok=True)
        run.symlink_to(Path("..", "demo", "finance"))
