"""What a scored run holds: the scoring contract, and the scores of base model, adapter and answers without a model."""

from typing import Literal

from pydantic import Field

from record.field_types import Amount, Count, Line, Positive, Section, Seed, Share, Shift

Metric = Literal["rouge1", "rouge2", "rougeL", "rougeLsum", "rougeLsum_flat", "sql_parsed", "sql_exact_match",
                 "sql_execution_match"]  # fmt: skip
# The metrics of every score, by the names that rouge_score uses, with the names that people read.
ROUGE_NAMES: dict[str, str] = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "rougeLsum_flat": "ROUGE-Lsum, undivided",
}
# Those of a recipe with `sql_schema`: shares of the rows (execution: of the rows whose reference runs).
SQL_NAMES: dict[str, str] = {
    "sql_parsed": "SQL parses",
    "sql_exact_match": "SQL exact match",
    "sql_execution_match": "SQL execution match",
}
METRIC_NAMES = ROUGE_NAMES | SQL_NAMES


class Contract(Section):
    """The scoring contract: all that decides a score besides weights and data; `sql` is None without SQL metrics.

    `sql_rules` are those of the databases: the second know TRUE and FALSE, predicates over expressions, dates, and the
    dialects of MySQL, Postgres and T-SQL. What was scored before states none and keeps to the first.

    `rouge_tokenizer` says what ROUGE counts: words of a to z and digits, or the characters of any script.

    `engine` wrote the outputs, `batch_size` rows at once (CTranslate2: a thread). In float32 tokens depend on neither.
    """

    engine: Line = "transformers"
    metric: Line
    metric_version: Line
    rouge_tokenizer: Literal["words", "characters"] = "words"
    stemmer: bool
    sentences: Line
    sql: Line | None = None
    sql_rules: Literal[1, 2] = 1
    max_new_tokens: Positive
    num_beams: Positive
    dtype: Line
    batch_size: Positive
    resamples: Positive
    confidence: Share
    seed: Seed


class Interval(Section):
    """A mean over the test rows and its bootstrap interval."""

    mean: Shift
    low: Shift
    high: Shift


class Outputs(Section):
    """What one model wrote: mean tokens per row, rows cut at `max_new_tokens`, empty rows, seconds of generation."""

    mean_tokens: Amount
    cut: Count
    empty: Count
    seconds: Amount


class Compared(Section):
    """Scores (0 to 1) per metric name over `rows` test rows; `difference` is adapter − base, paired by row."""

    rows: Count
    base: dict[Metric, Interval]
    adapter: dict[Metric, Interval]
    difference: dict[Metric, Interval]

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


class Scores(Compared):
    """The scores of all test rows; `clean` those of the rows that no training of the chain has seen, where some were.

    `seen` counts the test rows found in any training of the chain, by the gravest kind (`record.predictions.SEEN`).
    """

    base_outputs: Outputs
    adapter_outputs: Outputs
    sql: SqlCounts | None = None
    seen: dict[Literal["exact", "near", "prompt", "disguised"], Count] = Field(default={})
    clean: Compared | None = None


BaselineName = Literal["copied", "frequent", "random", "nearest"]
BASELINES: dict[BaselineName, str] = {
    "copied": "the input, copied",
    "frequent": "the most frequent training target",
    "random": "a random training target",
    "nearest": "the target of the nearest training input",
}


class Baseline(Section):
    """What answers without a model score, and the paired difference adapter − baseline."""

    scores: dict[Metric, Interval]
    difference: dict[Metric, Interval]


class Forgetting(Section):
    """The parent's test rows again: the parent's own published scores and this adapter's, and the paired difference."""

    rows: Count
    parent: dict[Metric, Interval]
    adapter: dict[Metric, Interval]
    difference: dict[Metric, Interval]
