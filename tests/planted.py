"""Secrets for tests, made here so that no scanner takes these files for a leak, and what only looks like one."""

import re

LETTERS = "aB3dE5gH1jK7mN9pQ2sT4vW6xY8z"


def mixed(length: int) -> str:
    """Letters and digits as a token has them, made here so that no scanner takes this file for a leak."""
    return (LETTERS * 8)[:length]


PEM = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEowIBAAKCAQEA" + mixed(48)
TOKENS = {
    "Hugging Face token": "hf_" + mixed(34),
    "Hugging Face organization token": "api_org_" + mixed(34),
    "private key": PEM,
    "AWS key id": "AKIA" + "QWERTY234567ZXCV",
    "AWS secret key": "aws_secret_access_key = " + mixed(38) + "/+",
    "Google API key": "AIza" + mixed(35),
    "Google service account": '{"type": "service_account", "project_id": "p"}',
    "Google OAuth token": "ya29." + mixed(60),
    "Azure storage key": "AccountKey=" + mixed(86) + "==",
    "GitHub token": "ghp_" + mixed(36),
    "GitHub token, fine-grained": "github_pat_" + mixed(22) + "_" + mixed(59),
    "GitLab token": "glpat-" + mixed(20),
    "OpenAI key": "sk-proj-" + mixed(74) + "T3Blbk" + "FJ" + mixed(74),
    "OpenAI key, old": "sk-" + mixed(20) + "T3Blbk" + "FJ" + mixed(20),
    "Anthropic key": "sk-ant-api03-" + mixed(93) + "AA",
    "Slack token": "xoxb-" + "123456789012-123456789012-" + mixed(24),
    "Slack webhook": "hooks.slack.com/services/" + "T01234567/B0123456789/" + mixed(24),
    "Discord webhook": "discord.com/api/webhooks/" + "1" * 18 + "/" + mixed(68),
    "Stripe key": "sk_live_" + mixed(24),
    "SendGrid key": "SG." + mixed(22) + "." + mixed(43),
    "npm token": "npm_" + mixed(36),
    "PyPI token": "pypi-" + "AgEIcHlwaS5vcmc" + mixed(80),
    "JSON web token": "eyJ" + mixed(20) + ".eyJ" + mixed(30) + "." + mixed(43),
    "Authorization header": "Authorization: Bearer " + mixed(40),
    "password in a URL": "https://anna:" + "Sommer-2031" + "@models.example.org/x",
    "netrc line": "machine huggingface.co login anna password " + "Sommer-2031",
}
INNOCENT = [
    "sha256 " + "0123456789abcdef" * 4,
    "a commit 0613663d0d48ea86ba8cb3d7a44f0f65dc596a2a",
    "hf_hub_download and hf_transfer_enabled_by_default_everywhere",
    "set HF_TOKEN=hf_" + "x" * 34,
    "hf_… tokens begin with hf_, GitHub's with ghp_, OpenAI's with sk-proj-",
    "AKIA" + "IOSFODNN7EXAMPLE",
    "a key begins with -----BEGIN PRIVATE KEY----- and ends likewise.",
    "postgresql://user:password@localhost:5432/db",
    "https://user:<password>@example.org and https://$USER:$PASSWORD@example.org and redis://:***@cache:6379",
    "http://127.0.0.1:8000/path and mailto:me@example.org, see https://example.org/a:b@c",
    "machine learning: login with your name and password",
    "SELECT sk_test_result, rk_live_status FROM risk_test_measurements",
    "Authorization: Bearer YOUR_ACCESS_TOKEN_GOES_HERE",
    "eyJhbGciOi is how a JSON web token begins",
    "the service_account role; type service_account",
    "a" * 200 + "/" + "Zm9vYmFy" * 20,
    "npm_package_config_with_a_really_long_variable_name",
    "Cut along the dashed line ----- and keep it; task-ant-api is not sk-ant-api",
]


def shows(line: str, secret: str) -> bool:
    """Whether a line holds eight characters of a secret, or of one of its parts, behind the first two."""
    parts = [part for part in re.split(r"[\s:@]+", secret) if len(part) > 10 and re.search(r"\d", part)]
    return any(part[start : start + 8] in line for part in parts for start in range(2, len(part) - 8))
