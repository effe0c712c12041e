"""Types with bounds for what comes from the Hub: a file there may claim any number and any length of text."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

# Whole numbers that every JSON reader takes for the same (RFC 8259, section 6).
LARGEST = 2**53 - 1
# Names that Windows takes for devices, with any suffix (learn.microsoft.com, "Naming Files, Paths, and Namespaces").
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
# No control character, line separator or change of the writing direction: such a text could forge lines around it.
ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$"
PLAIN_NAME = r"^\w([\w.-]{0,89}\w)?$"


def _no_device(path: str) -> str:
    for part in path.split("/"):
        if DEVICES.fullmatch(part) or part.endswith("."):
            raise ValueError(f"{part!r} is not a plain file name on every system")
    return path


def is_plain_name(text: str) -> bool:
    """Whether a text may name a file or a repository on every system: no separator, no leading dot or dash."""
    return bool(re.fullmatch(PLAIN_NAME, text)) and not text.endswith("\n") and not DEVICES.fullmatch(text)


def _repo_id(text: str) -> str:
    # Heavy to import, and every command reads records.
    from huggingface_hub.utils._validators import validate_repo_id

    validate_repo_id(text)
    return text


def check_bounds(value: Any, depth: int = 6, items: int = 5_000) -> dict[str, Any]:
    """A JSON object as it is, if it is at most `depth` deep with `items` values in all, its texts and numbers bounded.

    Raises:
        `ValueError`: a bound is broken.
    """
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    count, level = 0, [value]
    for _ in range(depth):
        count += len(level)
        if count > items:
            raise ValueError(f"more than {items:,} values")
        for item in level:
            if isinstance(item, str) and len(item) > 20_000:
                raise ValueError("a text of more than 20,000 characters")
            if isinstance(item, int | float) and not -LARGEST <= item <= LARGEST:
                raise ValueError("a number beyond 2⁵³")
        lists = [item for item in level if isinstance(item, list | dict)]
        level = [
            part for item in lists for part in (item if isinstance(item, list) else [*item.keys(), *item.values()])
        ]
        if not level:
            return value
    raise ValueError(f"values nested more than {depth} deep")


Sha1 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Line = Annotated[str, StringConstraints(max_length=300, pattern=ONE_LINE)]
# A recipe's or an adapter's name, from which file names are made.
PlainName = Annotated[str, StringConstraints(pattern=PLAIN_NAME), AfterValidator(_no_device)]
# A file's place in the published repository: no absolute path, no `..`.
RepoPath = Annotated[
    str, StringConstraints(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$", max_length=200), AfterValidator(_no_device)
]
# `owner/name` by the Hub's own rule.
RepoId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*$", max_length=193),
    AfterValidator(_repo_id),
]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
# NumPy's seeds.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
# Of finite size; JSON has no other numbers.
Amount = Annotated[float, Field(ge=0, le=1e15)]


class Section(BaseModel):
    """A part of a file from the Hub: it holds the fields that it names and no others."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
