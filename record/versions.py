"""The versions of `record.json`, which strangers read: how the format changes, and how an older record is read.

- `schema_version` is raised whenever the schema changes, were it by one optional field: a clone that knows less must
  say so instead of misreading. Bounds may only become wider, or the version rises too.
- A version is released as soon as one record of it is published. From then on record/schemas/record-N.json never
  changes: `tests/record/test_record_versions.py` holds its hash.
- Each version has one plain function that makes its records those of the next. A record is upgraded when it is read,
  never where it lies: its bytes are what was signed.
- The number names the schema. A record holds no link to it: one in a stranger's record would lead where he likes.
"""

from typing import Any, Final

from record import strict_json

VERSION: Final = 6


def _from_1(record: dict[str, Any]) -> dict[str, Any]:
    """Version 2 adds optional sections, which their defaults fill, and bounds."""
    return record | {"schema_version": 2}


def _from_2(record: dict[str, Any]) -> dict[str, Any]:
    """Version 3 adds the token budget of a micro-batch and the engine that generated, which their defaults fill."""
    return record | {"schema_version": 3}


def _from_3(record: dict[str, Any]) -> dict[str, Any]:
    """Version 4 lets a recipe say `torch_compile`."""
    return record | {"schema_version": 4}


def _from_4(record: dict[str, Any]) -> dict[str, Any]:
    """Version 5 names the rules by which rows were made and compared: those before were the first."""
    data = record.get("data")
    return record | {"schema_version": 5} | ({"data": data | {"rules": 1}} if isinstance(data, dict) else {})


def _from_5(record: dict[str, Any]) -> dict[str, Any]:
    """Version 6 adds optional sections, which their defaults fill."""
    return record | {"schema_version": 6}


UPGRADES = {1: _from_1, 2: _from_2, 3: _from_3, 4: _from_4, 5: _from_5}


def upgrade(data: bytes) -> dict[str, Any]:
    """The record in the bytes of a `record.json`, brought to the present version; not yet held against its schema.

    Raises:
        `ValueError`: as `strict_json.parse`; it is not a JSON object, or of a newer version.
    """
    record = strict_json.parse(data)
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    version = record.get("schema_version", 1)
    if type(version) is not int or not 1 <= version <= 10**6:
        raise ValueError("its `schema_version` is not a version")
    if version > VERSION:
        raise ValueError(
            f"it was written by version {version:,} of the format, this clone reads up to {VERSION}: update the clone"
        )
    upgraded_record: dict[str, Any] = record
    for older in range(version, VERSION):
        upgraded_record = UPGRADES[older](upgraded_record)
    return upgraded_record
