"""Exported results, read back: each format by the code of those who made it, and held against the record."""

import json
import subprocess
from pathlib import Path
from typing import Any

import python_clients
import yaml
from huggingface_hub import parse_eval_result_entries

from model_cards.results.export import command
from record.command_line import run_command
from record.predictions import Predictions
from record.run_record import Record
from record.scores import METRICS
from scoring.corpus import CLASSES

# What its command line imports; it asks for Python 3.12, and its code runs on 3.11, too.
EVERY_EVAL_EVER = ("pydantic==2.14.4", "requests==2.34.2", "rich==14.0.0", "PyYAML==6.0.4")
LM_EVAL = """
import json, os, sys
from pathlib import Path
from lm_eval.api import metrics
from lm_eval.config.task import TaskConfig
from lm_eval.utils import get_file_task_name, get_latest_filename, get_results_filenames, get_sample_results_filenames
from lm_eval.utils import hash_string, make_table

told = {}
for folder in Path(os.environ["FOLDER"]).iterdir():
    files = [str(path) for path in folder.iterdir()]
    found = json.loads(Path(get_latest_filename(get_results_filenames(files))).read_text())
    (task,) = found["results"]
    config = TaskConfig(**found["configs"][task])
    one = told[found["model_name"]] = {"results": found, "table": make_table(found),
        "prompt": config.metadata["prompt"], "decoding": config.generation_kwargs, "samples": []}
    for file in get_sample_results_filenames(files):
        assert get_file_task_name(Path(file).name) == task
        one["samples"] = samples = [json.loads(line) for line in Path(file).read_text().split("\\n") if line]
        hashes = ""
        for sample in samples:
            own = (hash_string(json.dumps(sample["doc"], indent=2, ensure_ascii=False)),
                   hash_string(sample["arguments"]["gen_args_0"]["arg_0"]), hash_string(sample["target"]))
            assert own == (sample["doc_hash"], sample["prompt_hash"], sample["target_hash"])
            hashes += "".join(own)
        assert found["task_hashes"][task] == hash_string(hashes)
        one["again"], one["errors"] = {}, {}
        for name in found["higher_is_better"][task]:
            values = [sample[name] for sample in samples if name in sample]
            if name in ("bleu", "chrf", "ter"):
                answers = [[sample["target"], *sample["doc"]["references"]] for sample in samples]
                pairs = list(zip(answers, [sample["resps"][0][0] for sample in samples]))
                one["again"][name] = getattr(metrics, name)(pairs)
            else:
                one["again"][name], one["errors"][name] = metrics.mean(values), metrics.mean_stderr(values)
print(json.dumps(told))
"""
CYCLONEDX = """
import json, os, sys
from pathlib import Path
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = Path(os.environ["FILE"]).read_text()
newer = text.replace('"specVersion": "1.6"', '"specVersion": "1.7"')
found = [JsonStrictValidator(version).validate_str(one)
         for version, one in ((SchemaVersion.V1_6, text), (SchemaVersion.V1_7, newer))]
print(json.dumps([str(error) for error in found if error is not None]))
"""


def export(adapter: str, form: str, folder: Path, revision: str = "main") -> Path:
    """The folder into which the command line wrote `form`."""
    into = folder / form
    words = [adapter, "--revision", revision, "--format", form, "--into", str(into)]
    run_command(command, words, "pubrep export-results")
    return into


def intervals(scores: Any) -> dict[str, tuple[float, float, float]]:
    return {name: (one.mean, one.low, one.high) for name, one in scores.items()}


def models(record: Record, own: tuple[str, str | None]) -> dict[str, tuple[str, str | None]]:
    """Id and commit of each model by its name in the record; `own` are those of the adapter."""
    return {"adapter": own, "base": (record.pins.base_model.id, record.pins.base_model.revision)}


def compare_eval_results(folder: Path, record: Record, published: bool) -> None:
    (path,) = (folder / ".eval_results").iterdir()
    entries = {entry.task_id: entry for entry in parse_eval_result_entries(yaml.safe_load(path.read_text()))}
    assert {name: entry.value for name, entry in entries.items()} == {
        name: record.scores.adapter[name].mean for name in record.scores.shown()
    }
    dataset = record.pins.dataset
    for name, entry in entries.items():
        assert (entry.source_url or "").endswith("/record.json") == published
        assert (entry.dataset_id, entry.dataset_revision, entry.date) == (dataset.id, dataset.revision, None)
        interval = record.scores.adapter[name]
        assert entry.notes.endswith(", on a miniature") == record.miniature
        assert f"95 % interval {interval.low:.4f} to {interval.high:.4f}, {record.scores.rows:,} rows" in entry.notes
        assert f"at most {record.contract.max_new_tokens} tokens, beams: {record.contract.num_beams}" in entry.notes


def _parts(record: Record) -> dict[str, Any]:
    return {"": record.scores, "/clean": record.scores.clean, "/databases": record.scores.databases}


