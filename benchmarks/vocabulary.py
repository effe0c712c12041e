"""What a head of the targets' tokens alone would save while generating, and what proving its tokens right costs.

A token outside of the targets may be the likeliest, so every state has to meet the whole head once: many states
together, which takes less time a token than the few rows of a step do.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.shapes import SHAPES, VOCABULARY, finance_texts, sql_texts
from scoring.decoding.slot_decoding import ROWS_PER_THREAD, likeliest
from scoring.decoding.t5_weights import Layer, product_of

# States that are checked together: their logits take 64 MiB.
CHECKED = 512


def measure(repeats: int, sizes: tuple[str, ...] = ("small", "base", "large")) -> dict:
    """Microseconds a token on one thread, by shape and rows a step; `ratio` is restricted and checked to whole.

    Ratios are the medians of the rounds' own.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        kept = target_tokens()
        return {
            "vocabulary": VOCABULARY, "kept": len(kept), "checked_together": CHECKED, "rounds": repeats,
            "shapes": {size: _race(SHAPES[size][0], kept, repeats) for size in sizes},
        }  # fmt: skip
    finally:
        torch.set_num_threads(threads)


def target_tokens() -> Tensor:
    """Numbers of all tokens in the targets of the finance and the text-to-SQL rows."""
    _, finance, tokenizer = finance_texts()
    texts = [row["output"] for row in finance] + [row["answer"] for row in sql_texts()[1]]
    return torch.tensor(sorted({token for text in tokenizer.encode_batch_fast(texts) for token in text.ids}))


def _race(width: int, kept: Tensor, repeats: int) -> dict:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(VOCABULARY, width, generator=generator)
    whole, restricted = product_of(weight, {}), product_of(weight[kept], {})
    found = {}
    with torch.inference_mode():
        for rows in (ROWS_PER_THREAD, 2 * ROWS_PER_THREAD):
            few, many = (torch.randn(count, width, generator=generator) for count in (rows, CHECKED))
            ways: dict[str, tuple[Layer, Tensor]] = {
                "whole": (whole, few), "restricted": (restricted, few), "check": (whole, many),
            }  # fmt: skip
            rounds = [
                {
                    name: _microseconds(lambda head=head, states=states: likeliest(head(states)), len(states))
                    for name, (head, states) in ways.items()
                }
                for _ in range(repeats + 1)
            ][1:]
            ratios = [(one["restricted"] + one["check"]) / one["whole"] for one in rounds]
            found[rows] = {name: round(statistics.median(one[name] for one in rounds)) for name in ways} | {
                "ratio": round(statistics.median(ratios), 2)
            }
    return found


def _microseconds(work: Callable[[], Tensor], tokens: int) -> float:
    start, count = time.process_time(), 0
    while time.process_time() - start < 0.3:
        work()
        count += 1
    return (time.process_time() - start) / count / tokens * 1e6
