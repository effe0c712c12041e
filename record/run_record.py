"""The run record: the one thing the rooms hand each other, stored as `record.json` next to the adapter.

Training starts it, evaluation adds the scores, the card is rendered from it, push adds the hashes of what it uploads,
and reproduce reads it back from the Hub. A record from the Hub is untrusted: unknown and missing keys, wrong types,
numbers and texts out of bounds are refused. record/schemas/ holds the format, `record.versions` how it changes.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, WrapValidator, model_validator

from record import strict_json
from record.energy import Energy, Forecast
from record.errors import make
from record.field_types import (
    Amount,
    Count,
    Line,
    PlainName,
    Positive,
    RepoId,
    RepoPath,
    Section,
    Seed,
    Sha1,
    Sha256,
    check_bounds,
)
from record.published_recipe import ROWS_FILE, PublishedRecipe
from record.recipe_datasets import DatasetRows
from record.release_files import RECORD_FILE
from record.scores import Baseline, BaselineName, Contract, Figure, Forgetting, Interval, Metric, Scores
from record.sweep import Sweep
from record.versions import VERSION, upgrade
from record.whole_file import write_whole

# By length rule.
RuleCounts = Annotated[dict[Line, Count], Field(max_length=50)]


class Pin(Section):
    """What was taken from the Hub: `id` at the full commit `revision`.

    `license` is the one its card states, `miniature` whether its card carries the tag of a local stand-in.
    """

    kind: Literal["model", "dataset"]
    id: RepoId
    revision: Sha1
    license: Line | None = None
    miniature: bool = False


class FilePin(Pin):
    """Rows of one's own: the name of a file or folder without its place, and the sha256 of its contents.

    A release of a run on them holds none of the rows: its predictions lack prompts, references and tables.
    """

    kind: Literal["file"]  # type: ignore[assignment]
    id: PlainName
    revision: Sha256

    @property
    def dataset_name(self) -> str:
        """What the published recipe calls the file or the folder: nothing of where it lies."""
        return self.id if ROWS_FILE.fullmatch(self.id) else f"./{self.id}"


DatasetPin = Annotated[Pin | FilePin, Field(discriminator="kind")]


class Pins(Section):
    """What a run was made of; `more_datasets` are those after the first, where the recipe has several `datasets`."""

    base_model: Pin
    dataset: DatasetPin
    more_datasets: list[DatasetPin] = Field(default=[], max_length=19)
    parent_adapter: Pin | None = None

    @property
    def datasets(self) -> list[Pin | FilePin]:
        """All datasets, in the recipe's order."""
        return [self.dataset, *self.more_datasets]

    @property
    def file(self) -> FilePin | None:
        """The first dataset that is files of somebody's own; None where all are on the Hub."""
        return next((dataset for dataset in self.datasets if isinstance(dataset, FilePin)), None)


class Lengths(Section):
    """Shortest, mean and longest text, in tokens with the final `</s>`; `p99`: 1 % of the texts are longer."""

    min: Count
    mean: Amount
    max: Count
    p99: Count | None = None


class Data(Section):
    """Row counts: `loaded` = the sum of `dropped` + train + validation + test; `dropped` and `truncated` by rule.

    `limits` holds what each percentile rule came to, `lengths` those of the training rows and of the references, the
    targets of the test rows. `test_sha256` is the hash of
    the test rows, in order. `test_dropped` counts those of the dropped rows that the dataset's own test split held,
    where the recipe names one. `by_dataset` counts by dataset where there are several. `rules` says by which rules rows
    were made and compared: records before version 5 by the first.
    """

    rules: Literal[1, 2] = 2
    loaded: Positive
    dropped: RuleCounts
    truncated: RuleCounts = Field(default={})
    limits: dict[Line, Amount] = Field(default={}, max_length=50)
    lengths: dict[Literal["prompt", "target", "reference"], Lengths] = Field(default={})
    train: Count
    validation: Count
    test: Count
    test_dropped: Count = 0
    by_dataset: list[DatasetRows] = Field(default=[], max_length=20)
    test_sha256: Sha256

    def where_stated(self, other: "Data") -> "Data":
        """These counts without what a record of an older version does not state."""
        return self if other.lengths else self.model_copy(update={"lengths": {}})


