"""The Hub's refusals, in the words its clients understand.

``huggingface_hub`` chooses its exception by the ``X-Error-Code`` header (``utils/_http.py: hf_raise_for_status``).
Its guess from a bare 401 works for https only, so every refusal about a repository names its code.
"""

from __future__ import annotations


class HubError(Exception):
    """A refusal: an HTTP ``status``, a ``message`` for people, and optionally the Hub's error ``code`` and headers."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}


class Moved(Exception):
    """The repository was moved, or its id has another case; ``id`` is its own one."""

    def __init__(self, id: str):
        super().__init__(id)
        self.id = id


def repository_not_found(anonymous: bool) -> HubError:
    """Missing, or private and not yours: the Hub does not say which (401 when not signed in, else 404)."""
    if anonymous:
        return HubError(401, "Invalid username or password.", "RepoNotFound")
    return HubError(404, "Repository not found", "RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    """No branch, tag, pull request or commit has this name (404)."""
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(path: str, commit: str) -> HubError:
    """No such file or folder at this commit (404).

    The commit travels along: without it the client does not remember the absence and asks again every time.
    """
    return HubError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit})
