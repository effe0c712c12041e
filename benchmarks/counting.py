"""Counts what a training step does: positions in linear layers, bytes kept for the backward pass, FLOP."""

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode

from recipes.training.flop import linear_layers, row_flop, stream

Row = dict[str, list[int]]


def real_tokens(rows: list[Row]) -> tuple[int, int]:
    """Source and target tokens of rows, `</s>` included."""
    return sum(len(row["input_ids"]) for row in rows), sum(len(row["labels"]) for row in rows)


def linear_weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The weights of all linear layers by name, LoRA's own among them."""
    return {f"{name}.weight": layer.weight for name, layer in linear_layers(model).items()}


class Positions(TorchFunctionMode):
    """While active, counts for every linear weight of a model the positions that are multiplied with it going forward.

    It sees `torch.nn.functional.linear` and matrix products with the weight or a view of it, whoever calls them.
    """

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        weights = linear_weights(model)
        self.names = {weight.untyped_storage().data_ptr(): name for name, weight in weights.items()}
        self.seen = Counter(dict.fromkeys(weights, 0))

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in PRODUCTS:
            for weight in args:
                name = isinstance(weight, torch.Tensor) and self.names.get(weight.untyped_storage().data_ptr())
                if name:
                    other = next(arg for arg in args if isinstance(arg, torch.Tensor) and arg is not weight)
                    self.seen[name] += other.numel() // other.shape[-1]
        return function(*args, **(kwargs or {}))


PRODUCTS = {
    torch.nn.functional.linear, torch.matmul, torch.mm, torch.Tensor.matmul, torch.Tensor.mm, torch.Tensor.__matmul__,
}  # fmt: skip


def padding_share(positions: Positions, rows: list[Row]) -> float:
    """The share of the positions in linear layers that no token needs.

    Raises:
        `ValueError`: a weight saw fewer positions than there are tokens, so that something was left out of the count.
    """
    real = real_tokens(rows)
    for name, count in positions.seen.items():
        if count < real[stream(name)]:
            raise ValueError(f"{name} was multiplied with {count} positions, and the rows have {real[stream(name)]}")
    return 1 - sum(real[stream(name)] for name in positions.seen) / positions.seen.total()


class Saved:
    """Bytes of the distinct storages that autograd keeps for the backward pass: in all, and the most at a time."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.total = self.live = self.peak = 0
        self.uses: Counter[int] = Counter()
        self.weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}

    def pack(self, tensor: torch.Tensor) -> "Kept":
        handle, storage = Kept(tensor), tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place in self.weights:
            return handle
        if not self.uses[place]:
            self.total += size
            self.live += size
            self.peak = max(self.peak, self.live)
        self.uses[place] += 1
        weakref.finalize(handle, self.release, place, size)
        return handle

    def release(self, place: int, size: int) -> None:
        self.uses[place] -= 1
        if not self.uses[place]:
            self.live -= size


class Kept:
    """A tensor for as long as autograd holds on to it; only an object of ours tells when it lets go."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor


@contextmanager
def saved_bytes(model: torch.nn.Module) -> Iterator[Saved]:
    """Measures what the forward passes inside keep for their backward passes; the model's parameters do not count."""
    saved = Saved(model)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda handle: handle.tensor):
        yield saved


def step_flop(model: torch.nn.Module, rows: list[Row]) -> float:
    """Useful FLOP of training on rows once (`recipes.training.flop.row_flop`)."""
    return float(row_flop(model, [(len(row["input_ids"]), len(row["labels"])) for row in rows]).sum())
