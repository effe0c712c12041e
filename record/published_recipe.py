"""What the recipe of somebody else's record may set: it is trained from here.

`Seq2SeqTrainingArguments` and `ModelConfig` take far more than figures: folders to write to, pickles to resume from,
code to compile or download, patterns without end, tokens, and services that hear of every step. So the keys are listed,
each with its type and bounds, and all others are refused before anything is built. Your own YAML is held to the same
types and bounds; with other keys, and with other values of those in `OPEN`, you can train, but not publish.
"""

import functools
import re
import reprlib
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, with_config
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict

from record.field_types import ONE_LINE, PLAIN_NAME, Count, Line, PlainName, RepoId, Seed, Sha1, Share
from record.scores import FAMILIES, Family, Metric

MAX_FIELDS = 30
MAX_PLACE = 200
PLACE = r"^[^./~][^:\\]*$"
# Files of rows, and folders of them, in the place where the recipe is trained.
ROWS_FILE = re.compile(r"\w[\w.-]{0,89}\.(csv|tsv|json|jsonl|parquet)", re.IGNORECASE)
ROWS_FOLDER = r"^\./\w[\w.-]{0,89}$"


def _few_fields(template: str) -> str:
    # Each repeats its column's text.
    if template.count("{") > MAX_FIELDS:
        raise ValueError(f"a template of more than {MAX_FIELDS} columns")
    return template


RowsFile = Annotated[PlainName, StringConstraints(pattern=f"^(?i:{ROWS_FILE.pattern})$")]
RowsFolder = Annotated[str, StringConstraints(pattern=ROWS_FOLDER)]
Many = Annotated[int, Field(ge=1, le=4096)]
Steps = Annotated[float, Field(gt=0, le=1e7)]
Below1 = Annotated[float, Field(ge=0, lt=1)]
Between = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, le=100)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=5_000)]
Template = Annotated[Text, AfterValidator(_few_fields)]
Place = Annotated[str, StringConstraints(pattern=PLACE, max_length=MAX_PLACE), AfterValidator(_few_fields)]
# Never a pattern: PEFT takes a single text for a regular expression.
Module = Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,100}$")]
Modules = Annotated[list[Module], Field(max_length=100)]
When = Literal["no", "steps", "epoch"]
Metrics = dict[Metric, Share]
CLOSED = ConfigDict(extra="forbid", strict=True)


@with_config(CLOSED)
class Published(TypedDict, total=False):
    """What others published of the same recipe."""

    source: Text
    base: Metrics | None
    adapter: Metrics | None


@with_config(CLOSED)
class Expected(TypedDict, total=False):
    """The figures that a run should meet, as `recipes.expectations` reads them."""

    base_revision: Sha1
    train_rows: Count
    validation_rows: Count
    test_rows: Count
    trainable_parameters: Count
    all_parameters: Count
    memory_bytes: Count
    published: Published


# It becomes part of a folder's name in the cache.
Config = Annotated[str, StringConstraints(pattern=r"^[\w+=@,-][\w+=@,. -]{0,99}$")]
Splits = Annotated[list[Line], Field(max_length=20)]
Extract = Annotated[dict[Line, Annotated[str, Field(max_length=2_000)]], Field(max_length=10)]
Prompt = Template | Annotated[list[Template], Field(min_length=1, max_length=100)]
References = Template | Annotated[list[Template], Field(max_length=20)]


@with_config(CLOSED)
class DatasetEntry(TypedDict, total=False):
    """One of several datasets, with what it has of its own."""

    dataset_name: RepoId | RowsFile | RowsFolder
    dataset_config: Config | None
    dataset_revision: Line
    dataset_splits: Splits
    train_split: Line
    validation_split: Line
    test_split: Line
    extract: Extract | None
    prompt: Prompt
    target: Template
    references: References
    sql_schema: Template
    share: Annotated[int, Field(ge=1, le=10**9)] | Between


