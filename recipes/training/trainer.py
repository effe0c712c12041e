"""What `Seq2SeqTrainer` lacks: steps without padding, the same loss however a step is cut, patience with memory, a way
past torn checkpoints."""

import contextlib
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from accelerate.utils import gather_object, send_to_device
from accelerate.utils.memory import clear_device_cache
from datasets import Dataset
from peft import PeftModel
from transformers import EvalPrediction, Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from recipes.environment import free_memory
from recipes.families import FAMILIES
from recipes.training import padded
from recipes.training.layout import micro_batch
from recipes.training.micro_batches import cut, out_of_memory
from recipes.training.unpadded_t5 import compile_blocks, make_flat
from record.errors import UserError

# What activations may take of the memory that is free: the rest is for the optimizer, fragments and other programs.
SHARE_OF_MEMORY = 0.6

# For models in parts on several devices, whose memory cannot be tried before: tokens of a micro-batch.
SHARDED_BUDGET = 4_096

Rows = list[dict[str, list[int]]]


def tokens_of(row: dict[str, list[int]]) -> int:
    """Source and target tokens of a row."""
    return len(row["input_ids"]) + len(row["labels"])


def lengths_of(rows: Dataset) -> np.ndarray:
    """Source and target tokens of each row, shape (rows,), without reading the tokens."""
    table = rows.with_format("arrow")[:]
    return sum(pc.list_value_length(table[name]).to_numpy() for name in ("input_ids", "labels"))


def collate(
    rows: Rows, config, packed: bool, tokens: int | None = None, processes: int = 1, process: int = 0
) -> dict[str, Any]:
    """A process's share of the rows as flat micro-batches, or as padded ones of a family that takes no others.

    Parameters:
        config: the base model's.
        packed: as in `recipes.training.layout.micro_batch`.
        tokens, processes: as in `recipes.training.micro_batches.cut`.

    Returns:
        `numbers`: the number of each row of the share, micro-batch by micro-batch; `micro_batches`, as
        `recipes.training.layout.micro_batch` or `recipes.training.padded.micro_batch` gives them, each with its number
        of rows, 0 where it is a dummy that keeps this process in step with others; `target_tokens` of all rows, over
        all processes.
    """
    if FAMILIES[config.model_type].flat:
        share = cut([tokens_of(row) for row in rows], processes, tokens)[process]
    else:
        lengths = [(len(row["input_ids"]), len(row["labels"])) for row in rows]
        share = padded.cut(lengths, processes, tokens)[process]
    return {
        "numbers": torch.tensor([number for numbers in share for number in numbers]),
        "micro_batches": [
            (_micro_batch([rows[number] for number in numbers or [0]], config, packed), len(numbers))
            for numbers in share
        ],
        "target_tokens": sum(len(row["labels"]) for row in rows),
    }


def _micro_batch(rows: Rows, config, packed: bool) -> dict[str, Any]:
    if FAMILIES[config.model_type].flat:
        return micro_batch(rows, config.num_heads, config.decoder_start_token_id, packed)
    return padded.micro_batch(rows, config)


def _losses(model: torch.nn.Module, batch: dict[str, Any], smoothing: float = 0.0, noise: float = 0.0) -> torch.Tensor:
    """As `recipes.training.unpadded_t5` and `recipes.training.padded` give them."""
    if "attention_mask" in batch:
        return padded.losses(model, batch, smoothing)
    return model(**batch, smoothing=smoothing, noise=noise)


def token_mean(rows: EvalPrediction) -> dict[str, float]:
    """The mean over all real target tokens, from each row's summed loss and number of target tokens."""
    total, tokens = rows.predictions.astype("float64").sum(axis=0)
    return {"token_loss": total / tokens}


