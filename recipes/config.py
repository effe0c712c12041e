"""The recipe: one YAML file, parsed into TRL's `ModelConfig`, transformers' `Seq2SeqTrainingArguments` and
`RecipeArguments`, which holds what those two lack."""

import math
import os
import re
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any

import regex

from recipes.length_rules import Rule, parse_rule
from recipes.mixture import EACH, refuse_contradictions
from recipes.settings import refuse_combinations, refuse_keys
from recipes.templates import template_columns
from record.errors import Slip, UserError
from record.field_types import is_plain_name
from record.published_recipe import refused_key
from record.recipe_datasets import templates_of
from record.scores import METRICS, families

# Where a run is written, watched and cut to fit memory is no part of what is trained.
NOT_RECIPE = {"config", "output_dir", "hub_token", "strict", "report_to", "disable_tqdm", "tokens_per_micro_batch",
              "use_cpu"}  # fmt: skip

# `{n}` and `{n,m}` in a regular expression, whose compiler writes a counted part out as often as it is counted: a few
# words would fill the memory. The largest product of all counts and the pattern's own length.
COUNTED = re.compile(r"\{\s*(\d*)\s*(?:,\s*(\d*)\s*)?\}")
LARGEST_PATTERN = 1_000_000
# The keys that name a dataset's own splits.
OWN_SPLITS = ("train_split", "validation_split", "test_split")


