"""Checks a published adapter and proposes the verdict to its repository, or to a dataset of verdicts.

    pubrep vouch owner/name --level score
    pubrep vouch owner/name --list

The verdict is a file `verdicts/CHECKER-DATE.json`, an in-toto statement (`record.vouchers`), which a pull request adds.
"""

import json
import sys
from base64 import b64decode
from pathlib import Path
from typing import get_args

import click
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import LocalTokenNotFoundError

from evaluation.reproduce import reproduce
from hub import dsse
from hub.pins import locate
from hub.release import pull
from hub.retry import bounded_silence, retry, time_limit, waiting_out_limits
from hub.vouchers import Release, VoucherFile, accepted, read_proposed, read_release, read_vouchers
from model_cards.vouchers import render_vouchers
from push.card_text import edit_section
from record.command_line import Command
from record.errors import UserError, one_line_errors
from record.hashes import sha256_file
from record.redaction import find_secrets, own_secrets
from record.release_files import RECORD_FILE
from record.verdict import Level, Verdict
from record.vouchers import (
    FOLDER,
    SECTION,
    Contents,
    Key,
    Voucher,
    agreement,
    folder_in_dataset,
    parse_voucher,
    row_numbers,
    statement,
    voucher_path,
    why_no_voucher,
)
from record.whole_file import write_whole

MINUTES = 60
UNCHECKED = 2


@click.command(
    cls=Command,
    examples=(
        "pubrep vouch owner/name --level score",
        "pubrep vouch owner/name --key key.pem",
        "pubrep vouch owner/name --dataset owner/verdicts",
        "pubrep vouch owner/name --list --verify-key alice=alice.pem",
        "pubrep vouch owner/name --card",
    ),
)
@click.argument("adapter")
@click.option("--revision", default="main", show_default=True, help="Branch, tag or commit to check.")
@click.option(
    "--level", type=click.Choice(get_args(Level)), default="generate", show_default=True, help="How much is done again."
)
@click.option("--sample", type=int, metavar="ROWS", help="Generate for so many rows only, drawn by the commit.")
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="Sign with this private key (PEM).")
@click.option("--dataset", metavar="OWNER/NAME", help="Propose to this dataset of verdicts, or list what is there.")
@click.option(
    "--file", type=click.Path(path_type=Path), metavar="FILE", help="Propose this verdict, kept after a failure."
)
@click.option("--list", "as_list", is_flag=True, help="Check nothing: show the verdicts that are there or proposed.")
@click.option(
    "--verify-key", "keys", multiple=True, metavar="NAME=FILE", help="With --list: who must have signed by which key."
)
@click.option("--card", is_flag=True, help="Check nothing: show merged verdicts on your adapter's card.")
def command(
    adapter: str,
    revision: str,
    level: Level,
    sample: int | None,
    key: Path | None,
    dataset: str | None,
    file: Path | None,
    as_list: bool,
    keys: tuple[str, ...],
    card: bool,
) -> None:
    """Check the published ADAPTER (owner/name) and propose the verdict to it.

    Runs what `pubrep reproduce` runs, and opens a pull request that adds the
    verdict as a file named after you and the date. Once its owner has merged it, it
    counts: the card, `pubrep report` and `pubrep claims` show how many agree.

    Exits with 0 where the verdict, whichever it is, was proposed; with 2 where
    nothing could be checked: then nothing is proposed.
    """
    with one_line_errors(), waiting_out_limits():
        _refuse_mixed(as_list, card, keys, key, file, dataset)
        if as_list:
            list_vouchers(adapter, revision, dataset, dict(map(_named_key, keys)))
        elif card:
            print(show_on_card(adapter), flush=True)
        else:
            _vouch(adapter, revision, level, sample, key, dataset, file)


