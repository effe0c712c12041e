"""Routes about collections: lists of repositories, papers and other collections, kept by a user or an organisation.

All of them are in ``ROOT/collections.json``. A slug is ``owner/title-in-small-letters-`` and 24 hexadecimal digits;
those stay when the title changes, and any slug that ends in them, or leaves them out, finds the collection. Payloads
and answers are those of ``huggingface_hub``'s ``HfApi`` and of the npm client's ``src/types/api/api-collection.ts``.
Neither says what makes two collections the same: here it is the title, within one namespace.
"""

from __future__ import annotations

import html
import re
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from . import access, durable, history
from .errors import HubError
from .repo_routes import describe
from .store import FOLDERS, Store, split_id
from .web import answer, base_url, identity_of, json_body, next_page, param, route, settings_of, store_of

THEMES = ("orange", "blue", "green", "purple", "pink", "indigo")
ITEM_TYPES = (*FOLDERS, "paper", "collection")
# The documented limits of huggingface_hub's create_collection and add_collection_item.
DESCRIPTION_LENGTH = 150
NOTE_LENGTH = 500
# A list shows so many items of each collection (HfApi.list_collections).
ITEMS_IN_LIST = 4

Collection = dict[str, Any]


def _all(store: Store) -> list[Collection]:
    return durable.read_json(store.root / "collections.json", [])


def _save(store: Store, collections: list[Collection]) -> None:
    durable.write_json(store.root / "collections.json", collections)


def _changing(store: Store) -> AbstractContextManager[None]:
    return durable.locked(store.root / "collections.lock")


def _now() -> str:
    return history.iso_date(int(time.time()))


def _new_id() -> str:
    return secrets.token_hex(12)


def _slug(collection: Collection) -> str:
    title = re.sub(r"[^a-z0-9]+", "-", collection["title"].lower()).strip("-")
    return f"{collection['owner']}/{title}-{collection['id']}"


def _may_read(identity: access.Identity | None, collection: Collection) -> bool:
    return not collection["private"] or access.role_in(identity, collection["owner"]) is not None


def _is_called(collection: Collection, slug: str) -> bool:
    same_id = slug.startswith(f"{collection['owner']}/") and slug.endswith(f"-{collection['id']}")
    return same_id or slug == _slug(collection).rpartition("-")[0]


def _find(collections: list[Collection], identity: access.Identity | None, slug: str) -> Collection:
    for collection in collections:
        if _is_called(collection, slug) and _may_read(identity, collection):
            return collection
    raise HubError(404, "Collection not found")


def _of_path(request: Request, collections: list[Collection]) -> Collection:
    return _find(collections, identity_of(request), f"{param(request, 'namespace')}/{param(request, 'slug')}")


def _item(collection: Collection, object_id: str) -> Collection:
    for item in collection["items"]:
        if item["_id"] == object_id:
            return item
    raise HubError(404, "Item not found in the collection")


def _author(request: Request, name: str) -> Collection:
    kind = "org" if name in access.orgs(store_of(request).root) else "user"
    avatar = f"{base_url(request)}/avatars/{name}.svg"
    flags = dict.fromkeys(("isHf", "isHfAdmin", "isMod", "isPro"), False)
    return {"_id": name, "avatarUrl": avatar, "fullname": name, "name": name, "type": kind, **flags}


def _target(request: Request, identity: access.Identity | None, kind: str, id: str) -> Collection | None:
    # What an item shows of the thing it stands for; None where the user may not see it or it is gone.
    store = store_of(request)
    if kind == "paper":
        return {"id": id, "title": id, "upvotes": 0}
    if kind == "collection":
        try:
            collection = _find(_all(store), identity, id)
        except HubError:
            return None
        summary = {key: collection[key] for key in ("id", "title", "theme", "description", "lastUpdated")}
        return {**summary, "slug": _slug(collection), "numberItems": len(collection["items"]), "upvotes": 0}
    repository = store.find(kind, store.true_id(kind, id) or "")
    if repository is None:
        return None
    try:
        access.check_read(identity, repository)
    except HubError:
        return None
    details = describe(repository, history.resolve(repository.git, history.DEFAULT_BRANCH))
    keys = ("id", "author", "private", "gated", "downloads", "likes", "lastModified", "pipeline_tag", "sdk")
    return {"repoType": kind, **{key: details[key] for key in keys if details.get(key) is not None}}


