"""The adapter's release, and what the base model and the adapter write."""

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.constants import ENDPOINT
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

# All that is taken of the adapter's repository: safetensors and texts, never a pickle.
FILES = ["record.json", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json",
         "predictions.parquet"]  # fmt: skip
# Tokens, as many as the service takes: most models read longer inputs than they were trained on, but worse, and
# memory grows with their square.
LONGEST = 1_024
# Characters that are tokenized at all, as many as the service takes.
LONGEST_TEXT = 2**15
# Seconds for one answer.
PATIENCE = 120.0
EXAMPLES = 20


@dataclass(frozen=True)
class Release:
    """A published adapter, or a scored run: its files, its record, and how the page calls it.

    `address` is that of its files on the Hub, None for a run's folder; `verdict` what is told of its check, if any.
    """

    folder: Path
    record: dict[str, Any]
    name: str
    address: str | None
    verdict: str | None
    concerns: list[str]


@dataclass(frozen=True)
class Models:
    """The base model with the adapter on it, their tokenizer, and how the recipe decodes.

    `trained_length` is the longest prompt in training (tokens), None where the record does not say; `start` are the
    keys of a `GenerationConfig` by which outputs begin in the recipe's language.
    """

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    max_new_tokens: int
    num_beams: int
    trained_length: int | None
    start: dict[str, int]


@dataclass(frozen=True)
class Answer:
    """A text with its tokens, the seconds that it took, and whether it was cut off at the recipe's longest output."""

    text: str
    tokens: int
    seconds: float
    cut: bool


def fetch(config: dict[str, Any]) -> Release:
    """The release that space.json names: `adapter` at the commit `revision`, or a folder where that is null."""
    name, revision = config["adapter"], config["revision"]
    folder = Path(name if revision is None else snapshot_download(name, revision=revision, allow_patterns=FILES))
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return Release(
        folder,
        record,
        name=folder.name if revision is None else f"{name}@{revision[:12]}",
        address=None if revision is None else f"{ENDPOINT}/{name}/tree/{revision}",
        verdict=config["verdict"],
        concerns=config["concerns"],
    )


def load(release: Release) -> Models:
    """Loads the base model at the commit that it was trained on, and the adapter; no code of either repository runs.

    A base model that was quantized for training is loaded whole.
    """
    base, contract = release.record["pins"]["base_model"], release.record["contract"]
    model = AutoModelForSeq2SeqLM.from_pretrained(
        base["id"], revision=base["revision"], dtype=pick_dtype(), use_safetensors=True, trust_remote_code=False
    )
    if torch.cuda.is_available():
        model = model.to("cuda")
    tokenizer = AutoTokenizer.from_pretrained(release.folder, trust_remote_code=False)
    adapter = PeftModel.from_pretrained(model, release.folder, use_safetensors=True).eval()
    trained_length = release.record["data"].get("lengths", {}).get("prompt", {}).get("max")
    start = language(release.record["recipe"], tokenizer)
    return Models(adapter, tokenizer, contract["max_new_tokens"], contract["num_beams"], trained_length, start)


def language(recipe: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """How `generate` comes to write the recipe's language: its token is the first one, or that before the first.

    It is the first where that of the prompts' language is.
    """
    if recipe.get("target_language") is None:
        return {}
    source, target = tokenizer.convert_tokens_to_ids([recipe["source_language"], recipe["target_language"]])
    first = tokenizer("")["input_ids"][0] == source
    return {"forced_bos_token_id" if first else "decoder_start_token_id": target}


def pick_dtype() -> torch.dtype:
    """bfloat16 where the GPU computes in it; some models overflow in float16."""
    native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32


def too_long(models: Models, prompt: str) -> tuple[bool, str]:
    """Whether the prompt is refused for its length, and a sentence about it ("" where there is nothing to say)."""
    if len(prompt) > LONGEST_TEXT:
        return True, f"The input has {len(prompt):,} characters; at most {LONGEST_TEXT:,} are taken. Shorten it."
    tokens = len(models.tokenizer(prompt, verbose=False)["input_ids"])
    most = min(LONGEST, models.model.config.to_dict().get("max_position_embeddings") or LONGEST)
    if tokens > most:
        return True, f"The input has {tokens:,} tokens; at most {most:,} are taken. Shorten it."
    if models.trained_length is not None and tokens > models.trained_length:
        return False, (
            f"The input has {tokens:,} tokens. All are read, but the adapter was trained on inputs of up to "
            f"{models.trained_length:,}: expect less."
        )
    return False, ""


def answer(models: Models, prompt: str, adapter: bool) -> Answer:
    """What the adapter writes, or (`adapter=False`) the base model alone, decoded as the recipe was scored."""
    config = models.model.generation_config
    keys = {
        "decoder_start_token_id": config.decoder_start_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        **models.start,
    }
    decoding = GenerationConfig(
        max_new_tokens=models.max_new_tokens, num_beams=models.num_beams, do_sample=False, max_time=PATIENCE, **keys
    )
    batch = models.tokenizer(prompt, return_tensors="pt", verbose=False).to(models.model.device)
    start = time.perf_counter()
    with torch.inference_mode(), contextlib.nullcontext() if adapter else models.model.disable_adapter():
        # The decoder start token is no part of the answer.
        ids = models.model.generate(**batch, generation_config=decoding)[0, 1:]
    seconds = time.perf_counter() - start
    text = models.tokenizer.decode(ids, skip_special_tokens=True).strip()
    return Answer(text, len(ids), seconds, cut=ids[-1].item() != config.eos_token_id)


def examples(release: Release) -> list[dict[str, str]]:
    """The first test rows, which are a random sample of the split: `prompt`, `reference` and `schema` of each."""
    file = pq.ParquetFile(release.folder / "predictions.parquet")
    return next(file.iter_batches(EXAMPLES, columns=["prompt", "reference", "schema"])).to_pylist()
