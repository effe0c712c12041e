"""What a repository's README says about it: its front matter, the Hub's tags, and the Hub's checks.

``validate`` approximates the real Hub's checks, whose rules are not public: it follows the specification in
huggingface/hub-docs (``modelcard.md``, ``datasetcard.md``) and what the real Hub is known to refuse.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from .store import NAME

FRONT_MATTER = re.compile(r"^\s*---[ \t]*\r?\n(.*?)(?:\r?\n)?---[ \t]*(?:\r?\n|$)", re.DOTALL)

_PIPELINE_TAGS = """
any-to-any audio-classification audio-text-to-text audio-to-audio automatic-speech-recognition depth-estimation
document-question-answering feature-extraction fill-mask graph-ml image-classification image-feature-extraction
image-segmentation image-text-to-image image-text-to-text image-text-to-video image-to-3d image-to-image image-to-text
image-to-video keypoint-detection mask-generation multiple-choice object-detection other question-answering
reinforcement-learning robotics sentence-similarity summarization table-question-answering table-to-text
tabular-classification tabular-regression tabular-to-text text-classification text-generation text-ranking
text-retrieval text-to-3d text-to-audio text-to-image text-to-speech text-to-video time-series-forecasting
token-classification translation unconditional-image-generation video-classification video-text-to-text video-to-video
visual-document-retrieval visual-question-answering voice-activity-detection zero-shot-classification
zero-shot-image-classification zero-shot-object-detection
"""
PIPELINE_TAGS = frozenset(_PIPELINE_TAGS.split())

_LICENSES = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0
cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0
cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1
lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl mulanpsl-2.0 ncsa odbl
odc-by ofl-1.1 open-mdw openmdw-1.0 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
"""
LICENSES = frozenset(_LICENSES.split())

# https://huggingface.co/docs/hub/spaces-config-reference
SPACE_VALUES = {
    "sdk": ("gradio", "docker", "static"),
    "colorFrom": ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"),
    "colorTo": ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"),
}
SHORT_DESCRIPTION = 60

RELATIONS = ("adapter", "merge", "quantized", "finetune")


def front_matter(readme: str) -> dict[str, Any] | None:
    """The YAML object at the top of a README, or None; raises ``yaml.YAMLError``."""
    match = FRONT_MATTER.match(readme)
    value = yaml.safe_load(match[1]) if match else None
    return value if isinstance(value, dict) else None


def card_data(readme: bytes | None) -> dict[str, Any]:
    """The front matter for the API: empty where there is none or it cannot be read."""
    if readme is None:
        return {}
    try:
        return front_matter(readme.decode(errors="replace")) or {}
    except yaml.YAMLError:
        return {}


def _many(value: Any) -> list[str]:
    return [str(item) for item in (value if isinstance(value, list) else [value]) if item not in (None, "")]


def library_of(card: dict[str, Any], paths: set[str]) -> str | None:
    """The library that loads a model: the card's word, else by its files."""
    if isinstance(card.get("library_name"), str):
        return card["library_name"]
    if "adapter_config.json" in paths:
        return "peft"
    return "transformers" if "config.json" in paths else None


def tags(kind: str, card: dict[str, Any], paths: set[str], model_type: str | None = None) -> list[str]:
    """The tags that the Hub derives from a card and the names of the files next to it."""
    labels: list[str | None] = []
    if kind == "model":
        library = library_of(card, paths)
        labels.append(library)
        labels += [name for name in ("safetensors", "onnx", "gguf") if any(path.endswith(f".{name}") for path in paths)]
        labels += [model_type, card.get("pipeline_tag")]
    labels += _many(card.get("tags"))
    if kind == "model":
        labels += ["model-index"] if card.get("model-index") else []
        labels += _many(card.get("language"))
        labels += [f"dataset:{name}" for name in _many(card.get("datasets"))]
        bases = _many(card.get("base_model"))
        inferred = "merge" if len(bases) > 1 else "adapter" if library == "peft" else "finetune"
        relation = card.get("base_model_relation") or inferred
        for base in bases:
            labels += [f"base_model:{base}", f"base_model:{relation}:{base}"]
    else:
        for field in ("task_categories", "task_ids", "language", "size_categories", "annotations_creators"):
            labels += [f"{field}:{value}" for value in _many(card.get(field))]
    labels += [f"license:{name}" for name in _many(card.get("license"))]
    return list(dict.fromkeys(str(tag) for tag in labels if tag))


