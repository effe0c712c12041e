"""What OpenAI's clients ask beyond a plain completion, of a service with an adapter with DoRA: streams, chats, keys."""

import copy
import json
import socket
import time

import pytest
import torch
from peft import LoraConfig, get_peft_model
from service_client import send, send_raw, texts
from short_runs import train_short

from benchmarks.load import Process, running
from local_hub.miniatures import finance as questions
from recipes.config import recipe_from_record
from record.run_record import load_record
from scoring.contract import contract_of
from scoring.decoding.generate import generate
from scoring.decoding.predict import load_for_scoring
from serving.answers import TextStream
from serving.engine import Engine, PendingRow
from serving.loading import Source, load, sharing
from serving.openapi import document
from serving.prompts import MAX_PROMPT_TOKENS
from serving.requests import MAX_PROMPT_CHARACTERS
from serving.space.page.answers import LONGEST, LONGEST_TEXT

NAME, BASE, KEY, PAGE = "finance", "google/flan-t5-large", "a-key-of-mine", "https://page.example"
QUESTION = questions.rows()[0]["instruction"]
ASKED = f"Answer the financial question. {QUESTION}"
BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_short(tmp_path_factory.mktemp("protocol") / NAME, "--learning_rate", "0.01", "--use_dora", "true")


@pytest.fixture(scope="module")
def service(run, tmp_path_factory):
    keys = tmp_path_factory.mktemp("protocol") / "keys"
    keys.write_text(f"another\n\n{KEY}\n")
    options = ("--slots", "8", "--allow-loading", "--api-key-file", str(keys), "--cors", PAGE, "--timeout", "30")
    with running([str(run)], *options) as process:
        yield process


def post(service: Process, path: str, body: dict, **headers) -> dict:
    status, answer, _ = send(service, body, path, **BEARER, **headers)
    assert status == 200, answer
    return answer


def complete(service: Process, **how) -> dict:
    return post(service, "/v1/completions", {"model": NAME, "prompt": ASKED} | how)


def chat(service: Process, *messages: dict, **how) -> dict:
    return post(service, "/v1/chat/completions", {"model": NAME, "messages": messages} | how)


def user(content) -> dict:
    return {"role": "user", "content": content}


def stream(service: Process, path: str, body: dict) -> list[dict]:
    """The events' data; the last must be [DONE]."""
    status, answer, headers = send_raw(service, body | {"stream": True}, path, **BEARER)
    assert status == 200 and headers["Content-Type"].startswith("text/event-stream")
    *events, done, rest = answer.decode().split("\n\n")
    assert done == "data: [DONE]" and rest == ""
    return [json.loads(event.removeprefix("data: ")) for event in events]


@pytest.fixture(scope="module")
def models(run):
    return load([str(run)])


def test_an_adapter_with_dora_writes_what_generate_writes(run, models):
    """Without --allow-loading, where the base's weights are kept in their packed form only."""
    record = load_record(run)
    recipe = recipe_from_record(record.name, record.recipe)
    model, tokenizer, dtype = load_for_scoring(run, record, recipe.model)
    prompts = [f"Answer the financial question. {row['instruction']}" for row in questions.rows()[:8]]
    contract = contract_of(recipe.arguments, dtype, 4)
    expected = generate(model, tokenizer, prompts, contract, adapter=True)[0]
    assert expected != generate(model, tokenizer, prompts, contract, adapter=False)[0]
    engine = Engine(list(models.by_id.values()), slots=4, queue=64)
    engine.start()

    def decode(**how) -> list[PendingRow]:
        rows = [PendingRow(ids, contract.max_new_tokens, **how) for ids in tokenizer(prompts)["input_ids"]]
        engine.submit(NAME, rows)
        assert all(row.answer.result(60) for row in rows)
        return rows

    assert [row.answer.result() for row in decode()] == expected
    # As on a GPU, where several steps are made before anybody looks.
    lane = engine.lanes[NAME]
    lane.steps = lane.batch.steps = 8
    lengths = []
    assert [row.answer.result() for row in decode(progress=lambda ids: lengths.append(len(ids)))] == expected
    assert min(lengths) == 1 and max(lengths) > 8
    for row, ids in zip(decode(stops=("a",)), expected, strict=True):
        texts = [tokenizer.decode(ids[:end], skip_special_tokens=True) for end in range(1, len(ids) + 1)]
        end = next((end for end, text in enumerate(texts, 1) if "a" in text), len(ids))
        assert row.answer.result() == ids[:end]
    engine.drain()
    engine.thread.join(10)
    assert not engine.thread.is_alive()


