"""`pubrep vouch` as accounts of the local Hub run it."""

import os
from contextlib import contextmanager

from click.testing import CliRunner

from evaluation import regenerate
from push.vouch import command


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


@contextmanager
def broken_arithmetic():
    """In the block the adapter writes something else for the first six rows, as on a machine that computes wrongly."""
    right = regenerate.predict

    def wrong(*arguments):
        fresh, *rest = right(*arguments)
        for row in range(6):
            fresh.adapter[row], fresh.adapter_tokens[row] = "something else", [3, 3, 3]
        return fresh, *rest

    regenerate.predict = wrong
    try:
        yield
    finally:
        regenerate.predict = right
