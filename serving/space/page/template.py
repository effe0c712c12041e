"""The recipe's prompt as boxes to type into."""

import re
import string
from typing import Any

# A template with more boxes is asked for as a whole.
MOST_BOXES = 4


def asked_keys(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe's keys as the dataset has them whose prompt is asked with: of several, the first."""
    return recipe | (recipe.get("datasets") or [{}])[0]


class Template:
    """The recipe's prompt as boxes: fields that only white space parts share one.

    `labels` are the boxes' names, `tables` the place of the one that holds a query's tables (None without).
    """

    def __init__(self, prompt: str, sql_schema: str | None):
        self.texts, self.fields = _boxes(prompt)
        self.labels = [", ".join(fields).replace("_", " ").capitalize() for fields in self.fields]
        named = [f"{{{', '.join(fields)}}}" for fields in self.fields]
        self.tables = named.index(sql_schema) if sql_schema in named else None

    def fill(self, values: list[str]) -> str:
        """The prompt with these texts in its boxes, outer white space removed, as in training."""
        filled = [part for pair in zip(self.texts, [*values, ""], strict=True) for part in pair]
        return "".join(filled).strip()

    def read(self, prompt: str) -> list[str] | None:
        """The texts of the boxes that give this prompt; None where it is of another template."""
        first, *others = self.texts
        texts = [first.lstrip(), *others[:-1], others[-1].rstrip()]
        match = re.fullmatch("(.*?)".join(map(re.escape, texts)), prompt, re.DOTALL)
        return [*match.groups()] if match and self.fill([*match.groups()]) == prompt else None


def _boxes(prompt: str) -> tuple[list[str], list[list[str]]]:
    """The template's own texts, and between each two of them the fields of a box."""
    texts, fields = [""], []
    for text, field, *_ in string.Formatter().parse(prompt):
        if text.strip() or not fields:
            texts[-1] += text
        if field is None:
            continue
        if fields and not texts[-1]:
            fields[-1].append(field)
        else:
            fields.append([field])
            texts.append("")
    names = [name for box in fields for name in box]
    if not 1 <= len(fields) <= MOST_BOXES or len(set(names)) < len(names):
        return ["", ""], [["prompt"]]
    return texts, fields
