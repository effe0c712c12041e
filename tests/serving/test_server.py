"""The service over HTTP, on the miniature: it answers as `generate` does, and nobody's input or end breaks it."""

import http.client
import json
import re
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from service_client import ask, send, texts
from short_runs import SHORT, publish, train_short

from benchmarks.load import Process, measure, running
from benchmarks.streams import measure_streams
from evaluation import evaluate
from local_hub.miniatures import finance as questions
from recipes import train
from recipes.config import recipe_from_record
from record.errors import UserError
from record.run_record import load_record
from scoring.contract import contract_of
from scoring.decoding.generate import decode, generate
from scoring.decoding.predict import load_for_scoring
from serving.loading import find, load

FINANCE, SQL, BASE = "local-user/flan-t5-large-finance@main", "text2sql", "google/flan-t5-large"
ASKED = [f"Answer the financial question. {row['instruction']}" for row in questions.rows()[:20]]
TABLE = "Translate the question into SQL. Question: who is < 5? Tables: CREATE TABLE t (a INT) SQL:"


@pytest.fixture(scope="module")
def finance(tmp_path_factory):
    run = train_short(tmp_path_factory.mktemp("serving") / "finance", "--learning_rate", "0.01")
    evaluate.main([str(run)])
    publish(run)
    return "local-user/flan-t5-large-finance"


@pytest.fixture(scope="module")
def text2sql(tmp_path_factory):
    run = tmp_path_factory.mktemp("serving") / "text2sql"
    train.main(["--config", "recipes/text2sql.yaml", "--output_dir", str(run), *SHORT])
    return run


@pytest.fixture(scope="module")
def tight(finance):
    """A service with one slot, and a quarter of a second for an answer."""
    process = Process([finance], "--slots", "1", "--queue", "64", "--timeout", "0.25")
    process.start()
    yield process
    process.end()


@pytest.fixture(scope="module")
def service(finance, text2sql, tight):
    # `tight` starts at the same time.
    with running([f"{finance}@main", str(text2sql)], "--slots", "8") as process:
        yield process


@pytest.fixture(scope="module")
def run_on_another_base(text2sql, tmp_path_factory):
    """A copy of a run whose record names another commit of the base model."""
    folder = tmp_path_factory.mktemp("serving") / "other"
    shutil.copytree(text2sql, folder)
    record = load_record(folder)
    record.pins.base_model.revision = "0" * 40
    record.save(folder)
    return folder


@pytest.fixture(scope="module")
def expected(finance, text2sql):
    """What `generate` writes for `ASKED` and `TABLE`, by model."""
    found = {}
    folders = {FINANCE: find(FINANCE).folder, SQL: text2sql}
    for name, folder in folders.items():
        record = load_record(folder)
        recipe = recipe_from_record(record.name, record.recipe)
        model, tokenizer, dtype = load_for_scoring(folder, record, recipe.model)
        contract = contract_of(recipe.arguments, dtype, 4)
        found[name] = decode(tokenizer, generate(model, tokenizer, [*ASKED, TABLE], contract, adapter=True)[0])
        if name == FINANCE:
            found[BASE] = decode(tokenizer, generate(model, tokenizer, [*ASKED, TABLE], contract, adapter=False)[0])
    assert len({tuple(rows) for rows in found.values()}) == 3
    return found


def test_every_model_writes_what_generate_writes(service, expected):
    for name, rows in expected.items():
        answer = ask(service, name, [*ASKED, TABLE])
        assert texts(answer) == rows and "warnings" not in answer
        assert answer["object"] == "text_completion" and answer["model"] == name
        usage = answer["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert {choice["finish_reason"] for choice in answer["choices"]} <= {"stop", "length"}


def test_requests_of_many_clients_share_the_steps_and_write_the_same(service, expected):
    jobs = [(name, place) for place in range(len(ASKED) + 1) for name in expected]
    steps = service.figure("serving_steps_total")
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda job: ask(service, job[0], [*ASKED, TABLE][job[1]]), jobs)
        written = 0
        for (name, place), answer in zip(jobs, answers, strict=True):
            assert texts(answer) == [expected[name][place]]
            written += answer["usage"]["completion_tokens"]
    # One by one, every token would be a step.
    assert service.figure("serving_steps_total") - steps < 0.7 * written


def test_the_models_are_listed_with_their_templates(service, finance):
    data = {one["id"]: one for one in json.loads(service.get("/v1/models")[1])["data"]}
    assert list(data) == [FINANCE, SQL, BASE]
    assert data[FINANCE]["prompt_template"] == ["Answer the financial question. {instruction} {input}"]
    assert re.fullmatch("[0-9a-f]{40}", data[FINANCE]["revision"]) and data[FINANCE]["parent"] == BASE
    assert data[SQL]["max_tokens"] == 12 and data[SQL]["revision"] is None


