"""Checks a published adapter and proposes the verdict to its repository, or to a dataset of verdicts.

    pubrep vouch owner/name --level score
    pubrep vouch owner/name --list

The verdict is a file `verdicts/CHECKER-DATE.json`, an in-toto statement (`record.vouchers`), which a pull request adds.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, get_args

import click
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import LocalTokenNotFoundError

from evaluation.reproduce import reproduce
from hub import dsse, identity
from hub.identity import IdentitySigner, named_identity
from hub.pins import locate
from hub.release import pull
from hub.retry import bounded_silence, retry, time_limit, waiting_out_limits
from hub.signing_extra import BadSignature
from hub.vouchers import Release, VoucherFile, Wanted, accepted, read_proposed, read_release, read_vouchers
from record.command_line import Command, identity_token_option, trust_config_option
from record.errors import UserError, make, one_line, one_line_errors
from record.hashes import sha256_file
from record.redaction import find_secrets, own_secrets
from record.release_files import RECORD_FILE
from record.signers import Identity, Key
from record.verdict import Level, Verdict
from record.vouchers import (
    FOLDER,
    SECTION,
    Contents,
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
        "pubrep vouch owner/name --identity",
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
@click.option("--identity", is_flag=True, help="Sign as whom a token names: of a file, the CI job or the browser.")
@identity_token_option
@trust_config_option
@click.option("--dataset", metavar="OWNER/NAME", help="Propose to this dataset of verdicts, or list what is there.")
@click.option(
    "--file", type=click.Path(path_type=Path), metavar="FILE", help="Propose this verdict, kept after a failure."
)
@click.option("--list", "as_list", is_flag=True, help="Check nothing: show the verdicts that are there or proposed.")
@click.option(
    "--verify-key", "keys", multiple=True, metavar="NAME=FILE", help="With --list: who must have signed by which key."
)
@click.option(
    "--verify-identity",
    "identities",
    multiple=True,
    metavar="NAME=EMAIL",
    help="With --list: who must have signed as whom (an e-mail address or a URI).",
)
@click.option("--verify-issuer", "issuer", metavar="URL", help="With --verify-identity: who says that they are these.")
@click.option("--card", is_flag=True, help="Check nothing: show merged verdicts on your adapter's card.")
def command(adapter: str, revision: str, level: Level, sample: int | None, **options: Any) -> None:
    """Check the published ADAPTER (owner/name) and propose the verdict to it.

    Runs what `pubrep reproduce` runs, and opens a pull request that adds the
    verdict as a file named after you and the date. Once its owner has merged it, it
    counts: the card, `pubrep report` and `pubrep claims` show how many agree.

    Exits with 0 where the verdict, whichever it is, was proposed; with 2 where
    nothing could be checked: then nothing is proposed.
    """
    with one_line_errors(), waiting_out_limits():
        given = argparse.Namespace(**options)
        _refuse_mixed(given)
        if given.as_list:
            signers: dict[str, Key | Identity] = dict(map(_named_key, given.keys))
            signers |= dict(_named_identity(text, given.issuer) for text in given.identities)
            list_vouchers(adapter, revision, given.dataset, Wanted(signers, given.trust_config))
        elif given.card:
            print(show_on_card(adapter, given.trust_config), flush=True)
        else:
            signer = IdentitySigner(given.identity_token, given.trust_config) if given.identity else given.key
            _vouch(adapter, revision, level, sample, signer, given.dataset, given.file)


def _refuse_mixed(given: argparse.Namespace) -> None:
    """Refuses options that would have no effect together."""
    if (given.keys or given.identities) and not given.as_list:
        option = "--verify-key" if given.keys else "--verify-identity"
        raise UserError(f"{option} is for --list: add that, or sign your own verdict by --key or --identity")
    if bool(given.identities) != bool(given.issuer):
        raise UserError("--verify-identity and --verify-issuer go together: who signed, and who says that it was them")
    if (given.as_list or given.card) and (given.key or given.identity or given.file or (given.as_list and given.card)):
        raise UserError("--list and --card check and send nothing: name one of them, without --key, --identity, --file")
    if given.card and given.dataset:
        raise UserError("--card shows what lies in the adapter's own repository: leave out --dataset")
    if given.key and given.identity:
        raise UserError("a verdict has one signature: --key or --identity")
    if given.identity_token and not given.identity:
        raise UserError("--identity-token is for --identity: add that")
    if given.trust_config and not (given.identity or given.as_list or given.card):
        raise UserError("--trust-config is for --identity, --list and --card: add one of them")


def _named_key(text: str) -> tuple[str, Key]:
    name, _, path = text.partition("=")
    if not name or not path:
        raise UserError(f"--verify-key {text!r} names no key: write it as alice=alice.pem")
    return name, dsse.read_public(Path(path))


def _named_identity(text: str, issuer: str) -> tuple[str, Identity]:
    name, _, who = text.partition("=")
    if not name or not who:
        raise UserError(f"--verify-identity {text!r} names no identity: write it as alice=alice@example.com")
    return name, named_identity(who, issuer)


def _vouch(
    adapter: str, revision: str, level: Level, sample: int | None, signer: Path | IdentitySigner | None,
    dataset: str | None, file: Path | None,
) -> None:  # fmt: skip
    me = _me()
    if file is not None:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror}") from None
    else:
        data = _check(adapter, revision, level, sample, signer, me)
    # The name of a file that was kept is its own, and the folder is that of where it goes.
    try:
        voucher = parse_voucher(data, f"{FOLDER}/{file.name}" if file else _path(data))
        if signer is not None and voucher.envelope is not None:
            raise ValueError("it is signed already: leave out --key or --identity")
    except ValueError as error:
        raise UserError(f"{file} is not proposed: {error}") from None
    name, commit = locate(adapter, voucher.verdict.revision or revision)
    release = read_release(name, commit)
    if refusal := _why_not(release, voucher, me):
        raise UserError(f"the verdict is not proposed: {refusal}")
    path = voucher_path(voucher.contents, folder_in_dataset(release.adapter) if dataset else FOLDER)
    try:
        if signer is not None:
            data = sign_voucher(voucher, signer)
            voucher = parse_voucher(data, path)
        url = propose(voucher, data, path, dataset or release.adapter, "dataset" if dataset else "model")
    except BaseException:
        kept = Path(path).name
        if file is None:
            write_whole(Path(kept), data)
            again = " and what signs it" if signer is not None and voucher.envelope is None else ""
            print(f"The verdict is kept: pubrep vouch {adapter} --file {kept}{again}", file=sys.stderr, flush=True)
        raise
    signed = f", signed by the {voucher.signed_by}" if voucher.signed_by else ", not signed"
    print(f"Proposed: {voucher.verdict.word} at level {voucher.verdict.level} by {me}{signed}: {url}")
    if me.casefold() == release.publisher.casefold():
        print("It is the publisher's own: merged, it is listed and not counted", flush=True)
    else:
        see = make(f"vouch ADAPTER={release.adapter} ARGS=--list{f' DATASET={dataset}' if dataset else ''}")
        print(f"It counts once it is merged; what was merged and proposed: {see}", flush=True)


def _me() -> str:
    """The name of the account that checks."""
    try:
        return str(retry("signing in", HfApi().whoami)["name"])
    except LocalTokenNotFoundError:
        raise UserError("a verdict has its checker's name: sign in first, by `hf auth login`") from None


def _check(
    adapter: str, revision: str, level: Level, sample: int | None, signer: Path | IdentitySigner | None, me: str
) -> bytes:
    """Runs the check; the bytes of the voucher's file, not signed. Ends the process where nothing was checked."""
    # Before hours of work, not after.
    if isinstance(signer, IdentitySigner):
        identity.look(signer)
    elif signer is not None:
        dsse.public_half(signer)
    verdict, _ = reproduce(adapter, revision, level, sample)
    print(verdict.line, flush=True)
    if verdict.verdict == "UNCHECKED":
        print("Nothing is proposed: nothing was checked", flush=True)
        sys.exit(UNCHECKED)
    return write_voucher(verdict, me)


