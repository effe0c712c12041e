"""Greedy decoding that does not wait: a finished row leaves the batch at once and the next one enters.

The tokens are those of transformers' `generate`, from the same weights. What is saved: padded prompts, finished rows
that wait for the longest of their batch, attention to places of the cache that hold nothing yet, and the way through
PEFT's and transformers' modules at every step.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes.training.micro_batches import out_of_memory
from scoring.decoding.caches import Cache, SlotRow
from scoring.decoding.launches import Launches
from scoring.decoding.t5_reading import encode, padding_mask
from scoring.decoding.t5_weights import Weights, weights_of

# Prompt tokens, padding included, that are encoded at once.
ENCODED = 2048
# Rows that keep a CPU thread's arithmetic busy; with fewer it waits for the weights.
ROWS_PER_THREAD = 16
# Places of a row's first cache on a CPU. Each next cache has twice as many: a row moves where its own is full.
PLACES = 32
# Steps on a GPU between two looks at which rows are finished: a look waits for all that was launched before it.
STEPS_PER_LOOK = 8
# On a GPU places of caches that attention sees are counted in such parts: arrays then have few sizes.
PART = 64


def greedy(
    model: PeftModel,
    prompts: list[list[int]],
    max_new_tokens: int,
    slots: int,
    finished: Callable[[int], object] = lambda rows: None,
    lengths: list[int] | None = None,
) -> list[list[int]]:
    """The likeliest next token, again and again, after every prompt, until `</s>` or `max_new_tokens`.

    `slots` rows are in work at once, shared by a CPU's threads; which rows meet depends on nothing but the prompts,
    `slots` and the number of threads. Where memory does not suffice, half as many are tried.

    Parameters:
        prompts: token ids, `</s>` included.
        finished: told how many rows have just been finished.
        lengths: for measurements: how many tokens each row writes, whatever the model thinks of `</s>`.

    Returns:
        Token ids per row, without decoder start and `</s>`.
    """
    outputs: dict[int, list[int]] = {}
    order = sorted(range(len(prompts)), key=lambda row: (-len(prompts[row]), row))

    def write(row: int, ids: list[int]) -> None:
        outputs[row] = ids
        finished(1)

    while len(outputs) < len(prompts):
        try:
            rows = [row for row in order if row not in outputs]
            _in_threads(model, prompts, rows, max_new_tokens, slots, lengths, write)
        except RuntimeError as error:
            if not out_of_memory(error) or slots == 1:
                raise
            slots //= 2
    return [outputs[row] for row in range(len(prompts))]


def _in_threads(model, prompts, order, max_new_tokens, slots, lengths, write) -> None:
    """Deals the rows to the threads beforehand, so that a repetition forms the same batches."""
    weights = weights_of(model)
    limits = [min(one, max_new_tokens) for one in lengths or [max_new_tokens] * len(prompts)]
    threads = torch.get_num_threads()
    alone = not _on_cpu(model.device) or weights.stateful
    workers = 1 if alone else max(1, min(threads, slots // ROWS_PER_THREAD))
    stopped = threading.Event()

    def run(worker: int) -> None:
        torch.set_num_threads(threads // workers)
        with torch.inference_mode():
            batch = SlotBatch(
                model, weights, prompts, limits, max_new_tokens, slots // workers, forced=lengths is not None
            )
            batch.queue.extend(order[worker::workers])
            while not stopped.is_set() and batch.admit():
                for row, ids in batch.advance():
                    write(row, ids)

    try:
        with ThreadPoolExecutor(workers) as pool:
            try:
                list(pool.map(run, range(workers)))
            finally:
                stopped.set()
    finally:
        torch.set_num_threads(threads)


class SlotBatch:
    """The rows that one thread has in work.

    Parameters:
        prompts, limits: per number of a row its token ids and how many tokens it may write, lists or mappings. The rows
            whose numbers are put into `queue` enter; those of one call of `admit` with the longest prompt first.
        choose: picks each row's next token from the logits, (rows, vocabulary); the likeliest unless given.
        forced: every row writes as many tokens as it may.
    """

    def __init__(
        self,
        model,
        weights: Weights,
        prompts,
        limits,
        max_new_tokens: int,
        slots: int,
        choose: Callable[[list[SlotRow], Tensor], Tensor] | None = None,
        forced: bool = False,
    ):
        config, generation = model.config, model.generation_config
        self.weights, self.prompts, self.limits, self.slots = weights, prompts, limits, slots
        self.device = weights.decoder.embedding.device
        on_cpu = _on_cpu(self.device)
        # Whoever chooses by himself looks at every step's logits; layers of other libraries may wait for the device.
        self.launches = None if on_cpu or choose or weights.stateful else Launches()
        self.choose = choose or (lambda rows, logits: likeliest(logits))
        self.start, self.end = generation.decoder_start_token_id, generation.eos_token_id
        self.forced = forced
        self.queue, self.waiting = deque(), deque()
        self.steps = 1 if on_cpu else STEPS_PER_LOOK
        places = max_new_tokens + self.steps
        by_distance = weights.decoder_bias(1, places, past_seen_tokens=places - 1)[0, :, 0].flip(-1).T
        if on_cpu:
            by_distance = by_distance.float()
        # (places + 1, heads): by how many places back a key lies; last, and so at -1, what no query may see.
        self.bias = torch.cat([by_distance, torch.full_like(by_distance[:1], -torch.inf)])
        self.heads = (config.num_heads, config.d_kv)
        shape = (len(weights.decoder.blocks), *self.heads)
        embedding = weights.decoder.embedding
        # oneDNN copies part of an array before it multiplies it in bfloat16.
        self.whole = on_cpu and embedding.dtype == torch.bfloat16
        self.caches = []
        size = PLACES if on_cpu else places
        while not self.caches or self.caches[-1].places < places:
            self.caches.append(Cache(shape, min(size, places), embedding if self.whole else self.bias))
            size *= 2

    def admit(self) -> bool:
        """Fills free slots with encoded rows; says whether any row is in work."""
        free = self.slots - sum(len(cache.rows) for cache in self.caches)
        while free and (self.queue or self.waiting):
            if not self.waiting:
                self._encode()
            entering = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
            self._enter([number for number, _ in entering], [states for _, states in entering])
            free -= len(entering)
        return any(cache.rows for cache in self.caches)

    def _encode(self) -> None:
        """Runs the encoder on the next rows, the longest prompts first."""
        longest = len(self.prompts[self.queue[0]])
        rows = [self.queue.popleft() for _ in range(min(max(1, ENCODED // longest), len(self.queue)))]
        prompts = [self.prompts[row] for row in rows]
        states, _ = encode(self.weights, prompts)
        self.waiting.extend(zip(rows, states.split(list(map(len, prompts))), strict=True))

    def _enter(self, numbers: list[int], states: list[Tensor]) -> None:
        cache, first = self.caches[0], len(self.caches[0].rows)
        lengths = list(map(len, states))
        longest = max(lengths)
        # At once for all that may be in work: to grow is to copy.
        cache.reserve(min(self.slots, first + len(numbers) + len(self.waiting) + len(self.queue)), longest)
        flat = torch.cat(states)
        for layer, block in enumerate(self.weights.decoder.blocks):
            for place, one in enumerate((block.cross.k, block.cross.v)):
                keys = self._split(pad_sequence(one(flat).split(lengths), batch_first=True)).transpose(1, 2)
                cache.source[layer, place, first : first + len(numbers), :, :longest] = keys
        cache.rows += [SlotRow(number, self.start, len(own)) for number, own in zip(numbers, states, strict=True)]

    def advance(self) -> list[tuple[int, list[int]]]:
        """Some steps for all rows; those finished leave, and come back by number."""
        for cache, larger in zip(self.caches, self.caches[1:], strict=False):
            moving = [place for place, row in enumerate(cache.rows) if row.places + self.steps > cache.places]
            if moving:
                larger.reserve(len(larger.rows) + len(moving), max(cache.rows[place].source for place in moving))
            for place in reversed(moving):
                larger.take(cache.rows[place], cache.past[:, :, place], cache.source[:, :, place])
                cache.drop(place)
        live = [cache for cache in self.caches if cache.rows]
        rows = [row for cache in live for row in cache.rows]
        tokens = self._write_in_few_sizes(rows) if self.launches else self._write(live, rows)
        outputs = []
        for row, ids in zip(rows, tokens.tolist(), strict=True):
            row.written += ids
            row.places += self.steps
            row.last = ids[-1]
        for cache in live:
            for place in reversed(range(len(cache.rows))):
                row = cache.rows[place]
                ids = self._complete(row)
                if ids is not None:
                    outputs.append((row.number, ids))
                    cache.drop(place)
        return outputs

    def remove(self, number: int) -> None:
        """Takes a row out that nobody waits for any more."""
        for cache in self.caches:
            for place in reversed(range(len(cache.rows))):
                if cache.rows[place].number == number:
                    cache.drop(place)

    def shrink(self) -> None:
        """Gives the memory of caches without rows back: else each keeps what its largest rows took."""
        for cache in self.caches:
            if not cache.rows:
                cache.past, cache.source = cache.past[:, :, :0].clone(), cache.source[:, :, :0, :, :0].clone()

    def _complete(self, row: SlotRow) -> list[int] | None:
        """A finished row's tokens."""
        limit = self.limits[row.number]
        new = row.written[-self.steps :]
        if self.end in new and not self.forced:
            return row.written[: row.written.index(self.end)][:limit]
        return row.written[:limit] if len(row.written) >= limit else None

    def _write(self, live: list[Cache], rows: list[SlotRow]) -> Tensor:
        """The tokens of the steps until the next look, (rows, steps)."""
        last = torch.tensor([row.last for row in rows], device=self.device)
        groups = [self._group(cache) for cache in live]
        tokens = []
        for step in range(self.steps):
            last = self.choose(rows, self._logits(last, groups, step))
            tokens.append(last)
        return torch.stack(tokens, 1)

    def _write_in_few_sizes(self, rows: list[SlotRow]) -> Tensor:
        """The same, with spare rows, which nobody reads, and places that no row sees yet."""
        (cache,) = self.caches
        spare = min(1 << (len(rows) - 1).bit_length(), cache.past.shape[2]) - len(rows)
        seen = min(_whole_parts(max(row.places for row in rows) + self.steps), cache.places)
        longest = min(_whole_parts(max(row.source for row in rows)), cache.source.shape[4])
        last = torch.tensor([row.last for row in rows] + [self.start] * spare, device=self.device)
        places = torch.tensor([row.places for row in rows] + [0] * spare, device=self.device)
        sources = torch.tensor([row.source for row in rows] + [1] * spare, device=self.device)

        def step(last: Tensor, places: Tensor, mask: Tensor) -> None:
            numbers = torch.arange(len(last), device=self.device)
            logits = self._logits(last, [(cache, numbers, places, seen - 1, longest, mask)], 0)
            last.copy_(likeliest(logits))
            places += 1

        storage, sizes = (cache.past.data_ptr(), cache.source.data_ptr()), (len(last), seen, longest)
        arrays = last, places, _padding(sources, longest, self.bias.dtype)
        return self.launches.run(step, arrays, self.steps, storage, sizes)[: len(rows)]

    def _group(self, cache: Cache):
        """What the steps until the next look need of a cache."""
        sources = torch.tensor([row.source for row in cache.rows], device=self.device)
        places = torch.tensor([row.places for row in cache.rows], device=self.device)
        numbers = torch.arange(len(cache.rows), device=self.device)
        longest = max(row.source for row in cache.rows)
        oldest = max(row.places for row in cache.rows)
        if self.whole:
            cache.tighten()
            longest, oldest = cache.source.shape[4], cache.places - 1
        return cache, numbers, places, oldest, longest, _padding(sources, longest, self.bias.dtype)

    def _logits(self, last: Tensor, groups, step: int) -> Tensor:
        """What the head says of every row's next token, (rows, vocabulary)."""
        stack = self.weights.decoder
        x = stack.embedding[last]
        sizes = [len(numbers) for _, numbers, *_ in groups]
        dtype = self.caches[0].past.dtype
        biases = [self._bias(places + step, oldest + step + 1) for _, _, places, oldest, _, _ in groups]
        for layer, block in enumerate(stack.blocks):
            part = block.attention
            h = part.norm(x)
            parts = [self._split(one(h)).to(dtype).split(sizes) for one in (part.q, part.k, part.v)]
            out = []
            for (cache, numbers, places, oldest, _, _), bias, q, k, v in zip(groups, biases, *parts, strict=True):
                keys, values = cache.past[layer]
                keys[numbers, :, places + step] = k
                values[numbers, :, places + step] = v
                seen = oldest + step + 1
                out.append(_attend(q, keys[: len(q), :, :seen], values[: len(q), :, :seen], bias))
            x = x + part.o(torch.cat(out).to(x.dtype))
            part = block.cross
            q = self._split(part.q(part.norm(x))).to(dtype).split(sizes)
            out = [
                _attend(own, *cache.source[layer, :, : len(own), :, :longest], mask)
                for own, (cache, _, _, _, longest, mask) in zip(q, groups, strict=True)
            ]
            x = x + part.o(torch.cat(out).to(x.dtype))
            x = x + block.feed_forward(x)
        logits = self.weights.head(stack.norm(x)).float()
        if self.forced:
            logits[:, self.end] = -torch.inf
        return logits

    def _bias(self, places: Tensor, seen: int) -> Tensor:
        distance = places[:, None] - torch.arange(seen, device=self.device)
        return self.bias[distance.clamp(min=-1)].transpose(1, 2)[:, :, None].contiguous()

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, self.heads)