def validate_every_eval_ever(folder: Path) -> None:
    """Fails where its own command line finds an error or a warning."""
    python = python_clients.install(*EVERY_EVAL_EVER, bare="every-eval-ever==0.3.0")
    files = [path for path in folder.rglob("*") if path.is_file()]
    words = [python.with_name("every_eval_ever"), "validate", "--format", "json", *files]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and all(file["valid"] for file in json.loads(done.stdout)), done.stdout + done.stderr


def convert_lm_eval(folder: Path, into: Path, record: Record) -> None:
    """Fails where its converter does not find the adapter's scores and rows in exported results for lm-eval."""
    python = python_clients.install(*EVERY_EVAL_EVER, bare="every-eval-ever==0.3.0")
    words = [python.with_name("every_eval_ever"), "convert", "lm_eval", "--log_path", folder, "--output_dir", into,
             "--include_samples"]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    # Its validator, 0.3.0, takes U+2028 for the end of a line, and its converter writes it as it is: not validated.
    (path,) = into.rglob("*.json")
    log = json.loads(path.read_text())
    assert log["detailed_evaluation_results"]["total_rows"] >= record.scores.rows
    for result in log["evaluation_results"]:
        name, score = result["metric_config"]["metric_name"], result["score_details"]["score"]
        scale = 100 if METRICS[name].family in CLASSES else 1
        assert score == scale * record.scores.adapter[name].mean


def compare_every_eval_ever(
    folder: Path, record: Record, predictions: Predictions | None, own: tuple[str, str | None]
) -> None:
    validate_every_eval_ever(folder)
    logs = {}
    for path in folder.rglob("*.json"):
        log = json.loads(path.read_text())
        assert path.parent.parts[-2:] == tuple(log["model_info"]["id"].split("/"))
        logs[log["model_info"]["id"]] = (path, log)
    assert logs.keys() == {name for name, _ in models(record, own).values()}
    for who, (name, revision) in models(record, own).items():
        path, log = logs[name]
        assert log["model_info"]["additional_details"].get("revision") == revision
        assert log["source_metadata"]["additional_details"]["miniature"] == json.dumps(record.miniature)
        if who == "adapter":
            base = record.pins.base_model
            assert log["model_info"]["additional_details"]["base_model_revision"] == base.revision
        for part, scores in _parts(record).items():
            results = [one for one in log["evaluation_results"] if one["evaluation_name"] == record.name + part]
            assert bool(results) == (scores is not None)
            for result in results:
                metric = result["metric_config"]["metric_id"]
                details, interval = result["score_details"], result["score_details"]["uncertainty"]
                ends = interval["confidence_interval"]
                assert (details["score"], ends["lower"], ends["upper"]) == intervals(getattr(scores, who))[metric]
                moved = tuple(float(details["details"][f"difference_{end}"]) for end in ("mean", "low", "high"))
                assert moved == intervals(scores.difference)[metric]
                assert interval["num_samples"] == scores.rows
                assert result["metric_config"]["lower_is_better"] == METRICS[metric].lower_is_better
                assert result["metric_config"]["metric_parameters"]["metric_version"] == record.contract.metric_version
                generation = result["generation_config"]
                prompt = generation["generation_args"]["prompt_template"]
                template = record.recipe["prompt"]
                assert template == (prompt if isinstance(template, str) else json.loads(prompt))
                assert generation["generation_args"]["max_tokens"] == record.contract.max_new_tokens
                assert generation["additional_details"]["num_beams"] == str(record.contract.num_beams)
                source = result["source_data"]
                assert source["additional_details"]["revision"] == record.pins.dataset.revision
                assert source["dataset_name"] == record.pins.dataset.id
            if scores is not None:
                assert {one["metric_config"]["metric_id"] for one in results} == set(getattr(scores, who))
        file = path.with_name(f"{path.stem}_samples.jsonl")
        assert file.is_file() == (predictions is not None)
        if predictions is not None:
            _compare_rows(file, record, predictions, who)


def _compare_rows(file: Path, record: Record, predictions: Predictions, who: str) -> None:
    rows = [json.loads(line) for line in file.read_bytes().split(b"\n") if line]
    by_metric: dict[str, list[float]] = {}
    seen = set()
    for row in rows:
        number = int(row["sample_id"])
        seen.add(number)
        references = [predictions.reference[number], *json.loads(predictions.references[number] or "[]")]
        assert row["input"] == {"raw": predictions.prompt[number], "reference": references}
        assert row["output"] == {"raw": [getattr(predictions, who)[number]]}
        by_metric.setdefault(row["evaluation_result_id"], []).append(row["evaluation"]["score"])
    assert seen == set(range(record.scores.rows))
    scores = getattr(record.scores, who)
    for metric, by_row in by_metric.items():
        if METRICS[metric].family not in CLASSES:
            assert abs(sum(by_row) / len(by_row) - scores[metric].mean) < 1e-9
    assert by_metric.keys() == scores.keys()


