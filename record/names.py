"""Names that state what only a measurement may: a score, or a base model that the run does not have."""

import re
import unicodedata
from string import Formatter

from record.recipe_datasets import dataset_recipes, templates_of
from record.run_record import Record
from record.scores import Scores

# A share or percentage that stands alone, or a number behind the name of a metric. `v1.1` and `qwen2.5` are no scores.
SHARE = re.compile(r"(?<![\w.])(?:\d{1,3}(?:\.\d+)?\s?(?:%|percent\b|per cent\b)|0?\.\d+|1\.0+)(?!\w|\.\d)")
METRIC = re.compile(
    r"(?<![a-z])(?:rouge(?:[-_ ]?(?:lsum|l|1|2)(?![a-z\d]|\.\d))?+|accuracy|bleu|chrf(?:\d?(?:\+\+)?)|ter|f1|"
    r"(?:exact|execution)[-_ ]match|meteor|bertscore)(?![a-z\d])"
)
NUMBER_OF_A_METRIC = re.compile(rf"{METRIC.pattern}(?:\s*(?:of|is|at|=|:))?[-_ =:]*(\d+(?:\.\d+)?\b)")
# Families of models and their sizes, as their publishers name them.
FAMILY = re.compile(
    r"(?<![a-z\d])(?:"
    r"(?:flan[-_ ]?|long[-_ ]?)?(?:[um]t5|byt5|t5)(?:[-_ ]?v1[._]1)?(?:[-_ ](?:small|base|large|xxl|xl|3b|11b))?|"
    r"gpt[-_ ]?(?:\d[a-z\d.]*|neo|j)|chatgpt|(?:code)?llama(?:[-_ ]?\d+(?:\.\d+)?)?|mistral|mixtral|claude|gemini|"
    r"gemma|qwen[\d.]*|bart|pegasus|bert|roberta|distilbert|deberta|deepseek|falcon|"
    r"(?:flan[-_ ]?)?ul2|grok|xxl|xl|\d+(?:\.\d+)?b"
    r")(?![a-z\d])"
)


def misleading_names(record: Record) -> list[str]:
    """What the title, the adapter's name and the columns' names state that was not measured, one line each.

    A number that is one of the record's scores, and a model that is part of the chain, mislead nobody.
    """
    findings = []
    for what, name in _names(record):
        text = unicodedata.normalize("NFKC", name).casefold()
        rest = FAMILY.sub(" ", text)
        stated = [match[0] for match in SHARE.finditer(rest)]
        stated += [match[1] for match in NUMBER_OF_A_METRIC.finditer(rest) if match[1] not in " ".join(stated)]
        for figure in dict.fromkeys(stated):
            if not (record.scores and is_score(figure, record.scores)):
                findings.append(f"{what} states {figure}, which is none of the scores")
        for model in other_models(text, record):
            findings.append(f"{what} says {model}; the base model is {record.pins.base_model.id}")
    return findings


def _names(record: Record) -> list[tuple[str, str]]:
    recipe = record.recipe
    texts = [text for key in ("prompt", "target", "sql_schema", "sql_database") for text in templates_of(recipe, key)]
    columns = [field for text in texts for _, field, _, _ in Formatter().parse(text) if field]
    columns += [column for one in dataset_recipes(recipe) for column in one.get("extract") or {}]
    return [
        ("the title", str(recipe.get("title", ""))),
        ("the adapter's name", str(recipe.get("adapter_name", ""))),
        ("the recipe's name", record.name),
        *((f"the column {column}", column) for column in dict.fromkeys(columns)),
    ]


def other_models(text: str, record: Record) -> list[str]:
    """The models that a text names and that no repository of the record's chain is called after."""
    pins = record.pins
    known = [pin.id for pin in (pins.base_model, *pins.datasets, pins.parent_adapter) if pin is not None]
    known += [name for source in record.leakage or [] for name in (source.dataset, source.adapter) if name]
    chain = [_letters(name) for name in known]
    return [
        match[0]
        for match in FAMILY.finditer(unicodedata.normalize("NFKC", text).casefold())
        if not any(_letters(match[0]) in name for name in chain)
    ]


def _letters(name: str) -> str:
    return re.sub(r"[^a-z\d]", "", name.casefold())


def is_score(figure: str, scores: Scores) -> bool:
    """Whether a figure, as share or in percent, is a mean or a bound of the scores, to the digits that it has."""
    digits = re.search(r"\d*\.?\d+", figure)
    if digits is None:
        return False
    number, decimals = float(digits[0]), len(digits[0].partition(".")[2])
    compared = [scores, *(part for part in (scores.clean, *scores.by_dataset) if part)]
    values = [
        abs(value)
        for part in compared
        for side in (part.base, part.adapter, part.difference)
        for interval in side.values()
        for value in (interval.mean, interval.low, interval.high)
    ]
    in_percent = not re.fullmatch(r"[01]?\.\d+", figure)
    return any(
        abs(round(value * (100 if in_percent else 1), decimals) - number) < 10 ** -(decimals + 3) for value in values
    )
