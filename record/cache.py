"""Computed values, stored in a file under the hash of all that they follow from."""

import ast
import functools
import hashlib
import inspect
import json
import os
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

from huggingface_hub import constants

# Rows that are in memory at once.
BATCH = 10_000


def code_of(parts: Iterable[ModuleType | Callable[..., Any]], libraries: Iterable[str]) -> str:
    """The hash of what modules and functions do, and of the versions of the libraries that they do it with.

    Comments, docstrings and the texts of raised errors decide no value and do not count.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(_meaning_of(inspect.getsource(part)))
    for library in libraries:
        digest.update(f"{library} {version(library)};".encode())
    return digest.hexdigest()


@functools.cache
def _meaning_of(source: str) -> bytes:
    return repr(_meaning(_without_texts(ast.parse(textwrap.dedent(source))))).encode()


def _without_texts(tree: ast.AST) -> ast.AST:
    """The tree without docstrings and without the arguments of raised errors."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
    return tree


def _meaning(node: Any) -> Any:
    """A node as nested lists. `ast.dump` writes other texts in other versions of Python, for their empty fields."""
    if isinstance(node, ast.AST):
        fields = [(name, _meaning(value)) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return [type(node).__name__, *fields]
    return [_meaning(item) for item in node] if isinstance(node, list) else node


def batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts, `BATCH` at a time: a column of a dataset is read from its file, which one by one takes long."""
    return (list(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH))


def cached_value(name: str, compute: Callable[[], Any], code: str, settings: str, *columns: Sequence[str]) -> Any:
    """The value of `compute` (JSON's types) for these settings and columns of texts.

    Parameters:
        code: the `code_of` all that decides the value.
    """
    digest = hashlib.sha256(json.dumps([code, settings]).encode())
    for column in columns:
        for text in chain.from_iterable(batches(column)):
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(encoded) + encoded)
        digest.update(b"end;")
    return json.loads(cached_bytes(name, lambda: json.dumps(compute()).encode(), digest.hexdigest()))


def cached_bytes(name: str, compute: Callable[[], bytes], key: str) -> bytes:
    """The bytes of `compute`, read from the file of this name and key if it is whole, else computed and written.

    Parameters:
        key: a hash of all that the bytes follow from, the code among it.
    """
    path = Path(constants.HF_HOME, "values", f"{name}-{key}")
    content = path.read_bytes() if path.is_file() else b""
    if len(content) >= 32 and hashlib.sha256(content[32:]).digest() == content[:32]:
        return content[32:]
    value = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(hashlib.sha256(value).digest() + value)
    Path(temporary).replace(path)
    return value
