"""Pre-trains the miniature models, seeded and on one thread, so that the same machine writes the same bytes twice."""

import time
from collections.abc import Iterator
from itertools import islice
from random import Random

import torch
from tokenizers import Tokenizer
from transformers import T5Config, T5ForConditionalGeneration

from local_hub.miniatures import models, pretraining_text

SEED = 2137
WARM_UP = 100
LEARNING_RATE = 4e-3
BATCH = 32
# Sequences of like length go together: this many batches are drawn and sorted at a time.
POOL = 32
MAX_SOURCE = 320


def new_model(name: str) -> T5ForConditionalGeneration:
    """A randomly initialised miniature whose head is a matrix of its own."""
    model = T5ForConditionalGeneration(T5Config(**models.config(name), attn_implementation="eager"))
    # transformers 5 ties a fresh T5's head even where the config says not to. FLAN-T5's is untied.
    head = torch.empty_like(model.shared.weight).normal_(std=model.config.d_model**-0.5)
    model.lm_head.weight = torch.nn.Parameter(head)
    return model


def batches(reader: Tokenizer, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """An endless stream of padded batches, each of sequences of like length."""
    stream = pretraining_text.pairs(seed)
    rng = Random(seed)
    while True:
        pairs = [[reader.encode(text).ids for text in pair] for pair in islice(stream, BATCH * POOL)]
        pairs = sorted((pair for pair in pairs if len(pair[0]) <= MAX_SOURCE), key=lambda pair: len(pair[0]))
        chunks = [pairs[at : at + BATCH] for at in range(0, len(pairs), BATCH)]
        rng.shuffle(chunks)
        for chunk in chunks:
            yield padded([source for source, _ in chunk], 0), padded([target for _, target in chunk], -100)


def padded(rows: list[list[int]], filler: int) -> torch.Tensor:
    """The rows as one tensor."""
    width = max(map(len, rows))
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows])


def pretrain(name: str, reader: Tokenizer, steps: int, report=print) -> dict[str, torch.Tensor]:
    """Trains one miniature from scratch and returns its weights in bfloat16, under the names of a T5 checkpoint."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory costs a tenth of the time and guards against a bug that this code does not have.
    torch.utils.deterministic.fill_uninitialized_memory = False
    model = new_model(name).eval()  # no dropout: the stream never repeats itself, so there is nothing to overfit
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARM_UP, (steps - step) / max(1, steps - WARM_UP))
    )
    started, total = time.monotonic(), 0.0
    for step, (sources, labels) in enumerate(islice(batches(reader, SEED), steps), 1):
        loss = model(input_ids=sources, attention_mask=(sources != 0).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total += loss.item()
        if step % 250 == 0:
            report(f"{name}: step {step} of {steps}, loss {total / 250:.3f}, {time.monotonic() - started:.0f} s")
            total = 0.0
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    return {key: value.bfloat16().contiguous() for key, value in model.state_dict().items() if key not in copies}