class Unwritable(Section):
    """How many references the tokenizer cannot give back, and so no model with it can write: of `rows` references,

    `unwritable` come back with other characters, `white_space` with other white space only (T5 makes every newline a
    space). `characters` counts the rows by character that has no token, the most frequent first, at most 20.
    """

    rows: Count
    unwritable: Count
    white_space: Count
    characters: dict[Annotated[str, Field(max_length=8)], Count] = Field(max_length=20)

    @property
    def percent(self) -> float:
        return 100 * self.unwritable / max(self.rows, 1)


class Model(Section):
    """Parameter counts and `memory_bytes`, the bytes of all parameters and buffers as loaded.

    `quantized_layers` counts the base's linear layers that hold 4- or 8-bit weights. `type` is the base's model type,
    as its configuration names it; a record without one is of a T5 or mT5.
    """

    trainable: Count
    total: Positive
    memory_bytes: Count
    dtype: Line
    quantized_layers: Count = 0
    type: Line | None = None

    @property
    def percent(self) -> float:
        return 100 * self.trainable / self.total


class Expectation(Section):
    """A figure that the recipe expects and the one that was found."""

    name: Line
    expected: Count | Amount | Line
    found: Count | Amount | Line
    verdict: Literal["met", "missed", "not comparable"]


class Batch(Section):
    """How an optimizer step of `per_device · accumulation · processes` rows is cut.

    A micro-batch holds at most `tokens` tokens, or one row; memory refused the budgets in `too_large`. Before version 3
    it held `per_device` rows, and `too_large` lists numbers of rows.
    """

    per_device: Positive
    accumulation: Positive
    processes: Positive
    tokens: Positive | None = None
    too_large: list[Positive] = Field(default=[], max_length=100)

    @property
    def effective(self) -> int:
        """Rows of one optimizer step."""
        return self.per_device * self.accumulation * self.processes


class LossPoint(Section):
    """One line of the loss history: the training loss since the last line, or the validation loss, at `step`."""

    step: Count
    epoch: Amount
    loss: Amount | None = None
    eval_loss: Amount | None = None
    learning_rate: Amount | None = None


class Training(Section):
    """How the adapter came to be.

    `seconds`, `tokens_per_second` (real source + target tokens, padding not counted) and `peak_memory_bytes` speak of
    the session that finished the run; `resumed_from` is the step it started at (0: from scratch).
    """

    history: list[LossPoint] = Field(max_length=200_000)
    steps: Count
    epochs: Amount
    seed: Seed
    resumed_from: Count
    best_step: Count | None = None
    seconds: Amount
    tokens_per_second: Amount
    peak_memory_bytes: Count
    adapter_sha256: Sha256

    @property
    def validation_loss(self) -> float | None:
        """That of the weights that were kept, in nats a target token; None where none was taken of them."""
        kept = self.steps if self.best_step is None else self.best_step
        losses = [point.eval_loss for point in self.history if point.step == kept and point.eval_loss is not None]
        return losses[-1] if losses else None


class Leakage(Section):
    """Test rows whose input also stands in training rows: as `exact` copy, as `near` duplicate (else), or `disguised`.

    Of all test rows, the `prompts` that are also a training row's, and those whose `token_ids` are. A row that only its
    prompt or token ids tell is not counted as disguised. None in records of the first rules (see `Data`).
    One entry a training of the chain: `adapter` None for this run's own, else the ancestor's id at its commit.
    `verdict` is what an ancestor's release says of a check of itself.
    """

    adapter: Line | None
    dataset: RepoId | PlainName
    training_rows: Count
    exact: Count
    near: Count
    disguised: Count | None = None
    prompts: Count | None = None
    token_ids: Count | None = None
    verdict: Line | None = None


class Claim(Section):
    """A score that somebody states, and what a check found of it.

    `difference` is score − claim with its joint interval (`evaluation.claim.decide`), `tolerance` by how much the score
    may differ and count as the claimed one.
    """

    metric: Metric
    value: Figure
    tolerance: Amount
    difference: Interval
    verdict: Literal["CONFIRMED", "CONTRADICTED", "UNDECIDED"]


