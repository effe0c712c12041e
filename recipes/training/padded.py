"""Any encoder-decoder through transformers' own forward: the rows of a micro-batch side by side, padded to the longest.

Its losses are the same sums as those of `recipes.training.unpadded_t5`, so a step is the same however it is cut.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from recipes.families import FAMILIES

# What cross-entropy leaves out.
IGNORED = -100


def cut(lengths: list[tuple[int, int]], processes: int, tokens: int | None) -> list[list[list[int]]]:
    """Shares a step's rows among processes, rows of like length together, and each share among as many micro-batches.

    Parameters:
        lengths: source and target tokens of each row.
        tokens: the most that a micro-batch may hold, padding included, unless it is a single row; None for no bound.

    Returns:
        Row numbers, by process and micro-batch; empty ones keep processes in step.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-sum(lengths[row]), row))
    if tokens is None:
        return [[order[process::processes]] for process in range(processes)]
    batches: list[list[int]] = []
    longest = (0, 0)
    for row in order:
        wider = max(longest[0], lengths[row][0]), max(longest[1], lengths[row][1])
        if batches and sum(wider) * (len(batches[-1]) + 1) <= tokens:
            batches[-1].append(row)
            longest = wider
        else:
            batches.append([row])
            longest = lengths[row]
    batches += [[]] * (-len(batches) % processes)
    return [batches[process::processes] for process in range(processes)]


def micro_batch(rows: list[dict[str, list[int]]], config: Any) -> dict[str, Tensor]:
    """The rows (`input_ids`, `labels`: token ids) as one padded micro-batch, each tensor of the shape (rows, longest).

    Parameters:
        config: the base model's.
    """
    last, start = FAMILIES[config.model_type].starts_with_last, vars(config).get("decoder_start_token_id")
    if start is None:
        # As `generate` of transformers 5.23 does.
        start = config.bos_token_id
    past = [[row["labels"][-1] if last else start, *row["labels"][:-1]] for row in rows]
    return {
        "input_ids": _padded([row["input_ids"] for row in rows], config.pad_token_id),
        "attention_mask": _padded([[1] * len(row["input_ids"]) for row in rows], 0),
        "decoder_input_ids": _padded(past, config.pad_token_id),
        "labels": _padded([row["labels"] for row in rows], IGNORED),
    }


def _padded(rows: list[list[int]], value: int) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def losses(model: nn.Module, batch: dict[str, Tensor], smoothing: float = 0.0) -> Tensor:
    """The loss of a micro-batch, as `recipes.training.unpadded_t5` gives it.

    Parameters:
        smoothing: label smoothing.

    Returns:
        With gradients the summed cross-entropy of all target tokens; else each row's, and the number of its target
        tokens: shape (rows, 2).
    """
    labels = batch["labels"]
    logits = model(**{name: part for name, part in batch.items() if name != "labels"}, use_cache=False).logits.float()
    if torch.is_grad_enabled():
        return functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
        )
    each = functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return torch.stack([each.sum(1), (labels != IGNORED).sum(1).to(each.dtype)], dim=1)
