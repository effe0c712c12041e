"""One release on its way to the Hub: laid out, sent as one commit, pulled back, checked and tagged."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, ModelCard

from hub.identity import IdentitySigner
from hub.pins import name_on_hub
from hub.release import pull
from hub.retry import retry
from hub.signing import check, expected_of, sign
from hub.signing_extra import BadSignature
from hub.vouchers import Wanted, accepted, read_release, read_vouchers
from model_cards.vouchers import render_vouchers
from push import repository
from push.card_text import with_section
from push.one_commit import CHECKED, Progress, find, send_folder
from push.release import adopt_verdict, stage, tree
from push.repository import RemoteState, Target
from record.errors import UserError
from record.predictions import load_predictions
from record.release_files import CARD_FILE, RECORD_FILE, SIGNATURE_FILE, VOUCHER_FILE
from record.run_record import load_record
from record.scores import METRIC_NAMES
from record.vouchers import SECTION, Voucher


@dataclass(frozen=True)
class Options:
    """How to publish, as the command line's arguments of the same names say."""

    revision: str = "main"
    pr: bool = False
    private: bool = False
    overwrite: str | None = None
    sign: Path | None = None
    sign_identity: bool = False
    identity_token: Path | None = None
    trust_config: Path | None = None
    verdict: Path | None = None
    keep_rows: bool = False
    dry_run: bool = False

    @property
    def signer(self) -> Path | IdentitySigner | None:
        """Who signs: a private key, an identity, or nobody."""
        return IdentitySigner(self.identity_token, self.trust_config) if self.sign_identity else self.sign


@dataclass
class Delivery(Progress):
    """What came of publishing one run.

    `note` is a line about the adapter, `failure` why it ended early; `private` says that only members of its owner may
    see the repository.
    """

    run: Path
    repo_id: str = ""
    tag: str = ""
    private: bool = False
    note: str = ""
    failure: str = ""


