"""The functions that give the rows' texts and token ids, batch by batch: nothing else decides what is in a column.

`recipes.data.batches` holds this file's code in the keys of the stored columns.
"""

import hashlib
import json
import string
import time
from collections import Counter
from functools import lru_cache
from typing import Any

import regex
from tokenizers import Tokenizer

from recipes.data.tokenizer import count_tokens, encode
from recipes.templates import template_columns
from record.errors import UserError

# A pattern from somebody else's record may take forever; an honest one takes microseconds. On one row, and on all rows.
PATTERN_SECONDS, EXTRACT_SECONDS = 5, 300
# Seconds that each pattern has taken so far in this process, over all batches.
_taken: Counter[str] = Counter()
# Not to be mistaken for columns of the dataset: no template can name them.
INPUT, SCHEMA, EMPTY = "the model's input", "the tables of the SQL", "what is empty"
DATABASE = "the file of the SQL's tables"
REFERENCES = "the target's equals"
MADE = ("prompt", "target", INPUT, SCHEMA, DATABASE, EMPTY, REFERENCES)


def as_text(value: Any, column: str, rules: int) -> str:
    """A cell's text: "" for none, and for a number that is none.

    Raises:
        `UserError`: the cell holds a list or an object; by the first rules that was Python's way to print it.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if rules > 1:
        if isinstance(value, list | dict | bytes):
            kind = {list: "a list", dict: "an object", bytes: "bytes"}[type(value)]
            raise UserError(f"`{column}` of one row is {kind}, of others a text: make all of them texts")
        # Not equal to itself: a float's NaN.
        return str(value) if value == value else ""
    return str(value)


def part_of(value: Any, path: list[str]) -> Any:
    """The part of a nested value at the end of the path; None where there is none."""
    for name in path:
        if isinstance(value, list) and name.isdecimal():
            value = value[int(name)] if int(name) < len(value) else None
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value


def read_groups(batch: dict[str, list], column: str, pattern: regex.Pattern, rules: int) -> dict[str, list]:
    matches = [_search(as_text(value, column, rules), column, pattern) for value in batch[column]]
    groups = {name: [match[name] or "" if match else "" for match in matches] for name in pattern.groupindex}
    return {**batch, **groups, "matched": [match is not None for match in matches]}


@lru_cache(maxsize=200)
def _parts(template: str) -> list[tuple[str, str | None]]:
    return [(literal, name) for literal, name, _, _ in string.Formatter().parse(template)]


def fill_template(template: str, texts: dict[str, str]) -> str:
    """The template with the columns' texts. Never `str.format`, for which `{a.b}` is an attribute."""
    return "".join(literal + ("" if name is None else texts[name]) for literal, name in _parts(template)).strip()


def _search(text: str, column: str, pattern: regex.Pattern) -> regex.Match | None:
    start = time.perf_counter()
    try:
        match = pattern.search(text, timeout=PATTERN_SECONDS)
    except TimeoutError:
        raise UserError(f"`extract` of `{column}` takes over {PATTERN_SECONDS} s on one row: simplify it") from None
    _taken[pattern.pattern] += time.perf_counter() - start
    if _taken[pattern.pattern] > EXTRACT_SECONDS:
        raise UserError(f"`extract` of `{column}` takes over {EXTRACT_SECONDS} s on all rows: simplify it")
    return match


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
    return {"prompt": fill_template(prompt, texts), "target": fill_template(target, texts)}