def _on_cpu(device: torch.device) -> bool:
    return device.type == "cpu"


def _whole_parts(places: int) -> int:
    return -(-places // PART) * PART


def _padding(lengths: Tensor, longest: int, dtype: torch.dtype) -> Tensor:
    """`padding_mask` of rows of such lengths."""
    return padding_mask(torch.arange(longest, device=lengths.device) < lengths[:, None], dtype)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """One query a row, (rows, heads, d_kv), to (rows, heads · d_kv)."""
    if _on_cpu(q.device) and q.dtype == torch.bfloat16:
        # PyTorch's own takes several times as long (docs/what-did-not-work.md).
        scores = (q[:, :, None] @ k.transpose(2, 3)).float().add_(mask)
        return (scores.softmax(-1).to(q.dtype) @ v).flatten(1)
    return F.scaled_dot_product_attention(q[:, :, None], k, v, attn_mask=mask, scale=1.0).flatten(1)


def likeliest(logits: Tensor) -> Tensor:
    """`argmax(1)`, the first of equals; on a CPU that is slow over a whole vocabulary, and the maximum is not."""
    rows, vocabulary = logits.shape
    if not _on_cpu(logits.device) or vocabulary % 128:
        return logits.argmax(1)
    parts = logits.view(rows, -1, 128)
    part = parts.amax(2).argmax(1)
    return part * 128 + parts[torch.arange(rows), part].argmax(1)