def _view(request: Request, collection: Collection) -> Collection:
    identity = identity_of(request)
    items = []
    for position, item in enumerate(collection["items"]):
        target = _target(request, identity, item["type"], item["id"])
        if target:
            note = {"note": {"html": html.escape(item["note"]), "text": item["note"]}} if item["note"] else {}
            items.append({"_id": item["_id"], "position": position, "type": item["type"], **target, **note})
    slug = _slug(collection)
    return {
        **{key: collection[key] for key in ("title", "description", "lastUpdated", "theme", "private", "position")},
        "slug": slug,
        "owner": _author(request, collection["owner"]),
        "items": items,
        "gating": False,
        "upvotes": 0,
        "isUpvotedByUser": False,
        "shareUrl": f"{base_url(request)}/collections/{slug.rpartition('-')[0]}",
    }


def _text(payload: Collection, field: str, limit: int) -> str:
    text = str(payload.get(field) or "")
    if len(text) > limit:
        raise HubError(400, f'"{field}" must have at most {limit} characters, not {len(text)}')
    return text


def _title(payload: Collection) -> str:
    title = str(payload.get("title") or "").strip()
    if not title:
        raise HubError(400, '"title" must not be empty')
    return title


def _move(collections: list[Collection], thing: Collection, position: Any) -> None:
    if not isinstance(position, int) or position < 0:
        raise HubError(400, '"position" must be a number from 0')
    collections.remove(thing)
    collections.insert(position, thing)


def create(request: Request, body: bytes) -> Response:
    """Create a collection in a namespace where the user may; where its title is taken: 409 with the ``slug``."""
    identity = access.check_token_writes(identity_of(request))
    payload = json_body(body)
    namespace = payload.get("namespace") or identity.user
    access.check_namespace(identity, namespace, "create a collection")
    collection: Collection = {
        "id": _new_id(),
        "owner": namespace,
        "title": _title(payload),
        "description": _text(payload, "description", DESCRIPTION_LENGTH),
        "private": bool(payload.get("private")),
        "theme": THEMES[0],
        "lastUpdated": _now(),
        "items": [],
    }
    store = store_of(request)
    with _changing(store):
        collections = _all(store)
        own = [other for other in collections if other["owner"] == namespace]
        for other in own:
            if other["title"] == collection["title"]:
                message = f"You already have a collection named {collection['title']}"
                return answer({"error": message, "slug": _slug(other)}, 409, {"X-Error-Message": message})
        collection["position"] = len(own)
        _save(store, [*collections, collection])
    return answer(_view(request, collection))


def get(request: Request, body: bytes) -> Response:
    """One collection with all of its items that the user may see."""
    return answer(_view(request, _of_path(request, _all(store_of(request)))))


def list_collections(request: Request, body: bytes) -> Response:
    """The collections that the user may see, by owner, item and words; the last changed first if so asked."""
    query, identity = request.query_params, identity_of(request)
    owners, items = query.getlist("owner"), query.getlist("item")
    matches = []
    for collection in _all(store_of(request)):
        holds = {f"{item['type']}s/{item['id']}" for item in collection["items"]}
        words = f"{collection['title']} {collection['description']}".lower()
        if (
            _may_read(identity, collection)
            and (not owners or collection["owner"] in owners)
            and all(item in holds for item in items)
            and query.get("q", "").lower() in words
        ):
            matches.append(collection)
    matches.sort(key=lambda collection: (collection["owner"], collection["position"]))
    if query.get("sort") == "lastModified":
        matches.sort(key=lambda collection: collection["lastUpdated"], reverse=True)
    start = int(query.get("cursor", 0))
    limit = min(int(query.get("limit", settings_of(request).page_size)), settings_of(request).page_size)
    page = [_view(request, collection) for collection in matches[start : start + limit]]
    for collection in page:
        collection["items"] = collection["items"][:ITEMS_IN_LIST]
        # HfApi.list_collections counts positions itself, and fails where the answer has one.
        del collection["position"]
    headers = next_page(request, cursor=start + limit) if start + limit < len(matches) else {}
    return answer(page, headers=headers)