@with_config(CLOSED)
class PublishedRecipe(TypedDict, total=False):
    """The keys that a published recipe may hold, by the names of `RecipeArguments`, `ModelConfig` and
    `Seq2SeqTrainingArguments`."""

    # RecipeArguments
    title: Line
    adapter_name: PlainName
    task: Line
    language: Line
    source_language: Line | None
    target_language: Line | None
    # Files are named without their place; who checks such a run says where his copy is.
    dataset_name: RepoId | RowsFile | RowsFolder
    dataset_config: Config | None
    dataset_revision: Line
    dataset_splits: Splits
    datasets: Annotated[list[DatasetEntry], Field(max_length=20)]
    train_split: Line | None
    validation_split: Line | None
    test_split: Line | None
    extract: Extract | None
    prompt: Prompt
    target: Template
    references: References
    sql_schema: Template | None
    # In the dataset's repository: what is on this machine alone nobody could check.
    sql_database: Place | None
    length_rules: Annotated[list[Line], Field(max_length=20)]
    test_size: Between
    validation_size: Below1
    select_on_test: bool
    split: Literal["random", "grouped"]
    split_seed: Seed
    added_tokens: Annotated[list[Annotated[str, Field(min_length=1, max_length=50)]], Field(max_length=100)]
    parent_adapter: Line | None
    early_stopping_patience: Annotated[int, Field(ge=0, le=10_000)]
    max_new_tokens: Many
    num_beams: Annotated[int, Field(ge=1, le=64)]
    engine: Literal["transformers", "ctranslate2"]
    metrics: Annotated[list[Family], Field(max_length=len(FAMILIES))]
    rouge_tokenizer: Literal["words", "characters"]
    expect: Expected | None

    # ModelConfig
    model_name_or_path: RepoId
    model_revision: Line
    dtype: Literal["bfloat16", "float32"]
    # Any other name is one of a repository whose code would be run.
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] | None
    use_peft: Literal[True]
    lora_task_type: Literal["SEQ_2_SEQ_LM", "CAUSAL_LM"]
    lora_r: Annotated[int, Field(ge=1, le=1024)]
    lora_alpha: Annotated[int, Field(ge=1, le=65_536)]
    lora_dropout: Below1
    lora_target_modules: Module | Modules | None
    lora_modules_to_save: Modules | None
    use_rslora: bool
    use_dora: bool
    load_in_8bit: bool
    load_in_4bit: bool
    bnb_4bit_quant_type: Literal["nf4", "fp4"]
    use_bnb_nested_quant: bool
    bnb_4bit_quant_storage: Literal["uint8", "bfloat16", "float32"] | None

    # Seq2SeqTrainingArguments
    num_train_epochs: Annotated[float, Field(gt=0, le=1_000)]
    max_steps: Annotated[int, Field(ge=-1, le=10**7)]
    per_device_train_batch_size: Many
    gradient_accumulation_steps: Many
    per_device_eval_batch_size: Many
    eval_accumulation_steps: Many | None
    learning_rate: Rate
    lr_scheduler_type: Literal[
        "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"
    ]
    warmup_steps: Annotated[float, Field(ge=0, le=1e7)]
    optim: Literal["adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adamw_8bit", "paged_adamw_32bit",
                   "paged_adamw_8bit"]  # fmt: skip
    weight_decay: Rate
    adam_beta1: Below1
    adam_beta2: Below1
    adam_epsilon: Share
    max_grad_norm: Annotated[float, Field(ge=0, le=1e6)]
    label_smoothing_factor: Below1
    neftune_noise_alpha: Rate | None
    bf16: bool
    tf32: bool | None
    activation_checkpointing: bool | None
    gradient_checkpointing: bool | None
    activation_checkpointing_kwargs: dict[Literal["use_reentrant"], bool] | None
    gradient_checkpointing_kwargs: dict[Literal["use_reentrant"], bool] | None
    # Its backend may be code of anybody's, and is not one of the keys.
    torch_compile: bool
    torch_empty_cache_steps: Many | None
    average_tokens_across_devices: bool
    seed: Seed
    data_seed: Seed | None
    full_determinism: bool
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"]
    dataloader_drop_last: bool
    dataloader_num_workers: Annotated[int, Field(ge=0, le=16)]
    dataloader_prefetch_factor: Annotated[int, Field(ge=1, le=16)] | None
    dataloader_persistent_workers: bool
    logging_strategy: When
    logging_steps: Steps
    logging_first_step: bool
    eval_strategy: When
    eval_steps: Steps | None
    eval_delay: Annotated[float, Field(ge=0, le=1e7)]
    eval_on_start: bool
    save_strategy: Literal["no", "steps", "epoch", "best"]
    save_steps: Steps
    save_total_limit: Annotated[int, Field(ge=1, le=100)] | None
    load_best_model_at_end: bool
    metric_for_best_model: Literal["loss", "eval_loss"] | None
    greater_is_better: bool | None
    run_name: Line | None


