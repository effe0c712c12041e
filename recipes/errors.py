"""One clear line for what a user can mend; a traceback is for bugs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class UserError(Exception):
    """Something the user can mend. Its text says what is wrong and what to do, in one line."""


def one_line(text: str, longest: int = 2_000) -> str:
    """A text for one line of our output: strangers' texts in it can neither end the line, nor act on the terminal."""
    shown = "".join(
        character if character.isprintable() else " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"
        for character in text[: longest + 1]
    )
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def explain(error: BaseException) -> str | None:
    """The one line for an error that is the user's or the Hub's to mend; None when it looks like a bug of ours."""
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    if isinstance(error, UserError):
        return one_line(str(error))
    if isinstance(error, errors.GatedRepoError):
        return f"access to the gated repository is not granted: ask for it on its page at {hub}, then `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no such repository, or your token may not see it: check the id, or `hf auth login` ({_url(error)})"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"no such revision: check the branch, tag or commit ({_url(error)})"
    if isinstance(error, errors.EntryNotFoundError):
        return f"the repository lacks a file that is needed here ({_url(error)})"
    if isinstance(error, errors.HFValidationError):
        return f"not a Hub id: {_first_line(error)}"
    if isinstance(error, errors.LocalTokenNotFoundError):
        return "no token: run `hf auth login`, or set HF_TOKEN"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "offline mode is on and the cache lacks what is needed: unset HF_HUB_OFFLINE, or fill the cache first"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code if error.response is not None else "no"
        hint = {
            401: "the token is not valid: `hf auth login`",
            403: "the token may not do this: use one with write access",
            412: "somebody committed in the meantime: run the command again",
            429: "too many requests: wait and try again",
        }.get(status, "try again later")
        return f"{hub} answered {status}: {hint} ({_first_line(error)})"
    if isinstance(error, ConnectionError) or type(error).__module__.partition(".")[0] in ("httpx", "httpx2"):
        return f"{hub} cannot be reached: check the network, or add HUB=local for the local Hub ({_first_line(error)})"
    return None


def _url(error: BaseException) -> str:
    return str(error.response.url) if getattr(error, "response", None) is not None else _first_line(error)


def _first_line(error: BaseException) -> str:
    return one_line((str(error).strip() or type(error).__name__).splitlines()[0])


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, the outermost first: clients wrap the Hub's answer in errors of their own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def one_line_errors(prefix: str = "error:", code: int = 1, file: TextIO | None = None) -> Iterator[None]:
    """Ends the process with `code` and the line `prefix …` on an error that `explain` knows; others pass through.

    Parameters:
        file: where the line goes; standard error unless given.
    """
    try:
        yield
    except Exception as error:
        line = next((line for cause in chain(error) if (line := explain(cause))), None)
        if line is None:
            raise
        print(f"{prefix} {line}", file=file or sys.stderr, flush=True)
        sys.exit(code)
