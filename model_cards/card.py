"""The model card: the template `card.md.jinja` filled from the run record and the predictions.

Scores stand in the metadata's `model-index`. The Hub's other format, `.eval_results/*.yaml`, is only for datasets that
it has registered as benchmarks. The recipes use no such dataset, so no such file is published.
"""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from model_cards.escape import cut, environment, plain
from model_cards.plots import badge_text
from model_cards.vouchers import render_vouchers
from recipes.expectations import format_figure
from recipes.families import family_of_record
from record.energy import Energy
from record.errors import UserError, make
from record.hashes import FREE_SECTION
from record.predictions import Predictions
from record.project import PROJECT_URL
from record.recipe_datasets import dataset_recipes, templates_of
from record.release_files import PLOTS
from record.run_record import FilePin, LossPoint, Pin, Record
from record.scores import BASELINES, METRIC_NAMES, METRICS
from record.sweep import mean_and_deviation
from record.swept_run import own_run
from record.verdict import EVIDENCE, Verdict
from scoring.concerns import find_concerns
from scoring.sql.databases import KINDS

HUB = "https://huggingface.co"
SAMPLES = 5
TASK_SNIPPET_TOKENS = 128
SNIPPET_CHARACTERS = 4_000
LOG_LINES = 200
# Tasks of the Hub whose pipelines transformers 5 removed (its MIGRATION_GUIDE_V5.md, "Pipelines").
WITHOUT_PIPELINE = ("question-answering", "summarization", "text2text-generation", "translation")


