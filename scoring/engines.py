"""Which engine generates here; no torch, since scores are checked without it."""

import importlib.util
from importlib.metadata import version


def engine_here(name: str) -> str:
    """`ctranslate2` and its version where it is asked for, in whatever version, and installed; else `transformers`."""
    if not name.startswith("ctranslate2") or importlib.util.find_spec("ctranslate2") is None:
        return "transformers"
    return f"ctranslate2 {version('ctranslate2')}"
