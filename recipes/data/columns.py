"""The functions that give the rows' texts and token ids, batch by batch: nothing else decides what is in a column.

`recipes.data.batches` holds this file's code in the keys of the stored columns.
"""

import hashlib
import json
from typing import Any

import regex
from tokenizers import Tokenizer

from recipes.config import template_columns
from recipes.data.tokenizer import count_tokens, encode
from record.errors import UserError

# A pattern from somebody else's record may take forever; an honest one takes microseconds.
PATTERN_SECONDS = 5
# Not to be mistaken for columns of the dataset: no template can name them.
INPUT, SCHEMA = "the model's input", "the tables of the SQL"


def read_groups(batch: dict[str, list], column: str, pattern: regex.Pattern) -> dict[str, list]:
    try:
        matches = [pattern.search(text or "", timeout=PATTERN_SECONDS) for text in batch[column]]
    except TimeoutError:
        raise UserError(f"`extract` of `{column}` takes over {PATTERN_SECONDS} s on one row: simplify it") from None
    groups = {name: [match[name] or "" if match else "" for match in matches] for name in pattern.groupindex}
    return {**batch, **groups, "matched": [match is not None for match in matches]}


def fill_templates(row: dict[str, Any], prompts: list[str], target: str, seed: int) -> dict[str, str]:
    """The row's prompt and target: templates filled from its columns (None as ""), outer white space removed.

    Which of several prompts a row gets is a function of its texts and the seed alone: neither its place nor the number
    of processes matters.
    """
    texts = {name: "" if value is None else str(value) for name, value in row.items()}
    prompt = prompts[0]
    if len(prompts) > 1:
        draw = hashlib.sha256(json.dumps([seed, sorted(texts.items())], ensure_ascii=False).encode()).digest()
        prompt = prompts[int.from_bytes(draw[:8]) % len(prompts)]
    return {"prompt": prompt.format_map(texts).strip(), "target": target.format_map(texts).strip()}


def fill(batch: dict[str, list], prompts: list[str], target: str, seed: int, schema: str) -> dict[str, list[str]]:
    columns = dict.fromkeys(column for template in prompts for column in template_columns(template))
    rows = {name: [] for name in (*batch, "prompt", "target", INPUT, SCHEMA)}
    for values in zip(*batch.values(), strict=True):
        texts = {name: "" if value is None else str(value) for name, value in zip(batch, values, strict=True)}
        row = dict(zip(batch, values, strict=True)) | fill_templates(texts, prompts, target, seed)
        row |= {INPUT: " ".join(texts[column] for column in columns).strip(), SCHEMA: schema.format_map(texts).strip()}
        for name, text in row.items():
            rows[name].append(text)
    return rows


def measure(batch: dict[str, list], unit: str, tokenizer: Tokenizer | None) -> dict[str, list[int]]:
    columns = [["" if text is None else str(text) for text in column] for column in batch.values()]
    if unit == "characters":
        counts = [[len(text) for text in column] for column in columns]
    elif unit == "words":
        counts = [[len(text.split()) for text in column] for column in columns]
    else:
        counts = [count_tokens(tokenizer, column) for column in columns]
    return {"length": [sum(row) for row in zip(*counts, strict=True)]}


def cut(batch: dict[str, list], text: str, unit: str, longest: int, tokenizer: Tokenizer | None) -> dict[str, list]:
    return {**batch, text: [_shorten(whole, unit, longest, tokenizer) for whole in batch[text]]}


def _shorten(whole: str, unit: str, longest: int, tokenizer: Tokenizer | None) -> str:
    if unit == "characters":
        return whole[:longest]
    if unit == "words":
        return " ".join(whole.split()[:longest]) if len(whole.split()) > longest else whole
    encoding = tokenizer.encode(whole)
    if len(encoding.ids) <= longest:
        return whole
    # The last token is `</s>`, which is added again when the cut text is tokenized.
    return whole[: encoding.offsets[longest - 2][1]] if longest > 1 else ""


def token_ids(batch: dict[str, list], tokenizer: Tokenizer) -> dict[str, list[list[int]]]:
    return {"input_ids": encode(tokenizer, batch["prompt"]), "labels": encode(tokenizer, batch["target"])}