def render_card(
    record: Record,
    predictions: Predictions,
    repo_id: str,
    previous: str | None = None,
    verdict: Verdict | None = None,
) -> str:
    """The card's markdown with its front matter.

    Parameters:
        repo_id: where the adapter is published, `owner/name`.
        previous: the card that stands there now; what people wrote into its free sections is kept.
        verdict: the one that the release carries, which speaks of this run (`record.verdict.why_unrelated`).

    Raises:
        `UserError`: the run is not scored yet.
    """
    from huggingface_hub import ModelCard

    if record.training is None or record.scores is None:
        raise UserError(f"{record.name} has no scores yet: run {make(f'evaluate-{record.name}')} first")
    own_rows = record.pins.file is not None
    prompts = templates_of(record.recipe, "prompt")
    jinja = environment()
    jinja.filters |= {"figure": format_figure, "truncate_revision": truncate_revision}
    template = jinja.from_string(Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8"))
    body = template.render(
        record=record,
        recipe=record.recipe,
        family=family_of_record(record),
        repo_id=repo_id,
        project_url=PROJECT_URL,
        scores=record.scores,
        verdict=verdict,
        vouchers=Markup(render_vouchers([], "").strip()),
        badge=badge_text(verdict),
        evidence=EVIDENCE,
        metric_names=METRIC_NAMES,
        deciding=record.contract.deciding(record.scores.adapter),
        baseline_names=BASELINES,
        concerns=find_concerns(record, predictions),
        seen=sum(record.scores.seen.values()),
        swept=own_run(record),
        mean_and_deviation=mean_and_deviation,
        databases=len(KINDS[record.contract.sql_rules]),
        plots={name: Markup(path) for name, path in PLOTS.items()},
        own_rows=own_rows,
        own_splits=_own_test_splits(record),
        by_dataset=[pair for pair in zip(record.pins.datasets, record.scores.by_dataset, strict=False) if pair[1]],
        samples=[] if own_rows else sample_rows(predictions),
        prompt=cut(prompts[0] if own_rows else predictions.prompt[0], SNIPPET_CHARACTERS),
        prompts=prompts,
        snippet_tokens=min(TASK_SNIPPET_TOKENS, record.contract.max_new_tokens),
        without_pipeline=record.recipe.get("task") in WITHOUT_PIPELINE,
        epochs=loss_by_epoch(record),
        log=log_lines(record),
        citations=citations(record),
    )
    card = ModelCard(f"---\n{front_matter(record, repo_id).to_yaml()}\n---\n\n{body}")
    return keep_free_sections(str(card), previous) if previous else str(card)


def front_matter(record: Record, repo_id: str):
    """The card's metadata with one `EvalResult` per metric that is shown (the adapter's means), as `ModelCardData`."""
    from huggingface_hub import EvalResult, ModelCardData

    base, recipe = record.pins.base_model, record.recipe
    base_id, task = map(plain, (base.id, recipe.get("task", "question-answering")))
    # Of several datasets each has its own scores: those of all rows together are of no dataset on the Hub.
    scored = record.scores.by_dataset or [record.scores]
    results = [
        EvalResult(
            task_type=task,
            dataset_type=plain(dataset.id),
            dataset_name=plain(dataset.id),
            dataset_config=plain(keys["dataset_config"]) if keys.get("dataset_config") else None,
            dataset_split=plain(keys.get("test_split") or "test"),
            dataset_revision=None if isinstance(dataset, FilePin) else dataset.revision,
            metric_type=METRICS[name].hub,
            metric_name=METRIC_NAMES[name],
            metric_value=round(scores.adapter[name].mean, 4),
        )
        for dataset, keys, scores in zip(record.pins.datasets, dataset_recipes(recipe), scored, strict=False)
        if scores is not None
        for name in scores.shown()
    ]
    return ModelCardData(
        model_name=repo_id.rpartition("/")[2],
        base_model=base_id,
        base_model_relation="adapter",
        library_name="peft",
        pipeline_tag=task,
        language=[language.strip() for language in plain(recipe.get("language", "en")).split(",")],
        datasets=datasets_on_hub(record) or None,
        metrics=_metrics(record),
        tags=["lora", "peft", f"base_model:adapter:{base_id}", *(["miniature"] if record.miniature else [])],
        eval_results=results,
        **licence(base),
        **_emissions(record.energy),
    )


def datasets_on_hub(record: Record) -> list[str]:
    """Ids of the datasets that the chain was trained on; a file of somebody's own has none."""
    pinned, sources = record.pins.datasets, record.leakage or []
    own = {dataset.id for dataset in pinned if isinstance(dataset, FilePin)}
    names = [*(dataset.id for dataset in pinned), *(source.dataset for source in sources)]
    return [plain(name) for name in dict.fromkeys(names) if name not in own]


def _own_test_splits(record: Record) -> list[tuple[str, str]]:
    """Of several datasets each one's id and own test split; none where the test rows are drawn."""
    if not record.pins.more_datasets:
        return []
    pairs = zip(record.pins.datasets, dataset_recipes(record.recipe), strict=False)
    return [(dataset.id, keys["test_split"]) for dataset, keys in pairs if keys.get("test_split")]


def _metrics(record: Record) -> list[str]:
    """The Hub's names of the metrics; of SQL it knows only that of the exact match."""
    names = [name for name in record.scores.shown() if name not in ("sql_parsed", "sql_execution_match")]
    return list(dict.fromkeys(METRICS[name].hub for name in names))


def licence(base: Pin) -> dict[str, Any]:
    """The base model's licence; of one that the Hub's list lacks (`other`) its card tells the name and the text."""
    licences = plain(base.license).split(", ") if base.license else []
    if licences == ["other"]:
        link = f"{HUB}/{plain(base.id)}/blob/{base.revision}/README.md"
        return {"license": "other", "license_name": "license-of-the-base-model", "license_link": link}
    return {"license": licences[0] if len(licences) == 1 else licences or None}


def _emissions(energy: Energy | None) -> dict[str, Any]:
    if energy is None:
        return {}
    return {
        "co2_eq_emissions": {
            "emissions": float(f"{energy.co2_grams:.4g}"),
            "source": plain(f"codecarbon {energy.codecarbon}"),
            "training_type": "fine-tuning",
            "geographical_location": plain(", ".join(filter(None, (energy.country, energy.region)))),
            "hardware_used": plain(energy.hardware),
        }
    }


def citations(record: Record) -> list[Markup]:
    """The entries of citations.bib that this run stands on."""
    text = Path(__file__).with_name("citations.bib").read_text(encoding="utf-8")
    entries = {entry.partition("{")[2].partition(",")[0]: Markup(entry) for entry in text.strip().split("\n\n")}
    conditions = {
        "chung2022scaling": "flan-t5" in record.pins.base_model.id.lower(),
        "hu2021lora": True,
        "dettmers2023qlora": bool(record.recipe.get("load_in_4bit")),
        "lin-2004-rouge": "rouge" in record.contract.families,
        "post-2018-call": bool(record.contract.signatures),
    }
    return [entries[key] for key, stands in conditions.items() if stands]


def sample_rows(predictions: Predictions) -> list[dict[str, str]]:
    """The first test rows side by side: a drawn split is a random permutation, the dataset's own has its order."""
    columns = ("prompt", "reference", "base", "adapter")
    return [
        {name: getattr(predictions, name)[row] for name in columns}
        for row in range(min(SAMPLES, len(predictions.prompt)))
    ]


def loss_by_epoch(record: Record) -> list[dict[str, Any]]:
    """The mean training loss over the steps of each epoch, and its last validation loss.

    A mean, since an epoch's last step often has a few rows only: its loss alone says little.
    """
    rows: dict[int, dict[str, Any]] = {}
    summed: dict[int, tuple[float, int]] = {}
    before = 0
    for point in record.training.history:
        number = max(1, -(-round(point.epoch * 1e6) // 10**6))
        epoch = rows.setdefault(number, {"epoch": number, "step": 0, "loss": None, "eval_loss": None})
        epoch["step"] = point.step
        if point.loss is not None:
            total, steps = summed.get(number, (0.0, 0))
            total, steps, before = total + point.loss * (point.step - before), steps + point.step - before, point.step
            summed[number], epoch["loss"] = (total, steps), total / max(steps, 1)
        if point.eval_loss is not None:
            epoch["eval_loss"] = point.eval_loss
    return [row for _, row in sorted(rows.items())]


def log_lines(record: Record) -> list[LossPoint]:
    """The loss history; where it is long, its first lines with a validation loss."""
    history = record.training.history
    if len(history) > LOG_LINES:
        history = [point for point in history if point.eval_loss is not None]
    return history[:LOG_LINES]


def keep_free_sections(card: str, previous: str) -> str:
    """The card with the texts that people wrote between its free markers in `previous`."""
    texts = {match[2]: match[3] for match in FREE_SECTION.finditer(previous)}
    return FREE_SECTION.sub(lambda match: match[1] + texts.get(match[2], match[3]) + match[4], card)


def truncate_revision(pinned: str) -> str:
    """`owner/name@revision` with the first twelve characters of the revision."""
    name, _, revision = pinned.partition("@")
    return f"{name}@{revision[:12]}"