def test_an_adapter_with_a_head_of_its_own_writes_what_generate_writes(run, tmp_path):
    """No recipe trains one now; PEFT and other programs do (`modules_to_save`)."""
    models = load([str(run)], growing=True)
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q"], modules_to_save=["lm_head"],
                      revision=models.pin.revision)  # fmt: skip
    made = get_peft_model(sharing(models.base), lora)
    made.peft_config["default"].base_model_name_or_path = models.pin.id
    with torch.no_grad():
        made.base_model.model.lm_head.modules_to_save["default"].weight.mul_(-1)
    made.save_pretrained(tmp_path)
    models.by_id["own"] = models.load(Source("own", tmp_path, load_record(run), None))
    tokenizer = models.by_id["own"].tokenizer
    recipe = recipe_from_record("finance", load_record(run).recipe)
    contract = contract_of(recipe.arguments, "float32", 4)
    expected = generate(made.eval(), tokenizer, [ASKED, "Hello"], contract, adapter=True)[0]
    assert expected != generate(made, tokenizer, [ASKED, "Hello"], contract, adapter=False)[0]
    models._forget_what_is_packed()
    engine = Engine(list(models.by_id.values()), slots=4, queue=64)
    engine.start()
    rows = [PendingRow(ids, contract.max_new_tokens) for ids in tokenizer([ASKED, "Hello"])["input_ids"]]
    engine.submit("own", rows)
    assert [row.answer.result(60) for row in rows] == expected
    engine.drain()


def test_a_stream_is_the_answer_in_parts(service):
    how = {"model": BASE, "prompt": [ASKED, "Hello"], "n": 2, "max_tokens": 30, "temperature": 1.0, "seed": 3}
    plain = complete(service, **how)
    for stop in (None, texts(plain)[0][4:7]):
        whole = complete(service, **how, stop=stop)
        events = stream(service, "/v1/completions", how | {"stop": stop, "stream_options": {"include_usage": True}})
        *parts, last = events
        assert last["choices"] == [] and last["usage"] == whole["usage"]
        assert {part["object"] for part in events} == {"text_completion"} and len({part["id"] for part in events}) == 1
        for choice in whole["choices"]:
            own = [part["choices"][0] for part in parts if part["choices"][0]["index"] == choice["index"]]
            assert "".join(part["text"] for part in own) == choice["text"]
            assert [part["finish_reason"] for part in own] == [None] * (len(own) - 1) + [choice["finish_reason"]]
        assert len(parts) > 3 * len(whole["choices"]) or stop


