"""Whether the account that a run would be published by can be written to, asked before the run is trained."""

import os

from huggingface_hub import HfApi, get_token

from push.repository import Target, look
from record.errors import UserError


def refuse_unwritable_account(adapter_name: str) -> str:
    """The repository that the adapter would be published as, and what stands there, in a few words.

    Raises:
        `UserError`: there is no token, it may not write, or something else has that name.
        `huggingface_hub.errors.HfHubHTTPError`: the token is not valid, or the repository is somebody else's.
    """
    if get_token() is None:
        raise UserError("no token: run `hf auth login` or set HF_TOKEN before publishing")
    api = HfApi()
    me = api.whoami()
    owner = os.environ.get("HUB_USER") or str(me["name"])
    mine = {str(account["name"]).casefold() for account in (me, *me.get("orgs", []))}
    if owner.casefold() not in mine:
        raise UserError(f"the token is {me['name']}'s, and {owner} is neither that user nor one of their organisations")
    if me.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise UserError(f"the token of {me['name']} may only read: make one that may write, then `hf auth login`")
    state = look(api, Target(f"{owner}/{adapter_name}"))
    if not state.head:
        return f"{owner}/{adapter_name} would be new"
    api.auth_check(f"{owner}/{adapter_name}", write=True)
    what = "a release" if state.record is not None else "no release"
    return f"{owner}/{adapter_name} holds {what} and may be written"
