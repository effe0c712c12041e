"""Others' programs that speak with OpenAI's API, each with its defaults, in an environment of its own."""

import json
import shutil
import subprocess
from math import exp
from pathlib import Path

import npm_clients
import pytest
import python_clients
import torch
from service_client import send, texts
from short_runs import train_short

from benchmarks.load import running
from local_hub.miniatures import finance as questions
from recipes.config import recipe_from_record
from record.run_record import load_record
from scoring.decoding.predict import load_for_scoring

NAME, BASE, KEY = "finance", "google/flan-t5-large", "a-key-of-mine"
QUESTION = questions.rows()[0]["instruction"]
ASKED = f"Answer the financial question. {QUESTION}"
CLIENTS = {
    "openai_client.py": ["openai==3.57.0"],
    "langchain_client.py": ["langchain-openai==1.7.4"],
    "litellm_client.py": ["litellm==1.110.2"],
    "llm_client.py": ["llm==0.36"],
    "inspect_client.py": ["inspect-ai==0.3.285", "openai==3.57.0"],
    "lm_eval_client.py": [*python_clients.LM_EVAL],
    "schemathesis_client.py": ["schemathesis==4.32.5"],
    "openai_client.mjs": {"openai": "7.57.0"},
    "ai_sdk_client.mjs": {"ai": "7.0.173", "@ai-sdk/openai-compatible": "3.0.92"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    # Long enough that every answer comes to its end, whatever limit a client sends.
    overrides = ("--learning_rate", "0.01", "--max_new_tokens", "64")
    return train_short(tmp_path_factory.mktemp("clients") / NAME, *overrides)


@pytest.fixture(scope="module")
def service(run):
    with running([str(run)], "--slots", "8", "--allow-loading", "--api-key", KEY) as process:
        yield process


@pytest.fixture(scope="module")
def expected(service):
    status, answer, _ = send(service, {"model": NAME, "prompt": ASKED}, Authorization=f"Bearer {KEY}")
    assert status == 200 and answer["choices"][0]["finish_reason"] == "stop", answer
    return texts(answer)[0]


@pytest.fixture
def told(service, hub, expected, tmp_path):
    """What a client's program in this folder prints."""

    def tell(program: str) -> dict:
        address, text = f"http://127.0.0.1:{service.port}/v1", Path(__file__).with_name(program).read_text()
        environment = hub.env(tmp_path / "hub") | {
            "HOME": str(tmp_path), "MODEL": NAME, "BASE": BASE, "QUESTION": QUESTION, "PROMPT": ASKED,
            "EXPECTED": expected, "OPENAI_BASE_URL": address, "OPENAI_API_KEY": KEY,
            # inspect-ai's names of the same; and litellm asks the internet for prices.
            "HERE_BASE_URL": address, "HERE_API_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }  # fmt: skip
        packages = CLIENTS[program]
        if isinstance(packages, dict):
            return npm_clients.run(text, tmp_path, environment, packages)
        return python_clients.run(python_clients.install(*packages), text, environment)

    return tell


@pytest.mark.parametrize("program", ["openai_client.py", "openai_client.mjs"])
def test_openais_own_client(program, told, expected):
    assert told(program) == {
        "answers": [expected] * 4,
        "model": NAME,
        "models": [NAME, BASE],
        "request": "req-",
        "missing": "model_not_found",
    }


@pytest.mark.parametrize(
    "program, answers", {"ai_sdk_client.mjs": 2, "litellm_client.py": 5, "llm_client.py": 3}.items()
)
def test_a_client_gets_the_answer_in_each_of_its_ways(program, answers, told, expected):
    assert told(program) == {"answers": [expected] * answers}


def test_langchain(told, expected):
    assert told("langchain_client.py") == {"answers": [expected] * 5, "drawn": ["str", True]}


def test_inspect_evaluates_twenty_rows(told, expected):
    assert told("inspect_client.py") == {"answers": [expected] * 20, "rows": 20, "accuracy": 1.0}


def test_lm_eval_computes_what_the_model_computes(told, expected, run):
    found = told("lm_eval_client.py")
    assert found["answers"] == [expected] * 3 and found["exact"] == 1.0
    record = load_record(run)
    model, tokenizer, _ = load_for_scoring(run, record, recipe_from_record(record.name, record.recipe).model)

    def likelihood(read: list[int], text: str) -> tuple[float, bool]:
        """The sum of a text's log probabilities (nats), and whether each of its tokens is the likeliest."""
        written = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([read]), labels=written).logits.log_softmax(2)
        own = logits.gather(2, written[..., None]).sum().item()
        return own, bool((logits.argmax(2) == written).all())

    choices = [likelihood(tokenizer(ASKED)["input_ids"], text) for text in ("yes", expected)]
    assert [greedy for _, greedy in choices] == [False, True]
    assert found["choices"] == [[pytest.approx(value, rel=1e-4), greedy] for value, greedy in choices]
    alone = likelihood([tokenizer.eos_token_id], expected)[0]
    assert found["perplexity"] == pytest.approx(exp(-alone / len(expected.encode())), rel=1e-4)


def test_schemathesis_finds_nothing(told, service):
    found = told("schemathesis_client.py")
    assert found["operations"] == 9 and found["cases"] > 100
    assert "Traceback" not in service.log


def test_curl(service, expected):
    def curl(*arguments: str) -> str:
        address = f"http://127.0.0.1:{service.port}/v1/completions"
        command = ["curl", "--silent", "--fail", address, "-H", f"Authorization: Bearer {KEY}", "--json", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    assert shutil.which("curl")
    asked = {"model": NAME, "prompt": ASKED}
    assert texts(json.loads(curl(json.dumps(asked)))) == [expected]
    *events, done = curl(json.dumps(asked | {"stream": True}), "--no-buffer").strip().split("\n\n")
    assert done == "data: [DONE]" and len(events) > 5
    parts = [json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events]
    assert "".join(parts) == expected