def _change(request: Request, change: Callable[[list[Collection], Collection], None]) -> Collection:
    """Let ``change`` alter the collection in the path, for its owner and members who write; the collection."""
    store, identity = store_of(request), identity_of(request)
    with _changing(store):
        collections = _all(store)
        collection = _of_path(request, collections)
        access.check_namespace(access.check_token_writes(identity), collection["owner"], "change a collection")
        change(collections, collection)
        collection["lastUpdated"] = _now()
        _save(store, collections)
    return collection


def update(request: Request, body: bytes) -> Response:
    """Change title (and with it the slug), description, privacy, theme, or the position among the owner's."""
    payload = json_body(body)

    def change(collections: list[Collection], collection: Collection) -> None:
        if "title" in payload:
            collection["title"] = _title(payload)
        if "description" in payload:
            collection["description"] = _text(payload, "description", DESCRIPTION_LENGTH)
        if "private" in payload:
            collection["private"] = bool(payload["private"])
        if "theme" in payload:
            if payload["theme"] not in THEMES:
                raise HubError(400, f'"theme" must be one of {", ".join(THEMES)}')
            collection["theme"] = payload["theme"]
        if "position" in payload:
            own = sorted(
                (other for other in collections if other["owner"] == collection["owner"]),
                key=lambda other: other["position"],
            )
            _move(own, collection, payload["position"])
            for position, other in enumerate(own):
                other["position"] = position

    return answer({"success": True, "data": _view(request, _change(request, change))})


def delete(request: Request, body: bytes) -> Response:
    """Delete a collection; what it lists stays."""
    _change(request, lambda collections, collection: collections.remove(collection))
    return answer({"success": True})


def add_item(request: Request, body: bytes) -> Response:
    """Add a thing that the user may see at the end; 404 where there is none, 409 where it is in already."""
    payload = json_body(body)
    kind, id = str(payload.get("item", {}).get("type")), str(payload.get("item", {}).get("id"))
    if kind not in ITEM_TYPES:
        raise HubError(400, f'"item.type" must be one of {", ".join(ITEM_TYPES)}')
    if kind in FOLDERS:
        split_id(id)
    target = _target(request, identity_of(request), kind, id)
    note = _text(payload, "note", NOTE_LENGTH)

    def change(collections: list[Collection], collection: Collection) -> None:
        if target is None:
            raise HubError(404, f"No {kind} named {id}")
        name = target.get("slug", target["id"])
        if any((item["type"], item["id"]) == (kind, name) for item in collection["items"]):
            raise HubError(409, f"{name} is in the collection already")
        collection["items"].append({"_id": _new_id(), "type": kind, "id": name, "note": note})

    return answer(_view(request, _change(request, change)))


def update_item(request: Request, body: bytes) -> Response:
    """Change an item's note or position."""
    payload = json_body(body)

    def change(collections: list[Collection], collection: Collection) -> None:
        item = _item(collection, param(request, "item"))
        if "note" in payload:
            item["note"] = _text(payload, "note", NOTE_LENGTH)
        if "position" in payload:
            _move(collection["items"], item, payload["position"])

    _change(request, change)
    return answer({"success": True})


def delete_item(request: Request, body: bytes) -> Response:
    """Take an item out; 404 where it is not in."""

    def change(collections: list[Collection], collection: Collection) -> None:
        collection["items"].remove(_item(collection, param(request, "item")))

    _change(request, change)
    return answer({"success": True})


ONE = "/api/collections/{namespace}/{slug}"

routes = [
    route("GET", "/api/collections", "collections", list_collections),
    route("POST", "/api/collections", "collection_create", create),
    route("GET", ONE, "collection", get),
    route("PATCH", ONE, "collection_update", update),
    route("DELETE", ONE, "collection_delete", delete),
    route("POST", f"{ONE}/items", "collection_item_add", add_item),
    route("PATCH", f"{ONE}/items/{{item}}", "collection_item_update", update_item),
    route("DELETE", f"{ONE}/items/{{item}}", "collection_item_delete", delete_item),
]
