"""What `Seq2SeqTrainer` lacks: the right loss for T5, patience with memory, a way past torn checkpoints."""

import json
import shutil
from pathlib import Path

import torch
from accelerate.utils.memory import clear_device_cache
from transformers import EvalPrediction, Seq2SeqTrainer
from transformers.trainer_utils import get_last_checkpoint

from recipes.batch import out_of_memory
from recipes.errors import UserError


def token_mean_loss(
    outputs: dict[str, torch.Tensor], labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross-entropy summed over real target tokens, divided by the optimizer step's real target tokens.

    T5 ignores `num_items_in_batch` and returns a micro-batch mean, which `Trainer` of transformers 5.23 then does not
    divide by the accumulation steps: loss and gradient come out multiplied by them. Here they do not depend on how
    the step is cut into micro-batches or ranks.

    Parameters:
        outputs: `logits` of shape (batch, target length, vocabulary).
        labels: shape (batch, target length), −100 where padded.
        num_items_in_batch: real target tokens of the whole optimizer step over all ranks; None: of these labels.
    """
    total = torch.nn.functional.cross_entropy(
        outputs["logits"].flatten(0, 1).float(), labels.flatten(), ignore_index=-100, reduction="sum"
    )
    return total / (num_items_in_batch if num_items_in_batch is not None else labels.ne(-100).sum())


def row_losses(outputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy and number of real target tokens of each row: shape (batch, 2)."""
    losses = torch.nn.functional.cross_entropy(
        outputs[0].transpose(1, 2).float(), labels, ignore_index=-100, reduction="none"
    )
    return torch.stack([losses.sum(1), labels.ne(-100).sum(1).float()], dim=1)


def token_mean(rows: EvalPrediction) -> dict[str, float]:
    """The mean over all real target tokens, from the gathered `row_losses`."""
    total, tokens = rows.predictions.astype("float64").sum(axis=0)
    return {"token_loss": total / tokens}


class AdapterTrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` whose losses are means over real target tokens, however rows are batched and shared."""

    def __init__(self, *args, **kwargs):
        super().__init__(
            *args,
            compute_loss_func=token_mean_loss,
            preprocess_logits_for_metrics=row_losses,
            compute_metrics=token_mean,
            **kwargs,
        )

    def evaluation_loop(self, *args, **kwargs):
        """The validation loss as a mean over tokens, each row counted once; `Trainer` takes a mean of batch means."""
        # Seq2SeqTrainer of transformers 5.23 sets plain `gather`, which counts the rows that even out the ranks twice.
        self.gather_function = self.accelerator.gather_for_metrics
        output = super().evaluation_loop(*args, **kwargs)
        output.metrics["eval_loss"] = output.metrics.pop("eval_token_loss")
        return output

    def evaluate(self, *args, **kwargs):
        """Evaluates; where memory runs out, again with half the evaluation batch. The training batch stays.

        The random state is left as it was: every data loader draws from it, and training must not depend on how often
        or in what batches it is evaluated.

        Raises:
            `UserError`: memory does not even suffice for one row.
        """
        while True:
            try:
                with torch.random.fork_rng():
                    return super().evaluate(*args, **kwargs)
            except RuntimeError as error:
                # Alone one process may try again; beside others it would leave them waiting.
                if not out_of_memory(error) or self.args.world_size > 1:
                    raise
            clear_device_cache(garbage_collection=True)
            rows = self.args.per_device_eval_batch_size
            if rows == 1:
                raise UserError("memory does not suffice to evaluate a single row beside the training state")
            self.args.per_device_eval_batch_size = rows // 2
            print(f"Memory does not suffice to evaluate {rows} rows at once: {rows // 2}", flush=True)


def last_whole_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint in `run` that was written to its end; torn ones are removed, each with a line.

    `Trainer` writes `trainer_state.json` last, so a checkpoint without a readable one was cut off by a kill.
    """
    while (last := get_last_checkpoint(run) if run.is_dir() else None) is not None:
        checkpoint = Path(last)
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            return checkpoint
        except (OSError, json.JSONDecodeError):
            print(f"{checkpoint} was cut off while it was written: removed", flush=True)
            shutil.rmtree(checkpoint)
    return None