def _refuse_mixed(
    as_list: bool, card: bool, keys: tuple[str, ...], key: Path | None, file: Path | None, dataset: str | None
) -> None:
    """Refuses options that would have no effect together."""
    if keys and not as_list:
        raise UserError("--verify-key is for --list: add that, or sign your own verdict by --key")
    if (as_list or card) and (key or file or (as_list and card)):
        raise UserError("--list and --card check and send nothing: name one of them, without --key and --file")
    if card and dataset:
        raise UserError("--card shows what lies in the adapter's own repository: leave out --dataset")
    if file and key:
        raise UserError("the verdict in --file is signed, or is not: leave out --key")


def _named_key(text: str) -> tuple[str, Key]:
    name, _, path = text.partition("=")
    if not name or not path:
        raise UserError(f"--verify-key {text!r} names no key: write it as alice=alice.pem")
    return name, dsse.read_public(Path(path))


def _vouch(
    adapter: str, revision: str, level: Level, sample: int | None, key: Path | None, dataset: str | None,
    file: Path | None,
) -> None:  # fmt: skip
    me = _me()
    if file is not None:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror}") from None
    else:
        data = _check(adapter, revision, level, sample, key, me)
    # The name of a file that was kept is its own, and the folder is that of where it goes.
    try:
        voucher = parse_voucher(data, f"{FOLDER}/{file.name}" if file else _path(data))
    except ValueError as error:
        raise UserError(f"{file} is not proposed: {error}") from None
    name, commit = locate(adapter, voucher.verdict.revision or revision)
    release = read_release(name, commit)
    if refusal := _why_not(release, voucher, me):
        raise UserError(f"the verdict is not proposed: {refusal}")
    path = voucher_path(voucher.contents, folder_in_dataset(release.adapter) if dataset else FOLDER)
    try:
        url = propose(voucher, data, path, dataset or release.adapter, "dataset" if dataset else "model")
    except BaseException:
        kept = Path(path).name
        if file is None:
            write_whole(Path(kept), data)
            print(f"The verdict is kept: pubrep vouch {adapter} --file {kept}", file=sys.stderr, flush=True)
        raise
    signed = f", signed by the {voucher.signed_by}" if voucher.signed_by else ", not signed"
    print(f"Proposed: {voucher.verdict.word} at level {voucher.verdict.level} by {me}{signed}: {url}", flush=True)


def _me() -> str:
    """The name of the account that checks."""
    try:
        return str(retry("signing in", HfApi().whoami)["name"])
    except LocalTokenNotFoundError:
        raise UserError("a verdict has its checker's name: sign in first, by `hf auth login`") from None


def _check(adapter: str, revision: str, level: Level, sample: int | None, key: Path | None, me: str) -> bytes:
    """Runs the check; the bytes of the voucher's file. Ends the process where nothing was checked."""
    # Before hours of work, not after.
    signer = dsse.public_half(key) if key else None
    verdict, _ = reproduce(adapter, revision, level, sample)
    print(verdict.line, flush=True)
    if verdict.verdict == "UNCHECKED":
        print("Nothing is proposed: nothing was checked", flush=True)
        sys.exit(UNCHECKED)
    return write_voucher(verdict, me, signer, key)


def write_voucher(verdict: Verdict, checker: str, signer: Key | None = None, key: Path | None = None) -> bytes:
    """The bytes of a voucher's file.

    Parameters:
        signer, key: the public and the private half of the key that signs it.

    Raises:
        `UserError`: the key cannot be used, or the verdict holds a secret.
    """
    contents = Contents(checker=checker, signer=signer, verdict=verdict).model_dump(mode="json")
    record = pull(verdict.adapter, str(verdict.revision), names=[]).folder / RECORD_FILE
    payload = json.dumps(statement(contents, sha256_file(record)), indent=1).encode() + b"\n"
    if secret := next(find_secrets(payload.decode(), own_secrets()), None):
        raise UserError(f"the verdict holds a secret ({secret.kind}), and is not proposed")
    return payload if key is None else dsse.sign(payload, key)


