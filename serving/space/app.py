"""A page to try an adapter: base model and adapter side by side, and the numbers of its card.

    pip install -r requirements.txt && python app.py

`space.json` beside this file names the adapter's repository and commit.
"""

import json
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
from answers import LONGEST_TEXT, PATIENCE, Answer, Models, Release, answer, examples, fetch, load, too_long
from figures import heading, losses, scores, sentence, table
from sandbox import Refused, Table, contents, open_tables, parse, run

# A template with more fields is asked for as a whole.
MOST_BOXES = 4
# Visitors that may wait at once: one answer is written at a time.
WAITING = 20
# Okabe & Ito's palette, told apart by readers with any common colour vision deficiency.
COLOURS = {"training": "#0072B2", "validation": "#D55E00"}
# System fonts: the page loads nothing from elsewhere.
FONT, MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
CSS = """
.table { overflow-x: auto; margin: 0.5rem 0; }
.table:focus-visible { outline: 2px solid var(--color-accent); }
.table table { border-collapse: collapse; font-size: 0.9rem; width: auto; min-width: 50%; }
.table caption { text-align: left; font-weight: 600; padding: 0.25rem 0; }
.table th, .table td { text-align: left; padding: 0.25rem 0.6rem; border: 1px solid var(--border-color-primary); }
.table td { font-variant-numeric: tabular-nums; white-space: pre-wrap; overflow-wrap: anywhere; min-width: 4rem; }
.note, .error { border-left: 4px solid var(--color-accent); padding: 0.25rem 0.6rem; margin: 0.5rem 0; }
.error { border-left-color: #c62828; }
.code textarea { font-family: ui-monospace, monospace; }
"""


class Template:
    """The recipe's prompt as boxes: fields that only white space parts share one.

    `labels` are the boxes' names, `tables` the place of the one that holds a query's tables (None without).
    """

    def __init__(self, prompt: str, sql_schema: str | None):
        self.texts, self.fields = _boxes(prompt)
        self.labels = [", ".join(fields).replace("_", " ").capitalize() for fields in self.fields]
        named = [f"{{{', '.join(fields)}}}" for fields in self.fields]
        self.tables = named.index(sql_schema) if sql_schema in named else None

    def fill(self, values: list[str]) -> str:
        """The prompt with these texts in its boxes, outer white space removed, as in training."""
        filled = [part for pair in zip(self.texts, [*values, ""], strict=True) for part in pair]
        return "".join(filled).strip()

    def read(self, prompt: str) -> list[str] | None:
        """The texts of the boxes that give this prompt; None where it is of another template."""
        first, *others = self.texts
        texts = [first.lstrip(), *others[:-1], others[-1].rstrip()]
        match = re.fullmatch("(.*?)".join(map(re.escape, texts)), prompt, re.DOTALL)
        return [*match.groups()] if match and self.fill([*match.groups()]) == prompt else None


def _boxes(prompt: str) -> tuple[list[str], list[list[str]]]:
    """The template's own texts, and between each two of them the fields of a box."""
    texts, fields = [""], []
    for text, field, *_ in string.Formatter().parse(prompt):
        if text.strip() or not fields:
            texts[-1] += text
        elif field is None:
            continue
        if field is None:
            continue
        if fields and not texts[-1].strip():
            fields[-1].append(field)
        else:
            fields.append([field])
            texts.append("")
    names = [name for box in fields for name in box]
    if not 1 <= len(fields) <= MOST_BOXES or len(set(names)) < len(names):
        return ["", ""], [["prompt"]]
    return texts, fields


def measured(found: Answer) -> str:
    """A line about how an answer came to be."""
    line = f"{found.seconds:.2f} s, {found.tokens:,} tokens"
    if found.cut:
        line += f"; cut off at the recipe's longest output or after {PATIENCE:g} s"
    return sentence(line)


def shown(result: Table, caption: str) -> str:
    """A query's result."""
    if not result.rows:
        return sentence(f"{caption}: no row.")
    note = f"Further rows are left out: the first {len(result.rows)} are shown." if result.more else ""
    return table(f"{caption}: {len(result.rows)} row(s)", result.columns, result.rows, note)


def tried(connection: Any, text: str) -> tuple[str, str]:
    """An answer as it was parsed, and what it gives on the tables, or why it is not run."""
    try:
        parsed = parse(text).sql(dialect="sqlite", pretty=True)
    except Refused as refusal:
        return "", sentence(str(refusal), "error")
    if isinstance(connection, Refused):
        return parsed, sentence(str(connection), "error")
    try:
        return parsed, shown(run(connection, text), "Result")
    except Refused as refusal:
        return parsed, sentence(str(refusal), "error")


def on_tables(schema: str, inserts: str, answers: list[str]) -> tuple[list[tuple[str, str]], str]:
    """Every answer parsed and run on the same tables; and these tables."""
    try:
        connection, made_up = open_tables(schema, inserts, [text for text in answers if text])
    except Refused as refusal:
        return [tried(refusal, text) if text else ("", "") for text in answers], sentence(str(refusal), "error")
    try:
        found = [tried(connection, text) if text else ("", "") for text in answers]
        said = "These rows are made up from the queries: give INSERT statements to use others." if made_up else ""
        listed = "".join(shown(rows, name) for name, rows in contents(connection).items())
        return found, sentence(said) + listed
    finally:
        connection.close()


