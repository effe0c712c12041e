"""A run in small for tests: the shipped recipe, a few steps, short outputs, in this process."""

import shutil
from pathlib import Path

from evaluation import reproduce
from push.delivery import Delivery, Options, deliver
from recipes import train
from record.run_record import load_record

SHORT = ("--max_steps", "6", "--max_new_tokens", "12", "--logging_steps", "1", "--per_device_eval_batch_size", "64",
         "--disable_tqdm", "true")  # fmt: skip
# A quarter of the recipe's rows, so that a check takes a second: 90 of them are test rows.
FEW_ROWS = ("--length_rules", "drop characters(instruction + input) >= 512", "drop characters(output) >= 85")


def train_short(run: Path, *overrides: str) -> Path:
    """Trains recipes/finance.yaml into the folder `run` for six steps."""
    train.main(["--config", "recipes/finance.yaml", "--output_dir", str(run), *SHORT, *overrides])
    return run


def copy_of(run: Path, folder: Path, name: str, seconds: float = 0) -> Path:
    """A copy of a run under another adapter name; another number of seconds makes it another release."""
    shutil.copytree(run, folder)
    record = load_record(folder)
    record.recipe["adapter_name"] = name
    if seconds:
        record.training.seconds += seconds
    record.save(folder)
    return folder


def publish(run: Path, **options) -> str:
    """Publishes the scored run for local-user; the commit's sha."""
    return deliver(Delivery(run), "local-user", Options(**options)).commit


def reproduced(capsys, *argv: str) -> tuple[int, str]:
    """The exit code of a check, and what it printed."""
    code = 0
    try:
        reproduce.main(list(argv))
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().out
