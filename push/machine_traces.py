"""Traces of this machine in texts: absolute local paths, and who worked on it."""

import getpass
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from record.run_record import Record

# Roots below which people and programs keep their own files, on Linux, macOS, Windows, Colab and Kaggle.
LOCAL_PATH = re.compile(
    r"(?<![\w.:/-])(?:/(?:home|Users|root|tmp|var|private|mnt|media|opt|srv|scratch|data|workspace|content|kaggle"
    r"|Volumes|lustre|gpfs)/[\w.@+~-]+[\w.@+~/-]*|~[\w-]*/\w[\w.@+~/-]*)"
    r"|(?<!\w)[A-Za-z]:[\\/]+(?:Users|Documents and Settings|Windows|ProgramData|Temp)[\\/][^\s\"']*"
    r"|(?<!\w)file:/+[\w.%~-][^\s\"']*",
)
# Accounts and hosts that many machines share: these names tell nothing of anybody.
COMMON_NAMES = {
    "root", "user", "users", "admin", "administrator", "guest", "test", "nobody", "default", "local", "local-user",
    "localhost", "localdomain", "home", "work", "ubuntu", "debian", "fedora", "centos", "rocky", "ec2-user",
    "azureuser", "opc", "pi", "vagrant", "docker", "runner", "jenkins", "gitlab-runner", "ci", "build", "builder",
    "node", "python", "app", "dev", "vscode", "codespace", "gitpod", "jovyan", "colab", "kaggle", "data", "model",
    "models", "train", "trainer", "research", "finance", "github", "huggingface",
}  # fmt: skip


def local_traces(run: Path, record: Record) -> Iterator[tuple[str, str, re.Pattern[str]]]:
    """What must not stand in metadata: what it is, words to look for before the pattern is tried, the pattern.

    Metadata are all texts but those of the dataset and the models' outputs, and what people wrote into the card on
    the Hub. There, a word is no trace because somebody is called so: a user `finance` may publish `finance.yaml`.
    So names count only in the shape in which machines write them:

    - the user's and the host's as `user@host`; the user's in `user@…` and inside a path (`scratch/jdoe/run`), which no
      Hub id is (`jdoe/adapter`); the host's in `…@host` and `//host`; unless they are shorter than 4
      characters or shared by many machines (`COMMON_NAMES`);
    - the host's also by itself where it has at least 8 characters, a digit and a hyphen or dot (`gpu-node-17`), and
      git's `user.name` where it is two words or more, unless the recipe's names and Hub ids hold them;
    - git's `user.email`.
    """
    for path in sorted(_own_paths(run), key=lambda path: -len(str(path))):
        # Below a folder like `/work` something must follow: alone it may be a word after a slash.
        below = "" if len(path.parts) > 2 else r"/\w"
        yield "a local path", str(path), re.compile(rf"(?<![\w.:/-]){re.escape(str(path))}{below}(?![\w-])")
    yield "a local path", "", LOCAL_PATH
    user, host = _user(), socket.gethostname()
    named = chosen_words(record)
    if host.lower() not in COMMON_NAMES:
        yield "this machine's user and host", "", _word(re.escape(f"{user}@{host}"))
    if _telling(user):
        name = re.escape(user)
        yield "this machine's user name", "", re.compile(rf"(?<![\w.+@-]){name}@[\w-]", re.IGNORECASE)
        hub = r"(?!(?:models|datasets|spaces)/)"
        yield "this machine's user name", "", re.compile(rf"(?<![\w:/.@-]){hub}(?:[\w-]+/|\.{{0,2}}/)+{name}/[\w.-]")
    if _telling(host):
        yield "this machine's host name", "", _word(rf"(?:(?<=\w@)|(?<=//)){re.escape(host)}")
        if len(host) >= 8 and re.search(r"\d", host) and re.search(r"[.-]", host) and host.lower() not in named:
            yield "this machine's host name", "", _word(re.escape(host))
    name, email = _git_identity()
    if len(name.split()) > 1 and name.lower() not in named:
        yield "git's user.name", "", _word(r"\s+".join(map(re.escape, name.split())))
    if "@" in email:
        yield "git's user.email", "", _word(re.escape(email))


def own_paths_in_data(run: Path) -> Iterator[tuple[str, str, re.Pattern[str]]]:
    """What counts in the dataset's own texts too: this run's folder, and a home folder with a telling name."""
    home = [Path.home()] if _telling(Path.home().name) and len(Path.home().parts) > 2 else []
    for path in {*home, *(path for path in (run.absolute(), run.resolve()) if len(path.parts) > 3)}:
        yield "a local path", str(path), re.compile(rf"(?<![\w.:/-]){re.escape(str(path))}(?![\w-])")


def chosen_words(record: Record) -> str:
    """The names that the author chose to publish, in small letters."""
    pins = (record.pins.base_model, *record.pins.datasets, record.pins.parent_adapter)
    texts = [record.recipe.get(key, "") for key in ("title", "adapter_name")]
    return " ".join([record.name, *map(str, texts), *(pin.id for pin in pins if pin)]).lower()


def _own_paths(run: Path) -> set[Path]:
    from huggingface_hub import constants

    folders = [Path.home(), run, Path.cwd(), Path(tempfile.gettempdir()), Path(constants.HF_HOME), Path(sys.prefix),
               Path(__file__).parents[1]]  # fmt: skip
    paths = {path for folder in folders for path in (folder.absolute(), folder.resolve())}
    return {path for path in paths if len(path.parts) > 1}


def _telling(name: str) -> bool:
    return len(name) >= 4 and name.lower() not in COMMON_NAMES


def _word(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.-]){pattern}(?![\w-])", re.IGNORECASE)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        # A container may run as a number that has no name.
        return Path.home().name


def _git_identity() -> tuple[str, str]:
    """git's `user.name` and `user.email`, "" where there is none."""
    try:
        result = subprocess.run(
            ["git", "config", "--get-regexp", r"^user\.(name|email)$"], capture_output=True, text=True
        )
    except OSError:
        return "", ""
    values = dict(line.partition(" ")[::2] for line in result.stdout.splitlines())
    return values.get("user.name", ""), values.get("user.email", "")