def test_limits_stops_and_several_answers(service, expected):
    place = max(range(len(ASKED)), key=lambda place: len(expected[FINANCE][place].split()))
    whole = expected[FINANCE][place]
    short = ask(service, FINANCE, ASKED[place], max_tokens=3)
    assert whole.startswith(texts(short)[0]) and short["usage"]["completion_tokens"] == 3
    assert short["choices"][0]["finish_reason"] == "length"
    stop = whole.split()[1]
    cut = ask(service, FINANCE, ASKED[place], stop=["never", stop])
    assert texts(cut) == [whole[: whole.index(stop)]] and cut["choices"][0]["finish_reason"] == "stop"
    # Not decoded to its end, nor billed so.
    everything = ask(service, FINANCE, ASKED[place])["usage"]["completion_tokens"]
    assert cut["usage"]["completion_tokens"] <= everything // 2
    assert texts(ask(service, FINANCE, ASKED[:2], n=2)) == [expected[FINANCE][row] for row in (0, 0, 1, 1)]


def test_sampling_is_drawn_by_the_seed_alone(service, expected):
    how = {"temperature": 1.5, "n": 8, "max_tokens": 12}
    one = texts(ask(service, BASE, ASKED[0], seed=1, **how))
    assert texts(ask(service, BASE, ASKED[0], seed=1, **how)) == one
    assert texts(ask(service, BASE, ASKED[0], seed=2, **how)) != one
    assert len(set(one)) > 4
    # Of a small enough part only the likeliest token is left.
    assert set(texts(ask(service, BASE, ASKED[0], top_p=1e-6, **how))) == {expected[BASE][0]}


def test_a_long_prompt_is_read_whole_and_warned_of(service):
    long = " ".join(["What is a bond?"] * 150)
    tail = texts(ask(service, FINANCE, long + " " + ASKED[0], max_tokens=40))
    answer = ask(service, FINANCE, ["Hello", long], max_tokens=40)
    tokens = int(re.search(r"prompt 1 has (\d+) tokens", " ".join(answer["warnings"]))[1])
    assert len(answer["warnings"]) == 1 and 512 < tokens < answer["usage"]["prompt_tokens"]
    assert tail != texts(answer)[1:]


def test_what_openai_clients_send_by_themselves_is_taken(service, expected):
    nothing = dict.fromkeys(("stop", "suffix", "logprobs", "logit_bias", "user", "seed", "top_p", "stream_options"))
    figures = {"best_of": 1, "presence_penalty": 0.0, "frequency_penalty": 0, "stream": False, "echo": False}
    assert texts(ask(service, FINANCE, ASKED[0], temperature=0, **nothing, **figures)) == [expected[FINANCE][0]]