def test_the_first_part_comes_long_before_the_last(service):
    body = {"model": BASE, "prompt": ASKED, "max_tokens": 512, "temperature": 2.0, "n": 64, "seed": 1, "stream": True}
    data = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", service.port)) as raw, raw.makefile("rb") as lines:
        begun = time.monotonic()
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        raw.sendall(b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n" % (KEY.encode(), len(data)) + data)
        times = [time.monotonic() for line in lines_until_done(lines) if b'"text":"' in line]
    # 64 parts open the answers before any token; 8 rows are decoded at once.
    assert len(times) > 150 and times[64] - begun < (times[-1] - begun) / 4


def lines_until_done(lines):
    for line in lines:
        yield line
        if line.startswith(b"data: [DONE]"):
            return


def test_a_client_that_leaves_its_stream_frees_the_slot(service):
    body = {"model": BASE, "prompt": [ASKED] * 40, "max_tokens": 512, "temperature": 2.0, "stream": True}
    data = json.dumps(body).encode()
    raw = socket.create_connection(("127.0.0.1", service.port))
    raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
    raw.sendall(b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n" % (KEY.encode(), len(data)) + data)
    assert raw.recv(100).startswith(b"HTTP/1.1 200")
    assert service.figure("serving_rows_waiting")
    raw.close()
    begun = time.monotonic()
    while service.figure("serving_rows_waiting") + service.figure("serving_rows_decoding"):
        assert time.monotonic() - begun < 5
        time.sleep(0.02)
    assert "Traceback" not in service.log


def test_a_chat_fills_the_template(service):
    expected = texts(complete(service))[0]
    for content in (QUESTION, [{"type": "text", "text": QUESTION}], json.dumps({"instruction": QUESTION, "input": ""})):
        answer = chat(service, user(content))
        assert answer["choices"][0]["message"] == {"role": "assistant", "content": expected, "refusal": None}
        assert answer["object"] == "chat.completion" and answer["warnings"] == [
            "the template's input stayed empty: send them all as a JSON object of texts"
        ]
    both = chat(service, user(json.dumps({"instruction": QUESTION, "input": "In Europe."})), max_completion_tokens=3)
    assert "warnings" not in both and both["usage"]["completion_tokens"] == 3
    assert both["usage"]["prompt_tokens"] == complete(service, prompt=f"{ASKED} In Europe.")["usage"]["prompt_tokens"]
    # The bare base has no template.
    assert (
        chat(service, user(ASKED), model=BASE)["choices"][0]["message"]["content"]
        == texts(complete(service, model=BASE))[0]
    )


def test_what_a_chat_holds_besides_the_question_is_told(service):
    history = [user("Hello"), {"role": "assistant", "content": "Hi", "refusal": None}]
    system = {"role": "system", "content": "Be short."}
    answer = chat(service, system, *history, user(QUESTION))
    assert [warning[:25] for warning in answer["warnings"][1:]] == [
        "the system text stands be",
        "only the last message was",
    ]
    same = complete(service, prompt=f"Be short.\n{ASKED}")
    assert answer["usage"] == same["usage"] and answer["choices"][0]["message"]["content"] == texts(same)[0]
    for messages, said in (
        ([user("Hello"), history[1]], "the last message is of the role assistant"),
        ([user(json.dumps({"instruction": "a", "inputs": "b"}))], "`inputs` is not a text of the template"),
        ([user(json.dumps({"instruction": 7}))], "`instruction` is not a text of the template"),
        ([user([{"type": "image_url", "image_url": {"url": "x"}}])], "`messages`: "),
        ([{"role": "tool", "content": "x"}], "`messages`: "),
        ([], "`messages`: "),
        ([user("\ud800")], "`messages`: a prompt holds half"),
    ):
        status, refused, _ = send(service, {"model": NAME, "messages": messages}, "/v1/chat/completions", **BEARER)
        assert status == 400 and refused["error"]["message"].startswith(said), refused


def test_a_chat_streams(service):
    body = {"model": NAME, "messages": [user(QUESTION)], "logprobs": True, "top_logprobs": 2}
    whole = post(service, "/v1/chat/completions", body)
    first, *parts = stream(service, "/v1/chat/completions", body)
    assert first["choices"][0]["delta"]["role"] == "assistant" and first["object"] == "chat.completion.chunk"
    choice = whole["choices"][0]
    assert "".join(part["choices"][0]["delta"].get("content", "") for part in parts) == choice["message"]["content"]
    figures = [one for part in parts for one in (part["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert figures == choice["logprobs"]["content"] and len(figures) == whole["usage"]["completion_tokens"]
    assert parts[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]


def test_the_figures_are_the_probabilities_of_the_tokens(service):
    answer = complete(service, logprobs=3)
    figures = answer["choices"][0]["logprobs"]
    text, count = texts(answer)[0], answer["usage"]["completion_tokens"]
    assert "".join(figures["tokens"]).strip() == text and len(figures["tokens"]) == count
    for token, own, best in zip(figures["tokens"], figures["token_logprobs"], figures["top_logprobs"], strict=True):
        # Greedy: each is the likeliest.
        assert own == best[token] == max(best.values()) < 0 and len(best) == 3
    assert figures["text_offset"][0] == 0 and figures["text_offset"] == sorted(figures["text_offset"])
    assert complete(service)["choices"][0]["logprobs"] is None
    assert complete(service, logprobs=0)["choices"][0]["logprobs"]["top_logprobs"] is None


def test_prompts_come_as_token_ids_and_are_echoed(service, models):
    tokenizer = models.by_id[NAME].tokenizer
    ids = tokenizer(ASKED)["input_ids"]
    plain = complete(service)
    for prompt in (ids, ids[:-1], [ids], [ids, ids[:-1]]):
        answer = complete(service, prompt=prompt)
        assert set(texts(answer)) == set(texts(plain))
        assert answer["usage"]["prompt_tokens"] == len(ids) * len(answer["choices"])
    assert texts(complete(service, echo=True)) == [ASKED + texts(plain)[0]]
    echoed = stream(service, "/v1/completions", {"model": NAME, "prompt": ASKED, "echo": True})
    assert "".join(event["choices"][0]["text"] for event in echoed) == ASKED + texts(plain)[0]


def test_a_model_is_retrieved_by_its_id(service):
    listed = send(service, None, "/v1/models", "GET", **BEARER)[1]["data"]
    for one in listed:
        for path in (f"/v1/models/{one['id']}", f"/v1/models/{one['id'].replace('/', '%2F')}"):
            assert send(service, None, path, "GET", **BEARER)[:2] == (200, one)


def test_only_who_has_a_key_gets_in(service):
    for headers in ({}, {"Authorization": f"Basic {KEY}"}, {"Authorization": "Bearer"}, {"Authorization": "Bearer é"},
                    {"Authorization": f"Bearer {KEY}x"}):  # fmt: skip
        for method, path in (("POST", "/v1/completions"), ("GET", "/v1/models"), ("POST", "/v1/load_lora_adapter")):
            status, answer, told = send(service, {}, path, method, **headers)
            assert status == 401 and answer["error"]["code"] == "invalid_api_key" and told["WWW-Authenticate"]
    assert send(service, None, "/v1/models", "GET", Authorization="Bearer another")[0] == 200
    assert [send_raw(service, None, path, "GET")[0] for path in ("/health", "/ready", "/metrics")] == [200] * 3
    assert KEY not in service.log


def test_a_request_has_an_id_that_the_log_tells(service):
    for own, kept in (("mine.1-a", True), ("x" * 65, False), ("two words", False)):
        told = send(service, None, "/v1/models", "GET", **BEARER, X_Request_Id=own)[2]["x-request-id"]
        assert (told == own) == kept
        begun = time.monotonic()
        while f" id={told}" not in service.log:
            assert time.monotonic() - begun < 5
            time.sleep(0.01)


def test_a_page_of_a_named_origin_may_ask(service):
    asks = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,x-stainless-os"}
    status, _, told = send_raw(service, None, "/v1/completions", "OPTIONS", Origin=PAGE, **asks)
    assert status == 200 and told["Access-Control-Allow-Origin"] == PAGE
    assert "x-stainless-os" in told["Access-Control-Allow-Headers"]
    assert send(service, None, "/v1/models", "GET", Origin=PAGE, **BEARER)[2]["Access-Control-Allow-Origin"] == PAGE
    assert send_raw(service, None, "/v1/completions", "OPTIONS", Origin="https://other.example", **asks)[0] == 400


def test_a_spaces_page_reads_as_long_a_text_as_the_service():
    assert (LONGEST, LONGEST_TEXT) == (MAX_PROMPT_TOKENS, MAX_PROMPT_CHARACTERS)


def test_the_document_names_every_path_and_parameter(service):
    told = send(service, None, "/openapi.json", "GET")[1]
    assert told == document()
    for path, operations in told["paths"].items():
        for method in operations:
            status = send_raw(service, b"{}" if method == "post" else None, path, method.upper(), **BEARER)[0]
            assert status == {"/v1/models/{id}": 404}.get(path, 400 if method == "post" else 200), path
    assert told["components"]["schemas"]["Chat"]["required"] == ["model", "messages"]


def test_adapters_come_and_go(service, run):
    load_path, unload_path = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"

    def change(path, **body):
        return send_raw(service, body, path, **BEARER)[:2]

    expected = texts(complete(service))
    assert change(load_path, lora_name="second", lora_path=str(run))[0] == 200
    assert texts(complete(service, model="second")) == expected
    for path, body, status, said in (
        (load_path, {"lora_name": "second", "lora_path": str(run)}, 400, "is loaded already"),
        (load_path, {"lora_name": "third", "lora_path": str(run.parent)}, 400, "holds no record.json"),
        (load_path, {"lora_name": "third", "lora_path": "nobody/nothing"}, 400, "no such repository"),
        (load_path, {"lora_name": "third", "lora_path": "0" * 900}, 400, "is not a Hub id"),
        (load_path, {"lora_name": "third"}, 400, "`lora_path`"),
        (unload_path, {"lora_name": BASE}, 400, "the base model stays"),
        (unload_path, {"lora_name": "third"}, 404, "there is no model"),
    ):
        found, answer = change(path, **body)
        assert found == status and said in json.loads(answer)["error"]["message"], answer
    assert change(unload_path, lora_name="second")[0] == 200
    assert send(service, {"model": "second", "prompt": "Hello"}, **BEARER)[0] == 404
    assert change(load_path, lora_name="second", lora_path=str(run))[0] == 200
    assert texts(complete(service, model="second")) == expected
    assert change(unload_path, lora_name="second")[0] == 200
    assert "Traceback" not in service.log


@pytest.mark.parametrize("tidied", [False, True])
def test_a_stream_takes_nothing_back(models, tidied):
    tokenizer = copy.deepcopy(models.by_id[BASE].tokenizer)
    tokenizer.clean_up_tokenization_spaces = tidied
    text = "They do n't pay , say 10 % . And 'we ' re here ! STOP ENDING all"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    for stops in ([], ["ENDS"], ["END"]):
        follower = TextStream(tokenizer, stops)
        parts = [follower.more(ids[:end]) for end in range(1, len(ids))]
        whole = tokenizer.decode(ids).strip()
        parts.append(follower.rest(ids))
        assert "".join(parts) == whole.partition("END")[0] if "END" in stops else "".join(parts) == whole
        assert sum(map(bool, parts)) > 3
