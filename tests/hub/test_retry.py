"""Patience: what is tried again, after which wait, and when it ends."""

import time

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from hub import retry
from record.errors import UserError


def whoami():
    return HfApi().whoami()["name"]


@pytest.mark.parametrize("headers", [{"Retry-After": "2"}, {"RateLimit": '"api";r=0;t=2'}])
def test_it_waits_as_long_as_the_hub_asks(hub, capsys, monkeypatch, headers):
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)
    hub.fault("whoami", "status", code=429, headers=headers)
    start = time.monotonic()
    assert retry.retry("signing in", whoami) == "local-user"
    assert 2 <= time.monotonic() - start < 10
    assert "signing in: the Hub answered 429; trying again in 2 s" in capsys.readouterr().out


def test_without_a_word_from_the_hub_it_waits_longer_each_time(hub, monkeypatch):
    waits = []
    monkeypatch.setattr(retry.time, "sleep", waits.append)
    hub.fault("whoami", "status", code=503, times=9)
    assert retry.retry("signing in", whoami) == "local-user"
    assert len(waits) == 9
    for number, wait in enumerate(waits):
        longest = min(retry.FIRST_WAIT * 2**number, retry.LONGEST_WAIT)
        assert longest / 2 <= wait <= longest


def test_a_wait_beyond_the_time_limit_is_not_begun(hub):
    hub.fault("whoami", "status", code=429, headers={"Retry-After": "3000"})
    start = time.monotonic()
    with retry.time_limit(1), pytest.raises(retry.OutOfTime, match="answered 429, and the time limit comes before"):
        retry.retry("signing in", whoami)
    assert time.monotonic() - start < 10


def test_the_time_limit_ends_a_wait_of_the_client_and_leaves_no_alarm(hub):
    with retry.time_limit(0.01), pytest.raises(retry.OutOfTime, match=r"the time limit of 0\.01 min is over"):
        time.sleep(30)
    time.sleep(1.2)


def test_silence_is_a_failure_that_passes(hub, monkeypatch):
    monkeypatch.setattr(retry, "SILENCE", 0.5)
    hub.fault("whoami", "delay", seconds=5)
    start = time.monotonic()
    with retry.bounded_silence():
        assert retry.retry("signing in", whoami) == "local-user"
    assert time.monotonic() - start < 4


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 412])
def test_a_refusal_is_not_asked_again(hub, code):
    hub.fault("whoami", "status", code=code)
    with pytest.raises(HfHubHTTPError):
        retry.retry("signing in", whoami)
    hub.clear_faults()


def test_a_users_error_is_raised_at_once_whatever_caused_it():
    def step():
        try:
            raise ConnectionError("lost")
        except ConnectionError as error:
            raise UserError("name it otherwise") from error

    with pytest.raises(UserError, match="name it otherwise"):
        retry.retry("naming", step)


def test_a_client_that_asks_too_often_waits_until_it_may_ask_again(hub, capsys):
    api, repo_id = HfApi(), "google/flan-t5-large"
    hub.limit(api=2, resolvers=100, seconds=2)
    try:
        with retry.waiting_out_limits():
            assert {api.model_info(repo_id).id for _ in range(5)} == {repo_id}
            assert [entry.path for entry in api.get_paths_info(repo_id, ["config.json"])] == ["config.json"]
    finally:
        hub.clear_limits()
    assert "the Hub answered 429, too many requests: trying again in " in capsys.readouterr().out
    assert "of 2 requests for " in retry.requests_left()
    hub.fault("info", "status", code=429, headers={"Retry-After": "9999"})
    with retry.waiting_out_limits(), pytest.raises(HfHubHTTPError, match="429"):
        api.model_info(repo_id)
