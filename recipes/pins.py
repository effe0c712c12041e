"""Pins: what a run takes from the Hub, each resolved to a full commit sha before anything is loaded."""

from recipes.errors import UserError
from recipes.record import Pin


def pin(kind: str, repo_id: str, revision: str) -> Pin:
    """Asks the Hub which commit `revision` of a `"model"` or `"dataset"` repository is now.

    Raises:
        `UserError`: the id is a local path.
        `huggingface_hub.errors.HfHubHTTPError`: no such repository or revision, gated, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    if repo_id.count("/") != 1 or repo_id.startswith((".", "/", "~")):
        raise UserError(f"{repo_id!r} is not a Hub id (owner/name): a local path cannot be published or checked")
    info = HfApi().repo_info(repo_id, repo_type=kind, revision=revision)
    card = info.card_data or {}
    licence = card.get("license")
    return Pin(
        kind=kind,
        id=repo_id,
        revision=info.sha,
        license=licence if isinstance(licence, str) else ", ".join(licence or []) or None,
        miniature="miniature" in (info.tags or []),
    )
