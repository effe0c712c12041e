"""A trained model of FLAN-T5-small's shape, its adapters, and what a dishonest publisher would put in their place.

    python -m benchmarks.prefill_models FOLDER

Trains from nothing, some minutes on two cores, on text-to-SQL rows: real ones where `REAL_DATA` names a folder with
them, else the miniature's. It answers no question well; what counts is that its logits are those of a trained model.
"""

import json
import os
import sys
from pathlib import Path
from random import Random

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load as load_weights
from tokenizers import Tokenizer
from transformers import AutoModelForSeq2SeqLM, BitsAndBytesConfig, GenerationConfig, T5ForConditionalGeneration

from benchmarks.shapes import SHAPES, make_model, sql_texts
from local_hub.miniatures import models

PROMPT = "Translate the question into SQL. Question: {question} Tables: {context} SQL:"
OTHER_PROMPT = "Write SQL. Question: {question} Tables: {context} SQL:"
# Longest prompt and answer in tokens, so that a step takes a second.
LONGEST = 72, 40
BATCH, TEST = 8, 200
RANK = 16
START, END = 0, 1


class Rows:
    """Token ids of prompts and answers: those that the base is trained on, the adapter's, and the test's."""

    def __init__(self, seed: int = 0):
        self.source, texts, tokenizer = sql_texts()
        pairs = [pair for row in texts if (pair := _encode(tokenizer, PROMPT, row)) is not None]
        others = {tuple(pair[0]): _encode(tokenizer, OTHER_PROMPT, row) for row in texts
                  if (pair := _encode(tokenizer, PROMPT, row)) is not None}  # fmt: skip
        Random(seed).shuffle(pairs)
        self.test, self.train = pairs[:TEST], pairs[TEST:]
        self.other_prompts = [others[tuple(prompt)][0] for prompt, _ in self.test]

    @property
    def prompts(self) -> list[list[int]]:
        return [prompt for prompt, _ in self.test]


def _encode(tokenizer: Tokenizer, template: str, row: dict[str, str]) -> tuple[list[int], list[int]] | None:
    one = tokenizer.encode(template.format(**row)).ids, tokenizer.encode(row["answer"]).ids
    return one if all(len(ids) <= limit for ids, limit in zip(one, LONGEST, strict=True)) else None


def fit(model: torch.nn.Module, rows: list, steps: int, rate: float, seed: int, at: dict[int, object] | None = None):
    """Trains what asks for gradients; calls each of `at` after its number of steps.

    The products are in bfloat16 (autocast), which halves the time; weights stay in float32.
    """
    torch.manual_seed(seed)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    random = Random(seed)
    model.train()
    for step in range(1, steps + 1):
        batch = random.sample(rows, BATCH)
        ids, labels = (torch.nn.utils.rnn.pad_sequence([torch.tensor(row[part]) for row in batch], True, fill)
                       for part, fill in ((0, 0), (1, -100)))  # fmt: skip
        with torch.autocast("cpu", torch.bfloat16):
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


def train(folder: Path, size: str = "small", steps: int = 40, more: int = 8, adapter_steps: int = 32) -> None:
    """Trains base, the base's next revision and the adapters, and saves them in `folder`."""
    rows = Rows()
    half = len(rows.train) // 2
    base = grown(size)
    fit(base, rows.train[:half], steps, 5e-4, 0)
    base.save_pretrained(folder / "base")
    fit(base, rows.train[:half], more, 1e-4, 1)
    base.save_pretrained(folder / "base-later")
    for name, rank in (("adapter", RANK), ("other-rank", RANK // 2)):
        torch.manual_seed(2)
        model = get_peft_model(T5ForConditionalGeneration.from_pretrained(folder / "base"), lora_config(rank))

        def save(what: str, model: PeftModel = model) -> None:
            torch.save(get_peft_model_state_dict(model), folder / f"{what}.pt")

        early = {adapter_steps * 3 // 4: lambda: save("earlier")} if name == "adapter" else {}
        fit(model, rows.train[half:], adapter_steps, 2e-3, 3, early)
        save(name)
    (folder / "done.json").write_text(json.dumps({"rows": rows.source, "steps": steps, "size": size}))


def grown(size: str, seed: int = 0) -> T5ForConditionalGeneration:
    """A model of FLAN-T5's shape that answers as the trained miniature does, and has not learned to use its width.

    Every matrix of the miniature fills a corner of a larger one, whose other numbers are small and random (after
    Net2Net, arXiv:1511.05641); layers that it does not have start as small changes. A norm over more places, all others
    near 0, is larger by the root of how many times more.
    """
    small = load_weights(models.files("xl")["model.safetensors"])
    old, (width, ff, layers, heads) = models.SHAPES["xl"], SHAPES[size]
    config = make_model("tiny").get_base_model().config
    config.update({"d_model": width, "d_ff": ff, "num_layers": layers, "num_decoder_layers": layers,
                   "num_heads": heads, "vocab_size": len(small["lm_head.weight"]), "dropout_rate": 0.0,
                   "scale_decoder_outputs": False})  # fmt: skip
    torch.manual_seed(seed)
    model = T5ForConditionalGeneration(config)
    model.lm_head.weight = torch.nn.Parameter(torch.empty(config.vocab_size, width))
    kv = [head * config.d_kv + place for head in range(old["num_heads"]) for place in range(16)]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            norm = "layer_norm" in name
            weight.fill_((old["d_model"] / width) ** 0.5) if norm else weight.normal_(0, 0.02)
            own = small.get(name)
            if own is None:
                continue
            if norm:
                weight[: len(own)] = own * (old["d_model"] / width) ** 0.5
            elif name.split(".")[-2] in "qkv":
                weight[torch.tensor(kv), : own.shape[1]] = own
            elif name.split(".")[-2] == "o":
                weight[: len(own), torch.tensor(kv)] = own
            else:
                weight[: own.shape[0], : own.shape[1]] = own
    model.generation_config = GenerationConfig(decoder_start_token_id=START, pad_token_id=START, eos_token_id=END)
    return model


def lora_config(rank: int = RANK) -> LoraConfig:
    return LoraConfig(task_type="SEQ_2_SEQ_LM", r=rank, lora_alpha=32, lora_dropout=0.0, target_modules=["q", "v"])


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
