"""`pubrep demo`: the whole loop on the local Hub, each step a process of its own.

Loading PyTorch takes each of them seconds. While the first one trains, this process and the stranger's load it; those
that score and publish are forks of this one. The stranger's has an empty folder, an empty cache and no token.
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
# What takes seconds to load.
HEAVY = ("recipes.training.model", "scoring.decoding.generate")
# A process that loads it, and runs a verb when it is told to.
WAITING = """
import sys
from importlib import import_module
for name in {heavy}:
    import_module(name)
if sys.stdin.read(1):
    from pubrep.__main__ import main
    main({words})
"""
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
        print("Starting a Hub on this machine", flush=True)
        words = [sys.executable, "-m", "local_hub", "run", "--", sys.executable, "-m", "pubrep", "demo"]
        os.execve(sys.executable, words, environ)
    line = ""
    with tempfile.TemporaryDirectory() as folder:
        verdict = Path(folder) / VERDICT_FILE
        for number, (title, words) in enumerate(STEPS.items(), 1):
            bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
            print(f"\n{bold}{number}/{len(STEPS)}  {title}{plain}", flush=True)
            if words[0] == "train":
                code, stranger = _train(words, Path(folder))
            elif words[0] == "reproduce":
                stranger.communicate("\n")
                code = stranger.returncode
                if found := load_verdict(verdict.parent):
                    line = found.line
                    print(line, flush=True)
            else:
                code = _fork([str(verdict) if word == VERDICT_FILE else word for word in words])
            if code:
                sys.exit(code)
    offer_run(root)
    print("\nNext:", *NEXT, sep="\n  ")
    print(f"\n{line}", flush=True)


def _train(words: Sequence[str], folder: Path) -> tuple[int, subprocess.Popen[str]]:
    """Trains; meanwhile this process and the stranger's load what the next steps need."""
    with subprocess.Popen([sys.executable, "-m", "pubrep", *words]) as training:
        for name in HEAVY:
            import_module(name)
        stranger = _stranger(folder)
    return training.returncode, stranger


def _stranger(folder: Path) -> subprocess.Popen[str]:
    """A process in an empty folder, an empty cache and no token, that reproduces once it is sent a line.

    Its verdict goes to `folder`.
    """
    empty = folder / "empty"
    empty.mkdir()
    words = next(words for words in STEPS.values() if words[0] == "reproduce")
    environ = {key: value for key, value in os.environ.items() if key != "HF_TOKEN"} | {"HF_HOME": f"{empty}/cache"}
    code = WAITING.format(heavy=HEAVY, words=words)
    # With --json the rest goes to standard error.
    with (folder / VERDICT_FILE).open("w") as verdict:
        return subprocess.Popen(
            [sys.executable, "-c", code], cwd=empty, env=environ, stdin=subprocess.PIPE, stdout=verdict, text=True
        )


def _fork(words: Sequence[str]) -> int:
    """Runs one verb in a fork of this process."""
    step = get_context("fork").Process(target=main, args=(words,))
    step.start()
    step.join()
    return step.exitcode or 0


def offer_run(root: Path) -> None:
    """Puts the demo's run where `HUB=local` looks for runs, unless a run of the user's own lies there."""
    run = root / "runs" / "finance"
    if not run.exists() and not run.is_symlink():
        run.parent.mkdir(parents=True, exist_ok=True)
        run.symlink_to(Path("..", "demo", "finance"))
