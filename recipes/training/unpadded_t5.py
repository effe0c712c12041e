"""T5 without padding: the rows of a micro-batch lie one after another, so every linear layer sees real tokens only.

Attention alone needs rows apart: there they are gathered side by side (`training.layout`), and laid flat again. T5's
position bias depends on the difference of two positions only, so a row's result does not depend on where it lies, and
loss and gradient are those of the padded batch.
"""

from collections import defaultdict
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional

from recipes.training.autograd import RootMeanSquareNorm, SeededDropout, attention, gated_gelu
from recipes.training.layout import Groups, Layout
from recipes.training.lora import fuse_lora

# Rows of logits held at once: a row of T5's vocabulary takes 128 KB.
LOGIT_ROWS = defaultdict(lambda: 2_048, cpu=256)
# Of those, rows whose softmax is taken at once: on a CPU, as many as its caches hold in float32.
CACHED_ROWS = defaultdict(lambda: 2_048, cpu=16)
# T5's modules by their names, mT5's are copies of them.
ATTENTION, NORM = ("T5Attention", "MT5Attention"), ("T5LayerNorm", "MT5LayerNorm")
GATED = ("T5DenseGatedActDense", "MT5DenseGatedActDense")


class _Pad(torch.autograd.Function):
    """Flat rows (NH, d) → padded places (ΣBHL, d). The gradient of repeated tokens counts once: theirs is dropped."""

    @staticmethod
    def forward(ctx, flat: Tensor, pad: Tensor, unpad: Tensor) -> Tensor:
        ctx.save_for_backward(unpad)
        return flat.index_select(0, pad)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient.index_select(0, *ctx.saved_tensors), None, None


class _Unpad(torch.autograd.Function):
    """Padded places (ΣBHL, d) → flat rows (NH, d)."""

    @staticmethod
    def forward(ctx, padded: Tensor, unpad: Tensor) -> Tensor:
        ctx.places = len(padded)
        ctx.save_for_backward(unpad)
        return padded.index_select(0, unpad)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        padded = gradient.new_zeros(ctx.places, gradient.shape[1])
        return padded.index_copy_(0, *ctx.saved_tensors, gradient), None


def _attend(self, hidden_states, mask=None, key_value_states=None, position_bias=None, *, layout: Layout, **_):
    """`T5Attention.forward` on flat rows (1, N, d_model); `position_bias` is a bias for each group of `layout`."""
    crossing = key_value_states is not None
    queries = layout.target if self.is_decoder else layout.source
    keys = layout.cross if crossing else queries
    states = key_value_states if crossing else hidden_states
    if position_bias is None:
        position_bias = _biases(self, queries, keys, crossing, hidden_states.dtype)
    query, key, value = (
        _Pad.apply(projection(of).view(-1, self.key_value_proj_dim), groups.pad, groups.unpad)
        for projection, of, groups in ((self.q, hidden_states, queries), (self.k, states, keys), (self.v, states, keys))
    )
    grouped = zip(*map(_split, (query, key, value), (queries, keys, keys)), position_bias, strict=True)
    outputs = [_attention(*group, self.dropout if self.training else 0.0) for group in grouped]
    flat = _Unpad.apply(torch.cat([output.flatten(0, 2) for output in outputs]), queries.unpad)
    return self.o(flat.view(1, -1, self.inner_dim)), position_bias, None


def _split(padded: Tensor, groups: Groups) -> list[Tensor]:
    """Padded places (ΣBHL, d) → per group (B, H, L, d)."""
    sizes = [shape.shape[0] * shape.shape[1] for shape in groups.shapes]
    heads = len(padded) // sum(sizes)
    parts = padded.split([heads * size for size in sizes])
    return [
        part.view(shape.shape[0], heads, shape.shape[1], -1) for part, shape in zip(parts, groups.shapes, strict=True)
    ]


def _attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, p: float) -> Tensor:
    if p and query.device.type == "cpu":
        # With dropout torch's own attention takes its slow path on CPUs, and draws its masks slowly.
        return attention(query, key, value, bias, p)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=p, scale=1.0)