class Evaluated(Section):
    """What was scored, where that was not trained here: an adapter of anybody's, or a full model.

    `files` are those of its repository that were read, with the sha256 of each. `base_named` says what names the base
    model: the repository with its `commit` or by its `name` alone, the `recipe`, or the `option` --base.
    `own_tokenizer` is whether the repository holds a tokenizer, which then has the base model's tokens. `left_out` are
    keys of the recipe that do not hold for what was not trained by it.
    """

    kind: Literal["adapter", "model"]
    source: Pin
    files: dict[RepoPath, Sha256] = Field(max_length=500)
    base_named: Literal["commit", "name", "recipe", "option"]
    own_tokenizer: bool
    left_out: list[Literal["parent_adapter", "added_tokens"]] = Field(default=[], max_length=2)
    claims: list[Claim] = Field(default=[], max_length=20)


class Environment(Section):
    """Where the run happened: versions by package, the device, and the commit of the code (None outside git)."""

    python: Line
    platform: Line
    device: Line
    threads: Count
    packages: dict[Line, Line] = Field(max_length=100)
    code_commit: Line | None
    code_dirty: bool


class Renderer(Section):
    """What rendered the card and the plots: the sha256 of the code that does, and matplotlib's version."""

    code: Sha256
    matplotlib: Line


class Record(Section):
    """One run. Sections that have not happened yet are None.

    `environment` is where it was trained, `scored_in` where the scores were taken. A record with the section
    `evaluated` is evaluation-only: it speaks of scores, and neither `batch` nor `training` stand in it.
    """

    # The schema's number is written out for type checkers, which hold it against `VERSION`.
    schema_version: Literal[6] = VERSION
    name: PlainName
    # What a run's own recipe may hold is wider: see `record.published_recipe`.
    recipe: Annotated[
        PublishedRecipe,
        WrapValidator(lambda keys, _: check_bounds(keys)),
        PlainSerializer(dict, return_type=dict[str, Any]),
    ]
    hub: Line
    pins: Pins
    data: Data
    unwritable: Unwritable | None = None
    model: Model
    batch: Batch | None = None
    environment: Environment
    expectations: list[Expectation] = Field(default=[], max_length=100)
    leakage: list[Leakage] | None = Field(default=None, max_length=100)
    training: Training | None = None
    evaluated: Evaluated | None = None
    energy: Energy | None = None
    forecast: Forecast | None = None
    contract: Contract | None = None
    scored_in: Environment | None = None
    scores: Scores | None = None
    baselines: dict[BaselineName, Baseline] = Field(default={})
    forgetting: Forgetting | None = None
    sweep: Sweep | None = None
    rendered: Renderer | None = None
    files: dict[RepoPath, Sha256] = Field(default={}, max_length=100)

    @model_validator(mode="after")
    def is_of_one_kind(self) -> "Record":
        trained = self.batch is not None or self.training is not None or self.pins.parent_adapter is not None
        if (self.evaluated is None and self.batch is None) or (self.evaluated is not None and trained):
            raise ValueError("a record has either `batch` and what follows from training, or `evaluated`")
        return self

    @property
    def miniature(self) -> bool:
        """Whether the base model or the dataset is a local stand-in, so that no number speaks of the real one."""
        pins = [self.pins.base_model, *self.pins.datasets, *([self.evaluated.source] if self.evaluated else [])]
        return any(pin.miniature for pin in pins)

    def to_bytes(self) -> bytes:
        """The record as it stands in `record.json`."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    def save(self, run: Path) -> None:
        """Writes `record.json` into the folder `run`, whole or not at all."""
        write_whole(run / RECORD_FILE, self.to_bytes())


def load_record(run: Path) -> Record:
    """The record in the folder `run`.

    Raises:
        `UserError`: there is none, it is not a record, or one of a newer version than this clone reads.
    """
    what, cure = "a run record that this version reads", f"train a recipe into it first ({make('train-finance')})"
    return strict_json.load(run / RECORD_FILE, Record, what, cure, upgrade)
