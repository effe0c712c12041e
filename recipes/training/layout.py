"""How the rows of a micro-batch lie: one after another for linear layers, side by side for attention."""

import operator
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

# A row joins a group if it is at least this share of the group's longest: more groups cost more than their padding.
ALIKE = 0.75
# A GPU's attention reads its mask 16 bytes at a time.
ALIGNED = 8

# Groups of bins of the rows that lie in a bin, one after another.
Bins = list[list[list[int]]]


class Groups(NamedTuple):
    """Rows that attend together.

    For each of G groups of B bins with L places and H heads:

    - `lengths`: G tensors (B,), the real tokens of each bin;
    - `shapes`: G tensors without elements of the shape (B, L, 0);
    - `owners`: G tensors (B, L), which row stands in each place; none unless `packed`;
    - `pad`: (ΣBHL,), where each place (bin, head, token) is read from: token · H + head of the flat rows;
    - `unpad`: (NH,), where each of the N flat tokens, head by head, stands among the places.

    Places after a bin's real tokens repeat its last one; what comes of them is masked or dropped.
    """

    lengths: tuple[Tensor, ...]
    shapes: tuple[Tensor, ...]
    owners: tuple[Tensor, ...]
    pad: Tensor
    unpad: Tensor


class Layout(NamedTuple):
    """Groups of the encoder's rows, of the decoder's, and of the encoder's rows in the bins of the decoder's."""

    source: Groups
    target: Groups
    cross: Groups


def micro_batch(rows: list[dict[str, list[int]]], heads: int, start: int, packed: bool = False) -> dict[str, Any]:
    """The rows (`input_ids`, `labels`: token ids) as one flat micro-batch.

    Parameters:
        heads: attention heads of the model.
        start: the decoder's start token.
        packed: attention takes all rows at once, several in a bin as long as the longest, for a GPU, which waits for
            calls; else groups of rows of similar length, for a CPU, which waits for arithmetic.

    Returns:
        `input_ids` (1, N), `decoder_input_ids` (1, M), `labels` (M,), `row` (M,): the number of each target token's
        row, `row_lengths` ((N,), (M,)): how many tokens the row of each source and of each target token has, and
        `layout`. Encoder rows lie by source length, decoder rows by target length, the longest first.
    """
    sources, targets = ([row[name] for row in rows] for name in ("input_ids", "labels"))
    by_source, by_target = (sorted(range(len(rows)), key=lambda row: -len(ids[row])) for ids in (sources, targets))
    source_order, target_order = [sources[row] for row in by_source], [targets[row] for row in by_target]
    source, target, cross = (
        [len(ids) for ids in one] for one in (source_order, target_order, [sources[row] for row in by_target])
    )
    starts = dict(zip(by_source, _starts(source), strict=True))
    if packed:
        source_bins, target_bins = [_pack([source])], [_pack([target, cross])]
    else:
        source_bins, target_bins = _alike(source), _alike(target)
    return {
        "input_ids": _flat(source_order)[None],
        "decoder_input_ids": _flat([start, *ids[:-1]] for ids in target_order)[None],
        "labels": _flat(target_order),
        "row": torch.tensor(by_target).repeat_interleave(torch.tensor(target)),
        "row_lengths": tuple(lengths.repeat_interleave(lengths) for lengths in map(torch.tensor, (source, target))),
        "layout": Layout(
            source=_groups(source, _starts(source), source_bins, heads, packed),
            target=_groups(target, _starts(target), target_bins, heads, packed),
            cross=_groups(cross, [starts[row] for row in by_target], target_bins, heads, packed),
        ),
    }


def _flat(rows: Iterable[list[int]]) -> Tensor:
    return torch.tensor([token for ids in rows for token in ids])


def _starts(lengths: list[int]) -> list[int]:
    """Where each row begins among the flat tokens."""
    return list(accumulate(lengths, initial=0))[:-1]


def _alike(lengths: list[int]) -> Bins:
    """Cuts rows, the longest first, into groups of similar length, each row in a bin of its own."""
    groups, first = [], 0
    for at in range(1, len(lengths) + 1):
        if at == len(lengths) or lengths[at] < ALIKE * lengths[first]:
            groups.append([[row] for row in range(first, at)])
            first = at
    return groups


def _pack(sizes: list[list[int]]) -> list[list[int]]:
    """Puts rows into as few bins as the first fit needs; a bin is as large as the largest row, in each of its sizes."""
    largest = [-(-max(lengths) // ALIGNED) * ALIGNED for lengths in sizes]
    bins: list[list[int]] = []
    free: list[list[int]] = []
    for row, lengths in enumerate(zip(*sizes, strict=True)):
        fits = (at for at, room in enumerate(free) if all(map(operator.le, lengths, room)))
        at = next(fits, len(bins))
        if at == len(bins):
            bins.append([])
            free.append(largest)
        bins[at].append(row)
        free[at] = list(map(operator.sub, free[at], lengths))
    return bins


def _groups(lengths: list[int], starts: list[int], groups: Bins, heads: int, packed: bool) -> Groups:
    """Where the rows of all groups, each of a length and beginning at a flat token, lie in their bins."""
    bin_lengths, shapes, owners, pad = [], [], [], []
    unpad, places = torch.empty(sum(lengths), heads, dtype=torch.long), 0
    head, length_of, start_of = torch.arange(heads), torch.tensor(lengths), torch.tensor(starts)
    for bins in groups:
        rows = torch.tensor([row for one in bins for row in one])
        number = torch.arange(len(bins)).repeat_interleave(torch.tensor([len(one) for one in bins]))
        length = length_of[rows]
        filled = torch.zeros(len(bins), dtype=torch.long).index_add_(0, number, length)
        # Of every token: its row, its place in the row, its bin, its place in the bin.
        row, bin_of = rows.repeat_interleave(length), number.repeat_interleave(length)
        count = torch.arange(len(row))
        within = count - (length.cumsum(0) - length).repeat_interleave(length)
        place = count - (filled.cumsum(0) - filled)[bin_of]
        last = filled.cumsum(0) - 1
        size = int(filled.max())
        if packed:
            size = -(-size // ALIGNED) * ALIGNED
            owners.append(_in_bins(row, bin_of, place, last, size))
        token = start_of[row] + within
        pad.append((_in_bins(token, bin_of, place, last, size)[:, None, :] * heads + head[:, None]).flatten())
        unpad[token] = (places + bin_of * heads * size + place)[:, None] + head * size
        places += len(bins) * heads * size
        bin_lengths.append(filled)
        shapes.append(torch.empty(len(bins), size, 0))
    return Groups(tuple(bin_lengths), tuple(shapes), tuple(owners), torch.cat(pad), unpad.flatten())


def _in_bins(values: Tensor, bin_of: Tensor, place: Tensor, last: Tensor, size: int) -> Tensor:
    """The tokens' values by bin and place, (B, L); `last` are the tokens that fill up the bins."""
    grid = values[last][:, None].repeat(1, size)
    grid[bin_of, place] = values
    return grid
