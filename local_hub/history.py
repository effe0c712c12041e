"""A repository's history: revisions, trees, files and commits, over git's own objects (dulwich).

Paths are ``str`` with ``/``. Commits are named by 40 hexadecimal digits as ``str``, blobs and trees by the same as
``bytes``. A large file is in git a small pointer file (git-lfs specification v1), as on the real Hub: its git id is
the pointer's.
"""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

from dulwich.attrs import GitAttributes, compile_gitattributes_patterns, parse_git_attributes
from dulwich.errors import NotTreeError
from dulwich.index import commit_tree
from dulwich.object_store import iter_tree_contents
from dulwich.objects import Blob, Commit, Tag, Tree
from dulwich.repo import Repo

from .errors import HubError, entry_not_found, revision_not_found

DEFAULT_BRANCH = "main"
POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n")
FILE_MODE = 0o100644

_LARGE = """
*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx *.ot
*.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm *.xz
*.zip *.zst *tfevents*
"""
# The file that the Hub puts into every new repository as its first commit.
GITATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in _LARGE.split()).encode()
# The file that it puts into a new Space besides.
SPACE_README = """---
title: {title}
emoji: 🏢
colorFrom: red
colorTo: purple
sdk: {sdk}
pinned: false
---

Check out the configuration reference at https://huggingface.co/docs/hub/spaces-config-reference
"""


@dataclass(frozen=True)
class FileInfo:
    """What a blob is: its ``size`` in bytes as the user sees it and, for a large file, its ``sha256``."""

    blob: str
    size: int
    sha256: str | None = None
    pointer_size: int | None = None


# Blobs are named by their content, so this holds for every repository and never goes stale.
_INFO: dict[bytes, FileInfo] = {}


def pointer(sha256: str, size: int) -> bytes:
    """The pointer file that stands in git for a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def iso_date(seconds: int) -> str:
    """A time in seconds since 1970 as the Hub writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))


def file_info(git: Repo, blob: bytes) -> FileInfo:
    """What the blob named by 40 digits is."""
    if blob not in _INFO:
        data = git[blob].data
        pointer = POINTER.fullmatch(data) if len(data) < 200 else None
        if pointer:
            _INFO[blob] = FileInfo(blob.decode(), int(pointer[2]), pointer[1].decode(), len(data))
        else:
            _INFO[blob] = FileInfo(blob.decode(), len(data))
    return _INFO[blob]


def resolve(git: Repo, revision: str) -> str:
    """The commit that a branch, tag, ``refs/...``, ``HEAD`` or (short) commit id names; raises RevisionNotFound."""
    name = DEFAULT_BRANCH if revision == "HEAD" else revision
    candidates = [name] if name.startswith("refs/") else [f"refs/heads/{name}", f"refs/tags/{name}"]
    for candidate in candidates:
        try:
            return peel(git, git.refs[candidate.encode()])
        except (KeyError, ValueError):
            continue
    if re.fullmatch(r"[0-9a-fA-F]{7,40}", name):
        for sha in git.object_store.iter_prefix(name.lower().encode()):
            if isinstance(git[sha], Commit):
                return sha.decode()
    raise revision_not_found(revision)


def peel(git: Repo, sha: bytes) -> str:
    """The commit that an annotated tag, or a commit, stands for."""
    target = git[sha]
    while isinstance(target, Tag):
        target = git[target.object[1]]
    return target.id.decode()


def writable_ref(git: Repo, revision: str) -> bytes:
    """The full name of the branch or pull request that commits to ``revision`` go to; raises RevisionNotFound."""
    name = DEFAULT_BRANCH if revision == "HEAD" else revision
    ref = name if name.startswith("refs/") else f"refs/heads/{name}"
    if ref.startswith(("refs/heads/", "refs/pr/")) and ref.encode() in git.refs:
        return ref.encode()
    raise revision_not_found(revision)


def files(git: Repo, commit: str) -> dict[str, bytes]:
    """Every file of a commit: path to blob id."""
    tree = git[commit.encode()].tree
    return {entry.path.decode(): entry.sha for entry in iter_tree_contents(git.object_store, tree)}


def lookup(git: Repo, commit: str, path: str) -> tuple[bool, bytes]:
    """Whether ``path`` is a folder, and its git id; raises EntryNotFound."""
    tree = git[git[commit.encode()].tree]
    if not path:
        return True, tree.id
    try:
        mode, sha = tree.lookup_path(git.object_store.__getitem__, path.encode())
    except (KeyError, NotTreeError):
        raise entry_not_found(path, commit) from None
    return stat.S_ISDIR(mode), sha


def read_file(git: Repo, commit: str, path: str) -> bytes:
    """A file's bytes as git holds them (for a large file: its pointer); raises EntryNotFound."""
    is_folder, sha = lookup(git, commit, path)
    if is_folder:
        raise entry_not_found(path, commit)
    return git[sha].data


