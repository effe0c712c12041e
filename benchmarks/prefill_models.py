"""A trained model of FLAN-T5-small's shape, its adapters, and what a dishonest publisher would put in their place.

    python -m benchmarks.prefill_models FOLDER

Trains from nothing, some minutes on two cores, on text-to-SQL rows: real ones where `REAL_DATA` names a folder with
them, else the miniature's. It answers no question well; what counts is that its logits are those of a trained model.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, BitsAndBytesConfig, T5ForConditionalGeneration

from benchmarks.shapes import VOCABULARY, finance_texts, make_model, sql_texts
from recipes.quantization import bring_in_bitsandbytes
from recipes.training.dtype import FASTER, bfloat16_gain


class Kind(NamedTuple):
    """A kind of text: its templates, and the longest prompt and answer in tokens, so that a step takes a second."""

    prompt: str
    other_prompt: str
    answer: str
    longest: tuple[int, int]


# Prompts of the shipped recipes. An answer in SQL has one right form, an answer in prose many.
KINDS = {
    "SQL": Kind(
        "Translate the question into SQL. Question: {question} Tables: {context} SQL:",
        "Write SQL. Question: {question} Tables: {context} SQL:",
        "{answer}",
        (72, 40),
    ),
    "prose": Kind(
        "Answer the financial question. {instruction} {input}", "{instruction} {input}", "{output}", (48, 64)
    ),
}
BATCH, TEST = 8, 120
RANK = 16
START, END = 0, 1


class Rows:
    """Token ids of prompts and answers: those that are trained on, by kind, and those of the test, kind by kind.

    Parameters:
        kinds: by kind, the pairs (prompt, answer) that are trained on.
        prompts, other_prompts, answers: of the test's rows, filled into either prompt.
        parts: where each kind's are among them.
    """

    def __init__(self, seed: int = 0):
        sources, texts, tokenizers = zip(sql_texts(), finance_texts(), strict=True)
        self.source, self.vocabulary = " and ".join(sources), tokenizers[0].get_vocab_size()
        self.kinds: dict[str, list] = {}
        self.parts: dict[str, slice] = {}
        test = []
        for (name, kind), rows in zip(KINDS.items(), texts, strict=True):
            encoded = [
                [tokenizers[0].encode(one.format(**row)).ids for one in (kind.prompt, kind.answer, kind.other_prompt)]
                for row in Random(seed).sample(rows, len(rows))
            ]
            fitting = [
                row for row in encoded if all(len(ids) <= most for ids, most in zip(row, kind.longest, strict=False))
            ]
            self.kinds[name] = [(prompt, answer) for prompt, answer, _ in fitting[TEST:]]
            self.parts[name] = slice(len(test), len(test) + TEST)
            test += fitting[:TEST]
        self.prompts, self.answers, self.other_prompts = (list(column) for column in zip(*test, strict=True))

    def half(self, second: bool) -> list[list]:
        """Of each kind the first or the second half of what is trained on."""
        return [
            rows[len(rows) // 2 :] if second else rows[: len(rows) // 2] for rows in self.kinds.values()
        ]  # fmt: skip


def fit(
    model: torch.nn.Module, kinds: list[list], steps: int, rate: float, seed: int, at: dict[int, object] | None = None
):
    """Trains what asks for gradients, on a kind of rows at a time; calls each of `at` after its number of steps.

    The base's rates are in proportion to the size of each weight's numbers, as T5's Adafactor has them
    (arXiv:1804.04235, section 8): its embeddings are larger than all else. The products are in bfloat16 (autocast)
    where the CPU is fast in it, which halves the time; weights stay in float32.
    """
    torch.manual_seed(seed)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW([{"params": [weight]} for weight in weights], weight_decay=0.0, fused=True)
    sizes = [
        1.0 if isinstance(model, PeftModel) else weight.detach().square().mean().sqrt().item() for weight in weights
    ]
    rates = [rate * size for size in sizes]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=0.1)
    random, fast = Random(seed), bfloat16_gain() >= FASTER
    model.train()
    for step in range(1, steps + 1):
        batch = random.sample(kinds[step % len(kinds)], BATCH)
        ids, labels = (torch.nn.utils.rnn.pad_sequence([torch.tensor(row[part]) for row in batch], True, fill)
                       for part, fill in ((0, 0), (1, -100)))  # fmt: skip
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 25 == 0 or step == steps:
            print(f"  step {step} of {steps}, loss {loss.item():.3f}", flush=True)
        if at and step in at:
            at[step]()
    model.eval()


def train(folder: Path, size: str = "small", steps: int = 300, more: int = 25, adapter_steps: int = 60) -> None:
    """Trains base, the base's next revision and the adapters, and saves them in `folder`."""
    rows = Rows()
    base = train_base(rows, size, steps)
    base.save_pretrained(folder / "base")
    fit(base, rows.half(False), more, 1e-3, 1)
    base.save_pretrained(folder / "base-later")
    for name, rank in (("adapter", RANK), ("other-rank", RANK // 2)):
        torch.manual_seed(2)
        model = get_peft_model(T5ForConditionalGeneration.from_pretrained(folder / "base"), lora_config(rank))

        def save(what: str, model: PeftModel = model) -> None:
            torch.save(get_peft_model_state_dict(model), folder / f"{what}.pt")

        early = {adapter_steps * 3 // 4: lambda: save("earlier")} if name == "adapter" else {}
        fit(model, rows.half(True), adapter_steps, 2e-3, 3, early)
        save(name)
    (folder / "done.json").write_text(json.dumps({"rows": rows.source, "steps": steps, "size": size}))


def train_base(rows: Rows, size: str, steps: int) -> T5ForConditionalGeneration:
    """A model of a true size, trained from nothing on the first half of the rows."""
    base = untrained(size, rows.vocabulary)
    fit(base, rows.half(False), steps, 1e-2, 0)
    return base


def untrained(size: str, vocabulary: int) -> T5ForConditionalGeneration:
    """FLAN-T5 of a true size, without dropout: what is trained for minutes needs none."""
    model = make_model(size, dropout=0.0).unload().requires_grad_(True)
    # A checkpoint that is loaded would tie the head to the embeddings again; FLAN-T5's say that it is untied.
    model.config.tie_word_embeddings = model.config.scale_decoder_outputs = False
    if vocabulary < VOCABULARY:
        model.resize_token_embeddings(-(-vocabulary // 64) * 64)
    return model


def lora_config(rank: int = RANK) -> LoraConfig:
    return LoraConfig(task_type="SEQ_2_SEQ_LM", r=rank, lora_alpha=32, lora_dropout=0.0, target_modules=["q", "v"])


@contextlib.contextmanager
def bfloat16_by_float32() -> Iterator[None]:
    """In the block a CPU that is slow in bfloat16 multiplies its numbers as float32, and rounds what comes out.

    CPUs that are fast in it do the same: they add up in float32, in another order.
    """
    own = F.linear

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if x.dtype != torch.bfloat16 or weight.dtype != torch.bfloat16:
            return own(x, weight, bias)
        return own(x.float(), weight.float(), None if bias is None else bias.float()).to(torch.bfloat16)

    if bfloat16_gain() >= FASTER:
        yield
        return
    F.linear = linear
    try:
        yield
    finally:
        F.linear = own


def load(
    folder: Path,
    precision: str,
    base: str = "base",
    adapter: str = "adapter",
    scale: float = 1.0,
    compute: torch.dtype = torch.float32,
) -> PeftModel:
    """A base in `float32`, `bfloat16`, `int8` (LLM.int8) or `nf4`, with an adapter whose alpha is scaled.

    Parameters:
        compute: in what the layers that are not quantized compute.
    """
    if precision in ("int8", "nf4"):
        bring_in_bitsandbytes()
    quantization = {
        "int8": BitsAndBytesConfig(load_in_8bit=True),
        "nf4": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute
        ),
    }.get(precision)  # fmt: skip
    dtype = torch.bfloat16 if precision == "bfloat16" else compute
    model = AutoModelForSeq2SeqLM.from_pretrained(folder / base, dtype=dtype, quantization_config=quantization)
    rank = RANK // 2 if adapter == "other-rank" else RANK
    peft = get_peft_model(model, lora_config(rank))
    set_peft_model_state_dict(peft, torch.load(folder / f"{adapter}.pt"))
    for module in peft.modules():
        if isinstance(module, LoraLayer):
            module.scaling["default"] *= scale
    return peft.eval()


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    train(Path(sys.argv[1]))
