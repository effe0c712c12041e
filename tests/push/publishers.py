"""Publishers in processes of their own, forked from one that has imported everything and spoken to nobody."""

import contextlib
import multiprocessing
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["push.delivery", "evaluation.regenerate", "model_cards.card", "matplotlib.pyplot",
                                "peft", "transformers.models.t5.modeling_t5", "publishers"])  # fmt: skip


def publisher(run: Path, output: Path, *options: str):
    """A process that publishes the run and writes what it prints, errors too, into the file `output`."""
    return CONTEXT.Process(target=_publish, args=(run, output, options))


def _publish(run: Path, output: Path, options: tuple[str, ...]) -> None:
    from push import publish

    with output.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        publish.main([str(run), *options])


def told(capsys, *argv) -> tuple[int, str]:
    """Exit code and last line of `python -m push.publish`."""
    from push import publish

    capsys.readouterr()
    try:
        publish.main([str(word) for word in argv])
        code = 0
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, (err if code else out).strip().splitlines()[-1]
