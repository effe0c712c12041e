"""Packages from npm, kept between runs outside of the project, for tests that run them."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from local_hub import durable

# The Hub's own, and axe-core.
PACKAGES = {"@huggingface/hub": "2.17.5", "@huggingface/tasks": "0.21.54", "axe-core": "4.14.1"}


def install(versions: dict[str, str] = PACKAGES) -> Path:
    """A folder with these packages; skips the test where it cannot be had."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "local_hub_tests" / ("npm-" + "-".join(versions.values()))
    folder.mkdir(parents=True, exist_ok=True)
    with durable.locked(folder / "install.lock"):
        if not (folder / "installed").exists():
            packages = [f"{name}@{version}" for name, version in versions.items()]
            command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *packages]
            try:
                done = subprocess.run(command, cwd=folder, text=True, capture_output=True, timeout=120)
            except subprocess.TimeoutExpired:
                pytest.skip("the npm registry did not answer within 120 s")
            if done.returncode:
                pytest.skip(f"npm could not install {packages}: {done.stderr.strip().splitlines()[-1:]}")
            (folder / "installed").touch()
    return folder


def run(program: str, scratch: Path, environment: dict[str, str], versions: dict[str, str] = PACKAGES) -> Any:
    """What a JavaScript program prints, as JSON; fails the test where it fails. ``scratch`` names the test uniquely."""
    folder = install(versions)
    # The program must lie beside node_modules for node to find the packages.
    path = folder / f"{scratch.name}-{os.getpid()}.mjs"
    path.write_text(program)
    try:
        done = subprocess.run(["node", path], env=environment, text=True, capture_output=True, timeout=120)
    finally:
        path.unlink()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