def write_voucher(verdict: Verdict, checker: str) -> bytes:
    """The bytes of a voucher's file that nobody has signed.

    Raises:
        `UserError`: the verdict holds a secret.
    """
    contents = Contents(checker=checker, signer=None, verdict=verdict)
    record = pull(verdict.adapter, str(verdict.revision), names=[]).folder / RECORD_FILE
    payload = _payload(contents, sha256_file(record))
    if secret := next(find_secrets(payload.decode(), own_secrets()), None):
        raise UserError(f"the verdict holds a secret ({secret.kind}), and is not proposed")
    return payload


def sign_voucher(voucher: Voucher, signer: Path | IdentitySigner) -> bytes:
    """The bytes of the file of a voucher that says whose signature it has, and has it.

    Raises:
        `UserError`: the key cannot be used, or nobody certified the identity.
    """
    if isinstance(signer, Path):
        contents = voucher.contents.model_copy(update={"signer": dsse.public_half(signer)})
        return dsse.sign(_payload(contents, voucher.record_sha256), signer)
    token = identity.read_token(signer)
    named = identity.named_by(token)
    contents = voucher.contents.model_copy(update={"signer": named})
    data = identity.sign_statement(_payload(contents, voucher.record_sha256), token, signer.trust_config)
    try:
        identity.verify(data, identity.ExpectedIdentity(named, signer.trust_config))
    except BadSignature as error:
        # An issuer whose tokens name somebody in another way than those of e-mail and GitHub.
        raise UserError(f"the verdict is not proposed: {error}") from error
    return data


