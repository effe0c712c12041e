"""The run record: the one thing the rooms hand each other, stored as `record.json` beside the adapter.

Training starts it, evaluation adds the scores, the card is rendered from it, push adds the hashes of what it uploads,
and reproduce reads it back from the Hub. A record read from the Hub is untrusted: unknown keys, missing keys and
wrong types are refused.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from recipes.errors import UserError

RECORD_FILE = "record.json"
MAX_RECORD_BYTES = 16 * 2**20
# The metrics of every score, by the names that rouge_score uses, with the names that people read.
ROUGE_NAMES = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "rougeLsum_flat": "ROUGE-Lsum, undivided",
}
# Those of a recipe with `sql_schema`: shares of the rows (execution: of the rows whose reference runs).
SQL_NAMES = {
    "sql_parsed": "SQL parses",
    "sql_exact_match": "SQL exact match",
    "sql_execution_match": "SQL execution match",
}
METRIC_NAMES = ROUGE_NAMES | SQL_NAMES
Sha1 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# A file's place in the published repository: no absolute path, no `..`.
RepoPath = Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$", max_length=200)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Pin(Section):
    """What was taken from the Hub: `id` at the full commit `revision`.

    `license` is the one its card states, `miniature` whether its card carries the tag of a local stand-in.
    """

    kind: Literal["model", "dataset"]
    id: str
    revision: Sha1
    license: str | None = None
    miniature: bool = False


class Pins(Section):
    base_model: Pin
    dataset: Pin
    parent_adapter: Pin | None = None


class Lengths(Section):
    """Shortest, mean and longest text, in tokens with the final `</s>`."""

    min: int = Field(ge=0)
    mean: float = Field(ge=0, allow_inf_nan=False)
    max: int = Field(ge=0)


class Data(Section):
    """Row counts: `loaded` = the sum of `dropped` + train + validation + test; `dropped` and `truncated` by rule.

    `limits` holds what each percentile rule came to, `lengths` those of the training rows. `test_sha256` is the hash of
    the test rows, in order.
    """

    loaded: int
    dropped: dict[str, int]
    truncated: dict[str, int] = {}
    limits: dict[str, float] = {}
    lengths: dict[Literal["prompt", "target"], Lengths] = {}
    train: int
    validation: int
    test: int
    test_sha256: Sha256


class Unwritable(Section):
    """How many references the tokenizer cannot give back, and so no model with it can write: of `rows` references,

    `unwritable` come back with other characters, `white_space` with other white space only (T5 makes every newline a
    space). `characters` counts the rows by character that has no token, the most frequent first, at most 20.
    """

    rows: int
    unwritable: int
    white_space: int
    characters: dict[str, int] = Field(max_length=20)

    @property
    def percent(self) -> float:
        return 100 * self.unwritable / max(self.rows, 1)


class Model(Section):
    """Parameter counts and `memory_bytes`, the bytes of all parameters and buffers as loaded.

    `quantized_layers` counts the base's linear layers that hold 4- or 8-bit weights.
    """

    trainable: int
    total: int
    memory_bytes: int
    dtype: str
    quantized_layers: int = 0

    @property
    def percent(self) -> float:
        return 100 * self.trainable / self.total


class Expectation(Section):
    """A figure that the recipe expects and the one that was found."""

    name: str
    expected: int | float | str
    found: int | float | str
    verdict: Literal["met", "missed", "not comparable"]


class Batch(Section):
    """How an optimizer step of `per_device · accumulation · processes` rows is cut.

    `too_large` lists the micro-batches that memory refused.
    """

    per_device: int
    accumulation: int
    processes: int
    too_large: list[int] = []

    @property
    def effective(self) -> int:
        """Rows of one optimizer step."""
        return self.per_device * self.accumulation * self.processes


class LossPoint(Section):
    """One line of the loss history: the training loss since the last line, or the validation loss, at `step`."""

    step: int
    epoch: float
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None


class Training(Section):
    """How the adapter came to be.

    `seconds`, `tokens_per_second` (real source + target tokens, padding not counted) and `peak_memory_bytes` speak of
    the session that finished the run; `resumed_from` is the step it started at (0: from scratch).
    """

    history: list[LossPoint]
    steps: int
    epochs: float
    seed: int
    resumed_from: int
    best_step: int | None = None
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    adapter_sha256: Sha256


class Energy(Section):
    """Electricity of the session that finished the training, the whole machine's, as codecarbon gives it.

    `cpu_measured` says whether the CPU's was read from its own counters or estimated from its load and thermal design
    power; a GPU's is read from its driver, the memory's estimated from its size. `co2_grams` is the energy times the
    yearly mean carbon intensity of the grid of `country` (ISO 3166-1 alpha-3), or of its `region`.
    """

    kwh: float = Field(ge=0, allow_inf_nan=False)
    cpu_kwh: float = Field(ge=0, allow_inf_nan=False)
    gpu_kwh: float = Field(ge=0, allow_inf_nan=False)
    ram_kwh: float = Field(ge=0, allow_inf_nan=False)
    co2_grams: float = Field(ge=0, allow_inf_nan=False)
    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    region: str | None = Field(default=None, max_length=100)
    hardware: str = Field(max_length=200)
    cpu_measured: bool
    codecarbon: str = Field(max_length=40)


class Leakage(Section):
    """Test rows whose input also stands in training rows: as `exact` copy, or as `near` duplicate (else).

    One entry a training of the chain: `adapter` None for this run's own, else the ancestor's id at its commit.
    """

    adapter: str | None
    dataset: str
    training_rows: int
    exact: int
    near: int


class Contract(Section):
    """The scoring contract: all that decides a score besides weights and data. `sql` is None without SQL metrics."""

    metric: str
    metric_version: str
    stemmer: bool
    sentences: str
    sql: str | None = None
    max_new_tokens: int
    num_beams: int
    dtype: str
    batch_size: int = Field(ge=1)
    resamples: int
    confidence: float
    seed: int


class Interval(Section):
    """A mean over the test rows and its bootstrap interval."""

    mean: float
    low: float
    high: float


class Outputs(Section):
    """What one model wrote: mean tokens per row, rows cut at `max_new_tokens`, empty rows, seconds of generation."""

    mean_tokens: float
    cut: int
    empty: int
    seconds: float


class Compared(Section):
    """Scores (0 to 1) per metric name over `rows` test rows; `difference` is adapter − base, paired by row."""

    rows: int
    base: dict[str, Interval]
    adapter: dict[str, Interval]
    difference: dict[str, Interval]

    def shown(self) -> list[str]:
        """The metrics to show: the undivided reading of ROUGE-Lsum only where it differs from the other."""
        both = {"rougeLsum", "rougeLsum_flat"} <= self.base.keys() & self.adapter.keys()
        same = both and all(
            abs(x["rougeLsum"].mean - x["rougeLsum_flat"].mean) < 5e-5 for x in (self.base, self.adapter)
        )
        return [name for name in self.base if not (same and name == "rougeLsum_flat")]


class SqlCounts(Section):
    """Rows whose reference does not run on its own tables; rows where both results are empty on every database."""

    not_executable: int
    base_empty: int
    adapter_empty: int


class Scores(Compared):
    """The scores of all test rows; `clean` those of the rows that no training of the chain has seen, where some were.

    `seen` counts the test rows found in any training of the chain, as exact copies or near-duplicates.
    """

    base_outputs: Outputs
    adapter_outputs: Outputs
    sql: SqlCounts | None = None
    seen: dict[Literal["exact", "near"], int] = {}
    clean: Compared | None = None


class Forgetting(Section):
    """The parent's test rows again: the parent's own published scores and this adapter's, and the paired difference."""

    rows: int
    parent: dict[str, Interval]
    adapter: dict[str, Interval]
    difference: dict[str, Interval]


