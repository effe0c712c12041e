"""What a release is made of and scores, as a CycloneDX ML-BOM (version 1.6, https://cyclonedx.org/docs/1.6/json/)."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from huggingface_hub import constants

from model_cards.results.source import TOOL, Results
from record.release_files import ADAPTER_FILE
from record.run_record import FilePin, Pin

FILE = "aibom.cdx.json"


def write(results: Results, folder: Path, now: datetime) -> list[Path]:
    """Writes the file; what was written."""
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(bill(results, now), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return [path]


def bill(results: Results, now: datetime) -> dict[str, Any]:
    """The bill of materials: the model, its base model and parent, its data, and the libraries that trained it."""
    record, pins = results.record, results.record.pins
    model = _model(results)
    parts = [_pinned(pins.base_model), _pinned(pins.dataset)]
    if pins.parent_adapter is not None:
        parts.append(_pinned(pins.parent_adapter))
    parts += [
        {"type": "library", "bom-ref": f"pypi:{name}", "name": name, "version": version, "purl": _pypi(name, version)}
        for name, version in record.environment.packages.items()
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": now.isoformat(timespec="seconds"),
            "tools": {"components": [{"type": "application", "name": TOOL, "version": results.code}]},
            "component": model,
        },
        "components": parts,
        "dependencies": [{"ref": model["bom-ref"], "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def _model(results: Results) -> dict[str, Any]:
    record, (own, _) = results.record, results.models
    files = record.files if record.evaluated is None else record.evaluated.files
    hashes = {name: digest for name, digest in files.items() if name.endswith(".safetensors")}
    if record.training is not None:
        hashes = {ADAPTER_FILE: record.training.adapter_sha256}
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{own.id}",
        "group": own.owner,
        "name": own.id.partition("/")[2],
        "modelCard": _model_card(results),
        "properties": _properties(
            {
                "recipe": json.dumps({key: record.recipe[key] for key in ("prompt", "target")}),
                "decoding": f"beams {record.contract.num_beams}, max_new_tokens {record.contract.max_new_tokens}",
                "test_rows_sha256": record.data.test_sha256,
                "trainable_parameters": str(record.model.trainable),
                "parameters": str(record.model.total),
                "miniature": json.dumps(record.miniature),
            }
        ),
        "components": [
            {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": [{"alg": "SHA-256", "content": digest}]}
            for name, digest in hashes.items()
        ],
    }
    if results.record_url is not None:
        component["externalReferences"] = [{"type": "evidence", "url": results.record_url}]
    if own.revision is not None:
        component["version"] = own.revision
        if not record.miniature:
            component["purl"] = _purl(own.id, own.revision)
    if record.pins.parent_adapter is not None:
        parent = _pinned(record.pins.parent_adapter)
        component["pedigree"] = {"ancestors": [parent | {"bom-ref": f"ancestor:{parent['name']}"}]}
    return component


def _model_card(results: Results) -> dict[str, Any]:
    record = results.record
    slices = {"": "all test rows", "clean": "test rows in no training data", "databases": "the dataset's own databases"}
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": record.recipe.get("task", "text2text-generation"),
            "architectureFamily": "transformer",
            "modelArchitecture": record.model.type or "t5",
            "datasets": [{"ref": _pinned(record.pins.dataset)["bom-ref"]}],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [
                {
                    "type": metric,
                    "value": repr(score.mean),
                    "slice": f"{model.id}, {slices[part]} ({rows:,})",
                    "confidenceInterval": {"lowerBound": repr(score.low), "upperBound": repr(score.high)},
                }
                for model in results.models
                for part, (rows, scores, _) in results.scores(model).items()
                for metric, score in scores.items()
            ]
        },
    }


def _pinned(pin: Pin) -> dict[str, Any]:
    """A repository at its commit, or files of one's own at their sha256."""
    kind = "machine-learning-model" if pin.kind == "model" else "data"
    part: dict[str, Any] = {"type": kind, "bom-ref": f"{pin.kind}:{pin.id}", "name": pin.id, "version": pin.revision}
    if isinstance(pin, FilePin):
        return part | {"hashes": [{"alg": "SHA-256", "content": pin.revision}]}
    if pin.license:
        # The Hub's names of licences are not SPDX's.
        part["licenses"] = [{"license": {"name": pin.license}}]
    # A stand-in has the id of another, whose place it does not name.
    if pin.miniature:
        return part | {"properties": _properties({"miniature": "true"})}
    if pin.kind == "model":
        part["purl"] = _purl(pin.id, pin.revision)
    folder = "datasets/" if pin.kind == "dataset" else ""
    url = f"{constants.ENDPOINT}/{folder}{pin.id}/tree/{pin.revision}"
    return part | {"externalReferences": [{"type": "distribution", "url": url}]}


def _purl(name: str, revision: str) -> str:
    return f"pkg:huggingface/{name}@{revision}"


def _pypi(name: str, version: str) -> str:
    return f"pkg:pypi/{name.lower().replace('_', '-')}@{quote(version)}"


def _properties(texts: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": f"{TOOL}:{name}", "value": text} for name, text in texts.items()]
