"""What is printed holds no secret."""

import pytest
from planted import TOKENS, shows

from record.redaction import redact


@pytest.mark.parametrize("kind", TOKENS)
def test_a_printed_line_loses_its_secrets(kind):
    secret = TOKENS[kind]
    line = redact(f"the Hub answered 401 for {secret} (try again)")
    assert line.startswith("the Hub answered 401 for ") and line.endswith("(try again)")
    assert not shows(line, secret)


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("GET https://cdn.example/x/y?X-Amz-Algorithm=A&X-Amz-Signature=0a1b&x=1 failed",
         "GET https://cdn.example/x/y?[redacted] failed"),
        ("(https://cdn.example/f?Expires=1&Policy=eyJ&Signature=ab~c_&Key-Pair-Id=K1)",
         "(https://cdn.example/f?[redacted])"),
        ("'https://account.blob.example/f?sv=2030&sig=a%2Bb'", "'https://account.blob.example/f?[redacted]'"),
        ("http://h/api?revision=main&limit=5 not found", "http://h/api?revision=main&limit=5 not found"),
        ("https://anna:Sommer-2031@proxy.example:8080 refused", "https://[redacted]@proxy.example:8080 refused"),
        ("headers: {'authorization': 'Bearer proxy.anna.42.abcd'}", "headers: {'authorization': 'Bearer [redacted]'}"),
        ("error: google/flan-t5-large@0613663d0d48ea86ba8cb3d7a44f0f65dc596a2a holds no config.json",
         "error: google/flan-t5-large@0613663d0d48ea86ba8cb3d7a44f0f65dc596a2a holds no config.json"),
    ],
)  # fmt: skip
def test_a_printed_line_loses_signatures_and_keeps_the_rest(line, left):
    assert redact(line) == left


def test_a_printed_line_loses_this_processs_own_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "proxy.anna.42")
    monkeypatch.setenv("WANDB_API_KEY", "0a1b2c3d4e5f6789" * 2)
    line = redact(f"proxy.anna.42 and {'0a1b2c3d4e5f6789' * 2} are not valid")
    assert line == "[redacted] and [redacted] are not valid"
