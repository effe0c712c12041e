"""Publishes scored runs to the Hub: one commit each, then pulled back and checked.

    python -m push.publish runs/finance [runs/text2sql ...] [--user NAME] [--dry-run] [--sign KEY.pem]

--user NAME   owner of the repositories (your own name on the Hub unless given)
--dry-run     prints what would be uploaded, and uploads nothing
--sign KEY    signs the release with a private key (an extra: pip install -r requirements-signing.txt)
"""

import argparse
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

from recipes.errors import UserError, one_line_errors
from recipes.record import RECORD_FILE, load_record
from recipes.signing import SIGNATURE_FILE, BadSignature, check, sign, write_public_half


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="push.publish", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of scored runs")
    parser.add_argument("--user", help="owner of the repositories")
    parser.add_argument("--dry-run", action="store_true", help="print the tree, upload nothing")
    parser.add_argument("--sign", type=Path, metavar="KEY", help="PEM file of the private key that signs the release")
    arguments = parser.parse_args(argv)
    with one_line_errors():
        for run in arguments.runs:
            if len(arguments.runs) > 1 and load_record(run).scores is None:
                print(f"{run} is left out: it is not scored yet", flush=True)
                continue
            publish(run, arguments.user, arguments.dry_run, arguments.sign)


def publish(run: Path, user: str | None, dry_run: bool = False, key: Path | None = None) -> str | None:
    """Publishes the run in the folder `run`; the release is laid out in its folder `release`.

    The commit names its parent, so that it fails rather than overwrites when somebody committed in between. Nothing
    is called published before every file came back from the Hub with the hash that its record states and, with a
    private `key`, before the signature that came back was verified. Publishing again without a key removes a signature.

    Returns:
        The commit's sha; None for a dry run.

    Raises:
        `UserError`: the run is not ready, there is no token, the key cannot be used or lies in the run's folder, or
            what came back is not what was sent.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    from push.release import stage, tree

    if key is not None and key.resolve().is_relative_to(run.resolve()):
        raise UserError(f"the key {key} lies in the run's folder: keep it where nothing is published from")
    api = HfApi()
    repo_id = f"{user or _whoami(api)}/{load_record(run).recipe['adapter_name']}"
    try:
        head = api.model_info(repo_id).sha
        there = set(api.list_repo_files(repo_id, revision=head))
    except RepositoryNotFoundError:
        head, there = None, set()
    stale = _published_before(api, repo_id, head, there)
    release = run / "release"
    record = stage(run, repo_id, _read_card(api, repo_id, head) if "README.md" in there else None, release)
    if key is not None:
        if SIGNATURE_FILE in there:
            _copy_signature(api, repo_id, head, release)
        sign(release, key)
    print(f"Card: {release / 'README.md'}   plots: {release / 'plots'}", flush=True)
    if dry_run:
        print(f"{repo_id} would hold, in one commit:")
        for path in tree(release):
            print(f"  {(release / path).stat().st_size:>12,}  {path}")
        for path in sorted(stale - set(tree(release))):
            print(f"       deleted  {path}")
        return None
    commit = _commit(api, repo_id, head, stale, release, record)
    verify(repo_id, commit, key)
    print(
        f"Published {repo_id}@{commit}\n  {api.endpoint}/{repo_id}\n  check it: make reproduce ADAPTER={repo_id}",
        flush=True,
    )
    return commit


def _published_before(api, repo_id: str, head: str | None, there: set[str]) -> set[str]:
    """The files of the release that stands in the repository: the only ones that a new release may remove.

    Raises:
        `UserError`: the repository holds something else than a release of this project, or something besides.
    """
    from recipes.pins import pull, unlisted

    if not there - {".gitattributes", "README.md"}:
        return set()
    if RECORD_FILE not in there:
        raise UserError(f"{repo_id} exists and holds other things than a release: set another `adapter_name`")
    record = pull(repo_id, head, names=[])[1]
    if strange := unlisted(repo_id, head, record):
        raise UserError(
            f"{repo_id} holds {', '.join(strange)} beside its release, which checks call drift: remove it there"
        )
    return {*record.files, SIGNATURE_FILE} & there


def _commit(api, repo_id: str, head: str | None, stale: set[str], release: Path, record) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, ModelCard

    from push.release import tree

    # The client asks whether a dataset was meant: the predictions lie beside the adapter on purpose.
    warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
    ModelCard.load(release / "README.md").validate()
    if head is None:
        # The Hub makes the repository's first commit, which ours must name as its parent.
        api.create_repo(repo_id)
        head = api.model_info(repo_id).sha
    paths = tree(release)
    print(f"Uploading {len(paths)} files to {repo_id} in one commit", flush=True)
    added = [CommitOperationAdd(path, release / path) for path in paths]
    score = f"ROUGE-L {record.scores.adapter['rougeL'].mean:.4f} on {record.scores.rows:,} test rows"
    return api.create_commit(
        repo_id,
        operations=[*added, *map(CommitOperationDelete, sorted(stale - set(paths)))],
        commit_message=f"Publish {record.name}: {score}",
        parent_commit=head,
    ).oid


def verify(repo_id: str, commit: str, key: Path | None = None) -> None:
    """Pulls a published commit into a fresh cache and checks every hash and, with a private `key`, the signature.

    Raises:
        `UserError`: a file is missing or differs, or the signature fails.
    """
    from recipes.pins import pull

    with tempfile.TemporaryDirectory() as cache:
        folder, record, differing = pull(repo_id, commit, cache=Path(cache))
        if key is not None and not differing:
            try:
                check(repo_id, commit, folder, record, write_public_half(key, Path(cache)), Path(cache))
            except BadSignature as error:
                raise UserError(f"{repo_id}@{commit} came back with a signature that fails: {error}") from error
    if differing:
        raise UserError(f"{repo_id}@{commit} came back with other bytes in {', '.join(differing)}: publish it again")


def _whoami(api) -> str:
    from huggingface_hub import get_token

    if get_token() is None:
        raise UserError("no token: run `hf auth login` or set HF_TOKEN, or add HUB=local to try on the local Hub")
    return api.whoami(cache=True)["name"]


def _read_card(api, repo_id: str, revision: str) -> str:
    with tempfile.TemporaryDirectory() as cache:
        card = api.hf_hub_download(repo_id, "README.md", revision=revision, cache_dir=cache)
        return Path(card).read_text(encoding="utf-8")


def _copy_signature(api, repo_id: str, revision: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as cache:
        signature = api.hf_hub_download(repo_id, SIGNATURE_FILE, revision=revision, cache_dir=cache)
        shutil.copyfile(signature, folder / SIGNATURE_FILE)


if __name__ == "__main__":
    main(sys.argv[1:])
