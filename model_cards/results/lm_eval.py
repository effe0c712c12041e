"""Scores as lm-evaluation-harness 0.4 saves them: `results_TIME.json` and `samples_TASK_TIME.jsonl` a model.

Its own `lm_eval/result_schema.py` says what stands in them, `lm_eval/loggers/evaluation_tracker.py` where they lie.
It knows no intervals: these stand in the metadata of the task, next to the commit of the rows. sacrebleu's metrics are
percentages there.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from model_cards.results.source import Model, Results
from record.predictions import Predictions
from record.run_record import FilePin
from record.scores import METRICS
from scoring.bootstrap import standard_error
from scoring.corpus import CLASSES
from scoring.scores import metric_rows

PERCENT = {name: 100 if kind.family in CLASSES else 1 for name, kind in METRICS.items()}
# Its name for what was not filtered out of the output.
FILTER = "none"


def write(results: Results, folder: Path, now: datetime) -> list[Path]:
    """Writes the files of both models, a folder each; what was written."""
    written = []
    time = now.replace(tzinfo=None).isoformat().replace(":", "-")
    for model in results.models:
        place = folder / _plain(model.id)
        place.mkdir(parents=True)
        found = evaluation(results, model)
        if results.predictions is not None:
            path = place / f"samples_{results.record.name}_{time}.jsonl"
            hashes = []
            with path.open("w", encoding="utf-8") as file:
                for sample in _samples(results, model, results.predictions):
                    file.write(json.dumps(sample, allow_nan=False) + "\n")
                    hashes.append(sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"])
            found["task_hashes"] = {results.record.name: _hash("".join(hashes))}
            written.append(path)
        path = place / f"results_{time}.json"
        path.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        written.append(path)
    return written


def _plain(name: str) -> str:
    return re.sub(r'["<>:/|\\?*\[\]]+', "__", name)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def evaluation(results: Results, model: Model) -> dict[str, Any]:
    """The scores of one model on all test rows, without the rows."""
    record, task = results.record, results.record.name
    where = record.scored_in or record.environment
    scores = getattr(record.scores, model.who)
    found = {
        "results": {task: {"alias": task, "name": task, "sample_len": record.scores.rows, **_metrics(results, model)}},
        "group_subtasks": {task: []},
        "configs": {task: _task(results, model)},
        "versions": {task: 1},
        "n-shot": {task: 0},
        "higher_is_better": {task: {name: not METRICS[name].lower_is_better for name in scores}},
        "n-samples": {task: {"original": record.data.test, "effective": record.scores.rows}},
        "config": _config(results, model),
        "git_hash": where.code_commit,
        "model_source": _source(results),
        "model_name": model.id,
        "model_name_sanitized": _plain(model.id),
    }
    if version := where.packages.get("transformers"):
        found["transformers_version"] = version
    return found


def _source(results: Results) -> str:
    """What wrote the outputs, by its name for transformers."""
    return results.record.contract.engine.replace("transformers", "hf")


def _metrics(results: Results, model: Model) -> dict[str, float | str]:
    """Each score, and its standard error where the rows are there to take it from."""
    scores, contract, rows = getattr(results.record.scores, model.who), results.record.contract, {}
    if results.predictions is not None:
        rows = metric_rows(results.predictions, model.who, contract)
    found: dict[str, float | str] = {}
    for name, score in scores.items():
        found[f"{name},{FILTER}"] = PERCENT[name] * score.mean
        error = PERCENT[name] * standard_error(rows[name], contract) if name in rows else "N/A"
        found[f"{name}_stderr,{FILTER}"] = error
    return found


def _task(results: Results, model: Model) -> dict[str, Any]:
    """The task, its documents being what stands in the file of samples: the rows as the recipe makes them."""
    record, recipe, dataset = results.record, results.record.recipe, results.record.pins.dataset
    metadata = {
        "version": 1,
        "dataset_revision": dataset.revision,
        "test_rows_sha256": record.data.test_sha256,
        "prompt": recipe["prompt"],
        "target": recipe["target"],
        "contract": record.contract.model_dump(mode="json"),
        "scores": {
            part or "all": {
                "rows": rows,
                "scores": {name: score.model_dump() for name, score in scores.items()},
                "difference": {name: score.model_dump() for name, score in difference.items()},
            }
            for part, (rows, scores, difference) in results.scores(model).items()
        },
        "revision": model.revision,
        "release": results.release,
        "miniature": record.miniature,
    }
    task = {
        "task": record.name,
        "output_type": "generate_until",
        "dataset_path": results.dataset,
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{reference}}",
        "target_delimiter": "",
        "num_fewshot": 0,
        "metric_list": [
            {"metric": name, "higher_is_better": not METRICS[name].lower_is_better} for name in record.scores.adapter
        ],
        "generation_kwargs": {
            "until": [],
            "do_sample": False,
            "num_beams": record.contract.num_beams,
            "max_gen_toks": record.contract.max_new_tokens,
        },
        "repeats": 1,
        "metadata": metadata,
    }
    if recipe.get("dataset_config"):
        task["dataset_name"] = recipe["dataset_config"]
    if recipe.get("test_split"):
        task["test_split"] = recipe["test_split"]
    if not isinstance(dataset, FilePin):
        task["dataset_kwargs"] = {"revision": dataset.revision}
    return task


def _config(results: Results, model: Model) -> dict[str, Any]:
    record, base = results.record, results.record.pins.base_model
    full = model.who == "base" or (record.evaluated is not None and record.evaluated.kind == "model")
    weights = {"pretrained": model.id, "revision": model.revision}
    if not full:
        weights = {"pretrained": base.id, "revision": base.revision, "peft": model.id}
    return {
        "model": _source(results),
        "model_args": {**weights, "dtype": record.contract.dtype},
        **({"model_num_parameters": record.model.total} if model.who == "adapter" else {}),
        "model_dtype": record.contract.dtype,
        "model_revision": model.revision,
        "model_sha": model.revision,
        "batch_size": str(record.contract.batch_size),
        "device": (record.scored_in or record.environment).device,
        "bootstrap_iters": record.contract.resamples,
    }


def _samples(results: Results, model: Model, predictions: Predictions) -> Iterator[dict[str, Any]]:
    scores = results.row_scores(model)
    generation = _task(results, model)["generation_kwargs"]
    for row, output in enumerate(getattr(predictions, model.who)):
        prompt, reference = predictions.prompt[row], predictions.reference[row]
        document = {
            "prompt": prompt,
            "reference": reference,
            "references": json.loads(predictions.references[row] or "[]"),
            "schema": predictions.schema[row],
            "seen": predictions.seen[row],
        }
        applying = {name: PERCENT[name] * by_row[row] for name, by_row in scores.items() if not math.isnan(by_row[row])}
        yield {
            "doc_id": row,
            "doc": document,
            "target": reference,
            "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": generation}},
            "resps": [[output]],
            "filtered_resps": [output],
            "filter": FILTER,
            "metrics": list(applying),
            "doc_hash": _hash(json.dumps(document, indent=2, ensure_ascii=False)),
            "prompt_hash": _hash(prompt),
            "target_hash": _hash(reference),
            **applying,
        }
