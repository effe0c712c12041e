"""The page of a reproduction: the template `verdict_page.html.jinja` filled from the verdict and the findings."""

import re
import shlex
from collections.abc import Sequence
from datetime import datetime
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from markupsafe import Markup

from evaluation.findings import Findings
from evaluation.tolerance import outcome
from model_cards.card import HUB, SAMPLES
from model_cards.html import PAGE_STYLE, TEXT, render_page, source, visible
from record.predictions import Predictions
from record.run_record import Environment
from record.scores import BASELINES, METRIC_NAMES
from record.verdict import EVIDENCE, Change, Model, Verdict

MODELS: dict[Model, str] = {"base": "Base model", "adapter": "Adapter"}
LEVELS = {
    "score": "the published outputs are scored again, no model runs",
    "prefill": "base model and adapter read their published outputs, none is written again",
    "generate": "base model and adapter write their outputs again",
    "train": "the adapter is trained again from its recipe",
}
# What a difference shows, by `outcome`: the class of its cell and its text.
SHOWS = {"same": ("same", "= no change"), "moved": ("moved", "≠ a change"), "undecided": ("quiet", "? too few rows")}
SEEN_AS = {
    "exact": "as exact copies",
    "near": "as near-duplicates of their input",
    "prompt": "with the same prompt or token ids",
    "disguised": "in disguise",
}
# Rows shown per model, how many of them unfolded, and the characters of HTML at which to stop earlier.
ROWS, UNFOLDED, CHARACTERS = 200, 20, 800_000
# Characters shown of a text while it is folded.
HEAD = 280
# Characters of a long text shown before its first difference.
CONTEXT = 200
# A word or a sign with the blanks before it: blanks of their own would be likenesses everywhere.
WORDS = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")


def render_report(verdict: Verdict, findings: Findings) -> str:
    """The page as one HTML file that loads nothing and runs no script."""
    scored_in = findings.record.scored_in if findings.record else None
    contract = findings.record.contract if findings.record else None
    scores = findings.record.scores if findings.record else None
    scored = dict.fromkeys(change.metric for change in verdict.changes) or (scores.adapter if scores else {})
    deciding = contract.deciding(scored) if contract else []
    return render_page(
        Path(__file__).with_name("verdict_page.html.jinja"),
        style=source(PAGE_STYLE),
        verdict=verdict,
        findings=findings,
        record=findings.record,
        hub=HUB,
        models=MODELS,
        evidence=EVIDENCE,
        levels=LEVELS,
        deciding=deciding,
        changed=[change for change in verdict.changes if not _unchanged(change)],
        unchanged=[change for change in verdict.changes if _unchanged(change)],
        seen_as=SEEN_AS,
        metric_names=METRIC_NAMES,
        baseline_names=BASELINES,
        outcome=outcome,
        shows=SHOWS,
        date=f"{datetime.fromisoformat(verdict.date):%-d %B %Y, %H:%M} UTC",
        command=command(verdict),
        unfolded=UNFOLDED,
        differing={model: differing_rows(verdict, findings, model) for model in MODELS},
        examples=example_rows(findings),
        environments=side_by_side(scored_in, verdict.environment),
    )


def _unchanged(change: Change) -> bool:
    """Whether a score is the published one in every row, so that there is nothing to tell of it."""
    return change.difference.low == change.difference.mean == change.difference.high == 0


def differing_rows(verdict: Verdict, findings: Findings, model: Model) -> list[dict[str, Any]]:
    """The first rows of `model` that differ, as many as the page may hold."""
    published, fresh = findings.published, findings.fresh
    if published is None or fresh is None:
        return []
    place_of = {number: place for place, number in enumerate(findings.rows)}
    rows, characters = [], 0
    for number in verdict.rows.get(model, [])[:ROWS]:
        row = _row(published, number) | _difference(published, number, fresh, place_of[number], model)
        texts = [text for value in row.values() for text in (value.values() if isinstance(value, dict) else [value])]
        characters += sum(len(text) for text in texts if isinstance(text, Markup))
        if characters > CHARACTERS:
            break
        rows.append(row)
    return rows


