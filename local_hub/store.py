"""Where repositories live on disk: one bare git repository each, with the Hub's own facts about it next to it.

    ROOT/repos/models/NAMESPACE/NAME.git/   a bare git repository; git itself can clone it
        hub.json                            visibility, gating, who was let in, when it was created
        discussions.json                    discussions and pull requests
    ROOT/lfs/  ROOT/xet/                    large files by their hash, shared between repositories
    ROOT/users.json  orgs.json  private_orgs.json  quotas.json  publishers.json  collections.json  redirects.json
        store.json

A repository appears and disappears by one rename, so a kill leaves it whole or absent.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dulwich.repo import Repo

from . import durable
from .errors import HubError, repository_not_found

FOLDERS = {"model": "models", "dataset": "datasets", "space": "spaces"}
PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}
KINDS = {folder: kind for kind, folder in FOLDERS.items()}

# huggingface_hub/utils/_validators.py refuses anything else before it sends a request.
NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
# The Hub's sentence for a bad name (LLaMa2lang#6, and for .ipynb later reports); .lock is refused here as git would.
BAD_NAME = (
    "Only regular characters and '-', '_', '.' are accepted. '--' and '..' are forbidden. '-' and '.' cannot start or "
    'end the name. The name cannot end with ".git" or ".ipynb". Max length is 96.'
)
BAD_ENDINGS = (".git", ".ipynb", ".lock")
# Pages of the Hub itself, as https://huggingface.co/NAME or https://huggingface.co/NAMESPACE/NAME: assumed to be all.
RESERVED = frozenset(["api", "collections", "datasets", "models", "oauth", "organizations", "settings", "spaces"])


@dataclass(eq=False)
class Repository:
    """One repository: its ``kind`` (``model``, ``dataset`` or ``space``), its ``id``, and its open git storage."""

    kind: str
    id: str
    path: Path
    git: Repo
    gone: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the repository for a read-then-write; raises 404 where it was deleted or moved meanwhile."""
        with self._lock:
            if self.gone:
                raise repository_not_found(anonymous=False)
            yield

    @property
    def resource(self) -> str:
        """What tells it from every other: its id, after its kind unless it is a model, as in its page's address."""
        return PREFIXES[self.kind] + self.id

    @property
    def facts(self) -> dict[str, Any]:
        """The Hub's own facts: ``private``, ``gated``, ``granted``, ``createdAt``, ``createdBy`` and the like."""
        return durable.read_json(self.path / "hub.json", {})

    def change_facts(self, **changes: Any) -> None:
        """Change some of the facts, durably."""
        with self.exclusive():
            durable.write_json(self.path / "hub.json", {**self.facts, **changes})