@with_config(ConfigDict(extra="allow", strict=True))
class OwnRecipe(PublishedRecipe, total=False):
    """What your own recipe may also hold: keys of a run that are not published, and the libraries' other keys."""

    tokens_per_micro_batch: Annotated[int, Field(ge=0)]
    strict: bool


# Keys whose values in your own recipe may be any that the libraries and the Hub take.
OPEN = {
    "dataset_name", "sql_database", "model_name_or_path", "model_revision", "lora_target_modules",
    "lora_modules_to_save",
    "bnb_4bit_quant_type", "bnb_4bit_quant_storage", "lr_scheduler_type", "optim", "train_sampling_strategy",
    "activation_checkpointing_kwargs", "gradient_checkpointing_kwargs", "run_name",
}  # fmt: skip
# What a pattern asks for, in words.
PATTERNS = {
    ONE_LINE: "be one line",
    PLACE: "be a place in the dataset's repository (not begun with `.`, `/` or `~`)",
    PLAIN_NAME: "be a plain name without its owner (letters, digits, `.`, `-` and `_`)",
}
_NESTED = {"expect": Expected, "published": Published, "datasets": DatasetEntry}


@functools.cache
def _rules(own: bool) -> TypeAdapter[PublishedRecipe]:
    # Built when they are asked for: that takes long, and help does not need them.
    return TypeAdapter(OwnRecipe if own else PublishedRecipe)


def refused_key(recipe: Mapping[str, object], own: bool = False) -> str | None:
    """Which key a recipe may not hold, or not with this value, and why, in one line; None if all may stand.

    Parameters:
        own: takes the recipe for one's own, to be trained here, not for one to be published.
    """
    try:
        _rules(own).validate_python(recipe)
    except ValidationError as error:
        problems = [item for item in error.errors(include_url=False) if not own or not _is_open(item["loc"])]
        if problems:
            first = [item for item in problems if item["loc"][0] == problems[0]["loc"][0]]
            # Of a text or a list of texts the one that was meant: there more is right.
            return _say(max(first, key=lambda item: (len(item["loc"]), not item["type"].endswith("_type"))))
    return None


def _is_open(place: tuple[int | str, ...]) -> bool:
    """Whether a key is one of those in `OPEN`, or the name of one of `datasets`."""
    return place[0] in OPEN or (place[0] == "datasets" and place[2:3] == ("dataset_name",))


def _say(problem: ErrorDetails) -> str:
    """One line: the key, what is wrong, the value."""
    key, *inner = problem["loc"]
    # Pydantic also names the types that it tried.
    path = ".".join([str(key), *(str(part) for part in inner if str(part).isidentifier())])
    if problem["type"] == "extra_forbidden":
        if not inner:
            return f"`{path}` is not one of the keys that a published recipe may set"
        above = next(part for part in problem["loc"][-2::-1] if isinstance(part, str))
        return f"`{path}` is not one of {', '.join(_NESTED[str(above)].__annotations__)}"
    _, should, wish = problem["msg"].partition(" should ")
    if not should:
        return f"`{path}`: {problem['msg'].removeprefix('Value error, ')}"
    wish = PATTERNS.get(problem.get("ctx", {}).get("pattern", ""), wish)
    wish = wish.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    # Of a list that is too long, its length is named already.
    value = "" if problem["type"] in ("too_long", "too_short") else f", not {reprlib.repr(problem['input'])}"
    # YAML reads no, off, 12 and 2024-01-01 as something else than texts.
    cure = ": write it in quotes" if problem["type"] == "string_type" and _one_word(problem["input"]) else ""
    return f"`{path}` should {wish.replace(' after validation', '')}{value}{cure}"


def _one_word(value: object) -> bool:
    return isinstance(value, bool | int | float | date)
