"""The page of a reproduction: the template `report.html.jinja` filled from the verdict and from what was found."""

import base64
import hashlib
import re
import shlex
from datetime import datetime
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from evaluation.predictions import Predictions
from evaluation.verdict import DECIDING, Found, Verdict, equivalent
from model_cards.card import INVISIBLE, SAMPLES
from recipes.record import METRIC_NAMES, Environment

HUB = "https://huggingface.co"
MODELS = {"base": "Base model", "adapter": "Adapter"}
EVIDENCE = {
    "hashes": "the bytes of the published files, against the sha256 that the record states",
    "numbers": "scores, computed again from the published outputs",
    "tokens": "outputs, generated again and compared token by token",
    "statistics": "what the outputs that differ do to the scores, with intervals",
}
LEVELS = {
    "score": "the published outputs are scored again, no model runs",
    "generate": "base model and adapter write their outputs again",
    "train": "the adapter is trained again from its recipe",
}
# Rows shown per model, how many of them unfolded, and the characters of HTML at which to stop earlier.
ROWS, UNFOLDED, CHARACTERS = 200, 20, 800_000
# Characters shown of one text, and of its beginning while it is folded.
TEXT, HEAD = 3_000, 280
# Characters of a long text shown before its first difference.
CONTEXT = 200
WORDS = re.compile(r"\w+|\s+|[^\w\s]")


