"""One release on its way to the Hub: looked at, laid out, sent as one commit, pulled back, checked and tagged."""

import fcntl
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hub.release import pull
from hub.retry import retry
from hub.signing import BadSignature, check, sign, write_public_half
from push import repository
from push.release import adopt_verdict, stage, tree
from push.repository import RemoteState, Target
from record.errors import UserError
from record.release_files import CARD_FILE, SIGNATURE_FILE
from record.run_record import load_record

# So often the branch may move on under a release (somebody edits the card) before it is given up.
MOVES = 5
# Beginning of the names of the folders, in the run's, into which a release is pulled back.
CHECKED = ".check-"


@dataclass(frozen=True)
class Options:
    """How to publish, as the command line's arguments of the same names say."""

    revision: str = "main"
    pr: bool = False
    private: bool = False
    overwrite: str | None = None
    sign: Path | None = None
    verdict: Path | None = None
    dry_run: bool = False


@dataclass
class Delivery:
    """What came of publishing one run.

    `state` is the word for it, `reached` how far the repository has come: untouched, sent (a commit may have arrived)
    or committed. `note` is a line about the adapter, `pull_request` a number, `failure` why it ended early.
    """

    run: Path
    repo_id: str = ""
    state: str = "failed"
    reached: str = "untouched"
    commit: str = ""
    tag: str = ""
    note: str = ""
    pull_request: int | None = None
    failure: str = ""
    stale: set[str] = field(default_factory=set)