class Environment(Section):
    """Where the run happened: versions by package, the device, and the commit of the code (None outside git)."""

    python: str
    platform: str
    device: str
    threads: int
    packages: dict[str, str]
    code_commit: str | None
    code_dirty: bool


class Renderer(Section):
    """What rendered the card and the plots: the sha256 of the code that does, and matplotlib's version."""

    code: Sha256
    matplotlib: str


class Record(Section):
    """One run. Sections that have not happened yet are None.

    `environment` is where it was trained, `scored_in` where the scores were taken.
    """

    schema_version: Literal[1] = 1
    name: str
    recipe: dict[str, Any]
    hub: str
    pins: Pins
    data: Data
    unwritable: Unwritable | None = None
    model: Model
    batch: Batch
    environment: Environment
    expectations: list[Expectation] = []
    leakage: list[Leakage] | None = None
    training: Training | None = None
    energy: Energy | None = None
    contract: Contract | None = None
    scored_in: Environment | None = None
    scores: Scores | None = None
    forgetting: Forgetting | None = None
    rendered: Renderer | None = None
    files: dict[RepoPath, Sha256] = Field(default={}, max_length=100)

    @property
    def miniature(self) -> bool:
        """Whether the base model or the dataset is a local stand-in, so that no number speaks of the real one."""
        return self.pins.base_model.miniature or self.pins.dataset.miniature

    def to_bytes(self) -> bytes:
        """The record as it stands in `record.json`."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    def save(self, run: Path) -> None:
        """Writes `record.json` into the folder `run`, whole or not at all."""
        temporary = run / f".{RECORD_FILE}.{os.getpid()}"
        temporary.write_bytes(self.to_bytes())
        temporary.replace(run / RECORD_FILE)


def load_record(run: Path) -> Record:
    """The record in the folder `run`.

    Raises:
        `UserError`: there is none, or it is not a record of this schema.
    """
    path = run / RECORD_FILE
    if not path.is_file():
        raise UserError(f"{run} holds no {RECORD_FILE}: train a recipe into it first (make train-finance)")
    if path.stat().st_size > MAX_RECORD_BYTES:
        raise UserError(f"{path} is larger than {MAX_RECORD_BYTES} bytes: this is no run record")
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path} is not a run record that this version reads: {where}: {first['msg']}") from None


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


FREE_SECTION = re.compile(r"(<!-- free: ([\w -]+) -->)(.*?)(<!-- /free -->)", re.DOTALL)


def sha256_published(path: Path) -> str:
    """Hex sha256 that the record states for a published file.

    In the card (`README.md`) what people wrote between `<!-- free: … -->` and `<!-- /free -->` is left out, so that
    they may edit it after publication.
    """
    if path.name != "README.md":
        return sha256_file(path)
    generated = FREE_SECTION.sub(r"\1\4", path.read_text(encoding="utf-8"))
    return hashlib.sha256(generated.encode()).hexdigest()
