"""LoRA on a base in bfloat16 on a CPU: products in bfloat16, the adapter's weights and what they sum up in float32.

PEFT casts every input and output of its products to float32 and back; on CPUs those passes over memory take longer than
the products of the base.
"""

from types import MethodType

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

from recipes.training.autograd import draw_mask, keep, mask_of


class _Lora(torch.autograd.Function):
    """x Wᵀ + scaling · dropout(x) Aᵀ Bᵀ (arXiv:2106.09685) for rows x (N, inputs), W frozen."""

    @staticmethod
    def forward(ctx, values: Tensor, weight: Tensor, a: Tensor, b: Tensor, scaling: float, p: float) -> Tensor:
        # Dropout's 1 / (1 − p) goes into a factor that the product has anyway.
        ctx.factor = scaling / (1 - p)
        mask, bits = draw_mask(values, p) if p else (None, None)
        inner = (values if mask is None else keep(values, mask)) @ a.to(values.dtype).T
        ctx.save_for_backward(values, weight, a, b, inner, bits)
        return (values @ weight.T).addmm_(inner, b.to(values.dtype).T, alpha=ctx.factor)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        values, weight, a, b, inner, bits = ctx.saved_tensors
        of_inner = (gradient @ b.to(gradient.dtype)).mul_(ctx.factor)
        mask = None if bits is None else mask_of(bits, values)
        of_a = of_inner.T @ (values if mask is None else keep(values, mask))
        of_b = (gradient.T @ inner).float().mul_(ctx.factor)
        of_values = None
        if ctx.needs_input_grad[0]:
            through = of_inner @ a.to(gradient.dtype)
            of_values = (gradient @ weight).add_(through if mask is None else keep(through, mask))
        return of_values, None, of_a.to(a.dtype), of_b.to(b.dtype), None, None


def fuse_lora(model: nn.Module) -> None:
    """Has LoRA on plain linear layers in bfloat16 computed so; other layers and devices go through PEFT."""
    for module in model.modules():
        if type(module) is Linear and not module.lora_variant and _plain(module.base_layer):
            module.forward = MethodType(_forward, module)


def _plain(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear and layer.bias is None and not layer.weight.requires_grad


def _forward(self: Linear, values: Tensor, *args, **kwargs) -> Tensor:
    weight, names = self.base_layer.weight, self.active_adapters
    fused = values.device.type == "cpu" and values.dtype == weight.dtype == torch.bfloat16
    if not fused or len(names) != 1 or self.disable_adapters or self.merged:
        return type(self).forward(self, values, *args, **kwargs)
    (name,) = names
    dropout = self.lora_dropout[name]
    # PEFT puts an identity where there is no dropout.
    p = 0.0 if isinstance(dropout, nn.Identity) or not self.training else dropout.p
    a, b = self.lora_A[name].weight, self.lora_B[name].weight
    return _Lora.apply(values.flatten(0, -2), weight, a, b, self.scaling[name], p).unflatten(0, values.shape[:-1])
