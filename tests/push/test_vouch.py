"""Verdicts by others on the local Hub: three accounts check one release, its owner merges what they propose, and card,
page and checks say what they found; forged and replayed verdicts are refused."""

import base64
import json
import os
import re
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import short_runs
from click.testing import CliRunner
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from key_pairs import key_pair
from publishers import copy_of, told

from evaluation import regenerate, reproduce
from hub.dsse import public_half, sign
from hub.vouchers import accepted, read_proposed, read_release, read_vouchers
from push.vouch import command
from record.vouchers import FOLDER, agreement, parse_voucher, statement

NAME = "vouched"
REPO = f"local-user/{NAME}"


@contextmanager
def signed_in(hub, user):
    """The clients of this process are another account's in the block."""
    before = os.environ["HF_TOKEN"]
    os.environ["HF_TOKEN"] = hub.token(user)
    try:
        yield
    finally:
        os.environ["HF_TOKEN"] = before


def vouch(*argv, code=0):
    """What `pubrep vouch` prints."""
    answer = CliRunner().invoke(command, [str(word) for word in argv])
    assert answer.exit_code == code, (answer.output, answer.exception)
    return answer.output


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return {name: key_pair(folder, name) for name in ("owner", "alice", "mallory")}


@pytest.fixture(scope="module")
def proposed(run, hub, keys, tmp_path_factory):
    """A signed release and its commit, after three accounts proposed what they found: one of them something else."""
    folder = copy_of(run, tmp_path_factory.mktemp("vouched") / "run", NAME)
    commit = short_runs.publish(folder, sign=keys["owner"][0])
    said = {}
    with signed_in(hub, "alice"):
        said["alice"] = vouch(REPO, "--level", "generate", "--sample", "12", "--key", keys["alice"][0])
    with signed_in(hub, "bob"):
        said["bob"] = vouch(REPO, "--level", "score")
    right = regenerate.predict

    def wrong(*arguments):
        # As on a machine whose arithmetic is broken: the adapter writes something else for the first rows.
        fresh, *rest = right(*arguments)
        for row in range(6):
            fresh.adapter[row], fresh.adapter_tokens[row] = "something else", [3, 3, 3]
        return fresh, *rest

    regenerate.predict = wrong
    try:
        with signed_in(hub, "carol"):
            said["carol"] = vouch(REPO, "--level", "generate", "--sample", "12")
    finally:
        regenerate.predict = right
    return folder, commit, said


def test_a_verdict_is_proposed_by_a_pull_request_that_adds_one_file(proposed):
    print(proposed)
    assert 0