@dataclass
class RecipeArguments:
    """What a recipe says beyond `Seq2SeqTrainingArguments` and `ModelConfig`.

    Parameters:
        title (`str`):
            The task in a few words, for the card's heading.
        adapter_name (`str`):
            Name of the adapter's repository, without its owner.
        task (`str`, *optional*, defaults to `"question-answering"`):
            The Hub's task (pipeline tag) that the card states.
        language (`str`, *optional*, defaults to `"en"`):
            ISO 639-1 code of the texts.
        source_language, target_language (`str`, *optional*):
            For base models whose texts begin or end with a language's token (mBART, M2M-100, NLLB): the tokens of the
            prompts and of the targets, such as `eng_Latn` and `deu_Latn`.
        dataset_name (`str`):
            Id of the dataset on the Hub; or a file of your own (.csv, .tsv, .json, .jsonl, .parquet), or a `./folder`
            of them: to publish, `pubrep publish-data` puts it on the Hub, or `pubrep publish --keep-rows` keeps it.
        dataset_config (`str`, *optional*):
            Name of the dataset's configuration.
        dataset_revision (`str`, *optional*, defaults to `"main"`):
            Branch, tag or commit of the dataset; its full sha goes into the record.
        dataset_splits (`list[str]`, *optional*):
            Splits that are joined, in this order, before the rows are split again; all unless given.
        train_split, validation_split, test_split (`str`, *optional*):
            The dataset's own splits instead of drawn ones: names, slices as `train[:10%]`, or sums as
            `train+validation`. Test rows keep their order. Without `validation_split` the validation rows are drawn
            from `train_split`.
        datasets (`list[dict]`, *optional*):
            Several datasets, joined: each with keys of its own from `dataset_name` to `sql_schema`, else those above
            them, and `share`, a fraction of its rows (below 1) or their number. See docs/several-datasets.md.
        extract (`dict[str, str]`, *optional*):
            Per column a regular expression whose named groups become columns; rows that it does not match are dropped.
        prompt (`str` or `list[str]`):
            Template of the model's input; `{column}` stands for a column's text, `{answers.text.0}` for a part of a
            nested one: fields by name, items of a list by number, the first is 0. Of several templates, each row gets
            the one that its texts and `split_seed` choose. Rows whose named columns are all empty are dropped.
        target (`str`):
            Template of the expected output, likewise: rows that lack it are dropped, too.
        references (`str` or `list[str]`, *optional*):
            Templates of further right answers, for the scores alone; `{answers.text}` of a list gives one for each
            text. The best counts (ROUGE, exact match, SQuAD), or all together (BLEU, chrF, TER).
        sql_schema (`str`, *optional*):
            Template of the CREATE TABLE (and INSERT) statements that a row's SQL is about; with it, outputs are scored
            as SQL too, unless `metrics` names others only.
        sql_database (`str`, *optional*):
            Template of the place of a row's own SQLite file in the dataset, as `database/{db_id}/{db_id}.sqlite` (or,
            begun with `.`, `/` or `~`, on this machine), on which its SQL runs, too.
        length_rules (`list[str]`, *optional*):
            Rows to drop and texts to cut, in this order: `drop characters(instruction + input) >= 512`,
            `truncate tokens(prompt) > 512`. Units are `characters`, `words` and `tokens`; texts are columns, `prompt`
            and `target`, of which only the last two can be cut; `drop` compares by `>`, `>=`, `<`, `<=` or `==`; a
            limit `p99.9` is that percentile over all rows that are not empty.
        test_size (`float`, *optional*, defaults to `0.1`):
            Share of the kept rows that is held out for the scores, rounded up to a whole row.
        validation_size (`float`, *optional*, defaults to `0.02`):
            Share of the remaining rows that is held out for the validation loss; 0 for none.
        select_on_test (`bool`, *optional*, defaults to `False`):
            Takes the validation loss, and with it the best step, from the test rows, as some published results did.
            The scores are then no longer of unseen rows, and the card says so.
        split (`str`, *optional*, defaults to `"random"`):
            `random` draws the held out rows one by one; `grouped` draws whole groups of copies, exact,
            near, in disguise or by their prompts, so that no held out row has a copy among the training rows.
        split_seed (`int`, *optional*, defaults to `2137`):
            Seed of both splits.
        added_tokens (`list[str]`, *optional*):
            Characters or words, without white space, that the base model's tokenizer cannot write. Each takes a spare
            row of the embedding and of the head, trained with the adapter and saved in it.
        parent_adapter (`str`, *optional*):
            Published adapter to continue, `owner/name[@revision]`; without an owner it is your own.
        tokens_per_micro_batch (`int`, *optional*, defaults to `0`):
            Source and target tokens that go through the model at once; 0 for as many as memory allows. An optimizer
            step takes `per_device_train_batch_size · gradient_accumulation_steps` rows in any case.
        early_stopping_patience (`int`, *optional*, defaults to `0`):
            Evaluations without a lower validation loss after which training ends; 0 for never.
        max_new_tokens (`int`, *optional*, defaults to `512`):
            Longest output in tokens when scores are taken.
        num_beams (`int`, *optional*, defaults to `1`):
            Beams when scores are taken; 1 is greedy decoding.
        engine (`str`, *optional*, defaults to `"transformers"`):
            What generates when scores are taken: `transformers`, or `ctranslate2` (an extra: greedy, in float32 on the
            CPU, the same tokens in less time).
        metrics (`list[str]`, *optional*):
            Families of metrics by which outputs are scored, of `rouge`, `sacrebleu` (BLEU), `chrf`, `ter`,
            `exact_match`, `squad` (exact match and F1 of words) and `sql`, which needs `sql_schema`. The first one
            leads: it decides whether a check that generates again has found the same, together with SQL execution
            match. Unless given `rouge`, and `sql` where there is `sql_schema`.
        rouge_tokenizer (`str`, *optional*, defaults to `"words"`):
            What ROUGE counts: `words`, made of a to z and digits, or `characters`, the letters and digits of any
            script, for Chinese, Arabic and whatever else such words cannot hold.
        expect (`dict`, *optional*):
            Figures that a run should meet, by the names in `recipes.expectations.FIGURES`, and what was published.
        strict (`bool`, *optional*, defaults to `False`):
            Stops before training when a run does not meet `expect`.
    """

    title: str = ""
    adapter_name: str = ""
    task: str = "question-answering"
    language: str = "en"
    source_language: str | None = None
    target_language: str | None = None
    dataset_name: str = ""
    dataset_config: str | None = None
    dataset_revision: str = "main"
    dataset_splits: list[str] = field(default_factory=list)
    train_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    datasets: list[dict] = field(default_factory=list)
    extract: dict | None = None
    prompt: list[str] = field(default_factory=list)
    target: str = ""
    references: list[str] = field(default_factory=list)
    sql_schema: str | None = None
    sql_database: str | None = None
    length_rules: list[str] = field(default_factory=list)
    test_size: float = 0.1
    validation_size: float = 0.02
    select_on_test: bool = False
    split: str = "random"
    split_seed: int = 2137
    added_tokens: list[str] = field(default_factory=list)
    parent_adapter: str | None = None
    tokens_per_micro_batch: int = 0
    early_stopping_patience: int = 0
    max_new_tokens: int = 512
    num_beams: int = 1
    engine: str = "transformers"
    metrics: list[str] = field(default_factory=list)
    rouge_tokenizer: str = "words"
    expect: dict | None = None
    strict: bool = False

    def __post_init__(self):
        for key in ("title", "adapter_name", "dataset_name", "prompt", "target"):
            if getattr(self, key) in (None, "", []) and not (self.datasets and key in EACH):
                raise UserError(f"the recipe lacks `{key}`")
        for key in ("prompt", "references", "dataset_splits", "length_rules", "added_tokens", "metrics"):
            if isinstance(getattr(self, key), str):
                setattr(self, key, [getattr(self, key)])
        stated = {key: value for key, value in vars(self).items() if value not in ("", []) or not self.datasets}
        if refusal := refused_key(stated, own=True):
            raise UserError(refusal)
        self._check_metrics()
        if self.engine == "ctranslate2" and self.num_beams > 1:
            raise UserError("`engine: ctranslate2` decodes greedily only: set `num_beams: 1`, or leave `engine` out")
        for key in ("prompt", "target", "references", "sql_schema"):
            templates = getattr(self, key) or []
            if not all(map(template_columns, [templates] if isinstance(templates, str) else templates)):
                raise UserError(f"`{key}` names no column: write one as {{column}}")
        for token in self.added_tokens:
            if re.search(r"[\s▁]", token):
                raise UserError(f"`added_tokens` may not hold white space, as in {token!r}")
        if len(set(self.added_tokens)) < len(self.added_tokens):
            raise UserError(f"`added_tokens` names a token twice: {', '.join(self.added_tokens)}")
        self._refuse_mixed_splits()
        if self.early_stopping_patience and not (self.validation_size or self.validation_split or self.select_on_test):
            raise UserError("`early_stopping_patience` needs a validation loss: set `validation_size` above 0")
        self.parsed_rules()
        self.parsed_extract()
        if self.datasets:
            refuse_contradictions(self)

    def own_splits(self) -> dict[str, str]:
        """The dataset's own splits that the recipe names, by key; none where the splits are drawn."""
        return {key: split for key in OWN_SPLITS if (split := getattr(self, key)) is not None}

    def _refuse_mixed_splits(self) -> None:
        named = self.own_splits()
        if not named:
            return
        if lacking := {"train_split", "test_split"} - named.keys():
            raise UserError(f"`{next(iter(named))}` needs `{min(lacking)}` too: name both, or neither")
        if self.dataset_splits:
            raise UserError(
                "`dataset_splits` are joined and drawn from again: remove it, or `train_split` and the like"
            )
        if self.split == "grouped":
            raise UserError("`split: grouped` draws the test rows, `test_split` names them: remove one of them")
        if self.validation_split and self.select_on_test:
            raise UserError("`select_on_test` takes the validation loss from the test rows: remove `validation_split`")

    def metric_families(self) -> list[str]:
        """The families of metrics by which outputs are scored, the deciding one first."""
        return families(self.metrics, bool(self.templates("sql_schema")))

    def templates(self, key: str) -> list[str]:
        """The templates under `key`, those of all datasets, each once."""
        return templates_of(vars(self), key)

    def _check_metrics(self):
        if len(set(self.metrics)) < len(self.metrics):
            raise UserError(f"`metrics` names a family twice: {', '.join(self.metrics)}")
        if "sql" in self.metrics and not self.templates("sql_schema"):
            raise UserError("`metrics: sql` needs the tables that a row's SQL is about: set `sql_schema`")
        if self.templates("references") and "sql" in self.metric_families():
            raise UserError("SQL is scored against the target alone: set `metrics` without `sql`, or no `references`")
        published = (self.expect or {}).get("published", {})
        for metric in [name for who in ("base", "adapter") for name in published.get(who) or {}]:
            if (family := METRICS[metric].family) not in self.metric_families():
                raise UserError(f"`expect` states {metric}, by which nothing is scored: add `{family}` to `metrics`")

    def parsed_rules(self) -> list[Rule]:
        """`length_rules`, each as a `Rule`."""
        return [parse_rule(text) for text in self.length_rules]

    def parsed_extract(self) -> dict[str, regex.Pattern]:
        """`extract`, compiled; `.` also matches a newline."""
        patterns = {}
        for column, pattern in (self.extract or {}).items():
            counts = [float(count) for pair in COUNTED.findall(pattern) for count in pair if count]
            if len(pattern) * math.prod(max(count, 1) for count in counts) > LARGEST_PATTERN:
                raise UserError(f"`extract` of `{column}` counts too far: write * or + instead of large numbers")
            try:
                patterns[column] = regex.compile(pattern, regex.DOTALL)
            except (regex.error, RecursionError) as error:
                raise UserError(f"`extract` of `{column}` is not a regular expression: {error}") from None
            if not patterns[column].groupindex:
                raise UserError(f"`extract` of `{column}` names no group: write (?P<name>…)")
        return patterns


