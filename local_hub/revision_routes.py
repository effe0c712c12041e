"""Routes about a repository's history: trees, paths, commits, branches and tags, and the files themselves."""

from __future__ import annotations

import mimetypes
import re
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs

from dulwich.objects import Commit, Tag
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from . import access, history, lfs, xet
from .errors import HubError, entry_not_found, revision_not_found
from .store import Repository
from .web import (
    answer,
    api_path,
    base_url,
    identity_of,
    json_body,
    next_page,
    repository_of,
    revision_of,
    route,
    settings_of,
    split_revision,
    store_of,
)


def _entry(request: Request, repository: Repository, path: str, is_folder: bool, sha: bytes) -> dict[str, Any]:
    if is_folder:
        return {"type": "directory", "oid": sha.decode(), "size": 0, "path": path}
    info = history.file_info(repository.git, sha)
    entry: dict[str, Any] = {"type": "file", "oid": info.blob, "size": info.size, "path": path}
    if info.sha256:
        entry["lfs"] = {"oid": info.sha256, "size": info.size, "pointerSize": info.pointer_size}
        if hash := xet.hash_of(store_of(request), info.sha256):
            entry["xetHash"] = hash
    return entry


def _expand(repository: Repository, commit: str, entry: dict[str, Any]) -> None:
    changed = history.last_change(repository.git, commit, entry["path"])
    title = changed.message.decode().partition("\n")[0]
    entry["lastCommit"] = {"id": changed.id.decode(), "title": title, "date": history.iso_date(changed.commit_time)}
    if entry["type"] == "file":
        entry["securityFileStatus"] = {"status": "unscanned", "avScan": None, "pickleImportScan": None}


def tree(request: Request, body: bytes) -> Response:
    """The entries of a folder, page by page; the next page stays at the same commit even if the branch moves on."""
    repository = repository_of(request)
    revision, folder = split_revision(request.path_params["rest"])
    query = request.query_params
    commit, _, start = query.get("cursor", "").partition(":")
    commit = history.resolve(repository.git, commit or revision)
    recursive = query.get("recursive", "").lower() in ("true", "1")
    entries = sorted(history.entries(repository.git, commit, folder.strip("/"), recursive))
    first = int(start or 0)
    limit = min(int(query.get("limit", settings_of(request).page_size)), settings_of(request).page_size)
    page = [_entry(request, repository, *item) for item in entries[first : first + limit]]
    if query.get("expand", "").lower() in ("true", "1"):
        for entry in page:
            _expand(repository, commit, entry)
    more = first + limit < len(entries)
    return answer(page, headers=next_page(request, cursor=f"{commit}:{first + limit}") if more else {})


def paths_info(request: Request, body: bytes) -> Response:
    """What some paths are; those that do not exist are left out."""
    repository = repository_of(request)
    commit = history.resolve(repository.git, revision_of(request))
    if "json" in request.headers.get("content-type", ""):
        # huggingface_hub sends a form, the npm client JSON (src/lib/paths-info.ts).
        payload = json_body(body)
        paths, expand = payload.get("paths", []), bool(payload.get("expand"))
    else:
        form = parse_qs(body.decode())
        paths, expand = form.get("paths", []), form.get("expand", [""])[0].lower() == "true"
    entries = []
    for path in paths:
        try:
            entry = _entry(request, repository, path, *history.lookup(repository.git, commit, path.strip("/")))
        except HubError:
            continue
        if expand:
            _expand(repository, commit, entry)
        entries.append(entry)
    return answer(entries)


def commits(request: Request, body: bytes) -> Response:
    """The commits of a revision, newest first, page by page."""
    repository = repository_of(request)
    commit_log = list(history.commits(repository.git, history.resolve(repository.git, revision_of(request))))
    page, size = int(request.query_params.get("p", 0)), min(settings_of(request).page_size, 50)
    items = []
    for commit in commit_log[page * size : (page + 1) * size]:
        title, _, message = commit.message.decode().partition("\n")
        item: dict[str, Any] = {
            "id": commit.id.decode(),
            "title": title,
            "message": message.strip(),
            "date": history.iso_date(commit.commit_time),
            "authors": [{"user": commit.author.decode().partition(" <")[0], "avatar": ""}],
        }
        if "formatted" in request.query_params.getlist("expand[]"):
            item["formatted"] = {"title": title, "message": item["message"]}
        items.append(item)
    headers = {"X-Total-Count": str(len(commit_log))}
    if (page + 1) * size < len(commit_log):
        headers |= next_page(request, p=page + 1)
    return answer(items, headers=headers)