def build(release: Release, models: Models) -> gr.Blocks:
    """The page; nothing in it starts before somebody asks."""
    recipe = release.record["recipe"]
    sql = recipe.get("sql_schema") is not None
    prompts = recipe["prompt"]
    template = Template(prompts if isinstance(prompts, str) else prompts[0], recipe.get("sql_schema"))
    rows = [row | {"boxes": boxes} for row in examples(release) if (boxes := template.read(row["prompt"])) is not None]
    with gr.Blocks(title=recipe["title"], analytics_enabled=False) as page:
        gr.HTML(heading(release.record, release.name))
        with gr.Tab("Try it"):
            _try(template, models, rows, sql)
        with gr.Tab("Numbers"):
            gr.HTML(scores(release.record))
            gr.LinePlot(
                pd.DataFrame(losses(release.record)), x="step", y="loss", color="of", color_map=COLOURS, height=320,
                title="Loss during training", x_title="Step", y_title="Loss", color_title="Rows",
            )  # fmt: skip
    return page


def _try(template: Template, models: Models, rows: list[dict[str, Any]], sql: bool) -> None:
    labels = [f"{number + 1}. {' '.join(row['boxes'][0].split())[:80]}" for number, row in enumerate(rows)]
    example = gr.Dropdown(labels, label="Example from the test split", type="index", value=None, interactive=True)
    boxes = [_box(f"{label} (the tables: CREATE TABLE …)" if place == template.tables else label, f"box-{place}")
             for place, label in enumerate(template.labels)]  # fmt: skip
    extra = []
    if sql and template.tables is None:
        extra.append(_box("Tables (CREATE TABLE …)", "schema"))
    if sql:
        extra.append(_box("Rows (INSERT INTO …): left empty, some are made up", "rows", lines=1))
    asked = "Reference, or a query of your own" if sql else "Reference answer of the example"
    reference = _box(asked, "reference", lines=1, interactive=sql, code=sql)
    button = gr.Button("Run", variant="primary", elem_id="run")
    notes = gr.HTML(elem_id="notes")
    columns = []
    with gr.Row():
        for who in ("Base model", "Adapter", *(["Reference"] if sql else [])):
            name = who.split()[0].lower()
            with gr.Column(min_width=280):
                if who != "Reference":
                    columns += [_box(who, name, 3, interactive=False), gr.HTML(elem_id=f"{name}-time")]
                if sql:
                    columns.append(
                        _box(f"{who}: the query as parsed", f"{name}-parsed", 3, interactive=False, code=True)
                    )
                    columns.append(gr.HTML(elem_id=f"{name}-result"))
    tables = []
    if sql:
        with gr.Accordion("The tables with their rows", open=False):
            tables.append(gr.HTML(elem_id="tables"))

    def choose(number: int | None) -> list[str]:
        if number is None:
            return [gr.skip()] * (len(boxes) + len(extra) + 1)
        row = rows[number]
        schema = [row["schema"]] if template.tables is None and sql else []
        return [*row["boxes"], *schema, *([""] if sql else []), row["reference"]]

    def answered(*values: str) -> Iterator[dict]:
        """Shows each model's answer as soon as it is there."""
        texts, more, wish = [*values[: len(boxes)]], [*values[len(boxes) : -1]], values[-1] or ""
        everything = [notes, *columns, *tables]
        prompt = template.fill([text or "" for text in texts])
        refused, said = too_long(models, prompt)
        if refused or not "".join(text or "" for text in texts).strip():
            yield dict.fromkeys(everything, "") | {notes: sentence(said or "Type something first.", "error")}
            return
        yield dict.fromkeys(everything, "") | {notes: sentence(said) + sentence("The base model writes …")}
        step = 4 if sql else 2
        base = answer(models, prompt, adapter=False)
        yield {notes: sentence(said) + sentence("The adapter writes …"), columns[0]: base.text,
               columns[1]: measured(base)}  # fmt: skip
        tuned = answer(models, prompt, adapter=True)
        result = {notes: sentence(said), columns[step]: tuned.text, columns[step + 1]: measured(tuned)}
        if sql:
            schema = texts[template.tables] if template.tables is not None else more[0]
            found, filled = on_tables(schema or "", more[-1] or "", [base.text, tuned.text, wish])
            places = (columns[2:4], columns[6:8], columns[8:10])
            for (parsed, outcome), (box, area) in zip(found, places, strict=True):
                result |= {box: parsed, area: outcome}
            result[tables[0]] = filled
        yield result

    example.input(choose, example, [*boxes, *extra, reference], api_visibility="private", show_progress="hidden")
    gr.on(
        [button.click, *(box.submit for box in [*boxes, *extra])],
        answered,
        [*boxes, *extra, reference],
        [notes, *columns, *tables],
        api_name="run",
        concurrency_limit=1,
        show_progress="minimal",
    )


def _box(label: str, name: str, lines: int = 2, interactive: bool = True, code: bool = False) -> gr.Textbox:
    return gr.Textbox(
        label=label,
        lines=lines,
        max_lines=12,
        max_length=LONGEST_TEXT if interactive else None,
        interactive=interactive,
        buttons=[] if interactive else ["copy"],
        elem_id=name,
        elem_classes=["code"] if code else None,
    )


def main() -> None:
    config = json.loads(Path(__file__).with_name("space.json").read_text(encoding="utf-8"))
    release = fetch(config)
    page = build(release, load(release))
    page.queue(max_size=WAITING)
    page.launch(
        theme=gr.themes.Default(font=FONT, font_mono=MONO),
        css=CSS,
        footer_links=[],
        share=False,
        ssr_mode=False,
        run_history=False,
    )


if __name__ == "__main__":
    main()
