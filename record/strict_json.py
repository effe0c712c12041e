"""JSON from strangers: what two readers could read differently, or no reader to its end, is refused."""

import json
import math
from collections import Counter
from typing import Any


def parse(data: bytes) -> Any:
    """The value in the bytes of a JSON file.

    Raises:
        `ValueError`: it is no JSON, holds a key twice or a number that is not finite, or is nested too deep.
    """
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("its values are nested too deep") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = Counter(key for key, _ in pairs)
        raise ValueError(f"it holds the key {max(keys, key=keys.__getitem__)[:100]!r} twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("it holds a number that is not finite")
    return number