def entries(git: Repo, commit: str, folder: str = "", recursive: bool = False) -> Iterator[tuple[str, bool, bytes]]:
    """The entries of a folder: path, whether it is a folder, git id; raises EntryNotFound."""
    is_folder, sha = lookup(git, commit, folder)
    if not is_folder:
        raise entry_not_found(folder, commit)
    yield from _walk(git, sha, f"{folder}/" if folder else "", recursive)


def _walk(git: Repo, tree: bytes, prefix: str, recursive: bool) -> Iterator[tuple[str, bool, bytes]]:
    for item in git[tree].iteritems():
        path = prefix + item.path.decode()
        is_folder = stat.S_ISDIR(item.mode)
        yield path, is_folder, item.sha
        if is_folder and recursive:
            yield from _walk(git, item.sha, f"{path}/", recursive)


def commits(git: Repo, commit: str) -> Iterator[Commit]:
    """The history of a commit, newest first; on the Hub it has no merges."""
    sha: bytes | None = commit.encode()
    while sha:
        current = git[sha]
        yield current
        sha = current.parents[0] if current.parents else None


def last_change(git: Repo, commit: str, path: str) -> Commit:
    """The commit that gave ``path`` the content it has at ``commit``."""
    current = lookup(git, commit, path)
    latest = git[commit.encode()]
    for candidate in commits(git, commit):
        try:
            if lookup(git, candidate.id.decode(), path) != current:
                break
        except HubError:
            break
        latest = candidate
    return latest


def check_path(path: str) -> str:
    """``path`` if a repository may hold a file there; raises 400, and 422 where it climbs on Windows."""
    if "..\\" in path:
        raise HubError(422, f"Invalid path in repository: {path!r}")
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts) or "\0" in path:
        raise HubError(400, f"Invalid path in repository: {path!r}")
    return path


def put(tree: dict[str, bytes], path: str, blob: bytes) -> None:
    """Set a file in ``tree``; a file in the way of its folders, or a folder in its own place, gives way as in git."""
    parts = path.split("/")
    for depth in range(1, len(parts)):
        tree.pop("/".join(parts[:depth]), None)
    for inside in [other for other in tree if other.startswith(f"{path}/")]:
        del tree[inside]
    tree[path] = blob


def add_blob(git: Repo, data: bytes) -> bytes:
    """Store bytes as a blob; its id."""
    blob = Blob.from_string(data)
    git.object_store.add_object(blob)
    return blob.id


def write_commit(
    git: Repo,
    tree: dict[str, bytes],
    parent: str | None,
    message: str,
    author: str,
    date: int | None = None,
) -> str:
    """Store a commit of these files and return its id; no ref moves. ``date`` is in seconds since 1970, default now."""
    if tree:
        root = commit_tree(git.object_store, [(path.encode(), blob, FILE_MODE) for path, blob in tree.items()])
    else:
        empty = Tree()
        git.object_store.add_object(empty)
        root = empty.id
    commit = Commit()
    commit.tree = root
    commit.parents = [parent.encode()] if parent else []
    commit.author = commit.committer = f"{author} <{author}@users.noreply.hub.local>".encode()
    commit.author_time = commit.commit_time = int(time.time()) if date is None else date
    commit.author_timezone = commit.commit_timezone = 0
    commit.encoding = b"UTF-8"
    commit.message = message.encode()
    git.object_store.add_object(commit)
    return commit.id.decode()


def set_ref(git: Repo, ref: bytes, commit: str) -> None:
    """Point a branch or pull request at a commit; it is on disk when this returns."""
    git.refs[ref] = commit.encode()


def lfs_patterns(gitattributes: bytes) -> GitAttributes:
    """The rules of a ``.gitattributes`` file; a line that is not a rule is left out, as git does."""
    return GitAttributes(compile_gitattributes_patterns(parse_git_attributes(gitattributes.splitlines(keepends=True))))


def attribute(path: str) -> bytes:
    """The line of ``.gitattributes`` that makes the file ``path`` a large one."""
    # As `git lfs track` writes them: a space would end the pattern, and the others would be one.
    pattern = re.sub(r"([\[\]*?\\])", r"\\\1", path).replace(" ", "[[:space:]]")
    return f"{pattern} filter=lfs diff=lfs merge=lfs -text\n".encode()


def is_covered(patterns: GitAttributes, path: str) -> bool:
    """Whether a rule makes the file ``path`` a large one."""
    return patterns.match_path(path.encode()).get(b"filter") == b"lfs"


def is_large(patterns: GitAttributes, path: str, size: int, sample: bytes) -> bool:
    """Whether the Hub stores a file as a large file: its name says so, or it is binary, or above 10 MB."""
    if size == 0:
        return False
    if is_covered(patterns, path):
        return True
    return size > 10_000_000 or _is_binary(sample)


def _is_binary(sample: bytes) -> bool:
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        # A sample of 512 bytes may end inside a character of up to four bytes.
        return not (error.reason == "unexpected end of data" and error.end >= len(sample) > 3)
    return b"\0" in sample
