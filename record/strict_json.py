"""JSON that may be a stranger's: what two readers could read differently, or no reader to its end, is refused."""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from record.errors import UserError, first_problem
from record.release_files import largest_size

T = TypeVar("T", bound=BaseModel)


def parse(data: bytes) -> Any:
    """The value in the bytes of a JSON file.

    Raises:
        `ValueError`: it is not JSON, holds a key twice or a number that is not finite, or is nested too deep.
    """
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("its values are nested too deep") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None


def read(path: Path, what: str, cure: str = "", parse: Callable[[bytes], Any] = parse) -> Any:
    """The value in the JSON file at `path`.

    Parameters:
        what: what the file should be, with its article, for the error.
        cure: what to do where there is no such file, or what its absence means.
        parse: makes a value of the file's bytes, or raises `ValueError`.

    Raises:
        `UserError`: there is no such file, it is larger than `largest_size` of its name, or it cannot be parsed.
    """
    if not path.is_file():
        raise UserError(f"{path.parent} holds no {path.name}" + (f": {cure}" if cure else ""))
    if path.stat().st_size > (most := largest_size(path.name)):
        raise UserError(f"{path} is larger than {most:,} bytes: it is not {what}")
    try:
        return parse(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not {what}: {error}") from None


def load(path: Path, model: type[T], what: str, cure: str = "", parse: Callable[[bytes], Any] = parse) -> T:
    """The JSON file at `path`, held against `model`.

    Parameters and raises as `read`; in addition:
        `UserError`: its value does not fit the model.
    """
    try:
        return model.model_validate(read(path, what, cure, parse))
    except ValidationError as error:
        raise UserError(f"{path} is not {what}: {first_problem(error)}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items = dict(pairs)
    if len(items) < len(pairs):
        keys = Counter(key for key, _ in pairs)
        raise ValueError(f"it holds the key {max(keys, key=keys.__getitem__)[:100]!r} twice")
    return items


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("it holds a number that is not finite")
    return number