class Store:
    """Every repository under one root folder. One server process at a time may use a root."""

    def __init__(self, root: Path):
        self.root = root
        shutil.rmtree(root / "tmp", ignore_errors=True)
        for name in ("repos", "lfs", "xet", "tmp"):
            (root / name).mkdir(parents=True, exist_ok=True)
        if not (root / "store.json").exists():
            facts = {"id": uuid.uuid4().hex, "secret": secrets.token_hex(32)}
            durable.write_json(root / "store.json", facts, mode=0o600)
        identity = durable.read_json(root / "store.json", {})
        self.id: str = identity["id"]
        self.secret: str = identity["secret"]
        self._open: dict[Path, Repository] = {}
        self._lock = threading.RLock()

    def _path(self, kind: str, id: str) -> Path:
        namespace, name = split_id(id)
        return self.root / "repos" / FOLDERS[kind] / namespace / f"{name}.git"

    def temporary(self) -> Path:
        """A fresh path on the root's own file system, for building something that a rename publishes."""
        return self.root / "tmp" / uuid.uuid4().hex

    def find(self, kind: str, id: str) -> Repository | None:
        """The repository of exactly this id, or None."""
        if not all(NAME.fullmatch(part) for part in id.split("/")) or id.count("/") != 1:
            return None
        path = self.root / "repos" / FOLDERS[kind] / f"{id}.git"
        with self._lock:
            if path not in self._open:
                if not path.exists():
                    return None
                self._open[path] = Repository(kind, id, path, Repo(str(path)))
            return self._open[path]

    def true_id(self, kind: str, id: str) -> str | None:
        """The own id of a repository that is asked for in another case, or by the id that it had before a move."""
        redirects = durable.read_json(self.root / "redirects.json", {}).get(kind, {})
        moves = {old.lower(): new for old, new in redirects.items()}
        seen: set[str] = set()
        while id.lower() not in seen:
            seen.add(id.lower())
            if present := self._in_any_case(kind, id):
                return present
            id = moves.get(id.lower(), id)
        return None

    def _in_any_case(self, kind: str, id: str) -> str | None:
        for path in (self.root / "repos" / FOLDERS[kind]).glob("*/*.git"):
            present = f"{path.parent.name}/{path.name.removesuffix('.git')}"
            if present.lower() == id.lower():
                return present
        return None

    def create(self, kind: str, id: str, **facts: Any) -> Repository:
        """Make an empty repository; raises 409 where the id is taken, in any case, and 400 where it is no id."""
        path = self._path(kind, id)
        with self._lock:
            if present := self._in_any_case(kind, id):
                raise HubError(409, f"You already created this {kind} repo: {present}")
            building = self.temporary()
            building.mkdir()
            try:
                git = Repo.init_bare(str(building), default_branch=b"main")
                config = git.get_config()
                config.set((b"core",), b"fsyncObjectFiles", True)
                config.write_to_path()
                git.close()
                created = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
                facts = {"private": False, "gated": False, "createdAt": created, **facts}
                durable.write_json(building / "hub.json", facts)
                self._forget_redirect(kind, id)
                durable.publish(building, path)
            except OSError:
                shutil.rmtree(building, ignore_errors=True)
                raise
            repository = self.find(kind, id)
            assert repository is not None
            return repository

    def delete(self, repository: Repository) -> None:
        """Remove a repository; large files stay, since other repositories may hold the same content."""
        trash = self.temporary()
        with self._lock, repository.exclusive():
            durable.publish(repository.path, trash)
            repository.gone = True
            self._open.pop(repository.path).git.close()
        shutil.rmtree(trash)

    def move(self, repository: Repository, id: str) -> None:
        """Give a repository another id; its old id redirects. Raises 409 where the new id is taken."""
        path = self._path(repository.kind, id)
        with self._lock, repository.exclusive():
            present = self._in_any_case(repository.kind, id)
            if present is not None and (present != repository.id or present == id):
                raise HubError(409, f"A {repository.kind} repository called {present} already exists")
            # The redirect goes first: until the rename it is not consulted, because the old id is still there.
            redirects = durable.read_json(self.root / "redirects.json", {})
            redirects.setdefault(repository.kind, {})[repository.id] = id
            redirects[repository.kind].pop(id, None)
            durable.write_json(self.root / "redirects.json", redirects)
            durable.publish(repository.path, path)
            repository.gone = True
            self._open.pop(repository.path).git.close()

    def _forget_redirect(self, kind: str, id: str) -> None:
        redirects = durable.read_json(self.root / "redirects.json", {})
        if redirects.get(kind, {}).pop(id, None):
            durable.write_json(self.root / "redirects.json", redirects)

    def all(self, kind: str) -> list[Repository]:
        """Every repository of a kind, in the order of their ids."""
        repositories = []
        for path in sorted((self.root / "repos" / FOLDERS[kind]).glob("*/*.git")):
            repository = self.find(kind, f"{path.parent.name}/{path.name.removesuffix('.git')}")
            if repository:
                repositories.append(repository)
        return repositories


def split_id(id: str) -> tuple[str, str]:
    """``namespace/name`` in its two parts; raises 400 where it is not such an id."""
    namespace, _, name = id.partition("/")
    for part in (namespace, name):
        if not NAME.fullmatch(part) or part.endswith(BAD_ENDINGS):
            raise HubError(400, f"Invalid name {part!r}. {BAD_NAME}")
        if part in RESERVED:
            raise HubError(400, f"Invalid name {part!r}. It is reserved.")
    return namespace, name
