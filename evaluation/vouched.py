"""What others' verdicts beside a release say of it, and whether its card says the same."""

from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from hub.vouchers import Wanted, accepted, read_release, read_vouchers
from model_cards.vouchers import section_of, states_otherwise
from record.errors import UserError, one_line
from record.release_files import CARD_FILE, VOUCHER_FILE
from record.vouchers import agreement

# Checkers who found DRIFTED that are named.
TOLD = 10


def check_vouchers(
    adapter: str, commit: str, folder: Path, added: list[str], trust_config: Path | None = None
) -> tuple[str, list[str]]:
    """Reads the verdicts by others that lie beside a release.

    Parameters:
        folder: the published files.
        added: the files that lie beside them.
        trust_config: describes the Sigstore instance that certifies identities; the public one unless given.

    Returns:
        What they say together, in one line, empty where there are none; and what speaks against the release or its
        card, in one line each.
    """
    section = section_of((folder / CARD_FILE).read_text(encoding="utf-8"))
    # Offline nobody knows what lies beside it.
    if constants.HF_HUB_OFFLINE:
        return "", []
    names = [name for name in added if VOUCHER_FILE.fullmatch(name)]
    if not names and (section is None or not states_otherwise(section, [], "")):
        return "", []
    try:
        release = read_release(adapter, commit)
        files = read_vouchers(release, Wanted(trust_config=trust_config))
    except (HfHubHTTPError, UserError) as error:
        return f"the verdicts by others could not be read: {one_line(str(error), 200)}", []
    vouchers = accepted(files)
    together = agreement(vouchers, release.publisher)
    refused = [f"{file.path}: {file.refusal}" for file in files if file.refusal]
    more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
    concerns = [f"a verdict by others beside it is refused, {refused[0]}{more}"] if refused else []
    concerns += [
        f"{voucher.checker} found DRIFTED at level {voucher.verdict.level} on {voucher.verdict.date[:10]} "
        f"({voucher.verdict.moved})"
        for voucher in together.disagree[:TOLD]
    ]
    if section is not None and states_otherwise(section, vouchers, release.publisher):
        concerns.append("what the card shows of verdicts by others is not what their files beside it give")
    return f"verdicts by others: {together.line}", concerns