def compare_lm_eval(folder: Path, record: Record, predictions: Predictions | None, own: tuple[str, str | None]) -> None:
    python = python_clients.install(*python_clients.LM_EVAL)
    told = python_clients.run(python, LM_EVAL, {"FOLDER": str(folder), "HOME": str(folder)})
    assert told.keys() == {name for name, _ in models(record, own).values()}
    for who, (name, revision) in models(record, own).items():
        found, task = told[name]["results"], record.name
        scores = getattr(record.scores, who)
        for metric, score in scores.items():
            scale = 100 if METRICS[metric].family in CLASSES else 1
            assert found["results"][task][f"{metric},none"] == scale * score.mean
            assert f"{scale * score.mean:.4f}".rstrip("0").rstrip(".") in told[name]["table"]
            if predictions is not None:
                assert abs(told[name]["again"][metric] - scale * score.mean) < 1e-6
                error = found["results"][task][f"{metric}_stderr,none"]
                # Of a mean its own formula, of a corpus the normal distribution's: ours is that of some resamples.
                theirs = told[name]["errors"].get(metric, scale * (score.high - score.low) / 3.92)
                assert abs(error - theirs) <= 0.2 * theirs + 1e-9, metric
        config = found["configs"][task]
        assert config["metadata"]["miniature"] == record.miniature
        kept = config["metadata"]["scores"]["all"]
        assert {metric: tuple(one.values()) for metric, one in kept["scores"].items()} == intervals(scores)
        assert {m: tuple(x.values()) for m, x in kept["difference"].items()} == intervals(record.scores.difference)
        parts = {name.removeprefix("/") or "all" for name, one in _parts(record).items() if one is not None}
        assert config["metadata"]["scores"].keys() == parts
        assert found["n-samples"][task]["effective"] == record.scores.rows
        assert config["dataset_path"] == record.pins.dataset.id
        assert config["metadata"]["dataset_revision"] == record.pins.dataset.revision
        assert (found["model_name"], found["config"]["model_sha"]) == (name, revision)
        assert told[name]["prompt"] == record.recipe["prompt"]
        decoding = told[name]["decoding"]
        assert decoding["max_gen_toks"] == record.contract.max_new_tokens
        assert decoding["num_beams"] == record.contract.num_beams and decoding["do_sample"] is False
        samples = told[name]["samples"]
        assert len(samples) == (0 if predictions is None else record.scores.rows)
        for number, sample in enumerate(samples):
            assert sample["arguments"]["gen_args_0"]["arg_0"] == predictions.prompt[number]
            assert sample["resps"] == [[getattr(predictions, who)[number]]]
            assert sample["target"] == predictions.reference[number]
            assert sample["doc"]["references"] == json.loads(predictions.references[number] or "[]")
            assert sample["doc"]["schema"] == predictions.schema[number]


def compare_aibom(folder: Path, record: Record, own: tuple[str, str | None]) -> None:
    python = python_clients.install("cyclonedx-python-lib[json-validation]==11.12.0")
    (path,) = folder.iterdir()
    assert python_clients.run(python, CYCLONEDX, {"FILE": str(path)}) == []
    bill = json.loads(path.read_text())
    model, parts = bill["metadata"]["component"], {part["bom-ref"]: part for part in bill["components"]}
    assert (f"{model['group']}/{model['name']}", model.get("version")) == own
    for pin in (record.pins.base_model, record.pins.dataset):
        assert parts[f"{pin.kind}:{pin.id}"]["version"] == pin.revision
    for package, version in record.environment.packages.items():
        assert parts[f"pypi:{package}"]["version"] == version
    properties = {one["name"].partition(":")[2]: one["value"] for one in model["properties"]}
    assert json.loads(properties["recipe"]) == {key: record.recipe[key] for key in ("prompt", "target")}
    assert properties["miniature"] == json.dumps(record.miniature)
    contract = record.contract
    assert properties["decoding"] == f"beams {contract.num_beams}, max_new_tokens {contract.max_new_tokens}"
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    for who, (name, _) in models(record, own).items():
        found = {
            one["type"]: (float(one["value"]), *map(float, one["confidenceInterval"].values()))
            for one in metrics
            if one["slice"] == f"{name}, all test rows ({record.scores.rows:,})"
        }
        assert found == intervals(getattr(record.scores, who))


def compare_all(adapter: str, folder: Path, record: Record, predictions: Predictions, own: tuple[str, str | None],
                revision: str = "main"):  # fmt: skip
    """Exports `adapter` in every format, and holds each against its record."""
    published = own[1] is not None
    compare_eval_results(export(adapter, "eval-results", folder, revision), record, published)
    compare_every_eval_ever(export(adapter, "every-eval-ever", folder, revision), record, predictions, own)
    compare_lm_eval(export(adapter, "lm-eval", folder, revision), record, predictions, own)
    compare_aibom(export(adapter, "aibom", folder, revision), record, own)
