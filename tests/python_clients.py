"""Clients from PyPI in an environment of their own, apart from the project's, for tests that run them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local_hub import durable

# Two files of tests share its environment.
LM_EVAL = ("lm-eval[api]==0.4.13", "transformers==5.23.0")


def install(*requirements: str, bare: str | None = None) -> Path:
    """The environment's Python, kept between runs outside of the project; skips the test where it cannot be had.

    Parameters:
        bare: a further package, without what it requires and whatever Python it asks for.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    name = "-".join(["python", *requirements, *([bare] if bare else []), str(sys.version_info.minor)])
    folder = cache / "local_hub_tests" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    with durable.locked(folder.with_suffix(".lock")):
        if not (folder / "installed").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)
            _pip(python, *requirements)
            if bare:
                _pip(python, "--no-deps", "--ignore-requires-python", bare)
            (folder / "installed").touch()
    return python


def _pip(python: Path, *words: str) -> None:
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *words]
    try:
        done = subprocess.run(pip, text=True, capture_output=True, timeout=180)
    except subprocess.TimeoutExpired:
        pytest.skip("the package index did not answer within 180 s")
    if done.returncode:
        pytest.skip(f"pip could not install {words}: {done.stderr.strip().splitlines()[-1:]}")


def run(python: Path, program: str, environment: dict[str, str]) -> Any:
    """What a program prints, as JSON; fails the test where it fails. It sees no variable but those of `environment`."""
    done = subprocess.run(
        [python, "-I", "-c", program], env={"PATH": "/usr/bin:/bin"} | environment, text=True, capture_output=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
