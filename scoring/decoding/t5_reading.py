"""A T5 reads outputs that are there already: their tokens lie one after another, so no layer sees padding."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from scoring.decoding.t5_weights import Attention, Weights


class _Rows(NamedTuple):
    """Where the tokens of rows lie when they are side by side.

    Parameters:
        ids: (tokens,) of all rows, one row after another.
        real: (rows, longest), which places hold a token.
        places: (tokens,), the numbers of those places.
    """

    ids: Tensor
    real: Tensor
    places: Tensor

    def apart(self, flat: Tensor, heads: tuple[int, int]) -> Tensor:
        """(tokens, heads · d_kv) to (rows, heads, longest, d_kv)."""
        padded = flat.new_zeros(self.real.numel(), flat.shape[1]).index_copy_(0, self.places, flat)
        return padded.view(*self.real.shape, *heads).transpose(1, 2)

    def together(self, apart: Tensor) -> Tensor:
        """(rows, heads, longest, d_kv) to (tokens, heads · d_kv)."""
        return apart.transpose(1, 2).flatten(0, 1).flatten(1).index_select(0, self.places)


def _rows(rows: Sequence[list[int]], device) -> _Rows:
    lengths = torch.tensor([len(row) for row in rows])
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    real = torch.arange(ids.shape[1]) < lengths[:, None]
    return _Rows(ids[real].to(device), real.to(device), real.flatten().nonzero()[:, 0].to(device))


def encode(weights: Weights, prompts: Sequence[list[int]]) -> tuple[Tensor, _Rows]:
    """What the decoder attends to, (tokens, d_model), of all prompts, one after another, and where they lie."""
    source = _rows(prompts, weights.encoder.embedding.device)
    longest = source.real.shape[1]
    mask = weights.encoder_bias(longest, longest) + padding_mask(source.real, weights.encoder.embedding.dtype)
    x = weights.encoder.embedding[source.ids]
    for block in weights.encoder.blocks:
        h = block.attention.norm(x)
        x = x + _attend(weights, block.attention, h, source, h, source, mask)
        x = x + block.feed_forward(x)
    return weights.encoder.norm(x), source


def padding_mask(real: Tensor, dtype: torch.dtype) -> Tensor:
    """From (rows, longest), which places hold a token, to (rows, 1, 1, longest): 0 where one does, else -inf."""
    return torch.zeros_like(real, dtype=dtype).masked_fill_(~real, -torch.inf)[:, None, None]


def read(weights: Weights, prompts: Sequence[list[int]], past: Sequence[list[int]]) -> Tensor:
    """What the head sees at each token of `past`, (tokens, d_model): rows of the decoder's tokens after their prompts.

    The layers are those that `slot_decoding` writes with, so that reading costs no more than writing.
    """
    states, source = encode(weights, prompts)
    unseen = padding_mask(source.real, states.dtype)
    target = _rows(past, weights.decoder.embedding.device)
    longest = target.real.shape[1]
    bias = weights.decoder_bias(longest, longest)
    # Looking back only, no token sees a padded place: those come after it.
    mask = bias + torch.full_like(bias[0, 0], -torch.inf).triu(1)
    x = weights.decoder.embedding[target.ids]
    for block in weights.decoder.blocks:
        h = block.attention.norm(x)
        x = x + _attend(weights, block.attention, h, target, h, target, mask)
        x = x + _attend(weights, block.cross, block.cross.norm(x), target, states, source, unseen)
        x = x + block.feed_forward(x)
    return weights.decoder.norm(x)


def _attend(
    weights: Weights, part: Attention, h: Tensor, own: _Rows, seen: Tensor, others: _Rows, mask: Tensor
) -> Tensor:
    """Attention of flat tokens `h` to flat tokens `seen`, each within its row."""
    heads = (weights.config.num_heads, weights.config.d_kv)
    q, k, v = own.apart(part.q(h), heads), others.apart(part.k(seen), heads), others.apart(part.v(seen), heads)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
    return part.o(own.together(out))
