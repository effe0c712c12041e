"""What a scored run holds: the scoring contract, and the scores of base model, adapter and answers without a model."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from record.field_types import Amount, Count, Line, Positive, Section, Seed, Sha256, Share


class MetricKind(NamedTuple):
    """A metric as people and the Hub name it.

    `family` is the word in a recipe's `metrics`; the file of that name in scoring/metrics/ computes it. Of a family
    one metric `decides`, where the recipe names the family first. `hub` is the Hub's name of the metric's type.
    """

    label: str
    family: str
    hub: str
    decides: bool = False
    lower_is_better: bool = False


# Every metric. ROUGE's go by the names that rouge_score uses; SQL's are shares of the rows (execution: of the rows
# whose reference runs); sacrebleu's are what it prints, divided by 100.
METRICS: dict[str, MetricKind] = {
    "rouge1": MetricKind("ROUGE-1", "rouge", "rouge"),
    "rouge2": MetricKind("ROUGE-2", "rouge", "rouge"),
    "rougeL": MetricKind("ROUGE-L", "rouge", "rouge", decides=True),
    "rougeLsum": MetricKind("ROUGE-Lsum", "rouge", "rouge"),
    "rougeLsum_flat": MetricKind("ROUGE-Lsum, undivided", "rouge", "rouge"),
    "bleu": MetricKind("BLEU", "sacrebleu", "bleu", decides=True),
    "chrf": MetricKind("chrF2", "chrf", "chrf", decides=True),
    "ter": MetricKind("TER (lower is better)", "ter", "ter", decides=True, lower_is_better=True),
    "exact_match": MetricKind("Exact match", "exact_match", "exact_match", decides=True),
    "squad_exact_match": MetricKind("SQuAD exact match", "squad", "exact_match"),
    "squad_f1": MetricKind("SQuAD F1", "squad", "f1", decides=True),
    "sql_parsed": MetricKind("SQL parses", "sql", "parsed"),
    "sql_exact_match": MetricKind("SQL exact match", "sql", "exact_match"),
    "sql_execution_match": MetricKind("SQL execution match", "sql", "execution_match", decides=True),
}
METRIC_NAMES = {name: kind.label for name, kind in METRICS.items()}
FAMILIES = tuple(dict.fromkeys(kind.family for kind in METRICS.values()))
# Type checkers do not read literals off a table.
if TYPE_CHECKING:
    Metric = str
    Family = str
else:
    Metric = Literal[tuple(METRICS)]
    Family = Literal[FAMILIES]


def families(metrics: list[Family], sql: bool) -> list[Family]:
    """The families that are scored: those that a recipe's `metrics` names; without any, ROUGE, and SQL where it is."""
    return metrics or ["rouge", *(["sql"] if sql else [])]


class Contract(Section):
    """The scoring contract: all that decides a score besides weights and data; `sql` is None without SQL metrics.

    `sql_rules` are those of the databases: the second know TRUE and FALSE, predicates over expressions, dates, and the
    dialects of MySQL, Postgres and T-SQL. What was scored before states none and keeps to the first.

    `metrics` are the families that the recipe names (see `families`). `metric`, `metric_version`, `rouge_tokenizer`,
    `stemmer` and `sentences` are ROUGE's. `rouge_tokenizer` says what ROUGE counts: words of a to z and digits, or the
    characters of any script. `signatures` are sacrebleu's, a family each. A metric that applies to no row is absent, or
    counts 0, as before version 5 of the record (`without_rows`). With several `references` a row the best one counts,
    and sacrebleu counts against all of them together.

    `engine` wrote the outputs, `batch_size` rows at once (CTranslate2: a thread). In float32 tokens depend on neither.
    """

    engine: Line = "transformers"
    metrics: list[Family] = Field(default=[], max_length=len(FAMILIES))
    metric: Line
    metric_version: Line
    rouge_tokenizer: Literal["words", "characters"] = "words"
    stemmer: bool
    sentences: Line
    sql: Line | None = None
    sql_rules: Literal[1, 2] = 1
    signatures: dict[Family, Line] = Field(default={})
    without_rows: Literal["absent", "zero"] = "zero"
    references: Literal["one", "several"] = "one"
    max_new_tokens: Positive
    num_beams: Positive
    dtype: Line
    batch_size: Positive
    resamples: Positive
    confidence: Share
    seed: Seed

    @property
    def families(self) -> list[Family]:
        """The families of metrics that are scored, the deciding one first."""
        return families(self.metrics, self.sql is not None)

    def deciding(self, scored: Iterable[Metric]) -> list[Metric]:
        """Those of the `scored` metrics that decide when outputs differ, the leading one first; never more than two.

        They are that of the first family, or its first where that applies to no row, and SQL execution match. The other
        metrics move with them, and each further test is a further false alarm.
        """
        # A stranger's verdict may name others.
        scored = [name for name in scored if name in METRICS]
        first = [name for name in scored if METRICS[name].family == self.families[0]] or scored
        leading = next((name for name in first if METRICS[name].decides), first[0]) if first else None
        return [name for name in scored if name == leading] + [
            name for name in scored if name == "sql_execution_match" != leading
        ]


