"""What training shows on its way: a line each time that losses are logged, and on a terminal a bar below."""

import sys
import time

from tqdm.auto import tqdm
from transformers import TrainerCallback

from record.progress import EVERY, time_left


class StepLines(TrainerCallback):
    """One line a logging step: losses, learning rate, speed, time left. In a log at most one line every 30 s, and the
    last.

    Parameters:
        tokens_per_epoch (`int`): real source and target tokens of an epoch.
    """

    def __init__(self, tokens_per_epoch: int):
        self.tokens_per_epoch = tokens_per_epoch
        self.losses: dict[str, float] = {}
        self.bar = None

    def on_train_begin(self, args, state, control, **_):
        self.begun = self.said = time.monotonic()
        self.first_step, self.first_epoch = state.global_step, state.epoch or 0
        if state.is_world_process_zero and sys.stderr.isatty() and not args.disable_tqdm:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", desc="Training")

    def on_step_begin(self, args, state, control, **_):
        # The validation loss of a step comes after its training loss.
        if self.losses and (self.bar is not None or time.monotonic() - self.said >= EVERY):
            self._say(state)

    def on_step_end(self, args, state, control, **_):
        if self.bar is not None:
            self.bar.update()

    def on_log(self, args, state, control, logs, **_):
        if state.is_world_process_zero:
            self.losses |= {key: logs[key] for key in ("loss", "eval_loss", "learning_rate") if key in logs}

    def on_train_end(self, args, state, control, **_):
        if self.losses:
            self._say(state)
        if self.bar is not None:
            self.bar.close()

    def _say(self, state) -> None:
        self.said = time.monotonic()
        seconds, steps = self.said - self.begun, state.global_step - self.first_step
        speed = self.tokens_per_epoch * (state.epoch - self.first_epoch) / seconds
        left = time_left((state.max_steps - state.global_step) * seconds / max(steps, 1))
        names = {"loss": "loss {:.3f}", "eval_loss": "val {:.3f}", "learning_rate": "lr {:.1e}"}
        parts = [text.format(self.losses[key]) for key, text in names.items() if key in self.losses]
        count = f"step {state.global_step:,}/{state.max_steps:,}"
        line = "  ".join([count, *parts, f"{tqdm.format_sizeof(speed)} tok/s", f"eta {left}"])
        self.losses = {}
        # Above the bar, where there is one.
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
