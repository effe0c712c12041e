"""Verdicts by others: one file each, an in-toto statement, bare or signed in a DSSE envelope.

The predicate is SLSA's verification summary (https://slsa.dev/verification_summary/v1); its subjects are the release's
record and weights, named by the adapter's commit as a package URL. All of it follows from the verdict, the checker and
the signer, which stand in its field `pubrep_check`: a statement that says anything else is refused.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from record import strict_json
from record.errors import first_problem
from record.field_types import Line, Section
from record.project import __version__
from record.release_files import ADAPTER_FILE, PREDICTIONS_FILE, RECORD_FILE
from record.run_record import Record
from record.signers import Identity, Key
from record.verdict import Model, Verdict, contradiction

PREDICATE = "https://slsa.dev/verification_summary/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
FOLDER = "verdicts"
# The free section of the card that shows them.
SECTION = "verdicts by others"
# Bytes: ten times what a verdict takes of which all rows of 11,490 differ, in base64.
LARGEST = 2**20
# By how much the clocks of a checker and of the Hub may differ.
SKEW = timedelta(minutes=10)
# Rows that are named one by one.
ROWS = 10


class Contents(Section):
    """What a voucher says that its statement follows from.

    Parameters:
        checker: the account on the Hub that checked.
        signer: whose signature the file promises; None for none.
    """

    checker: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$")]
    signer: Key | Identity | None
    verdict: Verdict


class Signature(Section):
    """One signature of a DSSE envelope."""

    keyid: Line = ""
    sig: Annotated[str, StringConstraints(max_length=2_000)]


class Envelope(Section):
    """A DSSE envelope (https://github.com/secure-systems-lab/dsse), with one signature."""

    payload: str
    payloadType: Literal["application/vnd.in-toto+json"]
    signatures: Annotated[list[Signature], Field(min_length=1, max_length=1)]


class Bundle(Section):
    """A Sigstore bundle (https://github.com/sigstore/protobuf-specs) around an envelope: signed by an identity.

    What the client of Sigstore verifies, it parses itself.
    """

    mediaType: Annotated[str, StringConstraints(max_length=100, pattern=r"^application/vnd\.dev\.sigstore\.bundle")]
    verificationMaterial: dict[str, Any]
    dsseEnvelope: Envelope


@dataclass(frozen=True)
class Voucher:
    """A verdict by others, as its file holds it: whole in itself, and not yet held against a release.

    `path` is the file's place, `record_sha256` the record that it speaks of, `envelope` what is signed, if it is, and
    `bundle` the file's bytes where an identity signed it. `verified` says that the signature was checked.
    """

    path: str
    contents: Contents
    record_sha256: str
    envelope: Envelope | None
    bundle: bytes | None = None
    verified: bool = False

    @property
    def checker(self) -> str:
        return self.contents.checker

    @property
    def verdict(self) -> Verdict:
        return self.contents.verdict

    @property
    def date(self) -> datetime:
        return datetime.fromisoformat(self.verdict.date)

    @property
    def signed_by(self) -> str:
        """Whose signature it says that it carries, in words; empty for none."""
        return self.contents.signer.label if self.contents.signer else ""

    @property
    def signature(self) -> str:
        """As `signed_by`, and whether that was checked."""
        return self.signed_by if self.verified or not self.signed_by else f"{self.signed_by} (unchecked)"

    @property
    def device(self) -> str:
        """Where the models ran, in words."""
        if self.verdict.level == "score":
            return "no model was run"
        return self.verdict.environment.device if self.verdict.environment else "not stated"


def voucher_path(contents: Contents, folder: str = FOLDER) -> str:
    """Where a voucher lies: named after its checker and the second of its check, so that two never meet."""
    date = datetime.fromisoformat(contents.verdict.date).astimezone(UTC)
    return f"{folder}/{contents.checker}-{date:%Y%m%dT%H%M%SZ}.json"


def folder_in_dataset(adapter: str) -> str:
    """Where a dataset of verdicts keeps those about one adapter."""
    return f"{FOLDER}/{adapter.replace('/', '--')}"


def statement(contents: dict[str, Any], record_sha256: str, tool: str | None = None) -> dict[str, Any]:
    """The in-toto statement of a voucher.

    Parameters:
        contents: as `Contents` holds them, in JSON's types.
        tool: the version of this project that checked; the one here unless given.

    Raises:
        `pydantic.ValidationError`: they are no such contents.
    """
    parsed = Contents.model_validate(contents)
    verdict = parsed.verdict
    uri = f"pkg:huggingface/{verdict.adapter}@{verdict.revision}"
    digests = {RECORD_FILE: record_sha256, ADAPTER_FILE: verdict.adapter_sha256,
               PREDICTIONS_FILE: verdict.predictions_sha256}  # fmt: skip
    passed = verdict.verdict == "REPRODUCED"
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": f"{uri}#{name}", "digest": {"sha256": sha}} for name, sha in digests.items() if sha],
        "predicateType": PREDICATE,
        "predicate": {
            "verifier": {"id": f"https://huggingface.co/{parsed.checker}", "version": {"pubrep": tool or __version__}},
            "timeVerified": verdict.date,
            "resourceUri": uri,
            "policy": {"uri": f"urn:pubrep:reproduce:{verdict.level}"},
            "verificationResult": "PASSED" if passed else "FAILED",
            "verifiedLevels": [f"PUBREP_REPRODUCED_{verdict.level.upper()}" if passed else "FAILED"],
            "pubrep_check": contents,
        },
    }


