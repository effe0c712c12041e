"""What the measurements share: models of FLAN-T5's true shapes with random weights, and rows of real lengths."""

import json
import os
from pathlib import Path
from random import Random

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

VOCABULARY = 32_128
# The pieces that text is made of: 0 to 2 are <pad>, </s> and <unk>, those from 32,000 on sentinels and spare rows.
PIECES = range(3, 32_000)
# d_model, d_ff, layers of each stack, heads; d_kv is 64 throughout (the config.json of google/flan-t5-*).
SHAPES = {
    "tiny": (64, 128, 2, 2),
    "small": (512, 1024, 8, 6),
    "base": (768, 2048, 12, 12),
    "large": (1024, 2816, 24, 16),
    "xl": (2048, 5120, 24, 32),
}


def make_model(
    size: str,
    dropout: float = 0.1,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    targets: tuple[str, ...] = ("q", "v"),
) -> PeftModel:
    """FLAN-T5 of a true size with random weights and an untied head, LoRA r=32 on the targets (its B not zero)."""
    d, ff, layers, heads = SHAPES[size]
    config = T5Config(
        vocab_size=VOCABULARY, d_model=d, d_kv=64, d_ff=ff, num_layers=layers, num_heads=heads, dropout_rate=dropout,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = T5ForConditionalGeneration(config)
    # transformers 5 ties the head of a model made from a config; FLAN-T5's checkpoints untie it.
    model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, d) * d**-0.5)
    model.generation_config = GenerationConfig(decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    lora = LoraConfig(
        task_type="SEQ_2_SEQ_LM", r=32, lora_alpha=32, lora_dropout=dropout, target_modules=[*targets],
        init_lora_weights=False,
    )  # fmt: skip
    return get_peft_model(model.to(dtype), lora, autocast_adapter_dtype=True)


def lengths(rows: int, seed: int = 0) -> tuple[str, list[tuple[int, int]]]:
    """Where they come from, and `rows` pairs (source, target) of token counts, `</s>` included, drawn with a seed.

    They are those of the finance recipe's rows: of real ones where `REAL_DATA` is set, else of its miniature.
    """
    source, pairs = finance_rows()
    counts = [(len(row["input_ids"]), len(row["labels"])) for row in pairs]
    return source, Random(seed).choices(counts, k=rows)


def finance_rows() -> tuple[str, list[dict[str, list[int]]]]:
    """Where they come from, and the finance recipe's rows as token ids: real ones where `REAL_DATA` is set, else its
    miniature's."""
    from recipes.config import parse_recipe
    from recipes.data.columns import fill_templates

    recipe = parse_recipe(["--config", "recipes/finance.yaml"]).arguments
    source, texts, tokenizer = finance_texts()
    short = [row for row in texts if len(row["instruction"]) + len(row["input"]) < 512 and len(row["output"]) < 512]
    filled = [fill_templates(row, recipe.prompt, recipe.target, recipe.split_seed) for row in short]
    prompts, targets = (tokenizer.encode_batch_fast([row[part] for row in filled]) for part in ("prompt", "target"))
    return source, [
        {"input_ids": prompt.ids, "labels": target.ids} for prompt, target in zip(prompts, targets, strict=True)
    ]


def finance_texts() -> tuple[str, list[dict[str, str]], Tokenizer]:
    """Where they come from, rows with instruction, input and output, and T5's tokenizer or the miniature's."""
    if "REAL_DATA" in os.environ:
        root = Path(os.environ["REAL_DATA"])
        path = root / "hub/datasets/gbharti/finance-alpaca/Cleaned_date.json"
        rows = json.loads(path.read_text(encoding="utf-8"))
        return "real rows of Stanford Alpaca", rows, Tokenizer.from_file(str(root / "tokenizer/tokenizer.json"))
    from local_hub.miniatures import repositories
    from local_hub.miniatures.finance import rows

    files = next(repository.files for repository in repositories() if repository.id == "google/flan-t5-large")
    return "the finance miniature's rows", rows(), Tokenizer.from_buffer(files["tokenizer.json"])


def sql_texts() -> tuple[str, list[dict[str, str]], Tokenizer]:
    """Where they come from, text-to-SQL rows (question, context, answer), and T5's tokenizer or the miniature's."""
    from local_hub.miniatures.sql import rows

    tokenizer = finance_texts()[2]
    if "REAL_DATA" in os.environ:
        path = Path(os.environ["REAL_DATA"], "hub/datasets/b-mc2/sql-create-context/sql_create_context_v4.json")
        return "real rows of sql-create-context", json.loads(path.read_text(encoding="utf-8")), tokenizer
    return "the text-to-SQL miniature's rows", rows(), tokenizer


def make_rows(rows: int, seed: int = 0) -> tuple[str, list[dict[str, list[int]]]]:
    """Where the lengths come from, and rows of random pieces (`input_ids`, `labels`), each ended by `</s>`."""
    source, pairs = lengths(rows, seed)
    random = Random(seed)
    return source, [
        {
            name: [*random.choices(PIECES, k=count - 1), 1]
            for name, count in zip(("input_ids", "labels"), pair, strict=True)
        }
        for pair in pairs
    ]
