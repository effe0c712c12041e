"""What is exported of a scored run or release: its record, its two models, and, where they are public, its rows."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from huggingface_hub import constants

from record.errors import UserError, make
from record.predictions import Predictions, load_predictions
from record.release_files import PREDICTIONS_FILE, RECORD_FILE
from record.run_record import FilePin, Record, load_record
from record.scored_record import AnyScored, require_evaluation, require_scores
from record.scores import Interval, Intervals
from scoring.bootstrap import Corpus
from scoring.scores import metric_rows, score_predictions

# The name that pyproject.toml gives this project.
TOOL = "publish-and-reproduce"
# The owner of a run that lies in no repository: the formats want one, and this is nobody's name for a while.
UNPUBLISHED = "unpublished"


class Model(NamedTuple):
    """One of the two models: `who` is its name in the record, `revision` its commit (None of an unpublished run)."""

    who: Literal["base", "adapter"]
    id: str
    revision: str | None

    @property
    def owner(self) -> str:
        return self.id.partition("/")[0]


@dataclass(frozen=True)
class Results:
    """What is exported.

    `release` is the `owner/name@commit` that it was pulled from, None of a folder. `predictions` is None where the rows
    are files of the publisher's own: then nothing is written that speaks of a single row.
    """

    record: AnyScored
    predictions: Predictions | None
    release: str | None

    @property
    def models(self) -> tuple[Model, Model]:
        """The model whose scores these are, and its base model."""
        record = self.record
        if record.evaluated is not None:
            source = record.evaluated.source
            own = Model("adapter", source.id, source.revision)
        elif self.release is not None:
            own = Model("adapter", *self.release.split("@"))
        else:
            own = Model("adapter", f"{UNPUBLISHED}/{record.recipe['adapter_name']}", None)
        return own, Model("base", record.pins.base_model.id, record.pins.base_model.revision)

    @property
    def dataset(self) -> str:
        """What others call the dataset: nothing of where files of one's own lie."""
        return self.record.pins.dataset.id

    @property
    def record_url(self) -> str | None:
        """Where the record lies, which holds all that a format has no place for."""
        if self.release is None:
            return None
        name, commit = self.release.split("@")
        return f"{constants.ENDPOINT}/{name}/blob/{commit}/{RECORD_FILE}"

    @property
    def code(self) -> str:
        """The commit of the code that scored."""
        return (self.record.scored_in or self.record.environment).code_commit or "unknown"

    def scores(self, model: Model) -> dict[str, tuple[int, Intervals, Intervals]]:
        """The number of rows, a model's scores and the differences adapter - base, by the rows that were scored.

        `""` are all test rows, `clean` those that no training has seen, `databases` the dataset's own databases.
        """
        scores = self.record.scores
        parts = {"": scores, "clean": scores.clean, "databases": scores.databases}
        return {
            part: (one.rows, getattr(one, model.who), one.difference) for part, one in parts.items() if one is not None
        }

    def row_scores(self, model: Model) -> dict[str, list[float]]:
        """A model's score of each row by metric, NaN where the metric does not apply to the row; {} without rows.

        The score of all rows by one of sacrebleu's metrics is no mean over rows: a row's is that of the row alone.
        """
        if self.predictions is None:
            return {}
        rows = metric_rows(self.predictions, model.who, self.record.contract)
        return {
            name: [float(scores.score(one)) for one in scores.statistics] if isinstance(scores, Corpus) else scores
            for name, scores in rows.items()
            if name in self.record.scores.adapter
        }


def read(adapter: str, revision: str) -> Results:
    """The results of the run in the folder `adapter`, or of the release of that id at `revision`.

    Raises:
        `UserError`: it is neither, is not scored, is damaged, or its outputs do not give its scores.
        `huggingface_hub.errors.HfHubHTTPError`: the Hub refused.
    """
    folder, release = Path(adapter), None
    if folder.is_dir():
        record = load_record(folder)
    else:
        folder, record, release = _pull(adapter, revision)
    if record.scores is None:
        raise UserError(f"{adapter} is not scored yet: run {make(f'evaluate-{record.name}')}, then export its results")
    scored: AnyScored = require_scores(record) if record.evaluated is None else require_evaluation(record)
    if isinstance(record.pins.dataset, FilePin):
        return Results(scored, None, release)
    predictions = load_predictions(folder, rows=scored.scores.rows)
    _refuse_other_scores(adapter, scored, predictions)
    return Results(scored, predictions, release)


def _pull(adapter: str, revision: str) -> tuple[Path, Record, str]:
    from hub.pins import locate
    from hub.release import pull

    if adapter.count("/") != 1 or adapter.startswith("."):
        raise UserError(f"{adapter} is neither the folder of a run nor an id on the Hub (owner/name)")
    name, commit = locate(adapter, revision)
    # Outputs without rows are not read.
    published = pull(name, commit, names=[])
    if not isinstance(published.record.pins.dataset, FilePin) and published.record.scores is not None:
        published = pull(name, commit, [PREDICTIONS_FILE])
        if published.differing:
            raise UserError(f"{published.name} is damaged: its {PREDICTIONS_FILE} differs from its record")
    return published.folder, published.record, published.name


def _refuse_other_scores(name: str, record: AnyScored, predictions: Predictions) -> None:
    """Refuses scores that do not follow from the outputs: a file of rows would contradict them."""
    here = score_predictions(predictions, record.contract, 0.0, 0.0)
    for part in ("base", "adapter", "difference"):
        ours, theirs = getattr(here, part), getattr(record.scores, part)
        for metric, interval in theirs.items():
            if metric not in ours or not _same(ours[metric], interval):
                raise UserError(
                    f"the outputs of {name} do not give the {metric} of its record: `pubrep reproduce` says more"
                )


def _same(one: Interval, other: Interval) -> bool:
    pairs = ((one.mean, other.mean), (one.low, other.low), (one.high, other.high))
    # Sums in another order differ in the last digits.
    return all(math.isclose(x, y, abs_tol=1e-9) for x, y in pairs)