def _payload(contents: Contents, record_sha256: str) -> bytes:
    return json.dumps(statement(contents.model_dump(mode="json"), record_sha256), indent=1).encode() + b"\n"


def _path(data: bytes) -> str:
    """Where a voucher that was just written lies."""
    return voucher_path(Contents.model_validate(json.loads(data)["predicate"]["pubrep_check"]))


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


def list_vouchers(adapter: str, revision: str, dataset: str | None, wanted: Wanted) -> None:
    """Prints what others say of a release, merged and proposed, and what they say together."""
    name, commit = locate(adapter, revision)
    release = read_release(name, commit)
    merged, proposed = read_vouchers(release, wanted, dataset), read_proposed(release, wanted, dataset)
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
    unsure = f", which was not checked: {one_line(file.unverified, 300)}" if file.unverified else ""
    on = "" if verdict.level == "score" else "on "
    return (
        f"  {verdict.word} at level {verdict.level} by {voucher.checker}{where}, {verdict.date[:10]}, "
        f"{on}{voucher.device}, {signed}{unsure}"
    )


def show_on_card(adapter: str, trust_config: Path | None = None) -> str:
    """Renders the merged verdicts into the free section of the card on `main`.

    Returns:
        What was done, in one line.

    Raises:
        `UserError`: the card has no such section.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    # What renders cards takes long to load.
    from model_cards.vouchers import render_vouchers
    from push.card_text import edit_section

    name, commit = locate(adapter, "main")
    release = read_release(name, commit)
    vouchers = accepted(read_vouchers(release, Wanted(trust_config=trust_config)))
    text = render_vouchers(vouchers, release.publisher)
    again = "publish it again" if release.record.evaluated is None else "write it again by `pubrep check --record`"
    cure = f"it was published before cards had one, {again}"
    changed = edit_section(name, SECTION, lambda _: text, "Show the verdicts by others", cure)
    said = agreement(vouchers, release.publisher).line
    return f"{'Card' if changed else 'Card unchanged'}: {name}: {said}"