# Errors for each token of a reference: no output is so long.
LARGEST_FIGURE = 1_000_000
Figure = Annotated[float, Field(ge=-LARGEST_FIGURE, le=LARGEST_FIGURE)]


class Interval(Section):
    """A mean over the test rows, or a score of all of them together, and its bootstrap interval."""

    mean: Figure
    low: Figure
    high: Figure

    @model_validator(mode="after")
    def in_order(self) -> "Interval":
        if self.low > self.high:
            raise ValueError("an interval's lower end is not above its upper end")
        return self

    @property
    def decimals(self) -> int:
        """Decimals worth reading: three, or four where half the interval is narrower than the third."""
        return 4 if 0 < (self.high - self.low) / 2 < 0.001 else 3

    def figure(self, value: float, sign: str = "") -> str:
        """A number next to this interval, to its decimals; a zero has no minus.

        Parameters:
            sign: `+` for a difference.
        """
        return f"{value:{sign}z.{self.decimals}f}"

    def text(self, sign: str = "") -> str:
        """The mean and the interval: `0.732 [0.693, 0.767]`."""
        mean, low, high = (self.figure(value, sign) for value in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]"


def _within_bounds(intervals: dict[Metric, Interval]) -> dict[Metric, Interval]:
    for name, interval in intervals.items():
        # A rate of errors has no upper bound.
        bound = LARGEST_FIGURE if METRICS[name].lower_is_better else 1
        if max(abs(interval.mean), abs(interval.low), abs(interval.high)) > bound:
            raise ValueError(f"{name} lies between {-bound:,} and {bound:,}")
    return intervals


# Scores, or differences of scores.
Intervals = Annotated[dict[Metric, Interval], AfterValidator(_within_bounds)]


class Outputs(Section):
    """What one model wrote: mean tokens per row, rows cut at `max_new_tokens`, empty rows, seconds of generation."""

    mean_tokens: Amount
    cut: Count
    empty: Count
    seconds: Amount


class Compared(Section):
    """Scores (0 to 1) per metric name over `rows` test rows; `difference` is adapter − base, paired by row."""

    rows: Positive
    base: Intervals
    adapter: Intervals
    difference: Intervals

    def shown(self) -> list[Metric]:
        """The metrics to show: the undivided reading of ROUGE-Lsum only where it differs from the other."""
        both = {"rougeLsum", "rougeLsum_flat"} <= self.base.keys() & self.adapter.keys()
        same = both and all(
            abs(x["rougeLsum"].mean - x["rougeLsum_flat"].mean) < 5e-5 for x in (self.base, self.adapter)
        )
        return [name for name in self.base if not (same and name == "rougeLsum_flat")]


class SqlCounts(Section):
    """Rows whose reference does not run on its own tables; rows where both results are empty on every database."""

    not_executable: Count
    base_empty: Count
    adapter_empty: Count


class OwnDatabases(Compared):
    """Execution match on the dataset's own databases, over the `rows` whose reference runs there.

    `not_executable` counts the other rows. Of the `both` rows whose reference runs on made rows, too, `base_agree` and
    `adapter_agree` are those that match on both or on neither. `sha256` is that of a line with its own sha256, a space
    and its name for each of the `files`, sorted; `bytes` is their size.
    """

    not_executable: Count
    both: Count
    base_agree: Count
    adapter_agree: Count
    files: Count
    bytes: Count
    sha256: Sha256


class Scores(Compared):
    """The scores of all test rows; `clean` those of the rows that no training of the chain has seen, where some were.

    `seen` counts the test rows found in any training of the chain, by the gravest kind (`record.predictions.SEEN`).
    `by_dataset` are the scores of each of several datasets' test rows, in the recipe's order; None of one without any.
    """

    base_outputs: Outputs
    adapter_outputs: Outputs
    sql: SqlCounts | None = None
    databases: OwnDatabases | None = None
    seen: dict[Literal["exact", "near", "prompt", "disguised"], Count] = Field(default={})
    clean: Compared | None = None
    by_dataset: list[Compared | None] = Field(default=[], max_length=20)


BaselineName = Literal["copied", "frequent", "random", "nearest"]
BASELINES: dict[BaselineName, str] = {
    "copied": "the input, copied",
    "frequent": "the most frequent training target",
    "random": "a random training target",
    "nearest": "the target of the nearest training input",
}


class Baseline(Section):
    """What answers without a model score, and the paired difference adapter − baseline."""

    scores: Intervals
    difference: Intervals


class Forgetting(Section):
    """The parent's test rows again: the parent's own published scores and this adapter's, and the paired difference."""

    rows: Positive
    parent: Intervals
    adapter: Intervals
    difference: Intervals
