"""SIGTERM, as Slurm and spot machines send it before they take a machine away: a checkpoint, then the end."""

import signal
import threading

from transformers import TrainerCallback


class StopOnSigterm(TrainerCallback):
    """Ends training after the step at which any process received SIGTERM, with a checkpoint of it."""

    def __init__(self, accelerator):
        self.accelerator = accelerator
        self.stopped = False

    def on_train_begin(self, args, state, control, **_):
        # Python sets handlers in its main thread alone.
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGTERM, lambda *_: self.accelerator.set_trigger())

    def on_step_end(self, args, state, control, **_):
        # All processes stop at the same step.
        if self.accelerator.check_trigger() and state.global_step < state.max_steps:
            self.stopped = control.should_save = control.should_training_stop = True

    def on_train_end(self, args, state, control, **_):
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.before)