GOOD = {"model": BASE, "prompt": "Hello"}
BAD = {
    "empty body": (b"", 400),
    "no JSON": (b"{", 400),
    "no UTF-8": (b'{"model": "\xff"}', 400),
    "a list": ([], 400),
    "a key twice": (b'{"model": "a", "model": "b"}', 400),
    "deep": (b"[" * 100_000, 400),
    "deep prompt": (b'{"model": "a", "prompt": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", 400),
    "a number of 5,000 digits": (b'{"model": "a", "prompt": "a", "seed": ' + b"9" * 5_000 + b"}", 400),
    "no model": ({"prompt": "Hello"}, 400),
    "unknown model": (GOOD | {"model": "nobody/nothing"}, 404),
    "the model a number": (GOOD | {"model": 7}, 400),
    "no prompt": ({"model": BASE}, 400),
    "an empty prompt": (GOOD | {"prompt": ""}, 400),
    "a blank prompt": (GOOD | {"prompt": " \n"}, 400),
    "no prompts": (GOOD | {"prompt": []}, 400),
    "an empty prompt among others": (GOOD | {"prompt": ["Hello", ""]}, 400),
    "token ids that there are none": (GOOD | {"prompt": [1, 2, 10**6]}, 400),
    "negative token ids": (GOOD | {"prompt": [[1, -2]]}, 400),
    "token ids and texts in one prompt": (GOOD | {"prompt": [1, "Hello"]}, 400),
    "no token ids": (GOOD | {"prompt": [[1], []]}, 400),
    "the prompt false": (GOOD | {"prompt": [False]}, 400),
    "the prompt an object": (GOOD | {"prompt": {"text": "Hello"}}, 400),
    "the prompt null": (GOOD | {"prompt": None}, 400),
    "10,000 prompts": (GOOD | {"prompt": ["Hello"] * 10_000}, 400),
    "many answers": (GOOD | {"prompt": ["Hello"] * 10, "n": 10}, 400),
    "a long prompt": (GOOD | {"prompt": "word " * 20_000}, 400),
    "one endless word": (GOOD | {"prompt": "a" * 900_000}, 400),
    "null character": (GOOD | {"prompt": "a\0b"}, 400),
    "lone surrogate": (b'{"model": "google/flan-t5-large", "prompt": "\\ud800"}', 400),
    "2 MiB": (GOOD | {"prompt": "a" * 2**21}, 413),
    "negative max_tokens": (GOOD | {"max_tokens": -1}, 400),
    "no max_tokens": (GOOD | {"max_tokens": 0}, 400),
    "max_tokens too many": (GOOD | {"max_tokens": 10**30}, 400),
    "max_tokens a half": (GOOD | {"max_tokens": 0.5}, 400),
    "max_tokens a text": (GOOD | {"max_tokens": "7"}, 400),
    "max_tokens true": (GOOD | {"max_tokens": True}, 400),
    "NaN temperature": (GOOD | {"temperature": float("nan")}, 400),
    "infinite temperature": (b'{"model": "a", "prompt": "a", "temperature": 1e999}', 400),
    "negative temperature": (GOOD | {"temperature": -0.1}, 400),
    "temperature a text": (GOOD | {"temperature": "hot"}, 400),
    "top_p 0": (GOOD | {"top_p": 0}, 400),
    "n 0": (GOOD | {"n": 0}, 400),
    "negative seed": (GOOD | {"seed": -1}, 400),
    "empty stop": (GOOD | {"stop": ""}, 400),
    "many stops": (GOOD | {"stop": ["a"] * 5}, 400),
    "a stream of what is wrong": (GOOD | {"stream": True, "n": 0}, 400),
    "echo with logprobs": (GOOD | {"echo": True, "logprobs": 1}, 400),
    "many logprobs": (GOOD | {"logprobs": 6}, 400),
    "best of several": (GOOD | {"best_of": 3}, 400),
    "unknown parameter": (GOOD | {"temprature\n\x1b[31m": 0}, 400),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_with_one_sentence(service, kind):
    body, status = BAD[kind]
    found, answer, _ = send(service, body)
    error = answer["error"]
    assert found == status and error["type"] == "invalid_request_error" and error.keys() == {
        "message", "type", "param", "code",
    }  # fmt: skip
    assert len(error["message"]) < 400 and error["message"].isprintable() and ("Hello" not in error["message"])


def test_what_is_no_request_for_a_completion_is_refused(service):
    for status, path, method, headers in (
        (415, "/v1/completions", "POST", {"Content_Type": "text/plain"}),
        (415, "/v1/completions", "POST", {"Content_Encoding": "gzip"}),
        (405, "/v1/completions", "GET", {}),
        (405, "/v1/completions", "DELETE", {}),
        (405, "/v1/models", "POST", {}),
        (404, "/v1/models/nobody/nothing", "GET", {}),
        (403, "/v1/load_lora_adapter", "POST", {}),
        (404, "/v1/completions/", "POST", {}),
        (404, "/%00/../etc/passwd", "GET", {}),
    ):
        found, answer, told = send(service, GOOD, path, method, **headers)
        assert found == status and answer["error"]["message"], (path, method)
        assert status != 405 or told["Allow"]
    # Not even HTTP.
    with socket.create_connection(("127.0.0.1", service.port)) as raw:
        raw.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert raw.recv(1000).startswith(b"HTTP/1.1 400")


def test_bad_input_has_left_the_service_as_it_was(service, expected):
    assert texts(ask(service, FINANCE, ASKED[0])) == [expected[FINANCE][0]]
    figures = service.get("/metrics")[1]
    assert 'status="5' not in figures and "Traceback" not in service.log
    assert service.figure("serving_rows_waiting") == service.figure("serving_rows_decoding") == 0
    assert f'serving_completion_tokens_total{{model="{SQL}"}}' in figures


def test_a_line_a_request_tells_nothing_of_the_prompt(service):
    ask(service, SQL, "A secret of mine", max_tokens=2)
    told = (
        r" POST /v1/completions 200 \d+\.\d{3}s id=req-[0-9a-f]{24} model=text2sql rows=1 prompt_tokens=\d+ tokens=\d$"
    )
    begun = time.monotonic()
    # The answer may be read before its line is written.
    while not (lines := re.findall(told, service.log, re.MULTILINE)) and time.monotonic() - begun < 5:
        time.sleep(0.01)
    assert lines
    send(service, None, "/%1b[31m%0Afoo", "GET")
    assert "secret" not in service.log and "\x1b" not in service.log


SLOW = {"model": "google/flan-t5-large", "prompt": ASKED * 3, "temperature": 2.0, "max_tokens": 512}


def test_late_answers_are_given_up_and_a_full_queue_says_so(tight):
    tight.ready()
    begun = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: send(tight, SLOW), range(4)))
    assert time.monotonic() - begun < 10
    assert sorted(status for status, _, _ in found) == [429, 429, 429, 504]
    for status, answer, headers in found:
        assert answer["error"]["type"] == "server_error"
        assert headers["Retry-After"] == ("1" if status == 429 else None)
    # What was given up holds no slot and no place.
    assert ask(tight, BASE, "Hello", max_tokens=1)
    assert tight.figure("serving_rows_waiting") == 0