def _path(data: bytes) -> str:
    """Where a voucher that was just written lies."""
    value = json.loads(data)
    if "payload" in value:
        value = json.loads(b64decode(value["payload"]))
    return voucher_path(Contents.model_validate(value["predicate"]["pubrep_check"]))


def _why_not(release: Release, voucher: Voucher, me: str) -> str | None:
    if voucher.checker != me:
        return f"it is {voucher.checker}'s, and you are {me}"
    return why_no_voucher(voucher, release.record, release.record_sha256, None)


def propose(voucher: Voucher, data: bytes, path: str, repo_id: str, kind: str) -> str:
    """Opens a pull request that adds a voucher; one that is open for it already is found again.

    Returns:
        Its address.

    Raises:
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    api, verdict = HfApi(), voucher.verdict
    title = f"Verdict of {voucher.checker}: {verdict.verdict} at level {verdict.level}"
    description = (
        f"{verdict.line}\n\nThis adds one file, `{path}`. `pubrep vouch {verdict.adapter} --list` shows whether it "
        "holds, and that nothing else is changed. Merged, it is no part of the release: checks pass as before."
    )

    def step() -> str:
        for request in api.get_repo_discussions(
            repo_id, repo_type=kind, author=voucher.checker, discussion_type="pull_request", discussion_status="open"
        ):
            if api.file_exists(repo_id, path, repo_type=kind, revision=f"refs/pr/{request.num}"):
                return request.url
        info = api.create_commit(
            repo_id, [CommitOperationAdd(path, data)], repo_type=kind, commit_message=title,
            commit_description=description, create_pr=True,
        )  # fmt: skip
        return str(info.pr_url)

    with bounded_silence(), time_limit(MINUTES):
        return retry(f"proposing the verdict to {repo_id}", step)


def list_vouchers(adapter: str, revision: str, dataset: str | None, keys: dict[str, Key]) -> None:
    """Prints what others say of a release, merged and proposed, and what they say together."""
    name, commit = locate(adapter, revision)
    release = read_release(name, commit)
    merged, proposed = read_vouchers(release, keys, dataset), read_proposed(release, keys, dataset)
    for file in [*merged, *proposed]:
        print(_line(file), flush=True)
    together = agreement(accepted(merged), release.publisher)
    for model, names, rows in together.parts:
        print(f"  {', '.join(names)} found other outputs of the {model} in row {row_numbers(rows)}", flush=True)
    waiting = sum(file.voucher is not None for file in proposed)
    rest = f"; {waiting} proposed and not merged" if waiting else ""
    print(f"{release.adapter}@{release.commit[:12]}: {together.line}{rest}", flush=True)


def _line(file: VoucherFile) -> str:
    where = f" (pull request {file.pull_request})" if file.pull_request is not None else ""
    if file.voucher is None:
        return f"  refused  {file.path}{where}: {file.refusal}"
    voucher, verdict = file.voucher, file.voucher.verdict
    signed = f"signed by the {voucher.signed_by}" if voucher.signed_by else "not signed"
    unsure = "" if file.verified or not voucher.signed_by else ", which was not checked: requirements-signing.txt"
    return (
        f"  {verdict.word} at level {verdict.level} by {voucher.checker}{where}, {verdict.date[:10]}, on "
        f"{voucher.device}, {signed}{unsure}"
    )


def show_on_card(adapter: str) -> str:
    """Renders the merged verdicts into the free section of the card on `main`.

    Returns:
        What was done, in one line.

    Raises:
        `UserError`: the card has no such section.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    name, commit = locate(adapter, "main")
    release = read_release(name, commit)
    vouchers = accepted(read_vouchers(release))
    text = render_vouchers(vouchers, release.publisher)
    cure = "it was published before cards had one, publish it again"
    changed = edit_section(name, SECTION, lambda _: text, "Show the verdicts by others", cure)
    said = agreement(vouchers, release.publisher).line
    return f"{'Card' if changed else 'Card unchanged'}: {name}: {said}"
