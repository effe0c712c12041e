"""Secrets in texts: found before something is published, and taken out of what is printed.

Patterns, not entropy: a release is full of sha256 sums and numbers. They follow gitleaks' rules
(https://github.com/gitleaks/gitleaks/blob/master/config/gitleaks.toml), each preceded by words that a text must hold
for the pattern to be tried, as there. detect-secrets 1.5.0, the library for this in Python, has had no release since
May 2024 and knows neither Hugging Face's, Anthropic's, Google's nor GitHub's fine-grained tokens.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

# A password that documentation writes: `user:password@`, `user:<password>@`, `user:$PASSWORD@`, `user:***@`.
PLACEHOLDER = r"(?:pass(?:word|wd)?|pwd|secret|token|x+|\.+|\*+|[<{$\[%][^@\s]*)"
PATTERNS = [
    # https://huggingface.co/docs/hub/security-tokens; `hf_xxx…` is how documentation writes one.
    ("Hugging Face token", ("hf_",), r"(?<![A-Za-z0-9])hf_(?!x{30})[A-Za-z0-9]{30,}"),
    ("Hugging Face organization token", ("api_org_",), r"(?<![A-Za-z0-9])api_org_(?!x{30})[A-Za-z0-9]{30,}"),
    # private-key, also with the line breaks written as \n; the heading alone stands in many a manual.
    ("private key", ("PRIVATE KEY",),
     r"-----BEGIN[ A-Z0-9_-]{0,100}PRIVATE KEY(?: BLOCK)?-----[\s\S]{0,200}?[A-Za-z0-9+/=]{16,}"
     r"(?:(?:\s|\\n)+[A-Za-z0-9+/=]{16,})*"),
    # aws-access-token; AWS' own documentation ends its keys in EXAMPLE.
    ("AWS key id", ("A3T", "AKIA", "ASIA", "ABIA", "ACCA"),
     r"(?<![A-Za-z0-9])(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)(?![A-Z2-7]{9}EXAMPLE)[A-Z2-7]{16}(?![A-Za-z0-9])"),
    ("AWS secret key", ("aws_secret", "AWS_SECRET", "SecretAccessKey"),
     r"(?:aws_secret_access_key|AWS_SECRET_ACCESS_KEY|SecretAccessKey)[\"'\s:=]{1,8}(?!\S*EXAMPLE)[A-Za-z0-9/+]{40}"),
    # gcp-api-key, and the file of a service account (https://cloud.google.com/iam/docs/keys-create-delete)
    ("Google API key", ("AIza",), r"(?<![A-Za-z0-9])AIza[\w-]{35}(?![\w-])"),
    ("Google service account", ("service_account",), r"[\"']type[\"']\s*:\s*[\"']service_account[\"']"),
    ("Google OAuth token", ("ya29.",), r"(?<![A-Za-z0-9])ya29\.[\w-]{20,}"),
    # azure storage: detect-secrets' azure_storage_key
    ("Azure storage key", ("AccountKey=",), r"AccountKey=[A-Za-z0-9+/]{86}=="),
    # github-pat, -oauth, -app-token, -refresh-token, -fine-grained-pat
    ("GitHub token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{36}"),
    ("GitHub token", ("github_pat_",), r"github_pat_\w{50,}"),
    # gitlab-pat, -deploy-token, -rrt, -ptt, -cicd-job-token, -feed-token, -incoming-mail-token, -kubernetes-agent-token
    ("GitLab token", ("glpat-", "gldt-", "glrt-", "glptt-", "glcbt-", "glft-", "glimt-", "glagent-", "glsoat-"),
     r"(?<![A-Za-z0-9])gl(?:pat|dt|rt|ptt|cbt|ft|imt|agent|soat)-[\w-]{20,}"),
    # openai-api-key (T3BlbkFJ is base64 for OpenAI), anthropic-api-key and -admin-api-key
    ("OpenAI key", ("sk-proj-", "sk-svcacct-", "sk-admin-"),
     r"(?<![A-Za-z0-9])sk-(?:proj|svcacct|admin)-(?=[\w-]*\d)[\w-]{20,}"),
    ("OpenAI key", ("T3BlbkFJ",), r"sk-[\w-]{20,}T3BlbkFJ[\w-]{20,}"),
    ("Anthropic key", ("sk-ant-",), r"sk-ant-[a-z]+\d\d-[\w-]{20,}"),
    # slack-bot-token, -user-token, -app-token …, -webhook-url
    ("Slack token", ("xox", "xapp-"), r"(?<![A-Za-z0-9])(?:xox[abceoprs]|xapp)-(?=[\w.-]*\d)[\w.-]{20,}"),
    ("Slack webhook", ("hooks.slack.com",),
     r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{40,}"),
    ("Discord webhook", ("/api/webhooks/",), r"discord(?:app)?\.com/api/webhooks/\d{17,20}/[\w-]{60,}"),
    # stripe-access-token, sendgrid-api-token, npm-access-token
    ("Stripe key", ("k_live_", "k_test_", "k_prod_"),
     r"(?<![A-Za-z0-9])[sr]k_(?:live|test|prod)_[A-Za-z0-9]{20,}"),
    ("SendGrid key", ("SG.",), r"(?<![A-Za-z0-9])SG\.[\w-]{22}\.[\w-]{43}"),
    ("npm token", ("npm_",), r"(?<![A-Za-z0-9])npm_[A-Za-z0-9]{36}"),
    # pypi-upload-token; `AgE` begins every macaroon, of pypi.org and of test.pypi.org
    ("PyPI token", ("pypi-AgE",), r"pypi-AgE[\w-]{50,}"),
    # jwt: RFC 7519, three base64 parts, of which two begin with {"
    ("JSON web token", ("eyJ",), r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{16,}"),
    # curl-auth-header: RFC 7617 and 6750
    ("Authorization header", ("uthorization", "UTHORIZATION"),
     r"(?i:authorization)[\"']?\s*[:=]\s*[\"']?(?i:basic|bearer|token)\s+(?=[a-zA-Z_]*\d)[\w=~@.+/-]{16,}"),
    # RFC 3986, section 3.2.1
    ("password in a URL", ("://",), rf"://[^\s/:@?#\"'<>]*:(?!{PLACEHOLDER}@)[^\s/@?#\"'<>]+@(?=[\w\[])"),
    # the format of ~/.netrc, in one line or several
    ("netrc line", ("machine",),
     rf"machine\s+\S+\s+login\s+\S+\s+password\s+(?!{PLACEHOLDER}(?:\s|$))\S+"),
]  # fmt: skip
SECRETS = [(kind, words, re.compile(pattern)) for kind, words, pattern in PATTERNS]
SECRET_NAMES = ("_TOKEN", "_KEY", "_SECRET", "_PASSWORD")
# Of a shorter or a simpler value, such as `changeme`, the same letters may stand somewhere by chance.
MIN_LENGTH, MIN_DIFFERENT = 16, 8
# What signs the URLs that the Hub redirects to (S3, CloudFront, Azure, Google) and tokens that stand in a query.
SIGNED_QUERY = re.compile(
    r"\?[^\s\"'<>)]*?(?:signature|sig|key-pair-id|policy|credential|security-token|token|api_?key|secret|password)="
    r"[^\s\"'<>)]*",
    re.IGNORECASE,
)
BEARER = re.compile(r"((?:bearer|basic)\s+)(?=[a-zA-Z_.-]*\d)[\w=~@.+/-]{16,}", re.IGNORECASE)


@dataclass
class Secret:
    """What was found: its `kind`, for people, with its first four characters at most, and where it stands."""

    kind: str
    start: int
    end: int


def own_secrets() -> dict[str, str]:
    """The secrets of this process by their values, with where each comes from.

    These are the token that the Hub's client would use, whatever its form, and the values of environment variables
    that end in `SECRET_NAMES`, of at least `MIN_LENGTH` characters, `MIN_DIFFERENT` of them different, and no path.
    """
    from huggingface_hub import get_token

    own = {
        value: f"the value of {name}"
        for name, value in os.environ.items()
        if name.upper().endswith(SECRET_NAMES) and len(value) >= MIN_LENGTH and len(set(value)) >= MIN_DIFFERENT
        and not re.search(r"\s|^[/.~]|^[A-Za-z]:\\", value)
    }  # fmt: skip
    token = get_token()
    return own | ({token: "the token that this process uses"} if token else {})


def find_secrets(text: str, own: dict[str, str]) -> Iterator[Secret]:
    """Every secret in a text: what looks like one by its form, and those of this process (`own_secrets`)."""
    for kind, words, pattern in SECRETS:
        if any(word in text for word in words):
            for match in pattern.finditer(text):
                prefix = f" {match[0][:4]}…" if re.match(r"\w{2}", match[0]) and kind != "netrc line" else ""
                yield Secret(f"{kind}{prefix}", match.start(), match.end())
    for value, kind in own.items():
        start = text.find(value)
        while start >= 0:
            yield Secret(kind, start, start + len(value))
            start = text.find(value, start + 1)


def redact(text: str) -> str:
    """The text, fit to be printed: with `[kind …]` for every secret and without the queries of signed URLs."""
    # The longest first: of two that overlap, the inner one is gone with the outer one.
    for value in sorted(own_secrets(), key=len, reverse=True):
        text = text.replace(value, "[redacted]")
    text = BEARER.sub(r"\1[redacted]", SIGNED_QUERY.sub("?[redacted]", text))
    for kind, words, pattern in SECRETS:
        if any(word in text for word in words):
            text = pattern.sub("://[redacted]@" if kind == "password in a URL" else f"[{kind}]", text)
    return text