def render_report(verdict: Verdict, found: Found) -> str:
    """The page as one HTML file that loads nothing and runs no script.

    Texts of record and data are hostile until escaped: every value passes `visible` and Jinja's autoescape.
    """
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=visible
    )
    environment.filters["csp_hash"] = csp_hash
    template = environment.from_string(Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8"))
    scored_in = found.record.scored_in if found.record else None
    return template.render(
        verdict=verdict,
        found=found,
        record=found.record,
        hub=HUB,
        models=MODELS,
        evidence=EVIDENCE,
        levels=LEVELS,
        deciding=DECIDING,
        metric_names=METRIC_NAMES,
        equivalent=equivalent,
        date=f"{datetime.fromisoformat(verdict.date):%-d %B %Y, %H:%M} UTC",
        command=command(verdict),
        unfolded=UNFOLDED,
        differing={model: differing_rows(verdict, found, model) for model in MODELS},
        examples=example_rows(found),
        environments=side_by_side(scored_in, verdict.environment),
    )


def differing_rows(verdict: Verdict, found: Found, model: str) -> list[dict[str, Any]]:
    """The first rows of `model` that differ, as many as the page may hold."""
    if found.fresh is None:
        return []
    place_of = {number: place for place, number in enumerate(found.rows)}
    rows, characters = [], 0
    for number in verdict.rows.get(model, [])[:ROWS]:
        row = _row(found.published, number) | _difference(found.published, number, found.fresh, place_of[number], model)
        characters += sum(len(escape(text)) for value in row.values() for text in _texts(value))
        if characters > CHARACTERS:
            break
        rows.append(row)
    return rows


def example_rows(found: Found) -> list[dict[str, Any]]:
    """The first rows that were compared, with both models' outputs."""
    if found.fresh is None:
        return []
    return [
        _row(found.published, number) | {model: folded(getattr(found.fresh, model)[place]) for model in MODELS}
        for place, number in enumerate(found.rows[:SAMPLES])
    ]


def _row(published: Predictions, number: int) -> dict[str, Any]:
    columns = ("prompt", "reference", "schema")
    return {
        "number": number,
        "seen": published.seen[number],
        **{name: folded(getattr(published, name)[number]) for name in columns},
    }


def _difference(published: Predictions, number: int, fresh: Predictions, place: int, model: str) -> dict[str, Any]:
    old, new = getattr(published, model)[number], getattr(fresh, model)[place]
    row = {"same_text": None, "right": {"published": old == published.reference[number],
                                        "now": new == published.reference[number]}}  # fmt: skip
    if old == new:
        row["same_text"] = folded(old)
        ids = (getattr(published, f"{model}_tokens")[number], getattr(fresh, f"{model}_tokens")[place])
        old, new = (" ".join(map(str, tokens)) for tokens in ids)
    row["published"], row["now"] = marked(old, new)
    return row


def _texts(value: Any) -> list[str]:
    return [x for x in value.values() if isinstance(x, str)] if isinstance(value, dict) else [str(value)]


def folded(text: str) -> dict[str, Any]:
    """A text as it is shown: its beginning, the whole if that is longer, and how many characters are left out."""
    whole = text[:TEXT]
    return {
        "head": visible(text[:HEAD]),
        "whole": visible(whole) if len(text) > HEAD else None,
        "length": len(text),
        "left_out": len(text) - len(whole),
    }


def marked(published: str, now: str) -> tuple[Markup, Markup]:
    """Both texts, the words that only one of them has in `<del>` and `<ins>`.

    Of texts longer than `TEXT`, that many characters from shortly before the first difference on.
    """
    start = 0
    if max(len(published), len(now)) > TEXT:
        pairs = enumerate(zip(published, now, strict=False))
        alike = next((place for place, (old, new) in pairs if old != new), min(len(published), len(now)))
        start = max(0, alike - CONTEXT)
    words = [WORDS.findall(text[start : start + TEXT]) for text in (published, now)]
    # Blanks are in every text: alone they are no likeness.
    matcher = SequenceMatcher(str.isspace, *words, autojunk=False)
    old, new = (Markup("<i>… after {:,} equal characters: </i>").format(start) if start else Markup() for _ in "12")
    for kind, a, b, c, d in matcher.get_opcodes():
        for_old, for_new = (visible("".join(text[i:j])) for text, i, j in ((words[0], a, b), (words[1], c, d)))
        old += escape(for_old) if kind == "equal" else Markup("<del>{}</del>").format(for_old) if b > a else ""
        new += escape(for_new) if kind == "equal" else Markup("<ins>{}</ins>").format(for_new) if d > c else ""
    rest = [max(0, len(text) - start - TEXT) for text in (published, now)]
    old, new = (
        side + Markup("<i> … {:,} more characters</i>").format(more) if more else side
        for side, more in zip((old, new), rest, strict=True)
    )
    return old, new


def visible(value: Any) -> Any:
    """The value; in a text, marks that hide or reorder what stands around them are replaced by their code points."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return INVISIBLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", value)


def side_by_side(there: Environment | None, here: Environment | None) -> list[dict[str, Any]]:
    """Where the scores were taken and where they were checked: `name`, `there`, `here`; None where nothing is known."""
    facts = [_facts(environment) for environment in (there, here)]
    return [{"name": name, "there": facts[0].get(name), "here": facts[1].get(name)} for name in facts[0] | facts[1]]


def _facts(environment: Environment | None) -> dict[str, str]:
    if environment is None:
        return {}
    code = environment.code_commit or "not under version control"
    return {
        "device": environment.device,
        "platform": environment.platform,
        "threads": str(environment.threads),
        "Python": environment.python,
        **environment.packages,
        "code": f"{code}, with uncommitted changes" if environment.code_dirty else code,
    }


def command(verdict: Verdict) -> str:
    """The command that makes this check again."""
    arguments = [] if verdict.level == "generate" else [f"--level {verdict.level}"]
    arguments += [] if verdict.sample is None else [f"--sample {verdict.sample}"]
    words = ["make", "reproduce", f"ADAPTER={shlex.quote(verdict.adapter)}"]
    words += [f"REVISION={verdict.revision}"] if verdict.revision else []
    return " ".join(words + ([f'ARGS="{" ".join(arguments)}"'] if arguments else []))


def csp_hash(style: str) -> str:
    """The source that a Content-Security-Policy allows this style sheet by (CSP level 3, section 2.3.1)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}"
