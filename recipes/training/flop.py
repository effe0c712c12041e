"""FLOP of training on rows, from the shapes of the model's layers and the rows' lengths; the model may be on "meta"."""

import re
from collections.abc import Sequence

import numpy as np
import torch

# Keys and values of the decoder's cross-attention come from the source, as T5, BART and T5Gemma name them.
CROSS = re.compile(r"\.(EncDecAttention|encoder_attn|cross_attn)\.")
FROM_SOURCE = re.compile(CROSS.pattern + r"[kv](_proj)?\.")
QUERIES = re.compile(r"\.q(_proj)?(\.base_layer)?$")


def linear_layers(model: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    """All linear layers by name, LoRA's own among them."""
    return {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


def stream(name: str) -> int:
    """Which tokens pass through the weight of that name: 0 the source's, 1 the target's."""
    return int(not ("encoder" in name.split(".") or FROM_SOURCE.search(name)))


def linear_flop(model: torch.nn.Module) -> tuple[int, int]:
    """FLOP of a training step in linear layers, a source token and a target token.

    A frozen weight costs 2 FLOP a parameter and token forward and 2 backward (the activations' gradient alone), a
    trained one 2 more: the usual count of two a multiply-add (arXiv:2001.08361, 2.1). (The first encoder layer needs no
    gradient of its input; that is not subtracted.)
    """
    flop = [0, 0]
    for name, layer in linear_layers(model).items():
        trained = layer.weight.requires_grad
        # Not the weight's own size: 4-bit weights are packed.
        flop[stream(f"{name}.weight")] += (6 if trained else 4) * layer.in_features * layer.out_features
    return flop[0], flop[1]


def attention_flop(model: torch.nn.Module, lengths: Sequence[tuple[int, int]] | np.ndarray) -> np.ndarray:
    """FLOP of the products of queries with keys and of weights with values, forward and backward, shape (rows,).

    12 a pair of positions and channel: two products of 2 FLOP forward, twice that backward; half of the pairs in the
    decoder's own attention, which is causal.

    Parameters:
        lengths: source and target tokens of each row, shape (rows, 2).
    """
    channels = [0, 0, 0]
    for name, layer in linear_layers(model).items():
        if QUERIES.search(name):
            channels[0 if not stream(f"{name}.weight") else 1 if CROSS.search(name) else 2] += layer.out_features
    source, target = np.asarray(lengths, dtype=np.float64).T
    return 12 * (channels[0] * source**2 + channels[1] * source * target + channels[2] * target**2 / 2)


def row_flop(model: torch.nn.Module, lengths: Sequence[tuple[int, int]] | np.ndarray) -> np.ndarray:
    """Useful FLOP of training on each row once, shape (rows,): nothing for padding, recomputing or the optimizer.

    Parameters:
        lengths: source and target tokens of each row, shape (rows, 2).
    """
    return np.asarray(lengths, dtype=np.float64) @ linear_flop(model) + attention_flop(model, lengths)