def _biases(attention, queries: Groups, keys: Groups, crossing: bool, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Position bias and mask of each group: (B or 1, H, L, L), or (B, 1, 1 or L, L) in cross-attention."""
    device, biases = queries.pad.device, []
    if attention.has_relative_attention_bias:
        longest = max(shape.shape[1] for shape in queries.shapes)
        table = attention.compute_bias(longest, longest, device=device)
    for group, (shape, lengths) in enumerate(zip(keys.shapes, keys.lengths, strict=True)):
        places = torch.arange(shape.shape[1], device=device)
        # Looking back only, no real place sees a padded one: those come after it.
        ahead, beyond = places > places[:, None], (places >= lengths[:, None])[:, None, None, :]
        hidden = ahead if attention.is_causal else beyond
        if keys.owners:
            hidden = hidden | (queries.owners[group][:, None, :, None] != keys.owners[group][:, None, None, :])
        bias = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)
        biases.append(bias if crossing else table[..., : len(places), : len(places)] + bias)
    return tuple(biases)


def _feed_forward(self, hidden_states: Tensor) -> Tensor:
    """`T5DenseGatedActDense.forward`; `wo` may be kept in float32."""
    hidden = self.dropout(gated_gelu(self.wi_0(hidden_states), self.wi_1(hidden_states)))
    dtype = self.wo.weight.dtype
    return self.wo(hidden.to(dtype) if dtype.is_floating_point else hidden)


def _to_gradient(logits: Tensor, label: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Overwrites logits (N, vocabulary) with the gradient of the loss by them, softmax − target.

    Returns:
        Each row's cross-entropy with its label, and with a target that is even over the vocabulary: (N, 1) both.
    """
    values = logits.float()
    gradient = values.softmax(-1)
    # The largest of softmax is 1 / Σ exp(logits − the largest): from it comes the loss, in two thirds of the time of
    # the whole logarithm and its exponential.
    log_sum = values.amax(1, keepdim=True) - gradient.amax(1, keepdim=True).log_()
    plain = log_sum - values.gather(1, label)
    even = log_sum - values.mean(1, keepdim=True) if smoothing else torch.zeros_like(log_sum)
    gradient.scatter_add_(1, label, gradient.new_full(label.shape, smoothing - 1))
    if smoothing:
        gradient -= smoothing / gradient.shape[1]
    logits.copy_(gradient)
    return plain, even


class _SummedLoss(torch.autograd.Function):
    """Cross-entropy summed over the rows of `hidden`, a few rows of logits at a time; the gradient is taken at once.

    With `smoothing` the target is 1 − smoothing for the label, and smoothing evenly over the vocabulary
    (arXiv:1512.00567, section 7).
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, labels: Tensor, smoothing: float, head: nn.Module, *weights: Tensor) -> Tensor:
        total, gradients = hidden.new_zeros((), dtype=torch.float32), [torch.zeros_like(part) for part in weights]
        of_hidden, size, few = torch.empty_like(hidden), LOGIT_ROWS[hidden.device.type], CACHED_ROWS[hidden.device.type]
        for at in range(0, len(hidden), size):
            rows = slice(at, at + size)
            with torch.enable_grad():
                part = hidden[rows].detach().requires_grad_()
                logits = head(part)
            parts = zip(logits.detach().split(few), labels[rows, None].split(few), strict=True)
            plain, even = map(torch.cat, zip(*(_to_gradient(*both, smoothing) for both in parts), strict=True))
            total += plain.sum() * (1 - smoothing)
            if smoothing:
                total += even.sum() * smoothing
            of_hidden[rows], *of_weights = torch.autograd.grad(logits, [part, *weights], logits.detach())
            for gradient, more in zip(gradients, of_weights, strict=True):
                gradient += more
        ctx.save_for_backward(of_hidden, *gradients)
        return total

    @staticmethod
    def backward(ctx, scale: Tensor):
        of_hidden, *gradients = ctx.saved_tensors
        return (
            of_hidden * scale.to(of_hidden.dtype),
            None,
            None,
            None,
            *(part * scale.to(part.dtype) for part in gradients),
        )


def _embed(stack: nn.Module, ids: Tensor, row_lengths: Tensor, noise: float) -> Tensor:
    """Embeddings of flat tokens (1, N, d), with NEFTune's noise: uniform in ±noise/√(Ld) for a row of L tokens.

    From arXiv:2310.05914, algorithm 1. The paper's decoder reads prompt and answer; here each stack reads one of them.
    """
    embedded = stack.embed_tokens(ids)
    if not noise:
        return embedded
    widest = noise / (row_lengths * embedded.shape[-1]).sqrt()
    return embedded + torch.empty_like(embedded).uniform_(-1, 1) * widest[:, None].to(embedded.dtype)


def _losses(
    self, input_ids, decoder_input_ids, labels, row, row_lengths, layout: Layout, smoothing=0.0, noise=0.0, **_
) -> Tensor:
    """`T5ForConditionalGeneration.forward` on a flat micro-batch.

    Parameters:
        smoothing: label smoothing, with gradients only; the loss without them is the plain one.
        noise: NEFTune's alpha.

    Returns:
        With gradients the summed cross-entropy of all target tokens; else each row's, and the number of its target
        tokens: shape (rows, 2).
    """
    sources, targets = (
        _embed(stack, ids, lengths, noise)
        for stack, ids, lengths in zip(
            (self.encoder, self.decoder), (input_ids, decoder_input_ids), row_lengths, strict=True
        )
    )
    encoded = self.encoder(inputs_embeds=sources, layout=layout).last_hidden_state
    hidden = self.decoder(
        inputs_embeds=targets, encoder_hidden_states=encoded, use_cache=False, layout=layout
    ).last_hidden_state[0]
    # mT5 never scales, and its configuration does not say so.
    if self.config.model_type == "t5" and self.config.scale_decoder_outputs:
        hidden = hidden * self.model_dim**-0.5
    if torch.is_grad_enabled():
        weights = [weight for weight in self.lm_head.parameters() if weight.requires_grad]
        return _SummedLoss.apply(hidden, labels, smoothing, self.lm_head, *weights)
    sums = torch.zeros(int(row.max()) + 1, 2, device=hidden.device)
    size = LOGIT_ROWS[hidden.device.type]
    for part, label, of in zip(*(whole.split(size) for whole in (hidden, labels, row)), strict=True):
        losses = functional.cross_entropy(self.lm_head(part).float(), label, reduction="none")
        sums.index_add_(0, of, torch.stack([losses, torch.ones_like(losses)], dim=1))
    return sums


def make_flat(model: PeftModel) -> None:
    """Makes the model take flat micro-batches (`recipes.training.layout`) instead of padded batches, for training.

    The weights and their names stay; dropout, norm and activation are the same formulas in less time and memory.
    """
    base = model.get_base_model()
    if getattr(base.forward, "__func__", None) is _losses:
        return
    base.forward = MethodType(_losses, base)
    for module in list(base.modules()):
        if type(module).__name__ in ATTENTION:
            module.forward = MethodType(_attend, module)
        elif type(module).__name__ in GATED and type(module.act).__name__ == "NewGELUActivation":
            module.forward = MethodType(_feed_forward, module)
        for name, child in list(module.named_children()):
            if type(child).__name__ in NORM and not child.weight.requires_grad:
                setattr(module, name, RootMeanSquareNorm(child.weight, child.variance_epsilon))
            elif type(child) is nn.Dropout:
                setattr(module, name, SeededDropout(child.p))
    fuse_lora(model)


def compile_blocks(model: PeftModel, **how: Any) -> None:
    """Has torch compile the model's layers, one graph for all that are alike and for every size of a micro-batch.

    Parameters:
        how: as `torch.compile`; `packed` micro-batches only, since the graphs of others differ by their groups.
    """
    # First and later layers of each stack, in training and evaluation; torch tells apart sizes of 1 and others, too.
    torch._dynamo.config.recompile_limit = 64
    base = model.get_base_model()
    for block in (*base.encoder.block, *base.decoder.block):
        if block._compiled_call_impl is None:
            block.compile(dynamic=True, **how)
