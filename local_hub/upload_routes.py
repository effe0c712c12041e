"""Routes that change a repository's files: preupload, large files over LFS, and the commit itself."""

from __future__ import annotations

import base64
import binascii
import json
import math
from dataclasses import dataclass, field
from typing import Any

from dulwich.ignore import IgnoreFilter
from dulwich.repo import Repo
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import access, discussions, history, lfs, quotas, xet
from .errors import HubError
from .store import Repository
from .web import (
    answer,
    api_path,
    base_url,
    identity_of,
    json_body,
    page_url,
    repository_of,
    revision_of,
    route,
    settings_of,
    store_of,
)


def _wants_pull_request(request: Request) -> bool:
    return request.query_params.get("create_pr") in ("1", "true")


def _writable_ref(request: Request, repository: Repository, identity: access.Identity) -> bytes:
    # Whoever may read a repository may open a pull request; anything else is for its owner.
    ref = history.writable_ref(repository.git, revision_of(request))
    if not _wants_pull_request(request):
        discussions.check_write(identity, repository, ref)
    return ref


def preupload(request: Request, body: bytes) -> Response:
    """How each file must be uploaded, whether it is ignored, and the id of what is there now.

    By that id alone the client notices that nothing changed (``_commit_api.py: CommitOperationAdd._local_oid``): for a
    regular file its git id, for a large one its sha256.
    """
    repository = repository_of(request)
    ref = _writable_ref(request, repository, access.check_token_writes(identity_of(request), repository))
    payload = json_body(body)
    commit = history.resolve(repository.git, ref.decode())
    present = history.files(repository.git, commit)

    def rules(field: str, path: str) -> bytes:
        if payload.get(field) is not None:
            return payload[field].encode()
        return repository.git[present[path]].data if path in present else b""

    attributes = history.lfs_patterns(rules("gitAttributes", ".gitattributes"))
    ignored = IgnoreFilter([line for line in rules("gitIgnore", ".gitignore").splitlines() if line.strip()])
    items = []
    for file in payload.get("files", []):
        path, size = file["path"], file["size"]
        large = history.is_large(attributes, path, size, base64.b64decode(file.get("sample") or ""))
        item = {
            "path": path,
            "uploadMode": "lfs" if large else "regular",
            "shouldIgnore": bool(ignored.is_ignored(path.encode())),
        }
        if path in present:
            info = history.file_info(repository.git, present[path])
            item["oid"] = info.sha256 or info.blob
        items.append(item)
    return answer({"files": items, "commitOid": commit})


@dataclass
class CommitRequest:
    """A commit as the client sent it."""

    summary: str = ""
    description: str = ""
    parent: str | None = None
    regular: list[tuple[str, bytes]] = field(default_factory=list)
    large: list[tuple[str, str, int | None]] = field(default_factory=list)
    deleted_files: list[str] = field(default_factory=list)
    deleted_folders: list[str] = field(default_factory=list)

    @property
    def message(self) -> str:
        """The commit message: summary, blank line, description."""
        return f"{self.summary}\n\n{self.description}" if self.description else self.summary


def parse_commit(body: bytes) -> CommitRequest:
    """Read the lines of a commit request; raises 400."""
    changes = CommitRequest()
    try:
        for line in body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                changes.summary, changes.description = value["summary"], value.get("description") or ""
                changes.parent = value.get("parentCommit")
            elif key == "file":
                content = value.get("content", "")
                data = base64.b64decode(content) if value.get("encoding") == "base64" else content.encode()
                changes.regular.append((history.check_path(value["path"]), data))
            elif key == "lfsFile":
                changes.large.append((history.check_path(value["path"]), value["oid"], value.get("size")))
            elif key == "deletedFile":
                changes.deleted_files.append(value["path"])
            elif key == "deletedFolder":
                changes.deleted_folders.append(value["path"].rstrip("/"))
            else:
                raise HubError(400, f"Unknown operation: {key}")
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise HubError(400, f"Malformed commit: {error!r}") from None
    if not changes.summary:
        raise HubError(400, "A commit needs a summary")
    return changes