def deliver(delivery: Delivery, owner: str, options: Options = Options()) -> Delivery:
    """Publishes the scored run `delivery.run`; the release is laid out in its folder `release`.

    What stands there already is not sent again. Nothing is called published before every file came back from the Hub
    with the hash that its record states, and the adapter that came back wrote what it wrote before.

    Returns:
        The delivery, filled in on the way: also where it ends with an error.

    Raises:
        `UserError`: the run is not ready, somebody else's work would be lost, the key cannot be used or lies in the
            run's folder, or what came back is not what was sent.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    run, api = delivery.run, HfApi()
    for what, path in (("key", options.sign), ("token", options.identity_token)):
        if path is not None and path.resolve().is_relative_to(run.resolve()):
            raise UserError(f"the {what} {path} lies in the run's folder: keep it where nothing is published from")
    delivery.repo_id = f"{owner}/{load_record(run).recipe['adapter_name']}"
    # The card states it, and a commit does not follow a repository that was moved.
    name = retry(f"looking for {delivery.repo_id}", lambda: name_on_hub("model", delivery.repo_id))
    delivery.repo_id = repo_id = name
    target = _target(delivery, options)
    with _alone(run):
        if options.verdict is not None:
            adopt_verdict(options.verdict, run, repo_id)
        if options.dry_run:
            there = retry(f"looking at {repo_id}", lambda: repository.look(api, target))
            _lay_out(delivery, there, options)
            _print_tree(delivery, there)
            return delivery
        send_folder(
            api, target, run / "release", delivery, repository.look,
            lambda there: _lay_out(delivery, there, options), options.overwrite,
        )  # fmt: skip
        print("Pulling it back: every byte is compared, and the adapter answers", flush=True)
        retry(f"checking {repo_id}", lambda: verify(repo_id, delivery.commit, run, options.signer))
        delivery.private = retry(f"looking at {repo_id}", lambda: bool(api.model_info(repo_id).private))
        if options.revision == "main" and not options.pr:
            delivery.tag = retry(f"tagging {repo_id}", lambda: repository.tag(api, repo_id, delivery.commit))
    return delivery


def _target(delivery: Delivery, options: Options) -> Target:
    return Target(delivery.repo_id, options.revision, options.private, options.pr)


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Keeps other publishers off the run's folder; the lock ends with the process."""
    with (run / ".publishing").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{run} is being published by another process: wait for it") from None
        for leftover in run.glob(f"{CHECKED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def _lay_out(delivery: Delivery, there: RemoteState, options: Options) -> str:
    """Lays the release out; returns the message of its commit."""
    release = delivery.run / "release"
    record = stage(delivery.run, delivery.repo_id, there.card, release, options.keep_rows)
    _show_vouchers(delivery, there, options)
    if options.signer is not None:
        if SIGNATURE_FILE in there.files:
            # One that still holds is kept, else the same release would be another commit.
            old = repository.read(delivery.repo_id, there.head, SIGNATURE_FILE)
            (release / SIGNATURE_FILE).write_bytes(old)
        if options.dry_run and options.sign_identity:
            print("Not signed in a dry run: the log of signatures keeps each for ever", flush=True)
        else:
            sign(release, options.signer)
    # `stage` refuses a run without.
    assert record.scores is not None and record.contract is not None
    leading = record.contract.deciding(record.scores.adapter)[0]
    score = record.scores.adapter[leading]
    delivery.note = f"{METRIC_NAMES[leading]} {score.figure(score.mean)} on {record.scores.rows:,} test rows"
    print(f"Card: {release / CARD_FILE}   plots: {release / 'plots'}", flush=True)
    if not options.dry_run:
        retry("checking the card", ModelCard.load(release / CARD_FILE).validate)
    return f"Publish {record.name}: {delivery.note}"


def _show_vouchers(delivery: Delivery, there: RemoteState, options: Options) -> None:
    """Renders the verdicts by others that were merged into the repository into the card's section of them.

    Those of an earlier version say nothing of this one.
    """
    release, vouchers = delivery.run / "release", list[Voucher]()
    if there.release == (release / RECORD_FILE).read_bytes() and any(map(VOUCHER_FILE.fullmatch, there.files)):
        name = delivery.repo_id
        vouchers = retry(
            f"reading the verdicts in {name}",
            lambda: accepted(read_vouchers(read_release(name, there.head), Wanted(trust_config=options.trust_config))),
        )
    text = render_vouchers(vouchers, delivery.repo_id.partition("/")[0])
    card = (release / CARD_FILE).read_text(encoding="utf-8")
    (release / CARD_FILE).write_text(with_section(card, SECTION, lambda _: text), encoding="utf-8")


def _print_tree(delivery: Delivery, there: RemoteState) -> None:
    release = delivery.run / "release"
    delivery.state = "dry run"
    print(f"{delivery.repo_id} would hold, in one commit:")
    for path in tree(release):
        print(f"  {(release / path).stat().st_size:>12,}  {path}")
    for path in sorted(there.stale - set(tree(release))):
        print(f"       deleted  {path}")


def settle(delivery: Delivery, options: Options) -> None:
    """A last look after a failure: whether the release stands on the Hub after all."""
    if delivery.reached == "sent":
        find(HfApi(), _target(delivery, options), delivery.run / "release", delivery)


def verify(repo_id: str, commit: str, run: Path, signer: Path | IdentitySigner | None = None) -> None:
    """Pulls a published commit into a fresh cache, checks every hash and the signature of a `signer` (an identity, or
    a private key), and generates with the adapter that came back.

    Raises:
        `UserError`: a file is missing or differs, the signature fails, or the first row's outputs are others.
    """
    # They import torch and transformers, which laying out and sending need not.
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
            if signer is not None:
                expected = expected_of(signer, run / "release", cache)
                check(repo_id, commit, published.folder, published.record, expected, cache)
            generate_row(published.folder, published.record, load_predictions(run).prompt[0])
        except BadSignature as error:
            raise UserError(f"{repo_id}@{commit} came back with a signature that fails: {error}") from error
        except Drift as drift:
            raise UserError(f"{repo_id}@{commit} came back whole, but does not write what it wrote: {drift}") from drift