def fill(
    batch: dict[str, list],
    fields: dict[str, list[str]],
    labels: dict[str, list[str]],
    prompts: list[str],
    target: str,
    seed: int,
    schema: str,
    database: str,
    rules: int,
    references: list[str],
    reference_fields: dict[str, list[str]],
) -> dict[str, list[str]]:
    """The rows' texts, and what is made of them.

    Parameters:
        fields: columns and parts of columns that are used, each with its path from the column on.
        labels: the names of the classes that the numbers of a field stand for.
        rules: those by which the rows of a record were made (`record.run_record.Data.rules`).
        references: templates of further right answers, and `reference_fields` their columns, as `fields`.

    Returns:
        The fields' texts, `prompt`, `target`, `INPUT`, `SCHEMA`, `DATABASE`, `REFERENCES` (a JSON list of texts, "" for
        none), and `EMPTY`: which of prompt and target has no text from the row's columns, "" if none.
    """
    columns = dict.fromkeys(column for template in prompts for column in template_columns(template))
    answers = template_columns(target)
    rows: dict[str, list[str]] = {name: [] for name in (*fields, *MADE)}
    values = {
        name: _texts([part_of(value, path[1:]) for value in batch[path[0]]], name, labels.get(name), rules)
        for name, path in fields.items()
    }
    for number, cells in enumerate(zip(*values.values(), strict=True)):
        texts = dict(zip(values, cells, strict=True))
        row = texts | fill_templates(texts, prompts, target, seed)
        row |= {INPUT: " ".join(texts[column] for column in columns).strip(), SCHEMA: fill_template(schema, texts)}
        row[DATABASE] = fill_template(database, texts)
        lacks_target = not any(texts[column].strip() for column in answers)
        row[EMPTY] = "empty prompt" if not row[INPUT] else "empty target" if lacks_target else ""
        named = {name: part_of(batch[path[0]][number], path[1:]) for name, path in reference_fields.items()}
        row[REFERENCES] = _equals(row["target"], references, named, rules)
        for name, text in row.items():
            rows[name].append(text)
    return rows


def _equals(target: str, references: list[str], values: dict[str, Any], rules: int) -> str:
    """The right answers of a row besides its target, each once: a JSON list of texts, "" for none."""
    answers: dict[str, None] = {}
    for template in references:
        names = template_columns(template)
        several = len(names) == 1 and isinstance(values[names[0]], list)
        for cells in ([cell] for cell in values[names[0]]) if several else [[values[name] for name in names]]:
            texts = {name: as_text(cell, name, rules) for name, cell in zip(names, cells, strict=True)}
            if any(text.strip() for text in texts.values()):
                answers[fill_template(template, texts)] = None
    others = [text for text in answers if text != target]
    return json.dumps(others, ensure_ascii=False) if others else ""


def _texts(values: list[Any], column: str, labels: list[str] | None, rules: int) -> list[str]:
    if labels is not None and rules > 1:
        # datasets writes -1 for a row without a class.
        return ["" if value is None or value < 0 else labels[value] for value in values]
    return [as_text(value, column, rules) for value in values]


def measure(batch: dict[str, list], unit: str, tokenizer: Tokenizer | None) -> dict[str, list[int]]:
    columns = [["" if text is None else str(text) for text in column] for column in batch.values()]
    if unit == "characters":
        counts = [[len(text) for text in column] for column in columns]
    elif unit == "words":
        counts = [[len(text.split()) for text in column] for column in columns]
    else:
        counts = [count_tokens(tokenizer, column) for column in columns]
    return {"length": [sum(row) for row in zip(*counts, strict=True)]}


def cut(
    batch: dict[str, list], text: str, unit: str, longest: int, tokenizer: Tokenizer | None, rules: int
) -> dict[str, list]:
    return {**batch, text: [_shorten(whole, unit, longest, tokenizer, rules) for whole in batch[text]]}


def _shorten(whole: str, unit: str, longest: int, tokenizer: Tokenizer | None, rules: int) -> str:
    if unit == "characters":
        return whole[:longest]
    if unit == "words":
        return " ".join(whole.split()[:longest]) if len(whole.split()) > longest else whole
    encoding = tokenizer.encode(whole)
    if len(encoding.ids) <= longest:
        return whole
    # The last token is `</s>`, which is added again when the cut text is tokenized. Cut off from what follows, a word
    # may take more tokens than within it.
    for last in range(longest - 2, -1, -1):
        text = whole[: encoding.offsets[last][1]]
        if rules == 1 or len(tokenizer.encode(text).ids) <= longest:
            return text
    return ""


def token_ids(batch: dict[str, list], tokenizer: Tokenizer) -> dict[str, list[list[int]]]:
    return {"input_ids": encode(tokenizer, batch["prompt"]), "labels": encode(tokenizer, batch["target"], targets=True)}