@dataclass
class Recipe:
    """A parsed recipe. `resolved` holds every key that the YAML or the command line gave, with its final value."""

    name: str
    arguments: RecipeArguments
    training: Any
    model: Any
    resolved: dict[str, Any]


def parse_recipe(argv: list[str]) -> Recipe:
    """Parses `--config FILE.yaml` and overrides (`--key value`) into a `Recipe`.

    Raises:
        `Slip`: no file, an unknown key, a value of the wrong type, or a combination that makes no sense.
    """
    from recipes.recipe_file import read_recipe

    if "--config" not in argv[:-1]:
        raise Slip("name a recipe: --config recipes/finance.yaml")
    at = argv.index("--config")
    path, overrides = Path(argv[at + 1]), argv[:at] + argv[at + 2 :]
    if not is_plain_name(path.stem):
        raise Slip(f"{path.name}: the run is named by this file: use letters, digits, `.`, `-` and `_` only")
    keys = read_recipe(path)
    try:
        return _parse(path.stem, keys, overrides, own=True)
    except UserError as error:
        raise Slip(str(error)) from None


def recipe_from_record(name: str, resolved: dict[str, Any]) -> Recipe:
    """The `Recipe` whose `resolved` keys a record holds."""
    return _parse(name, resolved, [], own=False)


