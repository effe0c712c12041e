"""Keys and values of the rows that are in work: caches that grow, and that rows enter, change and leave."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass
class SlotRow:
    """`last` is the newest token, which no step has read; `places` are those it has filled in its cache."""

    number: int
    last: int
    source: int
    places: int = 0
    written: list[int] = field(default_factory=list)


class Cache:
    """Keys and values of rows of like age, and those of their prompts, (layers, 2, rows, heads, places, d_kv) each.

    The rows in use come first.
    """

    def __init__(self, shape: tuple[int, int, int], places: int, like: Tensor):
        self.rows: list[SlotRow] = []
        self.places = places
        layers, heads, width = shape
        self.past = like.new_empty(layers, 2, 0, heads, places, width)
        self.source = like.new_empty(layers, 2, 0, heads, 0, width)

    def reserve(self, rows: int, source: int) -> None:
        """Makes room for so many rows, and prompts of so many tokens."""
        room, _, length, _ = self.source.shape[2:]
        if rows > room:
            room = max(rows, 2 * room)
            self.past = _enlarge(self.past, room, self.places, len(self.rows))
        if room > self.source.shape[2] or source > length:
            self.source = _enlarge(self.source, room, max(source, length), len(self.rows))

    def take(self, row: SlotRow, past: Tensor, source: Tensor) -> None:
        """Appends a row, for which there is room, and what it has in another cache."""
        place = len(self.rows)
        self.past[:, :, place, :, : row.places] = past[:, :, :, : row.places]
        self.source[:, :, place, :, : row.source] = source[:, :, :, : row.source]
        self.rows.append(row)

    def drop(self, place: int) -> None:
        """Removes a row; the last one takes its place."""
        row, last = self.rows.pop(), len(self.rows)
        if place < last:
            self.past[:, :, place, :, : row.places] = self.past[:, :, last, :, : row.places]
            self.source[:, :, place, :, : row.source] = self.source[:, :, last, :, : row.source]
            self.rows[place] = row

    def tighten(self) -> None:
        """Gives up places of prompts that no row needs, where they are a quarter at least."""
        longest = max(row.source for row in self.rows)
        if longest <= self.source.shape[4] * 3 // 4:
            self.source = self.source[:, :, :, :, :longest].contiguous()


def _enlarge(old: Tensor, rows: int, places: int, used: int) -> Tensor:
    # Zeros: what no query may see is weighted with 0, and 0 times whatever lay in memory may be NaN.
    new = _zeros((*old.shape[:2], rows, old.shape[3], places, old.shape[5]), old)
    new[:, :, :used, :, : old.shape[4]] = old[:, :, :used]
    return new


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    # The system's zeros, where torch would write its own all over memory that may never be used.
    return torch.from_numpy(np.zeros(shape, f"i{like.element_size()}")).view(like.dtype)
