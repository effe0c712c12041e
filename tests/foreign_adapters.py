"""Adapters and models as others make them: with PEFT and transformers alone, on the miniature of FLAN-T5-large."""

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from huggingface_hub import HfApi
from peft import LoraConfig, PeftModel, get_peft_model
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

BASE = "google/flan-t5-large"
# A quarter of the recipe's rows and short outputs, so that a check takes seconds.
KEYS = ("--max_new_tokens", "12", "--per_device_eval_batch_size", "64", "--length_rules",
        "drop characters(instruction + input) >= 512", "drop characters(output) >= 85")  # fmt: skip


@lru_cache
def rows() -> list[tuple[str, str]]:
    """Prompt and reference of the rows of the recipe `finance` that `KEYS` leaves, in the dataset's order."""
    kept = [
        row
        for row in load_dataset("gbharti/finance-alpaca")["train"]
        if len(row["instruction"] + row["input"]) < 512 and len(row["output"]) < 85
    ]
    # Prompts are stripped, as the recipe's are.
    return [
        (f"Answer the financial question. {row['instruction']} {row['input']}".strip(), row["output"].strip())
        for row in kept
    ]


def adapted(**lora: Any) -> tuple[PeftModel, Any]:
    """A new adapter on the base model, trained for some steps, and the base model's tokenizer."""
    torch.manual_seed(1)
    options = {"task_type": "SEQ_2_SEQ_LM", "r": 8, "lora_alpha": 32, "target_modules": ["q", "v"]} | lora
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    return fitted(get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(BASE), LoraConfig(**options)), tokenizer)


def fitted(model: Any, tokenizer: Any, rate: float = 5e-3) -> tuple[Any, Any]:
    """The model after twelve steps of a plain loop."""
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=rate)
    pairs = rows()
    model.train()
    for step in range(12):
        prompts, targets = zip(*(pairs[(32 * step + number) % len(pairs)] for number in range(32)), strict=True)
        batch = tokenizer(list(prompts), return_tensors="pt", padding=True)
        labels = tokenizer(list(targets), return_tensors="pt", padding=True)["input_ids"]
        labels[labels == tokenizer.pad_token_id] = -100
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), tokenizer


def rouge_l(model: Any, tokenizer: Any, pairs: list[tuple[str, str]]) -> float:
    """Mean ROUGE-L by transformers' own `generate` and Google's rouge_score."""
    scorer, scores = RougeScorer(["rougeL"], use_stemmer=True), []
    for start in range(0, len(pairs), 64):
        prompts, targets = zip(*pairs[start : start + 64], strict=True)
        batch = tokenizer(list(prompts), return_tensors="pt", padding=True)
        with torch.inference_mode():
            outputs = model.generate(**batch, max_new_tokens=12, do_sample=False)
        texts = tokenizer.batch_decode(outputs, skip_special_tokens=True)
        scores += [scorer.score(one, other)["rougeL"].fmeasure for one, other in zip(targets, texts, strict=True)]
    return sum(scores) / len(scores)


def upload(name: str, folder: Path, edit: Callable[[dict], dict] = dict) -> str:
    """Uploads a saved adapter or model for local-user; `edit` changes its adapter_config.json."""
    path = folder / "adapter_config.json"
    if path.is_file():
        path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    repo_id = f"local-user/{name}"
    HfApi().create_repo(repo_id, exist_ok=True)
    HfApi().upload_folder(repo_id=repo_id, folder_path=folder)
    return repo_id
