"""`pubrep demo`: the whole loop on the local Hub, each step a process of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from record.command_line import RUNS, Command

ADAPTER = "local-user/flan-t5-large-finance"
STEPS = {
    "Train: FLAN-T5 (a miniature) with LoRA on financial questions": ["train", "finance"],
    "Score: base model and adapter on the test rows": ["evaluate", "finance"],
    "Publish: adapter, card, plots, record and predictions in one commit": ["publish", "finance"],
    "Reproduce: a stranger with nothing but the id": ["reproduce", ADAPTER],
}


@click.command(cls=Command, examples=("pubrep demo",))
def demo() -> None:
    """Train, score, publish, pull back and score again, on the local Hub.

    It needs no account and no GPU. The last line starts with REPRODUCED.
    """
    root = os.environ.get("LOCAL_HUB_ROOT") or ".local_hub"
    if "PUBREP_ON_LOCAL_HUB" not in os.environ:
        shutil.rmtree(Path(root, "demo"), ignore_errors=True)
        # One name, whatever the reader's own: the page that is checked at the end is that of the last step.
        environ = os.environ | {"PUBREP_ON_LOCAL_HUB": "1", "OMP_NUM_THREADS": "1", "HUB_USER": "local-user",
                                RUNS: str(Path(root, "demo").resolve())}  # fmt: skip
        words = [sys.executable, "-m", "local_hub", "run", "--", sys.executable, "-m", "pubrep", "demo"]
        os.execve(sys.executable, words, environ)
    for number, (title, words) in enumerate(STEPS.items(), 1):
        bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
        print(f"\n{bold}{number}/{len(STEPS)}  {title}{plain}", flush=True)
        if code := _step(words, stranger=words[0] == "reproduce"):
            sys.exit(code)


def _step(words: list[str], stranger: bool) -> int:
    """Runs one verb; as a stranger in an empty folder, with an empty cache and no token."""
    command = [sys.executable, "-m", "pubrep", *words]
    if not stranger:
        return subprocess.run(command).returncode
    with tempfile.TemporaryDirectory() as folder:
        environ = {key: value for key, value in os.environ.items() if key != "HF_TOKEN"}
        return subprocess.run(command, cwd=folder, env=environ | {"HF_HOME": f"{folder}/cache"}).returncode