def validate(content: str, kind: str) -> tuple[list[str], list[str]]:
    """The errors and the warnings that the Hub has about a README. An approximation: see the module's docstring."""
    try:
        card = front_matter(content)
    except yaml.YAMLError as error:
        return [f"The YAML metadata is not valid: {str(error).splitlines()[0]}"], []
    if card is None:
        return [], ["empty or missing yaml metadata in repo card"]
    errors: list[str] = []
    warnings: list[str] = []
    for name in _many(card.get("license")):
        if name not in LICENSES:
            errors.append(f'"license" must be one of the known licenses, or "other" with "license_name": {name!r}')
    for field in ("tags", "language", "datasets", "metrics", "task_categories"):
        if not isinstance(card.get(field, []), (list, str)):
            errors.append(f'"{field}" must be a string or an array')
    if isinstance(card.get("datasets"), list) and None in card["datasets"]:
        errors.append('"datasets" must be an array of strings')
    if kind == "model":
        errors += _model_errors(card)
        tag = card.get("pipeline_tag")
        if tag is not None and tag not in PIPELINE_TAGS:
            warnings.append(f'"pipeline_tag" {tag!r} is not in the official list')
    elif kind == "space":
        errors += _space_errors(card)
    elif kind == "dataset":
        warnings += [
            f"The task_categories {name!r} is not in the official list"
            for name in _many(card.get("task_categories"))
            if name not in PIPELINE_TAGS
        ]
    return errors, warnings


def _space_errors(card: dict[str, Any]) -> list[str]:
    errors = [
        f'"{field}" must be one of [{", ".join(values)}]'
        for field, values in SPACE_VALUES.items()
        if card.get(field, values[0]) not in values
    ]
    if len(str(card.get("short_description", ""))) > SHORT_DESCRIPTION:
        errors.append(f'"short_description" length must be less than or equal to {SHORT_DESCRIPTION} characters long')
    return errors


def _is_id(value: Any) -> bool:
    parts = value.split("/") if isinstance(value, str) else []
    return len(parts) in (1, 2) and all(NAME.fullmatch(part) for part in parts)


def _model_errors(card: dict[str, Any]) -> list[str]:
    errors = []
    for base in card.get("base_model") if isinstance(card.get("base_model"), list) else [card.get("base_model")]:
        if base is not None and not _is_id(base):
            errors.append(
                f'"base_model" with value {str(base)!r} is not valid. Use a model id from https://hf.co/models.'
            )
    if card.get("base_model_relation") not in (None, *RELATIONS):
        errors.append(f'"base_model_relation" must be one of {", ".join(RELATIONS)}')
    for name in _many(card.get("datasets")):
        if not _is_id(name):
            errors.append(f'"datasets" with value {name!r} is not valid. Use a dataset id from https://hf.co/datasets.')
    if not isinstance(card.get("widget", []), list):
        errors.append('"widget" must be an array')
    if not isinstance(card.get("pipeline_tag"), (str, type(None))):
        errors.append('"pipeline_tag" must be a string')
    if "model-index" in card:
        errors += _model_index_errors(card["model-index"])
    return errors


def _model_index_errors(index: Any) -> list[str]:
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    errors = []
    for number, model in enumerate(index):
        where = f"model-index[{number}]"
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            errors.append(f'"{where}.name" is required')
            continue
        results = model.get("results")
        if not isinstance(results, list):
            errors.append(f'"{where}.results" must be an array')
            continue
        for position, result in enumerate(results):
            errors += _result_errors(result, f"{where}.results[{position}]")
    return errors


def _result_errors(result: Any, where: str) -> list[str]:
    if not isinstance(result, dict):
        return [f'"{where}" must be an object']
    errors = []
    for part, fields in (("task", ("type",)), ("dataset", ("type", "name"))):
        value = result.get(part)
        errors += [
            f'"{where}.{part}.{field}" is required'
            for field in fields
            if not isinstance(value, dict) or not isinstance(value.get(field), str)
        ]
    metrics = result.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        return [*errors, f'"{where}.metrics" must be an array with at least one metric']
    for number, metric in enumerate(metrics):
        for field in ("type", "value"):
            if not isinstance(metric, dict) or metric.get(field) is None:
                errors.append(f'"{where}.metrics[{number}].{field}" is required')
    source = result.get("source")
    if source is not None and not (isinstance(source, dict) and isinstance(source.get("url"), str)):
        errors.append(f'"{where}.source.url" is required')
    return errors
