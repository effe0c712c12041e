"""A model as it would compute in a coarser precision, or in the same one elsewhere.

Rounding is drawn anew at the embeddings, and what follows decides otherwise wherever it is close: Monte Carlo
arithmetic (Parker 1997, "Monte Carlo arithmetic: exploiting randomness in floating-point arithmetic") with one random
operation, since all later ones round what came out of it.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Elsewhere(NamedTuple):
    """Where a model would compute: in `dtype`, its own or a coarser one; and which draw of the rounding there."""

    dtype: str
    draw: int


@contextlib.contextmanager
def rounded(model: nn.Module, elsewhere: Elsewhere) -> Iterator[None]:
    """In the block the model's weights, and what its modules hand on, have no more digits than they would elsewhere.

    A weight is rounded while its own module uses it, so that memory holds one of them twice. Embeddings are moved by
    half a unit in the last place at most: in the model's own dtype nothing else is changed.
    """
    generator = torch.Generator().manual_seed(elsewhere.draw)
    dtype = getattr(torch, elsewhere.dtype)
    half = torch.finfo(dtype).eps / 2
    own: dict[nn.Parameter, Tensor] = {}

    def round_weights(module: nn.Module, _: Any) -> None:
        for weight in module.parameters(recurse=False):
            if weight not in own and _finer(weight, dtype):
                own[weight] = weight.data
                weight.data = weight.data.to(dtype).to(weight.dtype)

    def round_output(module: nn.Module, _: Any, output: Any) -> Any:
        for weight in module.parameters(recurse=False):
            if weight in own:
                weight.data = own.pop(weight)
        if isinstance(module, nn.Embedding):
            moved = torch.rand(output.shape, generator=generator).to(output.device) * 2 - 1
            output = (output * (1 + half * moved)).to(output.dtype)
        if isinstance(output, tuple):
            return tuple(_round(part, dtype) for part in output)
        return _round(output, dtype)

    handles: list[Any] = []
    try:
        for module in model.modules():
            handles.append(module.register_forward_pre_hook(round_weights))
            handles.append(module.register_forward_hook(round_output))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for weight, data in own.items():
            weight.data = data


def _round(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype).to(value.dtype) if isinstance(value, Tensor) and _finer(value, dtype) else value


def _finer(value: Tensor, dtype: torch.dtype) -> bool:
    return value.is_floating_point() and torch.finfo(value.dtype).eps < torch.finfo(dtype).eps
