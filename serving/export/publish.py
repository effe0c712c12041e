"""The card of an export, and its way to the Hub: a repository of its own, linked with the adapter's."""

import sys
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from huggingface_hub.errors import RepositoryNotFoundError
from markupsafe import Markup

from hub.pins import name_on_hub, pin
from hub.release import pull
from model_cards.card import HUB, SNIPPET_CHARACTERS, keep_free_sections, licence
from model_cards.escape import cut, environment, plain
from push.card_text import add_line
from push.leaks import refuse_traces
from push.one_commit import publish_folder
from push.publish import owner_of
from push.release import tree
from push.repository import Target
from record.errors import UserError, make
from record.predictions import load_predictions
from record.recipe_datasets import templates_of
from record.release_files import CARD_FILE, TOKENIZER_CONFIG_FILE
from record.scores import METRIC_NAMES
from serving.export.export_record import EXPORT_FILE, LOSS, Export, load_export
from serving.export.formats import CT2, INT8_CODE

MINUTES = 60
# What a reader's tools could take for somebody's own words; a vocabulary is the base model's.
TEXTS = {CARD_FILE, "config.json", "generation_config.json", TOKENIZER_CONFIG_FILE}
SNIPPET_TOKENS = 128
LIBRARIES = {"merged": "transformers", "int8": None, "ct2": "ctranslate2", "ct2-int8": "ctranslate2"}
# The free section of the adapter's card that names its exports: what stands there survives each publishing.
LINKED_FROM = "intended use"


def publish_export(source, form: str, user: str | None, private: bool, overwrite: str | None) -> str:
    """Publishes the export in `source.into / form` in one commit, and links it from the adapter's card.

    Returns:
        The commit.

    Raises:
        `UserError`: the adapter is not published, or somebody else's work would be lost.
    """
    owner = owner_of(user)
    if source.pin is None:
        source.pin = find_adapter(source, owner)
    repo_id = name_on_hub("model", f"{owner}/{source.pin.id.rpartition('/')[2]}-{form}")
    folder = source.into / form

    def lay_out_without_traces(card: str | None) -> str:
        lay_out(source, form, repo_id, card)
        refuse_traces(folder, sorted({*TEXTS, EXPORT_FILE} & set(tree(folder))), folder, source.record)
        return f"Publish {form}"

    progress = publish_folder(
        Target(repo_id, private=private), folder, EXPORT_FILE, lay_out_without_traces,
        "exists and holds other things than an export: rename it there", MINUTES, overwrite,
    )  # fmt: skip
    if source.pin.id.partition("/")[0] == owner:
        name = f"`{repo_id}`" if source.pin.miniature else f"[{repo_id}]({HUB}/{repo_id})"
        try:
            add_line(source.pin.id, LINKED_FROM, f"- For a CPU, as {form}: {name}", "Name an export")
        except UserError as error:
            print(error, file=sys.stderr)
    print(
        f"{progress.state.capitalize()}: {repo_id}@{progress.commit}, every file came back as it was sent", flush=True
    )
    return progress.commit


def find_adapter(source, owner: str):
    """Where a run's adapter is published.

    Raises:
        `UserError`: it is not, or what stands there is another one.
    """
    record = source.record
    repo_id = f"{owner}/{record.recipe['adapter_name']}"
    first = f"publish the adapter first: {make(f'publish-{record.name}')}"
    try:
        adapter = pin("model", repo_id, "main")
    except RepositoryNotFoundError:
        raise UserError(f"{repo_id} is not on the Hub, and an export names the adapter that it was made of: {first}"
                        ) from None  # fmt: skip
    there = pull(repo_id, adapter.revision, names=[]).record
    if there.training is None or there.training.adapter_sha256 != record.training.adapter_sha256:
        raise UserError(f"{repo_id} holds another adapter than {source.folder}: {first}")
    return adapter


def lay_out(source, form: str, repo_id: str | None, previous: str | None = None) -> Path:
    """Renders the card into the export's folder, and states where the adapter is published in its record.

    Parameters:
        repo_id: where the export is published; None where it is not: its card then reads the folder that it lies in.
        previous: the card that stands there now.
    """
    folder = source.into / form
    export = load_export(folder)
    export.adapter = source.pin
    card = folder / CARD_FILE
    prompt = load_predictions(source.folder).prompt[0]
    if source.record.pins.file is not None:
        # A release may not hold a row of somebody's own.
        prompt = templates_of(source.record.recipe, "prompt")[0]
    text = render(export, source.record, prompt, repo_id, previous)
    card.write_text(text, encoding="utf-8")
    export.save(folder)
    return card


def render(export: Export, record, prompt: str, repo_id: str | None, previous: str | None = None) -> str:
    """The card's markdown with its front matter.

    Parameters:
        prompt: the one that its snippet runs.
        previous: the card that stands there now; what people wrote into its free section is kept.
    """
    template = Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8")
    body = environment().from_string(template).render(
        export=export, record=record, repo_id=repo_id, adapter=export.adapter, base=export.base_model,
        parity=export.parity, speed=export.speed, adapter_speed=export.adapter_speed, metric_names=METRIC_NAMES,
        loss=LOSS, ct2=export.format in CT2, int8_code=Markup(INT8_CODE), prompt=cut(prompt, SNIPPET_CHARACTERS),
        snippet_tokens=min(SNIPPET_TOKENS, export.contract.max_new_tokens),
        metrics=[name for name in record.scores.shown() if name in export.parity.export],
    )  # fmt: skip
    card = f"---\n{front_matter(export, record, repo_id).to_yaml()}\n---\n\n{body}"
    return keep_free_sections(card, previous) if previous else card


def front_matter(export: Export, record, repo_id: str | None):
    """The card's metadata: a merged checkpoint comes of base and adapter, every other is a quantization of the adapter.

    By `base_model` the Hub lists the export on the adapter's page.
    """
    base, recipe = plain(export.base_model.id), record.recipe
    adapter = [plain(export.adapter.id)] if export.adapter else []
    more: dict[str, Any] = {"library_name": LIBRARIES[export.format]} if LIBRARIES[export.format] else {}
    return ModelCardData(
        model_name=(repo_id or f"{recipe['adapter_name']}-{export.format}").rpartition("/")[2],
        base_model=[base, *adapter] if export.format == "merged" else adapter or [base],
        base_model_relation="merge" if export.format == "merged" else "quantized",
        pipeline_tag=plain(recipe.get("task", "question-answering")),
        language=[language.strip() for language in plain(recipe.get("language", "en")).split(",")],
        datasets=None if record.pins.file else list(dict.fromkeys(plain(one.id) for one in record.pins.datasets)),
        tags=["cpu", export.format, *(["miniature"] if record.miniature else [])],
        **licence(export.base_model),
        **more,
    )
