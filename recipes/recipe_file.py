"""A recipe's YAML, read as it is written: no key twice, and UTF-8 only."""

from pathlib import Path
from typing import Any

import yaml

from record.errors import Slip, one_line


class _EachKeyOnce(yaml.SafeLoader):
    """PyYAML keeps the last of several values for a key without a word."""

    def construct_mapping(self, node, deep=False):
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key.value, str):
                continue
            if key.value in lines:
                raise Slip(f"`{key.value}` is given twice, in lines {lines[key.value]} and {line}: remove one")
            lines[key.value] = line
        return super().construct_mapping(node, deep)


def read_recipe(path: Path) -> dict[str, Any]:
    """The keys and values of a recipe's file.

    Raises:
        `Slip`: it cannot be read, is not UTF-8 or not YAML, or gives a key twice.
    """
    try:
        keys = yaml.load(path.read_text(encoding="utf-8"), _EachKeyOnce)
    except OSError as error:
        raise Slip(f"cannot read the recipe {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Slip(f"{path} is not a text in UTF-8: save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise Slip(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except Slip as error:
        raise Slip(f"{path}: {one_line(str(error))}") from None
    if not isinstance(keys, dict):
        raise Slip(f"{path} is not a recipe: it must hold `key: value` lines")
    return keys
