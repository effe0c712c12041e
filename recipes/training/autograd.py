"""What T5 does between its matrices, in few passes over memory and keeping little for the backward pass.

On a CPU, time outside the matrix products is time on memory.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


def draw_mask(like: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """A random mask of the shape of `like`, all bits set with probability 1 − p to the nearest 1/65,536, else none.

    A function of torch's random state, so that a checkpoint's repeats it. Sixteen bits an element of numpy's SFC64,
    which a CPU draws much faster than torch's Bernoulli.

    Returns:
        The mask, and what `mask_of` makes it of again for the backward pass, a bit an element.
    """
    generator = np.random.Generator(np.random.SFC64(int(torch.randint(2**62, ()))))
    words = generator.integers(0, 2**64, -(-like.numel() // 4), dtype=np.uint64)
    kept = words.view(np.uint16)[: like.numel()] >= round(p * 65_536)
    return _widened(kept, like), torch.from_numpy(np.packbits(kept))


def mask_of(bits: Tensor, like: Tensor) -> Tensor:
    """The mask of `like` that `draw_mask` drew, in far less time than drawing takes."""
    return _widened(np.unpackbits(bits.numpy(), count=like.numel()), like)


def _widened(kept: np.ndarray, like: Tensor) -> Tensor:
    """The mask's integers are as wide as the numbers of `like`: a product with truth values takes far longer."""
    return torch.from_numpy(kept.astype(f"i{like.element_size()}")).neg_().view(like.shape)


def keep(values: Tensor, mask: Tensor) -> Tensor:
    """The values where the mask is set, else 0."""
    return (values.view(mask.dtype) & mask).view(values.dtype)


def keep_(values: Tensor, mask: Tensor) -> Tensor:
    """As `keep`, in place."""
    values.view(mask.dtype).bitwise_and_(mask)
    return values


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, p: float) -> Tensor:
        mask, bits = draw_mask(values, p)
        ctx.p = p
        ctx.save_for_backward(bits)
        return keep(values, mask).mul_(1 / (1 - p))

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return keep(gradient, mask_of(*ctx.saved_tensors, gradient)).mul_(1 / (1 - ctx.p)), None


def dropout(values: Tensor, p: float) -> Tensor:
    """Dropout on a CPU tensor."""
    return _Dropout.apply(values, p)


class _Attention(torch.autograd.Function):
    """Softmax attention with dropout that keeps no weights: the backward pass computes them again."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, p: float) -> Tensor:
        weights = _weights(query, key, bias)
        mask, bits = draw_mask(weights, p)
        ctx.p = p
        ctx.save_for_backward(query, key, value, bias, bits)
        return keep_(weights, mask).mul_(1 / (1 - p)) @ value

    @staticmethod
    def backward(ctx, gradient: Tensor):
        query, key, value, bias, bits = ctx.saved_tensors
        weights = _weights(query, key, bias)
        mask = mask_of(bits, weights)
        of_value = keep(weights, mask).mul_(1 / (1 - ctx.p)).transpose(2, 3) @ gradient
        of_weights = keep_(gradient @ value.transpose(2, 3), mask).mul_(1 / (1 - ctx.p))
        of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_bias = of_scores.sum_to_size(bias.shape) if ctx.needs_input_grad[3] else None
        return of_scores @ key, of_scores.transpose(2, 3) @ query, of_value, of_bias, None


def _weights(query: Tensor, key: Tensor, bias: Tensor) -> Tensor:
    return (query @ key.transpose(2, 3)).add_(bias).softmax(-1)


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, p: float) -> Tensor:
    """Unscaled attention with dropout on CPU tensors (B, H, L, d), as T5 has it; `bias` broadcasts to (B, H, L, L)."""
    return _Attention.apply(query, key, value, bias, p)


class _GatedGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(gate, values)
        return functional.gelu(gate, approximate="tanh").mul_(values)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        gate, values = ctx.saved_tensors
        of_gate = torch.ops.aten.gelu_backward(gradient * values, gate, approximate="tanh")
        return of_gate, functional.gelu(gate, approximate="tanh").mul_(gradient)


def gated_gelu(gate: Tensor, values: Tensor) -> Tensor:
    """GELU(gate) · values, GELU by tanh (arXiv:1606.08415, as `gelu_new`); keeps its two inputs and nothing else."""
    return _GatedGelu.apply(gate, values)


class SeededDropout(nn.Module):
    """`nn.Dropout`, on CPUs by `dropout`."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        if not (self.training and self.p):
            return values
        return dropout(values, self.p) if values.device.type == "cpu" else functional.dropout(values, self.p)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        size = torch.linalg.vector_norm(values, dim=-1, keepdim=True, dtype=torch.float32)
        scale = (size.square() / values.shape[-1] + epsilon).rsqrt_()
        ctx.save_for_backward(values, weight, scale)
        # Products of two types take ten times as long as a cast and a product of one.
        return values.float().mul(scale).to(weight.dtype).mul_(weight)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        values, weight, scale = ctx.saved_tensors
        weighted, values = (gradient * weight).float(), values.float()
        along = torch.linalg.vecdot(weighted, values)[..., None] * scale**3 / values.shape[-1]
        return weighted.mul_(scale).sub_(values * along).to(gradient.dtype), None, None


class RootMeanSquareNorm(nn.Module):
    """T5's norm with a frozen weight: x · weight / sqrt(mean(x²) + ε) (arXiv:1910.07467), the mean in float32."""

    def __init__(self, weight: nn.Parameter, epsilon: float):
        super().__init__()
        self.weight, self.epsilon = weight, epsilon

    def forward(self, values: Tensor) -> Tensor:
        return _Norm.apply(values, self.weight, self.epsilon)
