"""The record's numbers as HTML that shows every text as text."""

import html
from typing import Any

from huggingface_hub.constants import ENDPOINT

# The names of the scores in a record, as people read them; a newer score goes by its key.
NAMES = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "bleu": "BLEU",
    "chrf": "chrF2",
    "ter": "TER (lower is better)",
    "exact_match": "Exact match",
    "squad_exact_match": "SQuAD exact match",
    "squad_f1": "SQuAD F1",
    "sql_parsed": "SQL parses",
    "sql_exact_match": "SQL exact match",
    "sql_execution_match": "SQL execution match",
}


def escape(value: Any) -> str:
    """Text for HTML. Braces and dollars too: Gradio fills templates with what it is given."""
    text = "NULL" if value is None else str(value)
    for mark in "{}$`\\":
        text = text.replace(mark, f"\0{ord(mark)};")
    return html.escape(text).replace("\0", "&#")


def table(caption: str, columns: list[str], rows: list[tuple]) -> str:
    """A table that can be scrolled, also by keyboard, where it is wider than the page.

    Parameters:
        columns: their names; without any, each row's first value is its name.
    """
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = ""
    for first, *others in rows:
        name = f"<td>{escape(first)}</td>" if columns else f'<th scope="row">{escape(first)}</th>'
        body += f"<tr>{name}{''.join(f'<td>{escape(value)}</td>' for value in others)}</tr>"
    return _scrolled(caption, f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def code(caption: str, text: str) -> str:
    """A text whose lines stay as they are."""
    return _scrolled(caption, f"<pre>{escape(text)}</pre>")


def _scrolled(caption: str, content: str) -> str:
    named = escape(caption)
    scrolled = f'<div class="try-scroll" tabindex="0" role="region" aria-label="{named}">{content}</div>'
    return f'<p class="try-caption">{named}</p>{scrolled}'


def sentence(text: str, kind: str = "note") -> str:
    """A note, or with `kind="error"` a refusal; both are read out when they appear."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="try-{kind}" role="{role}">{escape(text)}</p>' if text else ""


def heading(record: dict[str, Any], name: str, address: str | None) -> str:
    """What is shown here, on what base model and with rows of what, as links.

    Parameters:
        address: of the adapter's files on the Hub; None where they lie in a folder.
    """
    base, data = record["pins"]["base_model"], record["pins"]["dataset"]
    adapter = f"<b>{escape(name)}</b>" if address is None else _link(address, name)
    base_link = _link(f"{ENDPOINT}/{base['id']}/tree/{base['revision']}", f"{base['id']}@{base['revision'][:12]}")
    address_of_rows = f"{ENDPOINT}/datasets/{data['id']}/tree/{data['revision']}"
    rows = _link(address_of_rows, f"{data['id']}@{data['revision'][:12]}")
    parts = [
        f"<h1>{escape(record['recipe']['title'])}</h1>",
        f'<p class="try-links">The adapter {adapter} next to its base model {base_link}, with rows of {rows}.</p>',
    ]
    if base.get("miniature") or record["pins"]["dataset"].get("miniature"):
        parts.append(sentence("A miniature stands in for the real model or data: no answer speaks of the real one."))
    if record["recipe"].get("load_in_4bit") or record["recipe"].get("load_in_8bit"):
        parts.append(sentence("The base model was quantized for training and is not so here: answers may differ."))
    return "".join(parts)


def _link(address: str, text: str) -> str:
    return f'<a href="{escape(address)}">{escape(text)}</a>'


def checks(verdict: str | None, concerns: list[str]) -> str:
    """What is told of a check of these numbers, and what speaks against them."""
    told = sentence(f"Check: {verdict}." if verdict else "No check of these numbers is published with the adapter yet.")
    listed = "".join(f"<li>{escape(concern)}</li>" for concern in concerns)
    return told + (f'<p class="try-caption">Concerns</p><ul>{listed}</ul>' if listed else "")


def _scores(compared: dict[str, Any]) -> list[tuple]:
    return [
        (NAMES.get(name, name), _interval(compared["base"][name]), _interval(compared["adapter"][name]),
         _interval(compared["difference"][name], "+"))
        for name in compared["base"] if name != "rougeLsum_flat"
    ]  # fmt: skip


def scores(record: dict[str, Any]) -> str:
    """The scores of base and adapter with their intervals, and the facts that they rest on."""
    numbers, confidence = record["scores"], record["contract"]["confidence"]
    columns = ["Score", "Base model", "Adapter", "Difference"]
    clean = numbers.get("clean")
    without = table("Without the rows seen in training", columns, _scores(clean)) if clean else ""
    data, model, contract = record["data"], record["model"], record["contract"]
    decoding = "greedy decoding" if contract["num_beams"] == 1 else f"{contract['num_beams']} beams"
    caption = f"Scores on {numbers['rows']:,} test rows, with {100 * confidence:g} % bootstrap intervals"
    facts = [
        ("Dataset", f"{record['pins']['dataset']['id']}@{record['pins']['dataset']['revision'][:12]}"),
        ("Rows", f"{data['train']:,} train, {data['validation']:,} validation, {data['test']:,} test"),
        ("Test rows seen in training", f"{sum(numbers.get('seen', {}).values()):,}"
         if record["leakage"] is not None else "not looked for"),
        ("Trained parameters", f"{model['trainable']:,} of {model['total']:,}"),
        ("Training", f"{record['training']['steps']:,} steps, {record['training']['epochs']:.3g} epochs"),
        ("Scored with", f"{_scorers(contract)}, {decoding}, "
         f"at most {contract['max_new_tokens']:,} new tokens"),
    ]  # fmt: skip
    return table(caption, columns, _scores(numbers)) + without + table("What the scores rest on", [], facts)


def _scorers(contract: dict[str, Any]) -> str:
    named = {"rouge": f"{contract['metric']} {contract['metric_version']}", **contract.get("signatures", {})}
    return ", ".join(named.get(family, family) for family in contract.get("metrics") or ["rouge"])


def _interval(interval: dict[str, float], sign: str = "") -> str:
    """A score with as many decimals as the card gives it."""
    shown = f"{sign}.{4 if 0 < (interval['high'] - interval['low']) / 2 < 0.001 else 3}f"
    return f"{interval['mean']:{shown}} [{interval['low']:{shown}}, {interval['high']:{shown}}]"


def losses(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The loss curve's points: `step`, `loss`, and `of`, which says on which rows it was taken."""
    kinds = {"loss": "training, with dropout", "eval_loss": "validation"}
    return [
        {"step": point["step"], "loss": point[key], "of": kind}
        for key, kind in kinds.items()
        for point in record["training"]["history"]
        if point.get(key) is not None
    ]
