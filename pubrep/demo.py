"""`pubrep demo`: the whole loop on the local Hub, each step a process of its own.

Loading PyTorch takes each of them seconds. While the first one trains, this process loads it; those that score and
publish are forks of it. The stranger's starts from nothing.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import click

from pubrep.__main__ import main
from record.command_line import RUNS, Command
from record.errors import ON_LOCAL_HUB
from record.release_files import VERDICT_FILE
from record.verdict import load_verdict

ADAPTER = "local-user/flan-t5-large-finance"
STEPS = {
    "Train: FLAN-T5 (a miniature) with LoRA on financial questions": ["train", "finance"],
    "Score: base model and adapter on the test rows": ["evaluate", "finance"],
    "Publish: adapter, card, plots, record and predictions in one commit": ["publish", "finance"],
    "Reproduce: a stranger with nothing but the id": ["reproduce", ADAPTER, "--json"],
    "Publish the verdict: the card tells what was found": ["publish", "finance", "--verdict", VERDICT_FILE],
}
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
    if ON_LOCAL_HUB not in os.environ:
        shutil.rmtree(root / "demo", ignore_errors=True)
        # One name, whatever the reader's own: the page that is checked at the end is that of the last step.
        environ = os.environ | {ON_LOCAL_HUB: "1", "OMP_NUM_THREADS": "1", "HUB_USER": "local-user",
                                RUNS: str(root / "demo")}  # fmt: skip
        words = [sys.executable, "-m", "local_hub", "run", "--", sys.executable, "-m", "pubrep", "demo"]
        os.execve(sys.executable, words, environ)
    line = ""
    with tempfile.TemporaryDirectory() as folder:
        for number, (title, words) in enumerate(STEPS.items(), 1):
            bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
            print(f"\n{bold}{number}/{len(STEPS)}  {title}{plain}", flush=True)
            stranger = words[0] == "reproduce"
            code = _reproduce(words, Path(folder)) if stranger else _step(words, Path(folder))
            if stranger and (verdict := load_verdict(Path(folder))):
                line = verdict.line
                print(line, flush=True)
            if code:
                sys.exit(code)
    offer_run(root)
    print("\nNext:", *NEXT, sep="\n  ")
    print(f"\n{line}", flush=True)


def _step(words: Sequence[str], folder: Path) -> int:
    """Runs one verb; the verdict is in `folder`."""
    words = [str(folder / word) if word == VERDICT_FILE else word for word in words]
    if words[0] == "train":
        with subprocess.Popen([sys.executable, "-m", "pubrep", *words]) as training:
            import_module("scoring.decoding.predict")
        return training.returncode
    step = get_context("fork").Process(target=main, args=(words,))
    step.start()
    step.join()
    return step.exitcode or 0


def _reproduce(words: Sequence[str], folder: Path) -> int:
    """Runs one verb as a stranger in an empty folder, an empty cache and no token; the verdict goes to `folder`."""
    with tempfile.TemporaryDirectory() as empty, (folder / VERDICT_FILE).open("w") as verdict:
        environ = {key: value for key, value in os.environ.items() if key != "HF_TOKEN"} | {"HF_HOME": f"{empty}/cache"}
        # With --json the rest goes to standard error.
        command = [sys.executable, "-m", "pubrep", *words]
        return subprocess.run(command, cwd=empty, env=environ, stdout=verdict).returncode


def offer_run(root: Path) -> None:
    """Puts the demo's run where `HUB=local` looks for runs, unless a run of the user's own lies there."""
    run = root / "runs" / "finance"
    if not run.exists() and not run.is_symlink():
        run.parent.mkdir(parents=True, exist_ok=True)
        run.symlink_to(Path("..", "demo", "finance"))