def apply(repository: Repository, changes: CommitRequest, commit: str) -> dict[str, bytes]:
    """The files of ``commit`` after the wanted changes; raises EntryNotFound where one to delete is not there."""
    git = repository.git
    tree = history.files(git, commit)
    for path in changes.deleted_files:
        history.lookup(git, commit, path)
        tree.pop(path, None)
    for folder in changes.deleted_folders:
        history.lookup(git, commit, folder)
        for path in [path for path in tree if path.startswith(f"{folder}/")]:
            del tree[path]
    for path, data in changes.regular:
        history.put(tree, path, history.add_blob(git, data))
    for path, sha256, size in changes.large:
        assert size is not None
        history.put(tree, path, history.add_blob(git, history.pointer(sha256, size)))
    _cover(git, tree, [path for path, *_ in changes.large])
    return tree


def _cover(git: Repo, tree: dict[str, bytes], large: list[str]) -> None:
    """Give ``.gitattributes`` a line for each large file that none of its patterns covers, as the Hub does."""
    attributes = git[tree[".gitattributes"]].data if ".gitattributes" in tree else b""
    patterns = history.lfs_patterns(attributes)
    if added := [path for path in large if not history.is_covered(patterns, path)]:
        attributes += b"\n" if attributes and not attributes.endswith(b"\n") else b""
        tree[".gitattributes"] = history.add_blob(git, attributes + b"".join(map(history.attribute, added)))


def parent_of(request: Request, changes: CommitRequest, git: Repo, ref: bytes) -> str:
    """The commit to build on: the branch's head; a pull request may start at an older one (`HfApi.create_commit`).

    Raises 412 where the client's parent is not the head any more.
    """
    head = history.resolve(git, ref.decode())
    if changes.parent and _wants_pull_request(request):
        return history.resolve(git, changes.parent)
    if changes.parent and not head.startswith(changes.parent.lower()):
        raise HubError(412, "The branch was updated since you opened this page. Please refresh and try again.")
    return head


def commit(request: Request, body: bytes) -> Response:
    """Make one commit of all the changes, or none; with ``create_pr`` on a new pull request.

    When this answers, the commit and every file it names are on disk, and each large file was checked by its sha256.
    """
    repository = repository_of(request)
    identity = access.check_token_writes(identity_of(request), repository)
    git, ref = repository.git, _writable_ref(request, repository, identity)
    changes = parse_commit(body)
    parent_of(request, changes, git, ref)
    store = store_of(request)
    # Unpacking a Xet upload takes time: before the lock, so that other commits do not wait for it.
    changes.large = [(path, sha256, xet.ensure(store, sha256, size)) for path, sha256, size in changes.large]
    quotas.check(store, repository, {sha256: size for _, sha256, size in changes.large if size is not None})
    with repository.exclusive():
        head = parent_of(request, changes, git, ref)
        oid = history.write_commit(git, apply(repository, changes, head), head, changes.message, identity.user)
        url = page_url(repository, request)
        reply: dict[str, Any] = {
            "success": True,
            "commitOid": oid,
            "commitUrl": f"{url}/commit/{oid}",
            "hookOutput": "",
        }
        if _wants_pull_request(request):
            number = discussions.open_pull_request(
                repository, identity.user, changes.summary, changes.description, ref.decode(), oid, status="open"
            )
            reply["pullRequestUrl"] = f"{url}/discussions/{number}"
        else:
            history.set_ref(git, ref, oid)
            discussions.note_commit(repository, ref, identity.user, changes.summary, oid)
    return answer(reply)


def lfs_batch(request: Request, body: bytes) -> Response:
    """Where to upload large files; no action for those the Hub has. Links are signed: the PUT has no token."""
    repository = repository_of(request)
    access.check_token_writes(identity_of(request), repository)
    payload = json_body(body)
    if payload.get("operation") != "upload":
        raise HubError(422, "Only uploads are served here; files are downloaded from their resolve address")
    store = store_of(request)
    quotas.check(store, repository, {item["oid"]: item["size"] for item in payload.get("objects", [])})
    use_xet = "xet" in payload.get("transfers", [])
    objects = []
    for item in payload.get("objects", []):
        sha256, size = item["oid"], item["size"]
        entry = {"oid": sha256, "size": size}
        if not xet.HASH.fullmatch(sha256):
            entry["error"] = {"code": 422, "message": "Invalid oid"}
        elif lfs.size_of(store, sha256) is None:
            entry["authenticated"] = True
            entry["actions"] = _xet_action(request, repository) if use_xet else _lfs_actions(request, sha256, size)
        objects.append(entry)
    return answer({"transfer": "xet" if use_xet else "basic", "objects": objects})


