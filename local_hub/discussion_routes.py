"""Routes about discussions and pull requests."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from . import access, discussions, history
from .errors import HubError
from .store import Repository
from .web import answer, api_path, identity_of, json_body, repository_of, route, settings_of


def _writer(request: Request) -> tuple[Repository, access.Identity]:
    # Whoever may read a repository may discuss it.
    repository = repository_of(request)
    return repository, access.check_token_writes(identity_of(request), repository)


def _moderated(request: Request) -> tuple[Repository, access.Identity, int]:
    repository, identity = _writer(request)
    number = request.path_params["number"]
    if discussions.get(repository, number)["author"]["name"] != identity.user:
        access.check_write(identity, repository)
    return repository, identity, number


def list_discussions(request: Request, body: bytes) -> Response:
    """Discussions and pull requests, newest first, page by page (``p`` from 0), by type, status and author."""
    query = request.query_params
    matches = discussions.all_of(repository_of(request))
    if query.get("type", "all") != "all":
        matches = [item for item in matches if item["isPullRequest"] == (query["type"] == "pull_request")]
    if query.get("status", "all") != "all":
        is_open = query["status"] == "open"
        matches = [item for item in matches if (item["status"] in ("open", "draft")) == is_open]
    if "author" in query:
        matches = [item for item in matches if item["author"]["name"] == query["author"]]
    size = min(settings_of(request).page_size, 50)
    start = int(query.get("p", 0)) * size
    page = [{key: value for key, value in item.items() if key != "events"} for item in matches[start : start + size]]
    return answer({"discussions": page, "count": len(matches), "start": start, "numClosedDiscussions": 0})


def create(request: Request, body: bytes) -> Response:
    """Start a discussion or, with ``pullRequest``, a draft pull request from main."""
    repository, identity = _writer(request)
    payload = json_body(body)
    title, description = str(payload.get("title", "")).strip(), str(payload.get("description", ""))
    if not 3 <= len(title) <= 200:
        raise HubError(400, "The title must have 3 to 200 characters")
    if payload.get("pullRequest"):
        head = history.resolve(repository.git, history.DEFAULT_BRANCH)
        number = discussions.open_pull_request(
            repository, identity.user, title, description, "refs/heads/main", head, status="draft"
        )
    else:
        number = discussions.open_discussion(repository, identity.user, title, description)
    return answer({"num": number, "pullRequest": bool(payload.get("pullRequest"))})


def details(request: Request, body: bytes) -> Response:
    """One discussion with its events and, with ``diff``, a pull request's changes."""
    with_diff = request.query_params.get("diff") == "1"
    return answer(discussions.details(repository_of(request), request.path_params["number"], with_diff))


def comment(request: Request, body: bytes) -> Response:
    """Add a comment."""
    repository, identity = _writer(request)
    text = str(json_body(body).get("comment", ""))
    return answer({"newMessage": discussions.comment(repository, request.path_params["number"], identity.user, text)})


def edit(request: Request, body: bytes) -> Response:
    """Change one's own comment."""
    repository, identity = _writer(request)
    place, text = request.path_params, str(json_body(body).get("content", ""))
    event = discussions.edit(repository, place["number"], identity.user, place["comment"], text)
    return answer({"updatedComment": event})


def title(request: Request, body: bytes) -> Response:
    """Change the title: for the discussion's author and the repository's owner."""
    repository, identity, number = _moderated(request)
    return answer({"newTitle": discussions.rename(repository, number, identity.user, str(json_body(body)["title"]))})


def status(request: Request, body: bytes) -> Response:
    """Open or close: for the discussion's author and the repository's owner."""
    repository, identity, number = _moderated(request)
    payload = json_body(body)
    text = str(payload.get("comment") or "")
    event = discussions.change_status(repository, number, identity.user, str(payload.get("status")), text)
    return answer({"newStatus": event})


def merge(request: Request, body: bytes) -> Response:
    """Merge a pull request: for the repository's owner."""
    repository, identity = _writer(request)
    access.check_write(identity, repository)
    text = str(json_body(body).get("comment") or "")
    commit = discussions.merge(repository, request.path_params["number"], identity.user, text)
    return answer({"mergeCommitId": commit})


routes = [
    route("GET", api_path("/discussions"), "discussions", list_discussions),
    route("POST", api_path("/discussions"), "discussions", create),
    route("GET", api_path("/discussions/{number:int}"), "discussion", details),
    route("POST", api_path("/discussions/{number:int}/comment"), "comment", comment),
    route("POST", api_path("/discussions/{number:int}/comment/{comment}/edit"), "comment_edit", edit),
    route("POST", api_path("/discussions/{number:int}/title"), "title", title),
    route("POST", api_path("/discussions/{number:int}/status"), "status", status),
    route("POST", api_path("/discussions/{number:int}/merge"), "merge", merge),
]
