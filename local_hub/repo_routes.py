"""Routes about whole repositories: create, delete, move, settings, what they are, lists of them; and who is asking."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from . import access, cards, history
from .errors import HubError, repository_not_found
from .store import KINDS, PREFIXES, Repository, Store, split_id
from .web import (
    answer,
    api_path,
    base_url,
    find,
    identity_of,
    json_body,
    next_page,
    repository_of,
    revision_of,
    route,
    settings_of,
    store_of,
)


def whoami(request: Request, body: bytes) -> Response:
    """Who the token belongs to; 401 without one, and for a trusted publisher's."""
    identity = identity_of(request)
    if identity is None or identity.only:
        raise HubError(401, "Invalid username or password.")
    token = {"displayName": identity.role, "role": identity.role, "createdAt": "2024-01-01T00:00:00.000Z"}
    return answer(
        {
            "type": "user",
            "id": identity.user,
            "name": identity.user,
            "fullname": identity.user,
            "email": f"{identity.user}@users.noreply.hub.local",
            "emailVerified": True,
            "canPay": False,
            "isPro": False,
            "periodEnd": None,
            "avatarUrl": f"{base_url(request)}/avatars/{identity.user}.svg",
            "orgs": [_org(request, name, role) for name, role in sorted(identity.orgs.items())],
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


def _org(request: Request, name: str, role: str) -> dict[str, Any]:
    return {
        "type": "org",
        "id": name,
        "name": name,
        "fullname": name,
        "email": None,
        "canPay": False,
        "periodEnd": None,
        "avatarUrl": f"{base_url(request)}/avatars/{name}.svg",
        "isEnterprise": False,
        "roleInOrg": role,
    }


def create_in(store: Store, kind: str, id: str, author: str, date: int | None = None, **facts: Any) -> Repository:
    """Create a repository with its first commit: the standard ``.gitattributes``, and a Space's ``README.md``.

    Raises 409 where it exists.
    """
    repository = store.create(kind, id, createdBy=author, **facts)
    try:
        with repository.exclusive():
            tree = {".gitattributes": history.add_blob(repository.git, history.GITATTRIBUTES)}
            if kind == "space":
                readme = history.SPACE_README.format(title=split_id(id)[1], sdk=facts.get("sdk") or "static")
                tree["README.md"] = history.add_blob(repository.git, readme.encode())
            commit = history.write_commit(repository.git, tree, None, "initial commit", author, date)
            history.set_ref(repository.git, b"refs/heads/main", commit)
    except OSError:
        store.delete(repository)
        raise
    return repository


def create(request: Request, body: bytes) -> Response:
    """Create a repository in a namespace where the user may; where it exists: 409, and its ``url`` all the same."""
    identity = access.check_token_writes(identity_of(request))
    payload = json_body(body)
    kind = payload.get("type") or "model"
    if kind not in PREFIXES:
        raise HubError(400, f"Unknown repository type: {kind}")
    namespace = access.own_name(identity, str(payload.get("organization") or identity.user))
    id = f"{namespace}/{payload.get('name')}"
    split_id(id)
    access.check_namespace(identity, namespace, f"create a {kind}")
    private = payload.get("private", access.private_by_default(store_of(request).root, namespace))
    visibility = payload.get("visibility") or ("private" if private else "public")
    url = f"{base_url(request)}/{PREFIXES[kind]}{id}"
    try:
        facts = {"sdk": payload["sdk"]} if kind == "space" and "sdk" in payload else {}
        create_in(store_of(request), kind, id, identity.user, private=visibility == "private", **facts)
    except HubError as error:
        if error.status != 409:
            raise
        # huggingface_hub's create_repo(exist_ok=True) swallows the 409 and then reads ``url`` from its body.
        url = f"{base_url(request)}/{PREFIXES[kind]}{store_of(request).true_id(kind, id)}"
        return answer({"error": error.message, "url": url}, 409, {"X-Error-Message": error.message})
    return answer({"url": url, "name": id, "id": id})


def _owned(request: Request, kind: str, id: str) -> Repository:
    identity = access.check_token_writes(identity_of(request))
    repository = find(request, kind, store_of(request).true_id(kind, id) or id, identity)
    access.check_write(identity, repository)
    return repository


def delete(request: Request, body: bytes) -> Response:
    """Delete a repository."""
    payload = json_body(body)
    identity = access.check_token_writes(identity_of(request))
    namespace = payload.get("organization") or identity.user
    store_of(request).delete(_owned(request, payload.get("type") or "model", f"{namespace}/{payload.get('name')}"))
    return answer({})


def move(request: Request, body: bytes) -> Response:
    """Rename a repository, or move it to another namespace where the user may create one; its old id redirects."""
    payload = json_body(body)
    kind, target = payload.get("type") or "model", str(payload.get("toRepo"))
    repository = _owned(request, kind, str(payload.get("fromRepo")))
    identity = access.check_token_writes(identity_of(request))
    access.check_namespace(identity, split_id(target)[0], f"create a {kind}")
    store_of(request).move(repository, target)
    return answer({"url": f"{base_url(request)}/{PREFIXES[kind]}{target}"})


def settings(request: Request, body: bytes) -> Response:
    """Change visibility and gating."""
    repository = repository_of(request)
    access.check_write(identity_of(request), repository)
    payload = json_body(body)
    changes: dict[str, Any] = {}
    if "visibility" in payload or "private" in payload:
        changes["private"] = payload.get("visibility", "private" if payload.get("private") else "public") == "private"
    if "gated" in payload:
        if payload["gated"] not in ("auto", "manual", False):
            raise HubError(400, '"gated" must be one of "auto", "manual", false')
        changes["gated"] = payload["gated"]
    repository.change_facts(**changes)
    return answer({key: repository.facts[key] for key in ("private", "gated")})


def grant(request: Request, body: bytes) -> Response:
    """Let a user into a gated repository."""
    repository = repository_of(request)
    access.check_write(identity_of(request), repository)
    user = json_body(body).get("user")
    if not repository.facts["gated"]:
        raise HubError(400, "This repository is not gated")
    if user not in access.users(store_of(request).root):
        raise HubError(404, f"No user named {user}")
    with repository.exclusive():
        repository.change_facts(granted=sorted({*repository.facts.get("granted", []), user}))
    return answer({})


def auth_check(request: Request, body: bytes) -> Response:
    """Whether the user may read, or with ``/write`` change, the repository's files."""
    repository = repository_of(request)
    identity = identity_of(request)
    access.check_content(identity, repository)
    if request.scope["path"].endswith("/write"):
        access.check_write(identity, repository)
    return answer({})


def validate_yaml(request: Request, body: bytes) -> Response:
    """Check a README's front matter; see ``cards.validate`` for how far. For people who read text there is a list."""
    payload = json_body(body)
    errors, warnings = cards.validate(str(payload.get("content", "")), payload.get("repoType") or "model")
    if "text/plain" in request.headers.get("accept", ""):
        lines = [*(f"- Error: {text}" for text in errors), *(f"- Warning: {text}" for text in warnings)]
        return PlainTextResponse("\n".join(lines), 400 if errors else 200)
    report = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return answer(report, 400 if errors else 200)


def _json_file(repository: Repository, commit: str, path: str, paths: dict[str, bytes]) -> dict[str, Any]:
    if path not in paths:
        return {}
    try:
        value = json.loads(history.read_file(repository.git, commit, path))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def describe(repository: Repository, commit: str, blobs: bool = False) -> dict[str, Any]:
    """Everything the Hub says about a repository at a commit; ``blobs`` adds sizes and hashes to its files."""
    git, facts = repository.git, repository.facts
    paths = history.files(git, commit)
    card = cards.card_data(git[paths["README.md"]].data if "README.md" in paths else None)
    date = history.iso_date(git[commit.encode()].commit_time)
    details: dict[str, Any] = {
        "_id": repository.id,
        "id": repository.id,
        "author": split_id(repository.id)[0],
        "sha": commit,
        "lastModified": date,
        "createdAt": facts["createdAt"],
        "private": facts["private"],
        "gated": facts["gated"],
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "cardData": card,
        "siblings": [_sibling(repository, path, blob, blobs) for path, blob in sorted(paths.items())],
    }
    if repository.kind == "model":
        config = _json_file(repository, commit, "config.json", paths)
        adapter = _json_file(repository, commit, "adapter_config.json", paths)
        details["modelId"] = repository.id
        details["library_name"] = cards.library_of(card, set(paths))
        details["pipeline_tag"] = card.get("pipeline_tag")
        details["config"] = {key: config[key] for key in ("architectures", "model_type") if key in config}
        if adapter:
            keys = ("base_model_name_or_path", "task_type", "peft_type")
            details["config"]["peft"] = {key: adapter[key] for key in keys if key in adapter}
        details["tags"] = cards.tags("model", card, set(paths), config.get("model_type"))
        if "model-index" in card:
            details["model-index"] = card["model-index"]
    else:
        details["tags"] = cards.tags(repository.kind, card, set(paths))
    if repository.kind == "space":
        details["sdk"] = facts.get("sdk")
    return details


def _sibling(repository: Repository, path: str, blob: bytes, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    info = history.file_info(repository.git, blob)
    sibling: dict[str, Any] = {"rfilename": path, "size": info.size, "blobId": info.blob}
    if info.sha256:
        sibling["lfs"] = {"sha256": info.sha256, "size": info.size, "pointerSize": info.pointer_size}
    return sibling


def info(request: Request, body: bytes) -> Response:
    """What a repository is at a revision; ``expand`` asks for some of it only."""
    repository = repository_of(request)
    commit = history.resolve(repository.git, revision_of(request))
    details = describe(repository, commit, blobs=request.query_params.get("blobs", "").lower() in ("true", "1"))
    fields = request.query_params.getlist("expand")
    if fields:
        details = {key: value for key, value in details.items() if key in ("_id", "id", "modelId", *fields)}
    return answer(details)


def list_repositories(request: Request, body: bytes) -> Response:
    """The repositories of a kind that the user may see, newest change first, by author, search words and tags."""
    kind = KINDS.get(request.path_params["types"])
    if kind is None:
        raise HubError(404, "Sorry, we can't find the page you are looking for.")
    query = request.query_params
    identity = identity_of(request)
    matches = []
    for repository in store_of(request).all(kind):
        if repository.facts["private"] and not access.may_read_all(identity, repository):
            continue
        if "author" in query and split_id(repository.id)[0].lower() != query["author"].lower():
            continue
        if "search" in query and query["search"].lower() not in repository.id.lower():
            continue
        item = describe(repository, history.resolve(repository.git, history.DEFAULT_BRANCH))
        tags = [tag for value in query.getlist("filter") for tag in value.split(",")] + query.getlist("pipeline_tag")
        if all(tag in item["tags"] for tag in tags):
            matches.append(item)
    matches.sort(key=lambda item: (item["lastModified"], item["id"]), reverse=True)
    start = int(query.get("cursor", 0))
    limit = min(int(query.get("limit", settings_of(request).page_size)), settings_of(request).page_size)
    page = matches[start : start + limit]
    if query.get("full", "").lower() not in ("true", "1"):
        for item in page:
            item.pop("siblings")
            if query.get("cardData", "").lower() not in ("true", "1"):
                item.pop("cardData")
                item.pop("model-index", None)
    headers = next_page(request, cursor=start + limit) if start + limit < len(matches) else {}
    return answer(page, headers=headers)


def missing(request: Request, body: bytes) -> Response:
    """A repository id without a namespace: none is served, and the Hub says so to everybody."""
    raise repository_not_found(anonymous=False)


routes = [
    route("GET", "/api/whoami-v2", "whoami", whoami),
    route("POST", "/api/validate-yaml", "validate_yaml", validate_yaml),
    route("POST", "/api/repos/create", "create", create),
    route("DELETE", "/api/repos/delete", "delete", delete),
    route("POST", "/api/repos/move", "move", move),
    route("PUT", api_path("/settings"), "settings", settings),
    route("POST", api_path("/user-access-request/grant"), "grant", grant),
    route("GET", api_path("/auth-check"), "auth_check", auth_check),
    route("GET", api_path("/auth-check/write"), "auth_check", auth_check),
    route("GET", api_path("/revision/{revision}"), "info", info),
    route("GET", api_path(""), "info", info),
    route("GET", "/api/{types}/{name}", "info", missing),
    route("GET", "/api/{types}/{name}/revision/{rest:path}", "info", missing),
    route("GET", "/api/{types}/{name}/tree/{rest:path}", "tree", missing),
    route("GET", "/api/{types}/{name}/commits/{rest:path}", "commits", missing),
    route("GET", "/{name}/resolve/{rest:path}", "resolve", missing),
    route("GET", "/api/{types}", "list", list_repositories),
]
