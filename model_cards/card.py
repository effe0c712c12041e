"""The model card: the template `card.md.jinja` filled from the run record and the predictions."""

import html
import re
from pathlib import Path
from typing import Any

from evaluation.predictions import Predictions
from evaluation.sql_databases import KINDS
from model_cards.plots import PLOTS
from recipes.errors import UserError
from recipes.expectations import shown
from recipes.record import FREE_SECTION, METRIC_NAMES, ROUGE_NAMES, Record

SAMPLES = 5
SAMPLE_CHARACTERS = 300
# Characters that could end a table cell or start markdown, HTML, a link, maths or an emoji inside one.
MARKDOWN = re.compile(r"[|`*_\[\]()~$\\:#!{}@]")
# C0/C1 controls, zero-width and bidirectional marks, tags: they hide or reorder the text around them.
INVISIBLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)
TASK_SNIPPET_TOKENS = 128


def render_card(record: Record, predictions: Predictions, repo_id: str, previous: str | None = None) -> str:
    """The card's markdown with its front matter.

    Parameters:
        repo_id: where the adapter is published, `owner/name`.
        previous: the card that stands there now; what people wrote into its free sections is kept.

    Raises:
        `UserError`: the run is not scored yet.
    """
    from huggingface_hub import ModelCard
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    if record.training is None or record.scores is None:
        raise UserError(f"{record.name} has no scores yet: run make evaluate-{record.name} first")
    environment = SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"cell": cell, "shorten": shorten, "figure": shown, "truncate_revision": truncate_revision}
    template = environment.from_string(Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8"))
    body = template.render(
        record=record,
        recipe=record.recipe,
        repo_id=repo_id,
        scores=record.scores,
        metric_names=METRIC_NAMES,
        seen=sum(record.scores.seen.values()),
        databases=len(KINDS),
        plots=PLOTS,
        samples=sample_rows(predictions),
        prompt=repr(predictions.prompt[0]),
        prompts=[record.recipe["prompt"]] if isinstance(record.recipe["prompt"], str) else record.recipe["prompt"],
        snippet_tokens=min(TASK_SNIPPET_TOKENS, record.contract.max_new_tokens),
        epochs=loss_by_epoch(record),
    )
    card = ModelCard(f"---\n{front_matter(record, repo_id).to_yaml()}\n---\n\n{body}")
    return keep_free_sections(str(card), previous) if previous else str(card)


def front_matter(record: Record, repo_id: str):
    """The card's metadata with one `EvalResult` per metric that is shown (the adapter's means), as `ModelCardData`."""
    from huggingface_hub import EvalResult, ModelCardData

    base, dataset = record.pins.base_model, record.pins.dataset
    results = [
        EvalResult(
            task_type=record.recipe.get("task", "question-answering"),
            dataset_type=dataset.id,
            dataset_name=dataset.id,
            dataset_config=record.recipe.get("dataset_config"),
            dataset_split="test",
            dataset_revision=dataset.revision,
            metric_type="rouge" if name in ROUGE_NAMES else name.removeprefix("sql_"),
            metric_name=METRIC_NAMES[name],
            metric_value=round(record.scores.adapter[name].mean, 4),
        )
        for name in record.scores.shown()
    ]
    return ModelCardData(
        model_name=repo_id.rpartition("/")[2],
        base_model=base.id,
        base_model_relation="adapter",
        library_name="peft",
        pipeline_tag=record.recipe.get("task", "question-answering"),
        language=[record.recipe.get("language", "en")],
        license=base.license,
        datasets=[dataset.id],
        metrics=["rouge", *(["exact_match"] if record.contract.sql else [])],
        tags=["lora", "peft", f"base_model:adapter:{base.id}", *(["miniature"] if record.miniature else [])],
        eval_results=results,
    )


def sample_rows(predictions: Predictions) -> list[dict[str, str]]:
    """The first test rows side by side: the split is a random permutation, so they are a fair sample."""
    columns = ("prompt", "reference", "base", "adapter")
    return [
        {name: getattr(predictions, name)[row] for name in columns}
        for row in range(min(SAMPLES, len(predictions.prompt)))
    ]


def loss_by_epoch(record: Record) -> list[dict[str, Any]]:
    """The last training and validation loss of each epoch."""
    rows: dict[int, dict[str, Any]] = {}
    for point in record.training.history:
        epoch = rows.setdefault(
            max(1, -(-round(point.epoch * 1e6) // 10**6)), {"step": 0, "loss": None, "eval_loss": None}
        )
        epoch["step"] = point.step
        for key in ("loss", "eval_loss"):
            if getattr(point, key) is not None:
                epoch[key] = getattr(point, key)
    return [{"epoch": number, **row} for number, row in sorted(rows.items())]


def keep_free_sections(card: str, previous: str) -> str:
    """The card with the texts that people wrote between its free markers in `previous`."""
    written = {match[2]: match[3] for match in FREE_SECTION.finditer(previous)}
    return FREE_SECTION.sub(lambda match: match[1] + written.get(match[2], match[3]) + match[4], card)


def shorten(text: str) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= SAMPLE_CHARACTERS else text[:SAMPLE_CHARACTERS].rstrip() + " …"


def truncate_revision(pinned: str) -> str:
    """`owner/name@revision` with the first twelve characters of the revision."""
    name, _, revision = pinned.partition("@")
    return f"{name}@{revision[:12]}"


def cell(text: Any) -> str:
    """Text for a markdown table cell: every character that markdown or HTML would act on becomes an entity."""
    visible = INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", str(text))
    escaped = MARKDOWN.sub(lambda match: f"&#{ord(match[0])};", html.escape(visible, quote=False))
    return "<br>".join(escaped.splitlines()) or "—"