def parse_voucher(data: bytes, path: str) -> Voucher:
    """The voucher in a file's bytes; its signature is not checked.

    Raises:
        `ValueError`: it is none, in one line: another form, a signature missing that it promises, a name that is not
            its own.
    """
    if len(data) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST:,} bytes")
    try:
        value = strict_json.parse(data)
        keys = set(value) if isinstance(value, dict) else set()
        envelope, bundle = None, None
        if "dsseEnvelope" in keys:
            envelope, bundle = Bundle.model_validate(value).dsseEnvelope, data
        elif "payload" in keys:
            envelope = Envelope.model_validate(value)
        stated = value if envelope is None else strict_json.parse(payload_of(envelope))
        contents = stated["predicate"]["pubrep_check"]
        tool, sha256 = stated["predicate"]["verifier"]["version"]["pubrep"], stated["subject"][0]["digest"]["sha256"]
        if not re.fullmatch(r"[\w.+-]{1,40}", tool) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError("its version or its record's hash is none")
        if statement(contents, sha256, tool) != stated:
            raise ValueError("it states what its verdict does not give")
        voucher = Voucher(path, Contents.model_validate(contents), sha256, envelope, bundle)
    except ValidationError as error:
        raise ValueError(f"it is no verdict by others: {first_problem(error)}") from None
    except (LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError("it is no verdict by others: it is no statement as `pubrep vouch` writes it") from None
    if voucher.contents.signer and envelope is None:
        raise ValueError("it promises a signature and has none")
    if envelope and not voucher.contents.signer:
        raise ValueError("it has a signature, and does not say whose")
    if envelope and isinstance(voucher.contents.signer, Identity) != (bundle is not None):
        raise ValueError(f"it says that the {voucher.signed_by} signed it, and has a signature of another kind")
    if not path.endswith("/" + voucher_path(voucher.contents).rpartition("/")[2]):
        raise ValueError(f"its name is not that of its checker and date, {voucher_path(voucher.contents)}")
    return voucher


def payload_of(envelope: Envelope) -> bytes:
    """What an envelope holds.

    Raises:
        `ValueError`: it is not base64.
    """
    try:
        return base64.b64decode(envelope.payload, validate=True)
    except binascii.Error:
        raise ValueError("its payload is not base64") from None


def why_no_voucher(voucher: Voucher, record: Record, record_sha256: str, published: datetime | None) -> str | None:
    """Why a voucher says nothing about a release, in one line; None where it speaks of it.

    Whether its adapter and commit are the release's is for who can ask the Hub.

    Parameters:
        record, record_sha256: the release's record, and the hash of its file.
        published: when the commit was made that the voucher names, where that is known.
    """
    verdict = voucher.verdict
    if verdict.verdict == "UNCHECKED" or verdict.revision is None:
        return "a verdict of nothing checked says nothing"
    if voucher.record_sha256 != record_sha256:
        return "it speaks of another record: that of another version, or of another adapter"
    # What is evaluation-only holds no weights: only who ran the models has read those of what was scored.
    scored = record.evaluated.files if record.evaluated and verdict.level != "score" else {}
    stated = {ADAPTER_FILE: verdict.adapter_sha256, PREDICTIONS_FILE: verdict.predictions_sha256}
    for name, sha256 in stated.items():
        # A check that finds other files than the record's ends before it has hashes.
        if sha256 != (scored | record.files).get(name) and not (sha256 is None and verdict.verdict == "DRIFTED"):
            return f"it speaks of another {name}"
    if verdict.date != f"{voucher.date.astimezone(UTC):%Y-%m-%dT%H:%M:%S+00:00}":
        return "its date is not in UTC"
    if voucher.date > datetime.now(UTC) + SKEW:
        return f"its date, {verdict.date[:10]}, is in the future"
    if published is not None and voucher.date < published - SKEW:
        return f"its date, {verdict.date[:10]}, is before the commit that it speaks of"
    if verdict.miniature != record.miniature:
        return "it says otherwise whether the release is a miniature"
    return contradiction(verdict, record)


@dataclass(frozen=True)
class Agreement:
    """What the vouchers of one release say together: the newest of each checker counts, the publisher's own does not.

    `parts` are the rows where they part: the model, who of the `ran` who ran the models found other outputs, and in
    which rows.
    """

    counted: list[Voucher]
    own: list[Voucher]
    parts: list[tuple[Model, list[str], list[int]]]
    ran: int

    @property
    def agree(self) -> list[Voucher]:
        return [voucher for voucher in self.counted if voucher.verdict.verdict == "REPRODUCED"]

    @property
    def disagree(self) -> list[Voucher]:
        return [voucher for voucher in self.counted if voucher.verdict.verdict == "DRIFTED"]

    @property
    def line(self) -> str:
        """How many agree, in words."""
        many, agree, disagree = len(self.counted), len(self.agree), len(self.disagree)
        if not many:
            return "nobody but its publisher has vouched for it" if self.own else "nobody has vouched for it yet"
        accounts = "1 account" if many == 1 else f"{many} accounts"
        if not disagree:
            return f"{accounts} checked it, and found what is published"
        return f"{accounts} checked it: {agree} found what is published, {disagree} did not"


def agreement(vouchers: Iterable[Voucher], publisher: str) -> Agreement:
    """Counts vouchers that speak of one release.

    Parameters:
        publisher: the account or organisation that the adapter is published by.
    """
    newest: dict[str, Voucher] = {}
    for voucher in sorted(vouchers, key=lambda voucher: (voucher.date, voucher.path)):
        newest[voucher.checker.casefold()] = voucher
    own = [voucher for name, voucher in newest.items() if name == publisher.casefold()]
    counted = sorted(
        (voucher for name, voucher in newest.items() if name != publisher.casefold()),
        key=lambda voucher: (voucher.verdict.verdict != "DRIFTED", voucher.checker.casefold()),
    )
    ran = [voucher for voucher in counted if voucher.verdict.level != "score"]
    found: dict[tuple[Model, int], list[str]] = {}
    for voucher in ran:
        for model, rows in voucher.verdict.rows.items():
            for row in rows:
                found.setdefault((model, row), []).append(voucher.checker)
    parts: dict[tuple[Model, tuple[str, ...]], list[int]] = {}
    for (model, row), names in sorted(found.items()):
        if len(names) < len(ran):
            parts.setdefault((model, tuple(names)), []).append(row)
    return Agreement(counted, own, [(model, [*names], rows) for (model, names), rows in parts.items()], len(ran))


def row_numbers(rows: list[int]) -> str:
    """The first numbers of rows, and how many more there are."""
    told = ", ".join(f"{row:,}" for row in rows[:ROWS])
    return f"{told} and {len(rows) - ROWS:,} more" if len(rows) > ROWS else told


def days_ago(date: datetime) -> str:
    """How old a verdict is now, in words."""
    days = max(0, (datetime.now(UTC) - date).days)
    return {0: "today", 1: "yesterday"}.get(days, f"{days:,} days ago")
