"""Counts what a training step does: positions in linear layers, bytes kept for the backward pass, FLOP."""

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode

Row = dict[str, list[int]]


def real_tokens(rows: list[Row]) -> tuple[int, int]:
    """Source and target tokens of rows, `</s>` included."""
    return sum(len(row["input_ids"]) for row in rows), sum(len(row["labels"]) for row in rows)


def linear_weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The weights of all linear layers by name, LoRA's own among them."""
    return {
        f"{name}.weight": module.weight for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)
    }


def stream(name: str) -> int:
    """Which tokens pass through a T5 weight: 0 the source's, 1 the target's.

    The decoder's cross-attention takes keys and values from the source.
    """
    from_source = "encoder" in name.split(".") or ".EncDecAttention.k." in name or ".EncDecAttention.v." in name
    return int(not from_source)


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


def linear_flop(model: torch.nn.Module) -> tuple[int, int]:
    """FLOP of a training step in linear layers, a source token and a target token.

    A frozen weight costs 2 FLOP a parameter and token forward and 2 backward (the activations' gradient alone), a
    trained one 2 more: the usual count of two a multiply-add. (The first encoder layer needs no gradient of its input;
    that is not subtracted.)
    """
    flop = [0, 0]
    for name, weight in linear_weights(model).items():
        flop[stream(name)] += (6 if weight.requires_grad else 4) * weight.numel()
    return flop[0], flop[1]


def attention_flop(model: torch.nn.Module, rows: list[Row]) -> int:
    """FLOP of the products of queries with keys and of weights with values, forward and backward.

    12 a pair of positions and channel: two products of 2 FLOP forward, twice that backward; half of the pairs in the
    decoder's own attention, which is causal.
    """
    config = model.config
    pairs = 0
    for row in rows:
        source, target = len(row["input_ids"]), len(row["labels"])
        pairs += config.num_layers * source**2 + config.num_decoder_layers * (target**2 / 2 + source * target)
    return int(12 * config.num_heads * config.d_kv * pairs)


def step_flop(model: torch.nn.Module, rows: list[Row]) -> int:
    """Useful FLOP of training on rows once: nothing for padding, recomputing or the optimizer."""
    return sum(a * b for a, b in zip(linear_flop(model), real_tokens(rows), strict=True)) + attention_flop(model, rows)
