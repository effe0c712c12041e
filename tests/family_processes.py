"""Trains a tiny model of every family, as one of several processes: python family_processes.py FOLDER.

The first process writes each family's losses, gradient norms and the adapter's weights into FOLDER.
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from tiny_families import with_adapter
from transformers import Seq2SeqTrainingArguments

from recipes.families import FAMILIES
from recipes.training.trainer import AdapterTrainer

# Source and target tokens of twenty rows of very different lengths: two steps of eight and one of four.
LENGTHS = [(9 - n, n) for n in (1, 8, 2, 7, 3, 6, 4, 5)] + [(n, 13 - n) for n in range(1, 13)]


def rows_of(lengths):
    generator = torch.Generator().manual_seed(1)
    return Dataset.from_list(
        [
            {
                "input_ids": torch.randint(3, 40, (source,), generator=generator).tolist(),
                "labels": torch.randint(3, 40, (target,), generator=generator).tolist(),
            }
            for source, target in lengths
        ]
    )


def fit(model, folder, tokens, resume=None, **more):
    """Losses and gradient norms step by step, and the adapter's weights after the last."""
    # Plain gradient descent: Adam divides rounding by rounding where a gradient is nearly zero.
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=8, num_train_epochs=1, optim="sgd", learning_rate=1.0,
        max_grad_norm=1.0, logging_steps=1, report_to="none", use_cpu=True, remove_unused_columns=False, seed=5,
        disable_tqdm=True, ddp_find_unused_parameters=False, **{"save_strategy": "no"} | more,
    )  # fmt: skip
    trainer = AdapterTrainer(model=model, args=arguments, train_dataset=rows_of(LENGTHS), tokens=tokens)
    trainer.train(resume_from_checkpoint=resume and str(resume))
    lines = [line for line in trainer.state.log_history if "grad_norm" in line]
    weights = [p.detach().flatten() for p in model.parameters() if p.requires_grad]
    return [line["loss"] for line in lines], [line["grad_norm"] for line in lines], torch.cat(weights)


if __name__ == "__main__":
    for kind in FAMILIES:
        losses, norms, weights = fit(with_adapter(kind), sys.argv[1], 30)
        if PartialState().is_main_process:
            torch.save(weights, Path(sys.argv[1], f"{kind}.pt"))
            Path(sys.argv[1], f"{kind}.json").write_text(json.dumps([losses, norms, PartialState().num_processes]))
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()
