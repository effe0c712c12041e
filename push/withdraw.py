"""Marks a published version as withdrawn: a tag beside its own, and a line on the adapter's card.

    pubrep withdraw owner/name@v2 --why "trained on test rows"

Its files, its record and its own tag stay: who has it can still check it, and is told first.
"""

import click
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from hub.pins import pin
from hub.release import pull
from hub.retry import waiting_out_limits
from record.command_line import Command
from record.errors import UserError, one_line_errors
from record.hashes import sha256_file
from record.release_files import RECORD_FILE
from record.withdrawals import LONGEST_REASON, SECTION, withdrawal_line


@click.command(cls=Command, examples=('pubrep withdraw owner/name@v2 --why "trained on test rows"',))
@click.argument("version")
@click.option("--why", required=True, metavar="TEXT", help="The reason, in one line of the card.")
def command(version: str, why: str) -> None:
    """Mark the published VERSION (owner/name@v2, or a commit) as withdrawn.

    The adapter's card says so and why, and the tag v2-withdrawn is set. Files,
    record and the tag v2 stay; `pubrep reproduce` says first that it was withdrawn.
    """
    with one_line_errors(), waiting_out_limits():
        print(withdraw(version, why), flush=True)


def withdraw(version: str, why: str) -> str:
    """Marks `owner/name@revision`; a second time it changes nothing.

    Returns:
        What was done, in one line.

    Raises:
        `UserError`: no revision or no reason was named, or it is no release.
    """
    from push.card_text import add_line

    repo_id, _, revision = version.partition("@")
    if not repo_id or not revision:
        raise UserError(f"{version} names no version: write {repo_id or 'owner/name'}@v2, or a commit after the @")
    if not why.strip() or len(why) > LONGEST_REASON:
        raise UserError(
            f"the reason has 1 to {LONGEST_REASON} characters, not {len(why.strip())}: say --why in one line"
        )
    pinned = pin("model", repo_id, revision)
    sha256 = sha256_file(pull(pinned.id, pinned.revision, names=[]).folder / RECORD_FILE)
    mark = f"{pinned.revision[:12] if pinned.revision.startswith(revision) else revision}-withdrawn"
    add_line(pinned.id, SECTION, withdrawal_line(revision, pinned.revision, sha256, why), f"Withdraw {revision}")
    try:
        HfApi().create_tag(pinned.id, tag=mark, revision=pinned.revision, tag_message=why)
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
    return f"Withdrawn: {pinned.id}@{pinned.revision[:12]} ({revision}), its card says why, and the tag {mark} is set"
