"""One clear line for what a user can correct; a traceback is for bugs."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from record.redaction import redact

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError
    from pydantic import ValidationError

# Set where a command is a client of the local Hub.
ON_LOCAL_HUB = "PUBREP_ON_LOCAL_HUB"
# The file that a process writes its exit code into where it is the first of those launched together to end.
LAST_WORD = "PUBREP_LAST_WORD"
# Which extra of the package holds a library that not every command needs.
EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "evaluate"), "train"),
    **dict.fromkeys(("dulwich", "starlette", "uvicorn", "prometheus_client"), "serve"),
}
# What an operating system says of a disk that is full, and of a place that may not be written to.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
FAILED_WRITE = re.compile(
    r"PytorchStreamWriter failed writing|inline_container.*unexpected pos|No space left on device"
)
# What torch says where a process that it speaks with has ended, over gloo, over NCCL, and over its own store.
LOST_PROCESS = re.compile(r"gloo/transport/|ProcessGroupNCCL|NCCL error|TCPStore|Connection closed by peer")
INTERRUPTED = "Interrupted: run the same command again to go on."


class UserError(Exception):
    """Something the user can correct. Its text says what is wrong and what to do, in one line."""


class Slip(UserError):
    """A slip on the command line or in a recipe: nothing was done yet."""


class Damaged(ConnectionError):
    """What arrived from the Hub is not what the Hub says it holds."""


def make(target: str) -> str:
    """The command `make target`, as it is typed for the Hub that this process speaks with."""
    return f"make {target} HUB=local" if ON_LOCAL_HUB in os.environ else f"make {target}"


def one_line(text: str, longest: int = 2_000) -> str:
    """A text for one line of our output: strangers' texts in it can neither end the line, nor act on the terminal."""
    printable = "".join(
        character if character.isprintable() else " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"
        for character in text[: longest + 1]
    )
    return printable if len(printable) <= longest else printable[: longest - 1] + "…"


