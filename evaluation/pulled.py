"""A release as it came from the Hub: its files, signature, and what others say of it."""

from pathlib import Path

from evaluation import checks
from evaluation.findings import Drift, Findings, note
from evaluation.vouched import check_vouchers
from hub import signing
from hub.identity import ExpectedIdentity
from hub.release import pull, unlisted
from hub.signing_extra import BadSignature
from record.errors import one_line
from record.scored_record import AnyScored, require_evaluation, require_scores


def pull_release(
    findings: Findings, adapter: str, commit: str, signed_by: Path | ExpectedIdentity | None
) -> tuple[Path, AnyScored]:
    """The release's files and its record, every byte as recorded, and signed by whom is named, if anybody is."""
    print(f"Pulling {adapter}@{commit}", flush=True)
    published = pull(adapter, commit)
    folder = published.folder
    if published.differing:
        raise Drift("files", f"not the files that the record names: {', '.join(published.differing)}")
    strange, added = unlisted(adapter, commit, published.record)
    if strange:
        raise Drift("files", f"the repository holds what the record does not list: {', '.join(strange)}")
    stated = published.record
    record = require_scores(stated) if stated.evaluated is None else require_evaluation(stated)
    checks.check_files(record)
    findings.hashes = record.files
    note(findings, "files", f"{len(record.files)} files, every hash as recorded")
    if added:
        note(findings, "files", one_line(f"also in the repository: {', '.join(added)}"))
    trust_config = None if isinstance(signed_by, Path | None) else signed_by.trust_config
    _note_vouchers(findings, adapter, commit, folder, added, trust_config)
    if signed_by is not None:
        try:
            signing.check(adapter, commit, folder, record, signed_by)
        except BadSignature as error:
            raise Drift("signature", str(error)) from error
        label = f"key {signed_by.name}" if isinstance(signed_by, Path) else signed_by.identity.label
        note(findings, "signature", f"signed by the {label}")
    if record.miniature:
        print(f"  a miniature of {record.pins.base_model.id}: its numbers say nothing about the real model", flush=True)
    return folder, record


def _note_vouchers(
    findings: Findings, adapter: str, commit: str, folder: Path, added: list[str], trust_config: Path | None
) -> None:
    """Notes what others' verdicts beside the release say: none of it decides."""
    said, concerns = check_vouchers(adapter, commit, folder, added, trust_config)
    if said:
        note(findings, "files", said)
    for concern in concerns:
        print(f"Concern: {one_line(concern)}", flush=True)
    findings.concerns += concerns