def test_a_client_that_goes_frees_its_slot(tight):
    tight.ready()
    raw = socket.create_connection(("127.0.0.1", tight.port))
    body = json.dumps(SLOW).encode()
    raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
    raw.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    for _ in range(200):
        if tight.figure("serving_rows_waiting"):
            break
        time.sleep(0.002)
    raw.close()
    begun = time.monotonic()
    while "499" not in tight.log and time.monotonic() - begun < 5:
        time.sleep(0.01)
    assert "POST /v1/completions 499" in tight.log


def test_a_body_that_breaks_off_is_no_bug(tight):
    tight.ready()
    with socket.create_connection(("127.0.0.1", tight.port)) as raw:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        raw.sendall(b"Content-Length: 1000\r\n\r\n{")
    ask(tight, BASE, "Hello", max_tokens=1)
    assert "Traceback" not in tight.log


def test_a_stop_finishes_what_was_begun_and_refuses_what_comes(tight):
    tight.ready()
    idle = {path: http.client.HTTPConnection("127.0.0.1", tight.port, timeout=60) for path in ("/ready", "/health")}
    for path, said in (("/ready", b'{"status":"ready"}'), ("/health", b'{"status":"ok"}')):
        idle[path].request("GET", path)
        assert idle[path].getresponse().read() == said
    few = {"model": BASE, "prompt": ASKED[:4], "temperature": 2.0, "max_tokens": 50}
    with ThreadPoolExecutor(1) as pool:
        begun = pool.submit(send, tight, few)
        while not tight.figure("serving_rows_decoding"):
            assert not begun.done()
        tight.process.send_signal(signal.SIGTERM)
        status, answer, headers = send(tight, GOOD)
        assert status == 503 and headers["Retry-After"] and "stopping" in answer["error"]["message"]
        # It finishes what was begun: whoever deals out requests must leave it out, whoever restarts the dead, alone.
        for path, connection in idle.items():
            connection.request("GET", path)
        assert [connection.getresponse().status for connection in idle.values()] == [503, 200]
        status, answer, _ = begun.result()
    assert status == 200 and len(answer["choices"]) == 4
    assert tight.process.wait(20) == 0
    assert "Traceback" not in tight.log


def test_what_cannot_be_served_together_is_refused_in_one_line(finance, text2sql, tmp_path, run_on_another_base):
    for adapters, said in (
        ([finance, finance], "two models would bear the id"),
        ([finance, str(run_on_another_base)], "one process serves adapters of one base"),
        ([str(tmp_path)], "holds no record.json"),
        (["local-user"], "is not a Hub id"),
    ):
        with pytest.raises(UserError, match=said):
            load(adapters)


def test_a_port_that_is_taken_is_told_at_once(service, finance):
    process = Process([finance])
    process.port = service.port
    process.start()
    assert process.process.wait(60) == 1
    assert re.fullmatch(r"error: cannot listen on 127.0.0.1:\d+: .*: choose another PORT\n", process.log)
    process.end()


def test_many_streams_at_once_come_whole(service):
    found = measure_streams(service, seconds=2, clients=16)
    assert not found["failed"] and not found["wrong"] and found["streams"] > 16


def test_under_load_and_killed_in_between(service, expected):
    found = measure(service, seconds=4, clients=16, kill=True)
    assert found["statuses"] == {200: found["requests"]} and found["requests"] > found["requests_before_kill"] > 20
    # Each client loses the request it has under way, and then is refused until the service is back.
    assert found["broken"].keys() <= {
        "IncompleteRead",
        "RemoteDisconnected",
        "ConnectionResetError",
        "ConnectionRefusedError",
        "BrokenPipeError",
    }
    assert texts(ask(service, FINANCE, ASKED[0])) == [expected[FINANCE][0]]
    assert 0 < found["p50"] <= found["p95"] and found["rss_after"] < 1.2 * found["rss_before"]
