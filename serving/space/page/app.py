"""A page to try an adapter: base model and adapter side by side, and the numbers of its card.

    pip install -r requirements.txt && python app.py

`space.json` next to this file names the adapter's repository and commit.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from textwrap import shorten
from typing import Any

import gradio as gr
import pandas as pd
from answers import LONGEST_TEXT, PATIENCE, Answer, Models, Release, answer, examples, fetch, load, too_long
from figures import checks, code, heading, losses, scores, sentence, table
from sandbox import Refused, Table, contents, open_tables, parse, run
from template import Template, asked_keys

# Visitors that may wait at once: one answer is written at a time.
WAITING = 20
# Close to Okabe & Ito's palette, told apart with any common colour vision deficiency, on white and on black.
COLOURS = {"training, with dropout": "#2F8FD0", "validation": "#D55E00"}
# System fonts: the page loads nothing from elsewhere.
FONT, MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
# Contrasts of at least 4.5 (WCAG 2.2, 1.4.3) in both of Gradio's themes, whose own accents have less.
CSS = """
:root { --color-accent: #1d4ed8; } .dark { --color-accent: #93c5fd; }
.try-scroll { overflow-x: auto; margin: 0.25rem 0 0.5rem; }
.try-scroll:focus-visible { outline: 2px solid var(--color-accent); }
.try-scroll table { border-collapse: collapse; font-size: 0.9rem; }
.try-links a { margin: 0; padding: 0; }
.try-caption { font-weight: 600; margin: 0.5rem 0 0; }
.try-scroll tr > :first-child { min-width: 4rem; }
.try-scroll th, .try-scroll td { text-align: left; vertical-align: top; padding: 0.25rem 0.6rem; max-width: 24rem;
  border: 1px solid var(--border-color-primary); font-variant-numeric: tabular-nums; overflow-wrap: break-word; }
.try-scroll pre { font-family: ui-monospace, monospace; font-size: 0.85rem; margin: 0; }
.try-note, .try-error { border-left: 4px solid var(--color-accent); padding: 0.25rem 0.6rem; margin: 0.5rem 0; }
.try-error { border-left-color: #c62828; }
.try-code textarea { font-family: ui-monospace, monospace; }
@media (max-width: 480px) {
  .try-scroll table { font-size: 0.8rem; } .try-scroll th, .try-scroll td { padding: 0.25rem 0.4rem; }
}
"""


def measured(answer: Answer) -> str:
    """A line about how an answer came to be."""
    ending = f"; cut off, at the recipe's longest output or after {PATIENCE:g} s" if answer.cut else ""
    return f"<p>{answer.seconds:.2f} s, {answer.tokens:,} tokens{ending}</p>"


def rows_table(result: Table, caption: str) -> str:
    """Rows as a table."""
    count = len(result.rows)
    extent = f"the first {count} rows" if result.more else "1 row" if count == 1 else f"{count or 'no'} rows"
    return table(f"{caption}: {extent}", result.columns, result.rows)


def tried(who: str, text: str, tables: sqlite3.Connection | Refused) -> str:
    """An answer as it was parsed, and what it gives on the tables; or why it is not run."""
    parsed = ""
    try:
        parsed = code(f"{who}, as parsed", parse(text).sql(dialect="sqlite", pretty=True))
        if isinstance(tables, Refused):
            raise tables
        return parsed + rows_table(run(tables, text), f"{who}, its result")
    except Refused as refusal:
        return parsed + sentence(str(refusal), "error")


def on_tables(schema: str, inserts: str, answers: dict[str, str]) -> tuple[list[str], str]:
    """What every answer, by whose it is, gives on the same tables; and these tables."""
    try:
        tables, made_up = open_tables(schema, inserts, [*answers.values()])
    except Refused as refusal:
        return [tried(who, text, refusal) for who, text in answers.items()], sentence(str(refusal), "error")
    with closing(tables):
        outcomes = [tried(who, text, tables) for who, text in answers.items()]
        note = "These rows are made up from the queries. Give INSERT statements to have others." if made_up else ""
        return outcomes, sentence(note) + "".join(rows_table(rows, name) for name, rows in contents(tables).items())


def build(release: Release, models: Models) -> gr.Blocks:
    """The page; nothing in it starts before somebody asks."""
    recipe = release.record["recipe"]
    keys = asked_keys(recipe)
    sql, prompts = keys.get("sql_schema") is not None, keys["prompt"]
    template = Template(prompts if isinstance(prompts, str) else prompts[0], keys.get("sql_schema"))
    rows = [row | {"boxes": boxes} for row in examples(release) if (boxes := template.read(row["prompt"])) is not None]
    with gr.Blocks(title=recipe["title"], analytics_enabled=False) as page:
        gr.HTML(heading(release.record, release.name, release.address))
        with gr.Tab("Try it"):
            _try(template, models, rows, sql)
        with gr.Tab("Numbers"):
            gr.HTML(checks(release.verdict, release.concerns) + scores(release.record))
            gr.LinePlot(
                pd.DataFrame(losses(release.record)), x="step", y="loss", color="of", color_map=COLOURS, height=320,
                title="Loss during training", x_title="Step", y_title="Loss", color_title="Rows",
            )  # fmt: skip
    return page


# The page from top to bottom, as Gradio's blocks nest: cut up, its parts would hand each other all of their widgets.
def _try(template: Template, models: Models, rows: list[dict[str, Any]], sql: bool) -> None:
    labels = [f"{number}. {shorten(row['boxes'][0], 90, placeholder=' …')}" for number, row in enumerate(rows, start=1)]
    # Not a Dropdown, whose list stays open over the form after a choice by keyboard.
    with gr.Accordion("Examples from the test split", open=False):
        example = gr.Radio(labels, label="Example", type="index", interactive=True, elem_id="example")
    boxes = [_box(f"{label} (the tables: CREATE TABLE …)" if place == template.tables else label, f"box-{place}")
             for place, label in enumerate(template.labels)]  # fmt: skip
    extra = []
    if sql and template.tables is None:
        extra.append(_box("Tables (CREATE TABLE …)", "schema"))
    if sql:
        extra.append(_box("Rows (INSERT INTO …): left empty, some are made up", "rows", lines=1))
    button = gr.Button("Run", variant="primary", elem_id="run")
    gr.HTML("<p>Shift+Enter in a box runs, too.</p>")
    notes = gr.HTML(elem_id="notes")
    outputs = []
    with gr.Row():
        for who, name in {"Base model": "base", "Adapter": "adapter"}.items():
            with gr.Column(min_width=280):
                outputs += [_box(who, name, lines=3, interactive=False), gr.HTML(elem_id=f"{name}-outcome")]
        with gr.Column(min_width=280):
            caption = "Reference, or a query of your own" if sql else "Reference answer of the example"
            reference = _box(caption, "reference", lines=3, interactive=sql, code=sql)
            if sql:
                outcome = gr.HTML(elem_id="reference-outcome")
    if sql:
        with gr.Accordion("The tables with their rows", open=False):
            outputs += [outcome, gr.HTML(elem_id="tables")]

    def choose(number: int) -> list[str]:
        row = rows[number]
        values = [*row["boxes"], *([row["schema"]] if template.tables is None else []), ""]
        return [*(values if sql else row["boxes"]), row["reference"]]

    def answered(*values: str | None) -> Iterator[dict]:
        """Shows each model's answer as soon as it is there."""
        *texts, wish = [value or "" for value in values]
        fields, more = texts[: len(boxes)], texts[len(boxes) :]
        empty = dict.fromkeys(outputs, "")
        prompt = template.fill(fields)
        refused, message = too_long(models, prompt)
        if refused or not "".join(fields).strip():
            yield empty | {notes: sentence(message or "Type something first.", "error")}
            return
        warning = sentence(message)
        yield empty | {notes: warning + sentence("The base model writes …")}
        base = answer(models, prompt, adapter=False)
        first = {outputs[0]: base.text, outputs[1]: measured(base)}
        yield first | {notes: warning + sentence("The adapter writes …")}
        tuned = answer(models, prompt, adapter=True)
        second = {outputs[2]: tuned.text, outputs[3]: measured(tuned)}
        if sql:
            schema = more[0] if template.tables is None else fields[template.tables]
            queries = {"Base model": base.text, "Adapter": tuned.text} | ({"Reference": wish} if wish.strip() else {})
            outcomes, tables = on_tables(schema, more[-1], queries)
            third = outcomes[2] if wish.strip() else ""
            second[outputs[1]] = measured(base) + outcomes[0]
            second |= {outputs[3]: measured(tuned) + outcomes[1], outputs[4]: third, outputs[5]: tables}
        yield second | {notes: warning}

    inputs = [*boxes, *extra, reference]
    example.input(choose, example, inputs, queue=False, api_visibility="private", show_progress="hidden")
    gr.on(
        [button.click, *(box.submit for box in inputs)],
        answered,
        inputs,
        [notes, *outputs],
        api_visibility="private",
        concurrency_limit=1,
        concurrency_id="answers",
        show_progress="minimal",
        # What is asked while an answer is under way comes next. Gradio's default ignores it without a word.
        trigger_mode="always_last",
    )

    def answers(prompt: str) -> tuple[str, str]:
        """What the base model and the adapter write for a whole prompt, the template filled in by who asks."""
        refused, message = too_long(models, prompt)
        if refused or not prompt.strip():
            raise gr.Error(message or "`prompt` is empty: send the template, filled in")
        return answer(models, prompt, adapter=False).text, answer(models, prompt, adapter=True).text

    gr.api(answers, api_name="answers", concurrency_limit=1, concurrency_id="answers")


def _box(label: str, name: str, lines: int = 2, interactive: bool = True, code: bool = False) -> gr.Textbox:
    return gr.Textbox(
        label=label,
        lines=lines,
        max_lines=12,
        max_length=LONGEST_TEXT if interactive else None,
        interactive=interactive,
        buttons=[] if interactive else ["copy"],
        elem_id=name,
        elem_classes=["try-code"] if code else None,
    )


def main() -> None:
    config = json.loads(Path(__file__).with_name("space.json").read_text(encoding="utf-8"))
    release = fetch(config)
    page = build(release, load(release))
    page.queue(max_size=WAITING)
    theme = gr.themes.Default(primary_hue="blue", font=FONT, font_mono=MONO)
    page.launch(
        theme=theme.set(
            button_primary_background_fill="*primary_600",
            button_primary_background_fill_dark="*primary_600",
            button_primary_background_fill_hover="*primary_700",
            button_primary_background_fill_hover_dark="*primary_700",
        ),
        css=CSS,
        footer_links=[],
        share=False,
        ssr_mode=False,
        run_history=False,
    )


if __name__ == "__main__":
    main()
