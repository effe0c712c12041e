"""Put given content into a store, the same bytes always as the same commits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from . import durable, history, lfs
from .repo_routes import create_in
from .store import Repository, Store, split_id

AUTHOR = "local-hub"
DATE = 1735689600  # 2025-01-01 00:00:00 UTC


class Content(Protocol):
    """A repository to be seeded: its kind (``model`` or ``dataset``), its id, and the bytes of each file by path."""

    kind: str
    id: str
    files: dict[str, bytes]


def seed(store: Store, repositories: Iterable[Content]) -> None:
    """Commit each repository's content as one commit, with a fixed author and date.

    What is seeded already with the same content is left alone, whatever users committed on top. Other content than last
    time is one more commit on main.
    """
    for content in repositories:
        fingerprint = _fingerprint(content.files)
        repository = store.find(content.kind, content.id)
        if repository is None:
            repository = create_in(store, content.kind, content.id, split_id(content.id)[0], DATE)
        if repository.facts.get("seeded") != fingerprint:
            _commit(store, repository, content.files)
            repository.change_facts(seeded=fingerprint)


def _fingerprint(files: dict[str, bytes]) -> str:
    listing = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    return hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()


def _commit(store: Store, repository: Repository, files: dict[str, bytes]) -> None:
    git = repository.git
    patterns = history.lfs_patterns(files.get(".gitattributes", history.GITATTRIBUTES))
    with repository.exclusive():
        tree = {".gitattributes": history.add_blob(git, history.GITATTRIBUTES)}
        for path, data in sorted(files.items()):
            if history.is_large(patterns, path, len(data), data[:512]):
                data = history.pointer(lfs.put(store, data), len(data))
            history.put(tree, history.check_path(path), history.add_blob(git, data))
        head = history.resolve(git, history.DEFAULT_BRANCH)
        if tree == history.files(git, head):
            # A kill came between the commit and the note that it was made.
            return
        commit = history.write_commit(git, tree, head, "Seed", AUTHOR, DATE)
        history.set_ref(git, b"refs/heads/main", commit)


def seed_miniatures(store: Store) -> None:
    """Seed the miniatures, unless that was done with the very same miniatures before."""
    folder = Path(__file__).parent / "miniatures"
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    marker = store.root / "seeded.json"
    if durable.read_json(marker, None) != digest.hexdigest():
        from . import miniatures

        seed(store, miniatures.repositories())
        durable.write_json(marker, digest.hexdigest())