def _xet_action(request: Request, repository: Repository) -> dict[str, Any]:
    # Only the npm client asks for this (src/lib/commit.ts); the Python clients go to the token route themselves.
    url = f"{base_url(request)}/api/{repository.kind}s/{repository.id}/xet-write-token/{history.DEFAULT_BRANCH}"
    token, expires = access.xet_token(store_of(request).secret, "write")
    cas = f"{base_url(request)}/xet/{store_of(request).id}"
    header = {"X-Xet-Cas-Url": cas, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(expires)}
    return {"upload": {"href": url, "header": header}}


def _lfs_actions(request: Request, sha256: str, size: int) -> dict[str, Any]:
    part_size, secret = settings_of(request).lfs_part_size, store_of(request).secret
    base = f"{base_url(request)}/lfs/{sha256}"
    verify = {"href": f"{base}/verify", "header": {}}
    if size <= part_size:
        href = f"{base}?size={size}&signature={access.sign(secret, sha256, size)}"
        return {"upload": {"href": href, "header": {}}, "verify": verify}
    count = math.ceil(size / part_size)
    header: dict[str, str] = {"chunk_size": str(part_size)}
    for number in range(1, count + 1):
        signature = access.sign(secret, sha256, "part", number)
        header[f"{number:05d}"] = f"{base}/part/{number}?signature={signature}"
    href = f"{base}/complete?size={size}&count={count}&signature={access.sign(secret, sha256, size, count)}"
    return {"upload": {"href": href, "header": header}, "verify": verify}


async def lfs_put(request: Request) -> Response:
    """Take a large file in one piece."""
    store, sha256, size = store_of(request), request.path_params["sha256"], request.query_params.get("size", "")
    access.check_signature(store.secret, request.query_params.get("signature", ""), sha256, size)
    await lfs.receive(store, request.stream(), sha256, int(size))
    return Response()


def lfs_part(request: Request, body: bytes) -> Response:
    """Take one part of a large file; the client sends its ETag back in the completion."""
    store, sha256, number = store_of(request), request.path_params["sha256"], request.path_params["number"]
    access.check_signature(store.secret, request.query_params.get("signature", ""), sha256, "part", number)
    return Response(headers={"ETag": lfs.put_part(store, sha256, number, body)})


def lfs_complete(request: Request, body: bytes) -> Response:
    """Join the parts of a large file; 422 where they are not what the client announced."""
    store, sha256, query = store_of(request), request.path_params["sha256"], request.query_params
    size, count = query.get("size", ""), query.get("count", "")
    access.check_signature(store.secret, query.get("signature", ""), sha256, size, count)
    etags = [part["etag"] for part in sorted(json_body(body).get("parts", []), key=lambda part: part["partNumber"])]
    lfs.join_parts(store, sha256, int(size), etags)
    return answer({"success": True})


def lfs_verify(request: Request, body: bytes) -> Response:
    """Whether an upload has arrived."""
    if lfs.size_of(store_of(request), request.path_params["sha256"]) != json_body(body).get("size"):
        raise HubError(404, "The upload has not arrived")
    return answer({})


routes = [
    route("POST", api_path("/preupload/{revision}"), "preupload", preupload),
    route("POST", api_path("/commit/{revision}"), "commit", commit),
    *(
        route("POST", f"{prefix}/{{namespace}}/{{name}}.git/info/lfs/objects/batch", "lfs_batch", lfs_batch)
        for prefix in ("/{types}", "")
    ),
    Route("/lfs/{sha256}", lfs_put, methods=["PUT"], name="lfs_put"),
    route("PUT", "/lfs/{sha256}/part/{number:int}", "lfs_part", lfs_part),
    route("POST", "/lfs/{sha256}/complete", "lfs_complete", lfs_complete),
    route("POST", "/lfs/{sha256}/verify", "lfs_verify", lfs_verify),
]
