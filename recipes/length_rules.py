"""Length rules: which rows a recipe drops and which texts it cuts.

A rule reads `drop characters(instruction + input) >= 512`: the rows *where that holds* are dropped. With `truncate`
the named text is cut until the condition no longer holds.
"""

import operator
import re
from dataclasses import dataclass
from typing import Literal

from record.errors import UserError

RULE = re.compile(
    r"(?P<action>drop|truncate) (?P<unit>characters|words|tokens)\((?P<texts>[\w.]+(?: \+ [\w.]+)*)\)"
    r" (?P<relation>>=?|<=?|==) (?P<limit>p?\d+(?:\.\d+)?)"
)
RELATIONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le, "==": operator.eq}


@dataclass(frozen=True)
class Rule:
    """One parsed length rule; `text` is how the recipe wrote it, `limit` a length or a percentile."""

    text: str
    action: Literal["drop", "truncate"]
    unit: Literal["characters", "words", "tokens"]
    texts: tuple[str, ...]
    relation: str
    limit: float
    percentile: bool

    def breaks(self, length: float, limit: float) -> bool:
        """Whether a text (or sum of texts) of this length falls under the rule."""
        return RELATIONS[self.relation](length, limit)

    def longest(self, limit: float) -> int:
        """The greatest whole length that does not fall under a rule that cuts."""
        whole = int(limit)
        return whole - 1 if self.relation == ">=" and whole == limit else whole


def parse_rule(text: str) -> Rule:
    """Parses one rule.

    Raises:
        `UserError`: it does not read like a rule, or it cuts a sum of texts or what is too short.
    """
    match = RULE.fullmatch(" ".join(str(text).split()))
    if not match:
        raise UserError(
            f"length rule {text!r} is not understood: write, for example, `drop characters(output) >= 512`, "
            "`drop tokens(prompt) > p99.9` or `truncate tokens(prompt) > 512`"
        )
    texts = tuple(match["texts"].split(" + "))
    if match["action"] == "truncate" and len(texts) > 1:
        raise UserError(f"length rule {text!r}: truncate takes one text, not a sum")
    if match["action"] == "truncate" and match["relation"] not in (">", ">="):
        raise UserError(f"length rule {text!r}: truncate cuts what is too long: compare by > or >=")
    percentile = match["limit"].startswith("p")
    limit = float(match["limit"].lstrip("p"))
    if percentile and not 0 < limit <= 100:
        raise UserError(f"length rule {text!r}: a percentile lies between p0 and p100")
    return Rule(str(text), match["action"], match["unit"], texts, match["relation"], limit, percentile)