def example_rows(findings: Findings) -> list[dict[str, Any]]:
    """The first rows that were compared, with both models' outputs."""
    if findings.published is None or findings.fresh is None:
        return []
    return [
        _row(findings.published, number) | {model: fold(getattr(findings.fresh, model)[place]) for model in MODELS}
        for place, number in enumerate(findings.rows[:SAMPLES])
    ]


def _row(published: Predictions, number: int) -> dict[str, Any]:
    texts = {name: fold(getattr(published, name)[number]) for name in ("prompt", "reference", "schema")}
    return {"number": number, "seen": published.seen[number], **texts}


def _difference(published: Predictions, number: int, fresh: Predictions, place: int, model: Model) -> dict[str, Any]:
    """One model's two outputs, marked; their tokens where the texts are equal and only the tokens differ."""
    old, new = getattr(published, model)[number], getattr(fresh, model)[place]
    reference = published.reference[number]
    row = {"published_right": old == reference, "now_right": new == reference, "same_text": None}
    if old == new:
        row["same_text"] = fold(old)
        column = f"{model}_tokens"
        ids = getattr(published, column)[number], getattr(fresh, column)[place]
        old, new = (" ".join(map(str, tokens)) for tokens in ids)
    row["published"], row["now"] = mark_difference(old, new)
    return row


def fold(text: str) -> dict[str, Any]:
    """A text as it is shown: its beginning, the whole if that is longer, and how many characters are left out."""
    return {
        "head": visible(text[:HEAD]),
        "whole": visible(text[:TEXT]) if len(text) > HEAD else None,
        "length": len(text),
        "left_out": max(0, len(text) - TEXT),
    }


def mark_difference(published: str, now: str) -> tuple[Markup, Markup]:
    """Both texts, the words that only one of them has in `<del>` and `<ins>`.

    Of texts longer than `TEXT`, that many characters from shortly before the first difference on.
    """
    start = 0
    if max(len(published), len(now)) > TEXT:
        pairs = enumerate(zip(published, now, strict=False))
        alike = next((place for place, (old, new) in pairs if old != new), min(len(published), len(now)))
        start = max(0, alike - CONTEXT)
    old, new = (WORDS.findall(text[start : start + TEXT]) for text in (published, now))
    changes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return (
        _side("del", [(kind, "".join(old[a:b])) for kind, a, b, _, _ in changes], start, len(published) - start - TEXT),
        _side("ins", [(kind, "".join(new[a:b])) for kind, _, _, a, b in changes], start, len(now) - start - TEXT),
    )


def _side(tag: str, parts: Sequence[tuple[str, str]], before: int, after: int) -> Markup:
    html = [Markup(f"<i>… after {before:,} equal characters: </i>")] if before else []
    for kind, text in parts:
        words = text.lstrip() or text
        if kind == "equal" or not text:
            html.append(visible(text))
        else:
            html.append(Markup(f"{visible(text.removesuffix(words))}<{tag}>{visible(words)}</{tag}>"))
    if after > 0:
        html.append(Markup(f"<i> … {after:,} more characters</i>"))
    return Markup("").join(html)


def side_by_side(there: Environment | None, here: Environment | None) -> list[dict[str, Any]]:
    """Where the scores were taken and where they were checked, by name; None where nothing is known."""
    old, new = _facts(there), _facts(here)
    return [
        {"name": name, "there": old.get(name), "here": new.get(name), "differs": old.get(name) != new.get(name)}
        for name in old | new
    ]


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
    words = ["make", "reproduce", f"ADAPTER={shlex.quote(verdict.adapter)}"]
    words += [f"REVISION={verdict.revision}"] if verdict.revision else []
    words += [] if verdict.level == "generate" else [f"LEVEL={verdict.level}"]
    words += [] if verdict.sample is None else [f"SAMPLE={verdict.sample}"]
    words += ["HUB=local"] if verdict.miniature else []
    return " ".join(words)
