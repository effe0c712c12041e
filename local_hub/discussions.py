"""Discussions and pull requests: a list of events each, in the repository's folder, and the merge of a pull request.

A pull request's commits are on ``refs/pr/NUMBER``. Merging puts its changes on the base branch as one commit, as on
the Hub.
"""

from __future__ import annotations

import io
import time
import uuid
from typing import Any

from dulwich.graph import find_merge_base
from dulwich.patch import write_tree_diff

from . import access, durable, history
from .errors import HubError
from .store import Repository

STATUSES = ("draft", "open", "closed", "merged")


def _now() -> str:
    return history.iso_date(int(time.time()))


def _read(repository: Repository) -> list[dict[str, Any]]:
    return durable.read_json(repository.path / "discussions.json", [])


def _write(repository: Repository, discussions: list[dict[str, Any]]) -> None:
    durable.write_json(repository.path / "discussions.json", discussions)


def _event(kind: str, author: str, **data: Any) -> dict[str, Any]:
    return {"id": uuid.uuid4().hex[:24], "author": {"name": author}, "createdAt": _now(), "type": kind, "data": data}


def _comment(author: str, text: str) -> dict[str, Any]:
    latest = {"raw": text, "html": "", "updatedAt": _now(), "author": {"name": author}}
    return _event("comment", author, edited=False, hidden=False, latest=latest, numEdits=0)


def all_of(repository: Repository) -> list[dict[str, Any]]:
    """Every discussion and pull request, newest first."""
    return [_with_repository(repository, item) for item in reversed(_read(repository))]


def _with_repository(repository: Repository, item: dict[str, Any]) -> dict[str, Any]:
    return {
        **item,
        "repo": {"name": repository.id, "type": repository.kind},
        "repoOwner": {"name": item["author"]["name"]},
    }


def get(repository: Repository, number: int) -> dict[str, Any]:
    """One discussion with its events; raises 404."""
    for item in _read(repository):
        if item["num"] == number:
            return _with_repository(repository, item)
    raise HubError(404, f"No discussion number {number}")


def open_discussion(repository: Repository, author: str, title: str, description: str) -> int:
    """Start a discussion; its number."""
    with repository.exclusive():
        return _add(repository, author, title, description, status="open", isPullRequest=False)


def open_pull_request(
    repository: Repository, author: str, title: str, description: str, base: str, commit: str, status: str
) -> int:
    """Start a pull request to the ref ``base`` at a commit that is already stored; its number."""
    if not base.startswith("refs/heads/"):
        raise HubError(400, "A pull request is opened against a branch")
    with repository.exclusive():
        number = len(_read(repository)) + 1
        # The ref goes first: a kill in between leaves a ref without a discussion, which the next number reuses.
        history.set_ref(repository.git, f"refs/pr/{number}".encode(), commit)
        changes = {"base": base}
        return _add(repository, author, title, description, status=status, isPullRequest=True, changes=changes)


def _add(repository: Repository, author: str, title: str, description: str, **fields: Any) -> int:
    items = _read(repository)
    number = len(items) + 1
    item = {"num": number, "title": title, "author": {"name": author}, "createdAt": _now(), "events": [], **fields}
    if description:
        item["events"].append(_comment(author, description))
    _write(repository, [*items, item])
    return number


def _change(repository: Repository, number: int, event: dict[str, Any], **fields: Any) -> dict[str, Any]:
    items = _read(repository)
    for item in items:
        if item["num"] == number:
            item["events"].append(event)
            item.update(fields)
            _write(repository, items)
            return event
    raise HubError(404, f"No discussion number {number}")


def comment(repository: Repository, number: int, author: str, text: str) -> dict[str, Any]:
    """Add a comment; the event."""
    with repository.exclusive():
        return _change(repository, number, _comment(author, text))


def edit(repository: Repository, number: int, author: str, comment: str, text: str) -> dict[str, Any]:
    """Change the author's own comment of that id; the event. Raises 404, and 403 for somebody else's."""
    with repository.exclusive():
        items = _read(repository)
        for event in (event for item in items if item["num"] == number for event in item["events"]):
            if event["id"] == comment and event["type"] == "comment":
                if event["author"]["name"] != author:
                    raise HubError(403, "Only its author can edit a comment")
                event["data"] = {
                    **_comment(author, text)["data"],
                    "edited": True,
                    "numEdits": event["data"]["numEdits"] + 1,
                }
                _write(repository, items)
                return event
    raise HubError(404, f"No comment {comment} in discussion {number}")