def first_problem(error: "ValidationError") -> str:
    """Where a strange file breaks its schema, and how, for one line."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{one_line('.'.join(map(str, first['loc'])), 200) or 'the file'}: {first['msg']}"


def explain(error: BaseException) -> str | None:
    """The one line for an error that is the user's or the Hub's to correct; None when it looks like a bug of ours."""
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    if isinstance(error, UserError | Damaged):
        return one_line(str(error))
    if isinstance(error, RuntimeError) and LOST_PROCESS.search(str(error)):
        return "another process or host of this run has ended: see what it printed, then run the same command again"
    if isinstance(error, errors.GatedRepoError):
        return f"access to the gated repository is not granted: ask for it on its page at {hub}, then `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no such repository, or your token may not see it: check the id, or `hf auth login` ({_url(error)})"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"no such revision: check the branch, tag or commit ({_url(error)})"
    if isinstance(error, errors.LocalEntryNotFoundError) and (error.__cause__ or error.__context__):
        # The clients say so of any download that failed: the cause knows better.
        return None
    if isinstance(error, errors.EntryNotFoundError):
        return f"the repository lacks a file that is needed here ({_url(error)})"
    if isinstance(error, errors.HFValidationError):
        return f"not a Hub id: {_first_line(error)}"
    if isinstance(error, errors.LocalTokenNotFoundError):
        return "no token: run `hf auth login`, or set HF_TOKEN"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "offline mode is on and the cache lacks what is needed: unset HF_HUB_OFFLINE, or fill the cache first"
    if isinstance(error, errors.OIDCError):
        return f"no token for a Trusted Publisher: {_first_line(error)}"
    if isinstance(error, errors.HfHubHTTPError):
        return _refusal(error)
    if isinstance(error, ConnectionError) or type(error).__module__.partition(".")[0] in ("httpx", "httpx2"):
        return f"{hub} cannot be reached: check the network, or add HUB=local for the local Hub ({_first_line(error)})"
    if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get(error.name or "")):
        return (
            f"{error.name} is not installed: install this project with its extra `{extra}`, or in a clone run "
            "`make install`; checking numbers with `--level score` needs none"
        )
    if (disk := _disk(error)) is not None:
        return disk
    if "BackendCompilerFailed" in {kind.__name__ for kind in type(error).__mro__}:
        cause = getattr(error, "inner_exception", error)
        return f"the model cannot be compiled here: leave out `torch_compile` ({_first_line(cause)})"
    return None


def _disk(error: BaseException) -> str | None:
    """The line for a disk that is full or may not be written to; None for any other error.

    Writers in C++ and Rust (torch, safetensors, tokenizers) raise errors of their own, whose text alone tells.
    """
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (match := re.search(r"\(os error (\d+)\)", text)):
        number = int(match[1])
    if number in FULL or FAILED_WRITE.search(text):
        return f"the disk, or your share of it, is full: free some space, then run it again ({_first_line(error)})"
    if number not in FORBIDDEN:
        return None
    place = getattr(error, "filename", None)
    if isinstance(error, OSError) and not isinstance(place, str):
        return None
    if place is not None and any(Path(place).is_relative_to(home) or home.startswith(place) for home in _caches()):
        return f"the cache cannot be written: set HF_HOME to a folder that you may write to ({_first_line(error)})"
    return f"a file or folder cannot be used: name another, or ask for the right to it ({_first_line(error)})"


def refuse_unwritable(folder: Path) -> None:
    """Refuses a folder in which nothing can be written, before hours of work end there.

    Raises:
        `UserError`: it, or the folder above that is there, is no folder or not the user's to write to.
    """
    there = next(
        place for place in (folder.absolute(), *folder.absolute().parents) if place.exists() or place.is_symlink()
    )
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"nothing can be written to {folder} ({there} forbids it): choose another folder")


def refuse_full(folder: Path) -> None:
    """Refuses a folder that holds files already, or in which nothing can be written.

    Raises:
        `UserError`: it is such a folder.
    """
    refuse_unwritable(folder)
    if folder.exists() and any(folder.iterdir()):
        raise Slip(f"{folder} is not empty: name a new folder")


def _caches() -> list[str]:
    from huggingface_hub import constants

    return [constants.HF_HOME, constants.HF_HUB_CACHE, os.environ.get("HF_DATASETS_CACHE") or constants.HF_HOME]


def _refusal(error: "HfHubHTTPError") -> str:
    from huggingface_hub import constants

    status = 0 if error.response is None else error.response.status_code
    answer = " ".join((error.server_message or _first_line(error)).split())[:300]
    if status in (402, 413, 507) or (status in (400, 403) and "storage" in answer):
        return f"the account's storage on the Hub is full: delete what is not needed there, or ask for more ({answer})"
    hint = {
        400: "it refuses the request as invalid",
        401: "the token is not valid or has expired: `hf auth login`, or set HF_TOKEN",
        403: "the token may not do this: use one that may write to the repository and in its owner's name",
        409: "it exists already: choose another name",
        412: "somebody committed in the meantime: run the command again",
        429: "too many requests: wait, then run the command again",
    }.get(status, "run the command again later")
    return f"{constants.ENDPOINT} answered {status or 'nothing that can be read'}: {hint} ({answer})"


def _url(error: BaseException) -> str:
    response = getattr(error, "response", None)
    return _first_line(error) if response is None else str(response.url)


def _first_line(error: BaseException) -> str:
    return one_line((str(error).strip() or type(error).__name__).splitlines()[0])


def explanation(error: BaseException) -> str | None:
    """The one line of the outermost error in the chain that `explain` knows, without secrets; None when all look like a
    bug of ours."""
    line = next((line for cause in chain(error) if (line := explain(cause))), None)
    return None if line is None else redact(line)


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, the outermost first: clients wrap the Hub's answer in errors of their own."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


@contextmanager
def xet_errors() -> Iterator[None]:
    """Calls a failed transfer one: hf_xet 1.8 raises a bare RuntimeError for whatever happens on the way."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError(_first_line(error)) from error


def last_word(code: int) -> bool:
    """Whether this process, which ends with `code`, is to say why: of several launched together the first to end is."""
    if LAST_WORD not in os.environ:
        return True
    try:
        with Path(os.environ[LAST_WORD]).open("x") as file:
            file.write(str(code))
    except FileExistsError:
        return False
    return True


@contextmanager
def one_line_errors(prefix: str = "error:", code: int = 1, file: TextIO | None = None) -> Iterator[None]:
    """Ends the process with `code` and the line `prefix …` on an error that `explain` knows; others pass through.

    Ctrl-C ends it with 130, as shells have it, and with a line.

    Parameters:
        code: the exit code; a `Slip` has 2, as command lines have it.
        file: where the line goes; standard error unless given.
    """
    try:
        yield
    except BrokenPipeError:
        # Whoever read what is printed has gone. Nothing is left to be flushed at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(code)
    except Exception as error:
        line = explanation(error)
        code = 2 if isinstance(error, Slip) else code
        first = last_word(code)
        if line is None:
            raise
        if first:
            print(f"{prefix} {line}", file=file or sys.stderr, flush=True)
        sys.exit(code)
    except KeyboardInterrupt:
        if last_word(130):
            print(INTERRUPTED, file=sys.stderr, flush=True)
        sys.exit(130)