def arguments_from_record(resolved: dict[str, Any]) -> RecipeArguments:
    """The `RecipeArguments` among the `resolved` keys that a record holds; imports no trainer."""
    names = {item.name for item in fields(RecipeArguments)} & resolved.keys()
    return RecipeArguments(**{name: resolved[name] for name in names})


def _overrides(argv: list[str]) -> dict[str, str]:
    """The keys on a command line (`--key value`, `--key=value`, `--key`), each with its words."""
    words: dict[str, list[str]] = {}
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            words[key := name.replace("-", "_")] = [value] if equals else []
        elif words:
            words[key].append(word)
    return {key: " ".join(values) or "true" for key, values in words.items()}


def _parse(name: str, keys: dict[str, Any], argv: list[str], own: bool) -> Recipe:
    """The recipe; one's own is also held against `recipes.settings`, which published ones of before may not meet."""
    import torch
    from transformers import Seq2SeqTrainingArguments
    from trl import ModelConfig, TrlParser

    class Parser(TrlParser):
        def error(self, message):
            raise UserError(f"recipe {name}: {message}")

    parser = Parser((RecipeArguments, Seq2SeqTrainingArguments, ModelConfig), allow_abbrev=False)
    # Of two options for a key, `--key` and `--no_key`, the first has its default; the second is left out.
    defaults = {action.dest: action.default for action in reversed(parser._actions)}
    given = keys | _overrides(argv)
    names = list(given)
    # Otherwise accelerate 1.15 takes several processes without an accelerator for strangers to each other.
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" or not torch.accelerator.is_available()
    parser.set_defaults(use_cpu=on_cpu, output_dir=f"runs/{name}")
    for key in names:
        if key not in defaults:
            near = get_close_matches(str(key), defaults, 1)
            cure = f"did you mean `{near[0]}`?" if near else "`python -m recipes.train --help` says which there are"
            raise UserError(f"recipe {name}: unknown key `{key}`: {cure}")
    try:
        if own:
            refuse_keys(given, defaults)
        parser.set_defaults_with_config(**keys)
        parts = parser.parse_args_into_dataclasses(argv)
    except ImportError as error:
        raise UserError(f"recipe {name}: a package must be installed first: {' '.join(str(error).split())}") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"recipe {name}: {' '.join(str(error).split())}") from None
    arguments, training, model = parts
    values = {item.name: getattr(part, item.name) for part in reversed(parts) for item in fields(part)}
    resolved = {key: _plain(values[key]) for key in dict.fromkeys(names) if key in values and key not in NOT_RECIPE}
    # One process uses one GPU: more would be nn.DataParallel, which multiplies the effective batch unasked.
    training._n_gpu = min(1, training.n_gpu)
    _refuse_nonsense(arguments, training, model)
    if refusal := refused_key(resolved, own=True):
        raise UserError(f"recipe {name}: {refusal}")
    if own:
        refuse_combinations(arguments, training, model, given)
    return Recipe(name, arguments, training, model, resolved)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return list(value) if isinstance(value, set | tuple) else value