def refs(request: Request, body: bytes) -> Response:
    """Branches and tags and, if asked for, pull requests."""
    repository = repository_of(request)
    references: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": []}
    groups = {"refs/heads/": "branches", "refs/tags/": "tags"}
    if request.query_params.get("include_prs"):
        references["pullRequests"] = []
        groups["refs/pr/"] = "pullRequests"
    for ref, sha in sorted(repository.git.refs.as_dict().items()):
        for prefix, group in groups.items():
            if ref.startswith(prefix.encode()):
                name = ref.decode().removeprefix(prefix)
                item = {"name": name, "ref": ref.decode(), "targetCommit": history.peel(repository.git, sha)}
                references[group].append(item)
    return answer(references)


def _check_ref_name(name: str) -> str:
    bad = re.search(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock$|^[/.-]|[/.]$|/\.|\.lock/", name)
    if bad or not name or name == "HEAD" or re.fullmatch(r"[0-9a-f]{40}", name) or name.startswith("refs/"):
        raise HubError(400, f"Invalid name for a branch or a tag: {name!r}")
    return name


def _check_free(repository: Repository, ref: str) -> None:
    # In git a reference is a file: next to "a" there can be no "a/b".
    for other in map(bytes.decode, repository.git.refs.as_dict()):
        if f"{other}/".startswith(f"{ref}/") or f"{ref}/".startswith(f"{other}/"):
            raise HubError(409, f"Reference {other} already exists")


def _writable(request: Request) -> tuple[Repository, access.Identity]:
    repository = repository_of(request)
    return repository, access.check_write(identity_of(request), repository)


def create_branch(request: Request, body: bytes) -> Response:
    """Start a branch at a revision, main where none is given; 409 where it exists."""
    repository, _ = _writable(request)
    name = _check_ref_name(revision_of(request))
    with repository.exclusive():
        _check_free(repository, f"refs/heads/{name}")
        start = json_body(body).get("startingPoint") or history.DEFAULT_BRANCH
        history.set_ref(repository.git, f"refs/heads/{name}".encode(), history.resolve(repository.git, start))
    return answer({})


def create_tag(request: Request, body: bytes) -> Response:
    """Name a revision by a tag, annotated if there is a message; 409 where it exists."""
    repository, identity = _writable(request)
    payload = json_body(body)
    git = repository.git
    with repository.exclusive():
        commit = history.resolve(git, revision_of(request))
        name = _check_ref_name(str(payload.get("tag", "")))
        ref = f"refs/tags/{name}".encode()
        _check_free(repository, ref.decode())
        if payload.get("message"):
            tag = Tag()
            tag.name, tag.message = name.encode(), payload["message"].encode()
            tag.object = (Commit, commit.encode())
            tag.tagger = f"{identity.user} <{identity.user}@users.noreply.hub.local>".encode()
            tag.tag_time, tag.tag_timezone = int(time.time()), 0
            git.object_store.add_object(tag)
            commit = tag.id.decode()
        history.set_ref(git, ref, commit)
    return answer({})


def delete_ref(request: Request, body: bytes) -> Response:
    """Delete a branch or a tag; the default branch stays."""
    repository, _ = _writable(request)
    group = "heads" if request.scope["route_name"] == "branch" else "tags"
    name = revision_of(request)
    if (group, name) == ("heads", history.DEFAULT_BRANCH):
        raise HubError(403, f"Cannot delete refs/heads/{name}")
    ref = f"refs/{group}/{name}".encode()
    with repository.exclusive():
        if ref not in repository.git.refs:
            raise revision_not_found(name)
        repository.git.refs.remove_if_equals(ref, None)
    return answer({})


def squash(request: Request, body: bytes) -> Response:
    """Replace the history of a branch or a pull request by one commit of its files."""
    repository, identity = _writable(request)
    git, message = repository.git, str(json_body(body).get("message") or "Super-squash")
    with repository.exclusive():
        ref = history.writable_ref(git, revision_of(request))
        tree = history.files(git, history.resolve(git, ref.decode()))
        history.set_ref(git, ref, history.write_commit(git, tree, None, message, identity.user))
    return answer({})


def resolve(request: Request, body: bytes) -> Response:
    """A file of a revision, whole or a range of it."""
    repository = repository_of(request)
    access.check_content(identity_of(request), repository)
    revision, path = split_revision(request.path_params["rest"])
    commit = history.resolve(repository.git, revision)
    is_folder, sha = history.lookup(repository.git, commit, path)
    if is_folder:
        raise entry_not_found(path, commit)
    info = history.file_info(repository.git, sha)
    name = PurePosixPath(path).name
    headers = {
        "X-Repo-Commit": commit,
        "ETag": f'"{info.sha256 or info.blob}"',
        "Accept-Ranges": "bytes",
        "Content-Type": mimetypes.guess_type(name)[0] or "application/octet-stream",
    }
    if request.scope["route_name"] == "raw" or not info.sha256:
        return content(request, repository.git[sha].data, headers)
    store = store_of(request)
    headers |= {"X-Linked-Size": str(info.size), "X-Linked-ETag": headers["ETag"]}
    if hash := xet.hash_of(store, info.sha256):
        # The client asks this link for a token and then reads by Xet (huggingface_hub/utils/_xet.py).
        link = f"{base_url(request)}/api/{repository.kind}s/{repository.id}/xet-read-token/{commit}"
        headers |= {"X-Xet-Hash": hash, "Link": f'<{link}>; rel="xet-auth"'}
    return content(request, lfs.path_of(store, info.sha256), headers)


def content(request: Request, source: bytes | Path, headers: dict[str, str]) -> Response:
    """Bytes or a file as the answer, whole or the range that is asked for; raises 416."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    span = byte_range(request.headers.get("range"), size)
    first, last = span or (0, size - 1)
    headers = {**headers, "Content-Length": str(last - first + 1)}
    if span:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    pieces = _pieces(source, first, last) if request.method != "HEAD" else iter(())
    return StreamingResponse(pieces, 206 if span else 200, headers)


def _pieces(source: bytes | Path, first: int, last: int) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source[first : last + 1]
        return
    with source.open("rb") as file:
        file.seek(first)
        remaining = last - first + 1
        while remaining > 0 and (data := file.read(min(remaining, lfs.READ_SIZE))):
            remaining -= len(data)
            yield data


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first and last byte that a ``Range`` header asks for; None for the whole. Raises 416 past the end."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if not match or match[0] == "bytes=-":
        return None
    if not match[1]:
        first, last = max(size - int(match[2]), 0), size - 1
    else:
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
    if first > last or first >= size:
        raise HubError(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{size}"})
    return first, last


routes = [
    route("GET", api_path("/tree/{rest:path}"), "tree", tree),
    route("POST", api_path("/paths-info/{revision}"), "paths_info", paths_info),
    route("GET", api_path("/commits/{revision}"), "commits", commits),
    route("GET", api_path("/refs"), "refs", refs),
    route("POST", api_path("/branch/{revision}"), "branch", create_branch),
    route("DELETE", api_path("/branch/{revision}"), "branch", delete_ref),
    route("POST", api_path("/tag/{revision}"), "tag", create_tag),
    route("DELETE", api_path("/tag/{revision}"), "tag", delete_ref),
    route("POST", api_path("/super-squash/{revision}"), "squash", squash),
    *(
        route("GET", f"{prefix}/{{namespace}}/{{name}}/{verb}/{{rest:path}}", verb, resolve)
        for verb in ("resolve", "raw")
        for prefix in ("/{types}", "")
    ),
]
