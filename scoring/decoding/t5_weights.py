"""The weights of a T5 and its adapter as plain functions, without the way through PEFT's and transformers' modules."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

Layer = Callable[[Tensor], Tensor]


@dataclass
class Attention:
    """An attention layer with the norm before it."""

    norm: Layer
    q: Layer
    k: Layer
    v: Layer
    o: Layer


@dataclass
class Block:
    """A layer of a stack; `cross` is None in the encoder."""

    attention: Attention
    cross: Attention | None
    feed_forward: Layer


@dataclass
class Stack:
    """`embedding` is (vocabulary, d_model); `norm` comes last."""

    embedding: Tensor
    blocks: list[Block]
    norm: Layer


@dataclass
class Weights:
    """What decoding needs of a T5 and, unless it is switched off, of its adapter.

    `bias(queries, keys, past)` is a stack's position bias, (1, heads, queries, keys). `modules` are the layers that
    are called as PEFT or another library made them: quantized ones, or those with DoRA.
    """

    config: object
    encoder: Stack
    decoder: Stack
    head: Layer
    encoder_bias: Callable[..., Tensor]
    decoder_bias: Callable[..., Tensor]
    modules: list[nn.Module]

    @property
    def stateful(self) -> bool:
        """Whether no two threads should call the layers at once."""
        return bool(self.modules)


def weights_of(model: PeftModel | PreTrainedModel, packed: dict[nn.Parameter, Layer] | None = None) -> Weights:
    """Takes the layers apart. LoRA stays next to the weights that it adds to, as PEFT computes it.

    On a CPU in float32 the weights are copied into oneDNN's own layout, which multiplies small batches faster than
    PyTorch's; an NVIDIA GPU takes them as they are.

    Parameters:
        packed: such copies, by weight; models that share weights share them through it.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    packed = {} if packed is None else packed
    layers: list[Layer] = []

    def linear(module: nn.Module) -> Layer:
        layers.append(_linear(module, packed))
        return layers[-1]

    scale = base.model_dim**-0.5 if base.config.model_type == "t5" and base.config.scale_decoder_outputs else None
    head = linear(base.lm_head)
    return Weights(
        config=base.config,
        encoder=_stack(base.encoder, linear, base.config),
        decoder=_stack(base.decoder, linear, base.config),
        head=head if scale is None else lambda x: head(x * scale),
        encoder_bias=base.encoder.block[0].layer[0].SelfAttention.compute_bias,
        decoder_bias=base.decoder.block[0].layer[0].SelfAttention.compute_bias,
        modules=[layer for layer in layers if isinstance(layer, nn.Module)],
    )


def _stack(stack: nn.Module, linear: Callable[[nn.Module], Layer], config) -> Stack:
    blocks = []
    for block in stack.block:
        first, *cross, last = block.layer
        blocks.append(
            Block(
                _attention(first.layer_norm, first.SelfAttention, linear),
                _attention(cross[0].layer_norm, cross[0].EncDecAttention, linear) if cross else None,
                _feed_forward(last.layer_norm, last.DenseReluDense, linear, config),
            )
        )
    return Stack(_embedding(stack.embed_tokens), blocks, stack.final_layer_norm)


def _attention(norm: nn.Module, attention: nn.Module, linear: Callable[[nn.Module], Layer]) -> Attention:
    return Attention(norm, *(linear(getattr(attention, name)) for name in "qkvo"))


def _feed_forward(norm: nn.Module, dense: nn.Module, linear: Callable[[nn.Module], Layer], config) -> Layer:
    act, wo = dense.act, linear(dense.wo)
    if config.dense_act_fn == "gelu_new":
        # transformers' own takes eight passes over the numbers for the same formula.
        def act(x: Tensor) -> Tensor:
            return F.gelu(x, approximate="tanh")

    if config.is_gated_act:
        gate, value = linear(dense.wi_0), linear(dense.wi_1)

        def feed_forward(x: Tensor) -> Tensor:
            x = norm(x)
            return wo(act(gate(x)) * value(x))

        return feed_forward
    wi = linear(dense.wi)
    return lambda x: wo(act(wi(norm(x))))


def _embedding(module: nn.Module) -> Tensor:
    """The rows as the module gives them, an adapter's trained ones among them."""
    if type(module) is nn.Embedding:
        return module.weight
    rows = module.weight.shape[0]
    return module(torch.arange(rows, device=module.weight.device))


def _linear(module: nn.Module, packed: dict[nn.Parameter, Layer]) -> Layer:
    if isinstance(module, TrainableTokensWrapper) and type(module.original_module) is nn.Linear:
        own = module.original_module.weight if module.token_adapter.disable_adapters else module.weight
        return product_of(own, packed)
    if isinstance(module, LoraLinear) and not module.merged:
        if module.disable_adapters:
            return _linear(module.base_layer, packed)
        if type(module.base_layer) is nn.Linear and not module.lora_variant and len(module.active_adapters) == 1:
            return _with_lora(module, packed)
    if type(module) is nn.Linear and module.bias is None:
        return product_of(module.weight, packed)
    return module


def _with_lora(module: LoraLinear, packed: dict[nn.Parameter, Layer]) -> Layer:
    (name,) = module.active_adapters
    product = product_of(module.base_layer.weight, packed)
    a, b, scaling = module.lora_A[name].weight, module.lora_B[name].weight, module.scaling[name]

    def lora(x: Tensor) -> Tensor:
        y = product(x)
        return (y + F.linear(F.linear(x.to(a.dtype), a), b) * scaling).to(y.dtype)

    return lora


def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN has a layout of its own for such weights on this CPU."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def product_of(weight: Tensor, packed: dict[nn.Parameter, Layer]) -> Layer:
    """The layer that multiplies by a weight, (outputs, inputs), laid out for this machine; kept in `packed`."""
    if weight.device.type != "cpu" or not _packs(weight.dtype):
        return lambda x: F.linear(x.to(weight.dtype), weight)
    if weight in packed:
        return packed[weight]
    copy = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())

    def product(x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x.to(weight.dtype), copy, None, "none", [], "")

    # Other tensors are made again at every access.
    if isinstance(weight, nn.Parameter):
        packed[weight] = product
    return product