def rename(repository: Repository, number: int, author: str, title: str) -> dict[str, Any]:
    """Change the title; the event."""
    with repository.exclusive():
        event = _event("title-change", author, **{"from": get(repository, number)["title"], "to": title})
        return _change(repository, number, event, title=title)


def change_status(repository: Repository, number: int, author: str, status: str, text: str = "") -> dict[str, Any]:
    """Open or close; the event. Raises 400 for a merged pull request."""
    if status not in ("open", "closed"):
        raise HubError(400, '"status" must be "open" or "closed"')
    with repository.exclusive():
        if get(repository, number)["status"] == "merged":
            raise HubError(400, "This pull request is merged")
        if text:
            _change(repository, number, _comment(author, text))
        return _change(repository, number, _event("status-change", author, status=status), status=status)


def note_commit(repository: Repository, ref: bytes, author: str, summary: str, commit: str) -> None:
    """Add a commit to the events of the pull request it went to, if it went to one."""
    if ref.startswith(b"refs/pr/"):
        number = int(ref.rpartition(b"/")[2])
        _change(repository, number, _event("commit", author, subject=summary, oid=commit))


def check_write(identity: access.Identity, repository: Repository, ref: bytes) -> None:
    """Raise 403 where the user may not commit to ``ref``; an open pull request takes commits of its author too."""
    if ref.startswith(b"refs/pr/"):
        item = get(repository, int(ref.rpartition(b"/")[2]))
        if item["status"] in ("closed", "merged"):
            raise HubError(403, f"This pull request is {item['status']}")
        if item["author"]["name"] == identity.user:
            return
    access.check_write(identity, repository)


def _merged_tree(repository: Repository, item: dict[str, Any]) -> tuple[dict[str, bytes], list[str]]:
    # The base branch's files with the pull request's changes since the two parted, and the files that both changed.
    git = repository.git
    ours = history.resolve(git, item["changes"]["base"])
    theirs = history.resolve(git, f"refs/pr/{item['num']}")
    bases = find_merge_base(git, [ours.encode(), theirs.encode()])
    before = history.files(git, bases[0].decode()) if bases else {}
    tree, changed, conflicts = history.files(git, ours), history.files(git, theirs), []
    for path in sorted(before.keys() | changed.keys()):
        old, new, current = before.get(path), changed.get(path), tree.get(path)
        if new in (old, current):
            continue
        if current != old:
            conflicts.append(path)
        elif new is None:
            del tree[path]
        else:
            history.put(tree, path, new)
    return tree, conflicts


def details(repository: Repository, number: int, with_diff: bool) -> dict[str, Any]:
    """A discussion with, for a pull request, its conflicts and its difference to the base branch."""
    item = get(repository, number)
    if item["isPullRequest"]:
        git = repository.git
        merged = item["status"] == "merged"
        item["filesWithConflicts"] = [] if merged else _merged_tree(repository, item)[1]
        if with_diff:
            theirs = git[history.resolve(git, f"refs/pr/{number}").encode()]
            ours = git[history.resolve(git, item["changes"]["base"]).encode()]
            base = git[find_merge_base(git, [ours.id, theirs.id])[0]]
            text = io.BytesIO()
            write_tree_diff(text, git.object_store, base.tree, theirs.tree)
            item["diff"] = text.getvalue().decode(errors="replace")
    return item


def merge(repository: Repository, number: int, author: str, text: str = "") -> str:
    """Put an open pull request's changes on its base branch as one commit; its id. Raises 400, or 409 on conflicts."""
    with repository.exclusive():
        item = get(repository, number)
        if not item["isPullRequest"] or item["status"] != "open":
            raise HubError(400, f"Only an open pull request can be merged; this one is {item['status']}")
        tree, conflicts = _merged_tree(repository, item)
        if conflicts:
            raise HubError(409, f"Files with conflicts: {', '.join(conflicts)}")
        base = item["changes"]["base"]
        head = history.resolve(repository.git, base)
        commit = history.write_commit(
            repository.git, tree, head, f"{item['title']} (#{number})", item["author"]["name"]
        )
        history.set_ref(repository.git, base.encode(), commit)
        if text:
            _change(repository, number, _comment(author, text))
        changes = {**item["changes"], "mergeCommitId": commit}
        _change(repository, number, _event("status-change", author, status="merged"), status="merged", changes=changes)
        return commit
