"""Routes of Xet storage: tokens from the Hub, then xorbs, shards and file recipes under ``/xet/STORE``.

The store's id is part of the address because hf_xet remembers, by address, which chunks a server has
(``HF_HOME/xet``): with a fresh root on an old port it would otherwise skip uploads that the new store never got.
A token is good for all of the store, not for one repository: whoever knows a file's Xet hash can read it.
Routes of newer protocol versions are absent on purpose: the clients fall back on 404.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from . import access, xet
from .revision_routes import content
from .web import answer, api_path, base_url, identity_of, repository_of, route, store_of

CAS = "/xet/{store}/v1"


def _token(request: Request, role: str) -> Response:
    store = store_of(request)
    token, expires = access.xet_token(store.secret, role)
    cas = f"{base_url(request)}/xet/{store.id}"
    headers = {"X-Xet-Cas-Url": cas, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(expires)}
    # The Python clients read the headers, the npm client the body.
    return answer({"casUrl": cas, "accessToken": token, "exp": expires}, headers=headers)


def read_token(request: Request, body: bytes) -> Response:
    """A token to download a repository's files by Xet."""
    access.check_content(identity_of(request), repository_of(request))
    return _token(request, "read")


def write_token(request: Request, body: bytes) -> Response:
    """A token to upload by Xet; whoever can read a repository can upload for a pull request to it."""
    repository = repository_of(request)
    identity = access.check_token_writes(identity_of(request), repository)
    if request.query_params.get("create_pr") != "1" and not request.path_params["rest"].startswith("refs"):
        access.check_write(identity, repository)
    return _token(request, "write")


def put_xorb(request: Request, body: bytes) -> Response:
    """Take a xorb."""
    store = store_of(request)
    access.check_xet_token(store.secret, request.headers.get("authorization"), "write")
    return answer({"was_inserted": xet.put_xorb(store, request.path_params["hash"], body)})


def put_shard(request: Request, body: bytes) -> Response:
    """Take a shard: from here on its files can be named in a commit."""
    store = store_of(request)
    access.check_xet_token(store.secret, request.headers.get("authorization"), "write")
    xet.put_shard(store, body)
    return answer({"result": 1})


def reconstruction(request: Request, body: bytes) -> Response:
    """How to make a file, or a range of it, from xorbs."""
    store = store_of(request)
    access.check_xet_token(store.secret, request.headers.get("authorization"), "read")
    first, _, last = request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
    signature = access.sign(store.secret, "xorbs")
    url = f"{base_url(request)}/xet/{store.id}/xorbs/{signature}/"
    return answer(xet.reconstruction(store, request.path_params["hash"], int(first), int(last) if last else None, url))


def get_xorb(request: Request, body: bytes) -> Response:
    """A range of a xorb; the link is signed, since the client comes without a token."""
    store = store_of(request)
    access.check_signature(store.secret, request.path_params["signature"], "xorbs")
    path = xet.xorb_path(store, request.path_params["hash"])
    return content(request, path, {"Content-Type": "application/octet-stream"})


routes = [
    route("GET", api_path("/xet-read-token/{rest:path}"), "xet_read_token", read_token),
    route("GET", api_path("/xet-write-token/{rest:path}"), "xet_write_token", write_token),
    route("POST", f"{CAS}/xorbs/default/{{hash}}", "xet_xorb", put_xorb),
    route("POST", f"{CAS}/shards", "xet_shard", put_shard),
    route("GET", f"{CAS}/reconstructions/{{hash}}", "xet_reconstruction", reconstruction),
    route("GET", "/xet/{store}/xorbs/{signature}/{hash}", "xet_data", get_xorb),
]
