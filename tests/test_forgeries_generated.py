"""Forgeries by the thousand: changes of a true release, singly and in consistent groups, none of which is REPRODUCED.

    FORGERIES=all .venv/bin/python -m pytest tests/test_forgeries_generated.py      # 2,000 instead of 40

Each change is scored, rendered and hashed again by this project's own code, as a forger can. What no check of a level
can tell stands in `evaluation.limits.LIMITS`, and is not generated.
"""

import json
import os
import re
import shutil
from functools import partial

import pytest
import torch
from forger import (
    config,
    copy_of,
    elsewhere,
    file,
    predictions,
    publish,
    published_as,
    record,
    said,
    scaled,
    the_reference,
    weights,
)
from huggingface_hub.errors import HfHubHTTPError
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from evaluation.limits import LIMITS
from evaluation.reproduce import reproduce
from record.errors import UserError
from record.release_files import ADAPTER_FILE
from record.run_record import load_record

REPO = "local-user/forged-by-the-thousand"
MANY = 2_000 if os.environ.get("FORGERIES") == "all" else 40
SPARED = re.compile("|".join(limit.fields for limit in LIMITS if limit.fields))
# Written anew with every forgery.
RENDERED = re.compile(r"(files|rendered)\..*|schema_version|expectations.*|training\.adapter_sha256")


SETTINGS = [{"r": 8}, {"lora_alpha": 64}, {"use_rslora": True}, {"use_dora": True}, {"bias": "all"},
            {"peft_type": "IA3"}, {"modules_to_save": ["lm_head"]}, {"revision": "0" * 40}, {"target_modules": ["q"]},
            {"rank_pattern": {"q": 4}}]  # fmt: skip


@pytest.fixture(scope="module")
def release(scored_on_few_rows, tmp_path_factory):
    return published_as(REPO.partition("/")[2], scored_on_few_rows, tmp_path_factory.mktemp("runs") / "finance")


def leaves(value, path=""):
    """The dotted paths of all plain values of a record, and the values."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in items:
            yield from leaves(part, f"{path}.{key}".lstrip("."))
    else:
        yield path, value


def other_values(value):
    """Values of the same kind that differ from the true one."""
    if isinstance(value, bool):
        return st.just(not value)
    if isinstance(value, int):
        return st.sampled_from([value + 1, value - 1, value * 2 + 3, 0, 10**6]).filter(lambda x: x != value)
    if isinstance(value, float):
        return st.sampled_from([value + 1e-3, value - 1e-3, value * 1.1 + 0.01, 0.0, 1.0]).filter(
            lambda x: abs(x - value) > 1e-6
        )
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{40,64}", value):
        return st.sampled_from(["0" * len(value), value[::-1]]).filter(lambda x: x != value)
    return st.sampled_from(["mit", "0.1", "x", "google/flan-t5-base", "words", "2"]).filter(lambda x: x != value)


def one_field(draw, paths):
    path = draw(st.sampled_from(sorted(paths)))
    return f"{path} differs", record(**{path.replace(".", "__"): draw(other_values(paths[path]))})


def some_outputs(draw, paths):
    who = draw(st.sampled_from(["base", "adapter"]))
    other = {"base": "adapter", "adapter": "base"}[who]
    rows = sorted(draw(st.sets(st.integers(0, 89), min_size=1, max_size=6)))
    how, ids = draw(
        st.sampled_from(
            [
                ("the reference", the_reference),
                ("nothing", lambda found, tokens, row: []),
                ("another row's", lambda found, tokens, row: getattr(found, f"{who}_tokens")[row - 1]),
                ("the other model's", lambda found, tokens, row: getattr(found, f"{other}_tokens")[row]),
                ("one word more", lambda found, tokens, row: [*getattr(found, f"{who}_tokens")[row][:11], 8]),
            ]
        )
    )
    also = draw(st.sampled_from([{}, {"scored_in": elsewhere}]))

    def different(found, tokens, row):
        new = ids(found, tokens, row)
        assume(new != getattr(found, f"{who}_tokens")[row])
        return new

    return f"{who} wrote {how} in rows {rows} {[*also]}", predictions(said(who, rows, different), **also)


def one_file(draw, paths):
    name = draw(st.sampled_from(["README.md", "adapter_config.json", ADAPTER_FILE, "plots/loss.png", "plots/scores.png",
                                 "predictions.parquet", "tokenizer.json", "finance.yaml", "record.json"]))  # fmt: skip
    place, bit = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(0, 7))

    def flip(data):
        at = int(place * len(data))
        return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]

    # A record is not hashed by itself.
    assume(name != "record.json")
    return f"bit {bit} at {place:.3f} of {name}", file(name, flip)


def one_digit(draw, paths):
    place, digit = draw(st.floats(0, 1, exclude_max=True)), draw(st.sampled_from("0123456789"))

    def change(data):
        text = data.decode()
        hidden = [match.span() for match in re.finditer(r"<!-- free: .*?<!-- /free -->", text, re.DOTALL)]
        digits = [
            match.start()
            for match in re.finditer(r"\d", text)
            if not any(start <= match.start() < end for start, end in hidden)
        ]
        at = digits[int(place * len(digits))]
        assume(text[at] != digit)
        return (text[:at] + digit + text[at + 1 :]).encode()

    return f"digit {digit} at {place:.3f} of the card, hashed", file("README.md", change, hashed=True)


def one_setting(draw, paths):
    keys = draw(st.sampled_from(SETTINGS))
    return f"adapter_config.json with {keys}", config("adapter_config.json", **keys)


def other_weights(draw, paths):
    how = draw(st.sampled_from([partial(scaled, by=0), partial(scaled, by=3), partial(scaled, by=-1), noise]))
    return "other weights, hashed", weights(how)


def noise(tensors):
    return {name: torch.randn_like(tensor) for name, tensor in tensors.items()}


RENDERING = [one_field] * 4 + [some_outputs] * 2 + [other_weights, one_setting]


@settings(max_examples=MANY, deadline=None, derandomize="FORGERIES" not in os.environ, database=None, print_blob=True,
          phases=[Phase.generate], suppress_health_check=[*HealthCheck])  # fmt: skip
@given(data=st.data())
def test_no_forgery_is_reproduced(release, tmp_path_factory, data):
    run, _ = release
    true = dict(leaves(json.loads(load_record(run / "release").to_bytes())))
    paths = {path: value for path, value in true.items() if not (SPARED.fullmatch(path) or RENDERED.fullmatch(path))}
    kinds = data.draw(st.lists(st.sampled_from(RENDERING), max_size=2))
    # What is rendered comes first: a file is changed in what was laid out.
    kinds += data.draw(st.lists(st.sampled_from([one_file, one_digit]), min_size=not kinds, max_size=1))
    changes = [kind(data.draw, paths) for kind in kinds]
    folder = tmp_path_factory.mktemp("forged")

    def forge(copy, repo_id):
        for _, change in changes:
            staged = change(copy, repo_id)
        return staged

    run, commit = release
    try:
        forged = forge(copy_of(run, folder / "forged"), REPO)
        revision = publish(REPO, commit, run / "release", forged)
    except (ValueError, UserError, AssertionError, KeyError, TypeError, HfHubHTTPError):
        # No release: this project's own code, the client or the Hub refuses it.
        assume(False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    verdict, _ = reproduce(REPO, revision, level="score")
    if verdict.verdict == "REPRODUCED":
        verdict, _ = reproduce(REPO, revision, level="generate")
    assert verdict.verdict != "REPRODUCED", [label for label, _ in changes]
