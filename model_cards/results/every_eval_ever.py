"""Scores in the schema of Every Eval Ever, version 0.3.0 (arXiv:2606.14516): a JSON a model, and a JSONL of its rows.

Its JSON Schemas are those of the package `every-eval-ever` 0.3.0. Free fields hold texts only.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from model_cards.results.source import TOOL, UNPUBLISHED, Model, Results
from record.predictions import Predictions
from record.run_record import FilePin
from record.scores import METRICS, Interval

SCHEMA = "0.3.0"


def write(results: Results, folder: Path, now: datetime) -> list[Path]:
    """Writes the files of both models in the datastore's folders, `data/COLLECTION/OWNER/MODEL/`; what was written."""
    written = []
    # A prefix, since a dataset may have a name that is no folder's.
    collection = f"pubrep_{results.dataset.replace('/', '_')}"
    for model in results.models:
        name = uuid4()
        place = Path("data", collection, model.owner, model.id.partition("/")[2])
        path = folder / place / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        log = evaluation_log(results, model, now)
        if results.predictions is not None:
            rows = folder / place / f"{name}_samples.jsonl"
            log["detailed_evaluation_results"] = _write_rows(rows, results, model, log, results.predictions)
            log["detailed_evaluation_results"]["file_path"] = (place / rows.name).as_posix()
            written.append(rows)
        path.write_text(json.dumps(log, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        written.append(path)
    return written


def evaluation_log(results: Results, model: Model, now: datetime) -> dict[str, Any]:
    """The scores of one model, without its rows."""
    record, stamp = results.record, str(int(now.timestamp()))
    details = {
        "record_name": record.name,
        "release": results.release or UNPUBLISHED,
        "test_rows_sha256": record.data.test_sha256,
        "miniature": json.dumps(record.miniature),
    }
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{record.name}/{model.id}/{stamp}",
        "retrieved_timestamp": stamp,
        "source_metadata": {
            "source_name": TOOL,
            "source_type": "evaluation_run",
            "source_organization_name": (results.release or UNPUBLISHED).partition("/")[0],
            "evaluator_relationship": _relationship(results, model),
            "additional_details": details,
        },
        "eval_library": {"name": TOOL, "version": results.code},
        "model_info": _model_info(results, model),
        "evaluation_results": _evaluation_results(results, model),
    }


def _relationship(results: Results, model: Model) -> str:
    """Whose model it is: of whoever published the scores, or somebody else's."""
    if results.release is not None:
        return "first_party" if results.release.partition("/")[0] == model.owner else "third_party"
    return "first_party" if model.owner == UNPUBLISHED else "other"


def _model_info(results: Results, model: Model) -> dict[str, Any]:
    record, base = results.record, results.record.pins.base_model
    name, _, version = record.contract.engine.partition(" ")
    packages = (record.scored_in or record.environment).packages
    details = {
        "deployment_type": "self_deployed",
        "model_availability": "open_weights" if model.revision else "unknown",
        "revision": model.revision,
    }
    if model.who == "adapter":
        kind = "adapter" if record.evaluated is None else record.evaluated.kind
        details |= {
            "kind": kind,
            "base_model": base.id,
            "base_model_revision": base.revision,
            "parameters": str(record.model.total),
            "trainable_parameters": str(record.model.trainable),
        }
    return {
        "name": model.id.partition("/")[2],
        "id": model.id,
        "developer": model.owner,
        "inference_engine": {"name": name, "version": version or packages.get(name, "unknown")},
        "additional_details": {key: text for key, text in details.items() if text is not None},
    }


def _evaluation_results(results: Results, model: Model) -> list[dict[str, Any]]:
    return [
        {
            "evaluation_result_id": result_id(part, metric),
            "evaluation_name": "/".join(filter(None, (results.record.name, part))),
            "source_data": _source_data(results, rows),
            "metric_config": _metric_config(results, metric, part),
            "score_details": _score_details(results, rows, interval, differences.get(metric)),
            "generation_config": _generation_config(results),
        }
        for part, (rows, intervals, differences) in results.scores(model).items()
        for metric, interval in intervals.items()
    ]


def result_id(part: str, metric: str) -> str:
    """The id by which a score's rows name it."""
    return "/".join(filter(None, (metric, part)))


def _source_data(results: Results, rows: int) -> dict[str, Any]:
    recipe, dataset = results.record.recipe, results.record.pins.dataset
    details = {"revision": dataset.revision, "config": recipe.get("dataset_config"), "target": recipe["target"]}
    if not recipe.get("test_split"):
        details |= {key: str(recipe[key]) for key in ("test_size", "split_seed", "split") if key in recipe}
    details = {key: text for key, text in details.items() if text is not None}
    if isinstance(dataset, FilePin):
        details |= {"samples_number": str(rows)}
        return {"dataset_name": results.dataset, "source_type": "other", "additional_details": details}
    source = {"dataset_name": results.dataset, "source_type": "hf_dataset", "hf_repo": dataset.id}
    if recipe.get("test_split"):
        source["hf_split"] = recipe["test_split"]
    return source | {"samples_number": rows, "additional_details": details}


def _metric_config(results: Results, metric: str, part: str) -> dict[str, Any]:
    kind = METRICS[metric]
    rows = {"": "all test rows", "clean": "test rows in no training data", "databases": "the dataset's own databases"}
    scalar = (str, int, float, bool)
    contract = results.record.contract.model_dump(mode="json")
    return {
        "evaluation_description": f"{kind.label}, {rows[part]}",
        "metric_id": metric,
        "metric_name": kind.label,
        "metric_kind": kind.hub,
        "metric_unit": "proportion",
        # The whole contract: what decides a score besides weights and rows.
        "metric_parameters": {
            key: value if isinstance(value, scalar) else json.dumps(value) for key, value in contract.items()
        },
        "lower_is_better": kind.lower_is_better,
        "score_type": "continuous",
        "min_score": 0,
        # A rate of errors has no upper bound.
        "max_score": "Infinity" if kind.lower_is_better else 1,
    }


def _score_details(results: Results, rows: int, score: Interval, difference: Interval | None) -> dict[str, Any]:
    contract = results.record.contract
    moved = {} if difference is None else {f"difference_{end}": repr(value) for end, value in difference}
    return {
        "score": score.mean,
        "details": moved,
        "uncertainty": {
            "confidence_interval": {
                "lower": score.low,
                "upper": score.high,
                "confidence_level": contract.confidence,
                "method": "percentile bootstrap over rows",
            },
            "num_samples": rows,
            "num_bootstrap_samples": contract.resamples,
        },
    }


def _generation_config(results: Results) -> dict[str, Any]:
    record, prompt = results.record, results.record.recipe["prompt"]
    return {
        "generation_args": {
            "max_tokens": record.contract.max_new_tokens,
            "prompt_template": prompt if isinstance(prompt, str) else json.dumps(prompt),
        },
        "additional_details": {
            "do_sample": "false",
            "num_beams": str(record.contract.num_beams),
            "dtype": record.contract.dtype,
            "batch_size": str(record.contract.batch_size),
            "engine": record.contract.engine,
        },
    }


def _write_rows(
    path: Path, results: Results, model: Model, log: dict[str, Any], predictions: Predictions
) -> dict[str, Any]:
    """Writes a line for each row and metric that applies to it; what the log says of the file."""
    digest, many = hashlib.sha256(), 0
    with path.open("wb") as file:
        for row in _rows(results, model, log, predictions):
            # In ASCII: its validator takes every line separator of Unicode for the end of a line.
            line = json.dumps(row, allow_nan=False).encode() + b"\n"
            file.write(line)
            digest.update(line)
            many += 1
    return {"format": "jsonl", "hash_algorithm": "sha256", "checksum": digest.hexdigest(), "total_rows": many}


def _rows(results: Results, model: Model, log: dict[str, Any], predictions: Predictions) -> Iterator[dict[str, Any]]:
    scores = results.row_scores(model)
    for row, output in enumerate(getattr(predictions, model.who)):
        references = [predictions.reference[row], *json.loads(predictions.references[row] or "[]")]
        shared = {
            "schema_version": SCHEMA,
            "evaluation_id": log["evaluation_id"],
            "model_id": model.id,
            "evaluation_name": results.record.name,
            "sample_id": str(row),
            "sample_hash": hashlib.sha256("".join([predictions.prompt[row], *references]).encode()).hexdigest(),
            "interaction_type": "single_turn",
            "input": {"raw": predictions.prompt[row], "reference": references},
            "output": {"raw": [output]},
            "answer_attribution": [],
            "metadata": {
                name: text for name in ("schema", "seen") if (text := getattr(predictions, name)[row])
            },
        }  # fmt: skip
        for metric, by_row in scores.items():
            if not math.isnan(by_row[row]):
                best = 0 if METRICS[metric].lower_is_better else 1
                score = {"score": by_row[row], "is_correct": by_row[row] == best}
                yield shared | {"evaluation_result_id": result_id("", metric), "evaluation": score}
