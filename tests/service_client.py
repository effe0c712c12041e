"""Requests to the service, for tests: plain HTTP, so that whatever is wrong can be sent."""

import http.client
import json

from benchmarks.load import Process


def send(process: Process, body, path="/v1/completions", method="POST", **headers):
    """Status, parsed body and headers of one request; `body` is bytes or what becomes JSON."""
    status, answer, told = send_raw(process, body, path, method, **headers)
    return status, json.loads(answer), told


def send_raw(process: Process, body, path: str, method="POST", **headers):
    """The same with the body as bytes."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, data, {"Content-Type": "application/json"} | named)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, answer, response.headers


def ask(process: Process, model: str, prompt, **how) -> dict:
    status, answer, _ = send(process, {"model": model, "prompt": prompt, **how})
    assert status == 200, answer
    return answer


def texts(answer: dict) -> list[str]:
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(answer["choices"])))
    return [choice["text"] for choice in answer["choices"]]
