"""Scores as the Hub's `.eval_results/*.yaml` (https://huggingface.co/docs/hub/eval-results)."""

from datetime import date
from pathlib import Path

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from model_cards.results.source import Results
from record.errors import UserError, one_line
from record.release_files import RECORD_FILE
from record.run_record import FilePin
from record.scored_record import AnyScored
from record.scores import METRIC_NAMES


def result_file(record: AnyScored, day: date | None = None, source: str | None = None) -> str:
    """The scores of the adapter, an entry a metric.

    The Hub shows those of datasets that are registered as benchmarks; a task of such a dataset has an id of its own,
    which nobody but its owner knows: here it is the metric's name.

    Parameters:
        day: when they were taken; a record does not say, and without it the Hub takes that of the commit.
        source: where the record lies.
    """
    contract, dataset = record.contract, record.pins.dataset
    of = f" of {record.evaluated.source.id}@{record.evaluated.source.revision}" if record.evaluated else ""
    how = (
        f"{record.scores.rows:,} rows, recipe {record.name}, at most {contract.max_new_tokens:,} tokens, "
        f"beams: {contract.num_beams}{', on a miniature' if record.miniature else ''}"
    )
    entries = [
        EvalResultEntry(
            dataset_id=dataset.id,
            task_id=name,
            value=record.scores.adapter[name].mean,
            dataset_revision=dataset.revision,
            date=day.isoformat() if day else None,
            source_url=source,
            source_name=RECORD_FILE if source else None,
            notes=one_line(
                f"{METRIC_NAMES[name]}{of}, {100 * contract.confidence:g} % interval "
                f"{record.scores.adapter[name].low:.4f} to {record.scores.adapter[name].high:.4f}, {how}"
            ),
        )
        for name in record.scores.shown()
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)


def write(results: Results, folder: Path) -> list[Path]:
    """Writes the file as it stands in the adapter's repository; what was written.

    Raises:
        `UserError`: the rows are no dataset on the Hub.
    """
    record = results.record
    if isinstance(record.pins.dataset, FilePin):
        raise UserError(
            f"the Hub's result files name a dataset on the Hub, and {results.dataset} is none: choose another format"
        )
    path = folder / ".eval_results" / f"{record.name}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(result_file(record, source=results.record_url), encoding="utf-8")
    return [path]
