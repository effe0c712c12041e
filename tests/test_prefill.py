"""Level prefill: the models read the published outputs, and find those that they would not write."""

import numpy as np
import pytest
from forger import check, short_release

from evaluation.reproduce import reproduce

REPO = "local-user/prefill"


@pytest.fixture(scope="module")
def finance(tmp_path_factory):
    return short_release(tmp_path_factory.mktemp("runs") / "finance", "prefill")


def test_an_honest_release_is_reproduced(finance):
    verdict, findings = reproduce(REPO, level="prefill")
    print(verdict.line)
    assert (verdict.verdict, verdict.evidence) == ("REPRODUCED", "margins"), verdict.line