def largest_budget(model: PeftModel, longest: Rows, free: int, device: torch.device, tried: bool) -> int:
    """How many tokens a micro-batch may hold: as many as memory allows, at most those of the `longest` rows together.

    The memory of activations grows with the tokens: it is measured on the longest row, and where it can be `tried`,
    tried with the longest rows, so that memory runs out now or never.

    Parameters:
        longest: the longest rows that a process could meet in one step, the longest first.
        free: bytes of memory.
    """
    whole, least = sum(map(tokens_of, longest)), tokens_of(longest[0])
    with torch.random.fork_rng():
        tokens = int(SHARE_OF_MEMORY * free / saved_bytes(model, longest[:1], device) * least)
        tokens = max(min(tokens, whole), least)
        while tried and not _fits(model, longest, tokens, device):
            tokens = max(tokens // 2, least)
    return tokens


def _fits(model: PeftModel, longest: Rows, tokens: int, device: torch.device) -> bool:
    """Whether memory suffices for a micro-batch of so many tokens; for a single row the error says that it does not."""
    rows, room = [], tokens
    for row in longest:
        if (room := room - tokens_of(row)) >= 0:
            rows.append(row)
    if not FAMILIES[model.get_base_model().config.model_type].flat:
        # The first rows are the longest, and what pads the others counts.
        rows = rows[: max(1, tokens // tokens_of(longest[0]))]
    try:
        _losses(model, _on_device(rows, model, device)).backward()
        return True
    except RuntimeError as error:
        if not out_of_memory(error) or len(rows) == 1:
            raise
    finally:
        model.zero_grad()
    clear_device_cache(garbage_collection=True)
    return False


def _on_device(rows: Rows, model: PeftModel, device: torch.device) -> dict[str, Any]:
    batch = _micro_batch(rows, model.get_base_model().config, packed=device.type != "cpu")
    return send_to_device(batch, device)


def saved_bytes(model: PeftModel, rows: Rows, device: torch.device) -> int:
    """Bytes that the backward pass over these rows needs kept."""
    sizes = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    # Compiled layers keep less, and what they keep is not seen as a whole.
    with (
        torch.compiler.set_stance("force_eager"),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        # The loss keeps the whole graph, and with it every storage, until its bytes are added up.
        loss = _losses(model, _on_device(rows, model, device))
        total = sum(size for place, size in sizes.items() if place not in weights)
        del loss
    return total


def suit_device(arguments: Seq2SeqTrainingArguments) -> None:
    """Lets a GPU run without waiting for the processor."""
    on_gpu = arguments.device.type == "cuda"
    arguments.dataloader_pin_memory = arguments.accelerator_config.non_blocking = on_gpu
    if on_gpu and not arguments.dataloader_num_workers:
        # The next step's rows are laid flat and sent while the GPU works on this one's.
        arguments.dataloader_num_workers = 2
    # The filter asks the device for every step's loss, and would hide a loss that is no number.
    arguments.logging_nan_inf_filter = False


class AdapterTrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` without padding where a family is proven to train so, else with it.

    A step takes the rows that a stock trainer's would (the effective batch), cut into micro-batches of at most `tokens`
    tokens that lie flat, or padded. Losses are means over the step's real target tokens, however rows are cut and
    shared: T5 ignores `num_items_in_batch`, so `Trainer` of transformers 5.23 multiplies T5's loss and gradient by the
    accumulation steps. Label smoothing and NEFTune's noise are of training alone: the validation loss is the plain one.

    Parameters:
        model: its forward is replaced (`recipes.training.unpadded_t5.make_flat`), unless rows are padded.
        args: `per_device_train_batch_size` is the effective batch, over all processes. `torch_compile` compiles the
            layers on a GPU; a CPU gains nothing by it.
        tokens: the budget; None for one micro-batch a step and process.
    """

    def __init__(self, *, model: PeftModel, args: Seq2SeqTrainingArguments, tokens: int | None = None, **kwargs):
        flat = FAMILIES[model.get_base_model().config.model_type].flat
        if flat:
            make_flat(model)
        on_gpu = args.device.type != "cpu"
        backend = args.torch_compile_backend
        if args.torch_compile and on_gpu and flat:
            compile_blocks(model, backend=backend, mode=args.torch_compile_mode)
        collator = partial(collate, config=model.get_base_model().config, packed=on_gpu)
        # Else accelerate would compile the model as a whole, layer after layer.
        args.torch_compile_backend = None
        super().__init__(model=model, args=args, data_collator=collator, compute_metrics=token_mean, **kwargs)
        args.torch_compile_backend = backend
        # `Trainer` would add the noise by a hook on `shared`, a module that T5 of transformers 5.23 never calls.
        self.neftune_noise_alpha = None
        self.tokens = tokens

    def find_budget(self, lengths: np.ndarray, rows: int) -> int:
        """The token budget that memory allows (`largest_budget`), the same on every process.

        Parameters:
            lengths: tokens of each training row.
            rows: of a step, on this process.
        """
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            # The model is cut up only when training starts: nothing can be measured before.
            return SHARDED_BUDGET
        order = np.argsort(-lengths, kind="stable")[:rows]
        longest = [self.train_dataset[int(row)] for row in order]
        device = self.args.device
        if device.type == "cuda":
            free = torch.cuda.mem_get_info(device)[0]
        else:
            free = free_memory() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        return min(gather_object([largest_budget(self.model, longest, free, device, tried=device.type == "cuda")]))

    def get_train_dataloader(self):
        """Every process reads a step's rows whole, and takes its share of them by tokens."""
        processes, process, collator = self.args.world_size, self.args.process_index, self.data_collator
        self.data_collator = partial(collator, tokens=self.tokens, processes=processes, process=process)
        try:
            loader = super().get_train_dataloader()
        finally:
            # Rows of an evaluation batch stay together.
            self.data_collator = collator
        if processes > 1:
            shard = loader.batch_sampler
            shard.num_processes, shard.process_index, shard.even_batches = 1, 0, False
        return loader

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: `Trainer` looks for padded `input_ids`."""
        return 0

    def training_step(self, model, inputs: dict[str, Any], num_items_in_batch=None) -> torch.Tensor:
        """Forward and backward over the micro-batches of one optimizer step, with label smoothing and NEFTune's noise.

        Returns:
            The mean loss of this process's target tokens times the number of processes, whose mean over the processes
            is that of the step.
        """
        model.train()
        # Gradients of several processes are averaged, but belong summed.
        scale = self.args.world_size / inputs["target_tokens"]
        total = torch.zeros((), device=self.args.device)
        countdown = len(inputs["micro_batches"])
        smoothing, noise = self.args.label_smoothing_factor, self.args.neftune_noise_alpha or 0.0
        for batch, rows in inputs["micro_batches"]:
            countdown -= 1
            self.accelerator.gradient_state._set_sync_gradients(not countdown)
            with self.accelerator.no_sync(model) if countdown else contextlib.nullcontext():
                loss = _losses(model, batch, smoothing, noise) * (scale if rows else 0)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def prediction_step(self, model, inputs: dict[str, Any], prediction_loss_only, ignore_keys=None, **_):
        """Each row's summed loss and target tokens, in the order of the rows: (rows, 2)."""
        with torch.no_grad():
            sums = torch.cat([_losses(model, batch) for batch, _ in inputs["micro_batches"]])
        in_order = torch.empty_like(sums)
        in_order[inputs["numbers"]] = sums
        mean = in_order[:, 0].sum() / in_order[:, 1].sum()
        return mean, in_order, in_order.new_zeros(len(in_order))

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
                # A single process may try again; one of several would leave the others waiting.
                if not out_of_memory(error) or self.args.world_size > 1:
                    raise
            clear_device_cache(garbage_collection=True)
            rows = self.args.per_device_eval_batch_size
            if rows == 1:
                raise UserError("memory does not suffice to evaluate a single row next to the training state")
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