def _refuse_nonsense(arguments: RecipeArguments, training: Any, model: Any) -> None:
    if model.model_name_or_path is None:
        raise UserError("the recipe lacks `model_name_or_path`, the base model's id")
    if model.dtype == "float16" or training.fp16:
        raise UserError("float16 overflows feed-forward layers of base models: use `dtype: bfloat16` (or float32)")
    if not model.use_peft:
        hint = " (a quantized base could not be trained itself)" if model.load_in_4bit or model.load_in_8bit else ""
        raise UserError(f"only adapters are trained here: set `use_peft: true`{hint}")
    if arguments.parent_adapter is None and model.lora_task_type != "SEQ_2_SEQ_LM":
        raise UserError(f"`lora_task_type: {model.lora_task_type}` is not an encoder-decoder's: set SEQ_2_SEQ_LM")
    if arguments.early_stopping_patience and not training.load_best_model_at_end:
        raise UserError("`early_stopping_patience` needs `load_best_model_at_end: true`")


def recipe_yaml(resolved: dict[str, Any]) -> str:
    """The resolved recipe as a YAML file that `recipes.train` accepts."""
    import yaml

    return yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True, width=100)


def recipe_help() -> str:
    """The keys of `RecipeArguments`, for `--help` (without importing torch)."""
    others = (
        "Any other key is one of transformers' Seq2SeqTrainingArguments or TRL's ModelConfig;\n"
        "    recipes/settings.py says which of them are refused, and which cannot change the adapter."
    )
    return f"{RecipeArguments.__doc__}\n    {others}\n"


def changed_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Names of the keys whose values differ between two resolved recipes."""
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