def deliver(delivery: Delivery, owner: str, options: Options = Options()) -> Delivery:
    """Publishes the scored run `delivery.run`; the release is laid out in its folder `release`.

    The release is one commit that names its parent, so that it fails rather than overwrites when somebody committed in
    between. What stands there already is not sent again. Nothing is called published before every file came back from
    the Hub with the hash that its record states, and the adapter that came back wrote what it wrote before.

    Returns:
        The delivery, filled in on the way: also where it ends with an error.

    Raises:
        `UserError`: the run is not ready, somebody else's work would be lost, the key cannot be used or lies in the
            run's folder, or what came back is not what was sent.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    from huggingface_hub import HfApi

    run, key, api = delivery.run, options.sign, HfApi()
    if key is not None and key.resolve().is_relative_to(run.resolve()):
        raise UserError(f"the key {key} lies in the run's folder: keep it where nothing is published from")
    record = load_record(run)
    delivery.repo_id = repo_id = f"{owner}/{record.recipe['adapter_name']}"
    target = Target(repo_id, options.revision, options.private, options.pr)
    with _alone(run):
        if options.verdict is not None:
            adopt_verdict(options.verdict, run, repo_id)
        first = there = _look(api, target)
        for _ in range(MOVES):
            _lay_out(api, delivery, target, there, options)
            if options.dry_run:
                _print_tree(delivery)
                return delivery
            if there.head is None:
                there = _create(api, target)
            if there.release != first.release:
                who, when = repository.author(api, repo_id, there.head)
                raise UserError(
                    f"{who} published {repo_id}@{there.head[:12]} at {when}, while this was under way: look at it, "
                    "then publish again"
                )
            _send(api, delivery, target, there, options)
            if delivery.commit:
                break
            there = _look(api, target)
        else:
            raise UserError(f"{repo_id} moved on {MOVES} times while this was under way: try again in a calm hour")
        retry(f"checking {repo_id}", lambda: verify(repo_id, delivery.commit, run, key))
        if options.revision == "main" and not options.pr:
            delivery.tag = retry(f"tagging {repo_id}", lambda: repository.tag(api, repo_id, delivery.commit))
    return delivery


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Keeps other publishers off the run's folder; the lock ends with the process."""
    with (run / ".publishing").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{run} is being published by another process: wait for it") from None
        for left in run.glob(f"{CHECKED}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _look(api, target: Target) -> RemoteState:
    return retry(f"looking at {target.repo_id}", lambda: repository.look(api, target))


def _create(api, target: Target) -> RemoteState:
    if target.pull_request:
        raise UserError(f"{target.repo_id} has no branch {target.revision} to propose anything to: publish without PR")
    retry(f"creating {target.repo_id}", lambda: repository.create(api, target))
    return _look(api, target)


def _lay_out(api, delivery: Delivery, target: Target, there: RemoteState, options: Options) -> None:
    from huggingface_hub import ModelCard

    release = delivery.run / "release"
    record = stage(delivery.run, target.repo_id, there.card, release)
    if options.sign is not None:
        if SIGNATURE_FILE in there.files:
            # One that still holds is kept, else the same release would be another commit.
            old = repository.read(api, target.repo_id, there.head, SIGNATURE_FILE)
            (release / SIGNATURE_FILE).write_bytes(old)
        sign(release, options.sign)
    delivery.stale = there.stale - set(tree(release))
    delivery.note = f"ROUGE-L {record.scores.adapter['rougeL'].mean:.4f} on {record.scores.rows:,} test rows"
    print(f"Card: {release / 'README.md'}   plots: {release / 'plots'}", flush=True)
    if not options.dry_run:
        retry("checking the card", ModelCard.load(release / CARD_FILE).validate)


def _print_tree(delivery: Delivery) -> None:
    release = delivery.run / "release"
    delivery.state = "dry run"
    print(f"{delivery.repo_id} would hold, in one commit:")
    for path in tree(release):
        print(f"  {(release / path).stat().st_size:>12,}  {path}")
    for path in sorted(delivery.stale):
        print(f"       deleted  {path}")


def _send(api, delivery: Delivery, target: Target, there: RemoteState, options: Options) -> None:
    """Sends the release; leaves `delivery.commit` empty where the branch has moved on."""
    from huggingface_hub.errors import HfHubHTTPError

    release = delivery.run / "release"
    permitted = False

    def step() -> None:
        nonlocal permitted
        if _find(api, delivery, target, release):
            return
        if not permitted:
            refuse_loss(api, target, there, options.overwrite)
            permitted = True
        print(f"Uploading {len(tree(release))} files to {target.repo_id} in one commit", flush=True)
        delivery.reached = "sent"
        message = f"Publish {load_record(release).name}: {delivery.note}"
        try:
            made = repository.commit(api, target, there.head, delivery.stale, release, message)
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code != 412:
                raise
            _find(api, delivery, target, release)
            return
        delivery.commit, delivery.pull_request = made.oid, made.pr_num
        delivery.state, delivery.reached = "proposed" if target.pull_request else "published", "committed"

    retry(f"committing to {target.repo_id}", step)


def _find(api, delivery: Delivery, target: Target, release: Path) -> bool:
    """Looks whether the release stands on the branch or in an open pull request, and notes it."""
    was = delivery.reached
    head = api.model_info(target.repo_id, revision=target.revision).sha
    if repository.holds(api, target.repo_id, head, release):
        delivery.commit, delivery.reached = head, "committed"
        delivery.state = "published" if was == "sent" and not target.pull_request else "unchanged"
        return True
    delivery.reached = "untouched"
    if target.pull_request and (number := repository.open_proposal(api, target.repo_id, release)) is not None:
        delivery.commit = api.model_info(target.repo_id, revision=f"refs/pr/{number}").sha
        delivery.pull_request, delivery.state, delivery.reached = number, "proposed", "committed"
        return True
    return False


def settle(delivery: Delivery, options: Options) -> None:
    """A last look after a failure: whether the release stands on the Hub after all."""
    from huggingface_hub import HfApi

    if delivery.reached == "sent":
        target = Target(delivery.repo_id, options.revision, options.private, options.pr)
        _find(HfApi(), delivery, target, delivery.run / "release")


def refuse_loss(api, target: Target, there: RemoteState, overwrite: str | None) -> None:
    """Refuses to replace what somebody else published or wrote on the card, unless told to or answered yes."""
    if target.pull_request or (there.record is None and there.card is None):
        return
    me = repository.me(api)
    if there.edited:
        who, when = repository.author(api, target.repo_id, there.head)
    else:
        who, when = repository.publisher(api, target.repo_id, there.head, there.marker)
    if there.edited:
        found = f"the card of {target.repo_id} was written or edited outside its free sections ({who}, {when})"
    elif me is not None and who != me:
        found = f"the release in {target.repo_id} is somebody else's ({who}, {when})"
    else:
        return
    if overwrite and len(overwrite) >= 7 and there.head.startswith(overwrite):
        return
    if sys.stdin.isatty() and input(f"{found}. Replace it? [y/N] ").strip().lower() in ("y", "yes"):
        return
    raise UserError(f"{found}: look at it, then add OVERWRITE={there.head[:12]} (--overwrite) to replace it, or PR=1")


def verify(repo_id: str, commit: str, run: Path, key: Path | None = None) -> None:
    """Pulls a published commit into a fresh cache, checks every hash and, with a private `key`, the signature, and
    generates with the adapter that came back.

    Raises:
        `UserError`: a file is missing or differs, the signature fails, or the first row's outputs are others.
    """
    from evaluation.findings import Drift
    from evaluation.regenerate import generate_row

    with tempfile.TemporaryDirectory(dir=run, prefix=CHECKED) as folder:
        cache = Path(folder)
        published = pull(repo_id, commit, cache=cache)
        if published.differing:
            raise UserError(
                f"{repo_id}@{commit} came back with other bytes in {', '.join(published.differing)}: publish it again"
            )
        try:
            if key is not None:
                check(repo_id, commit, published.folder, published.record, write_public_half(key, cache), cache)
            generate_row(published.folder, published.record)
        except BadSignature as error:
            raise UserError(f"{repo_id}@{commit} came back with a signature that fails: {error}") from error
        except Drift as drift:
            raise UserError(f"{repo_id}@{commit} came back whole, but does not write what it wrote: {drift}") from drift
