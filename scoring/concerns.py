"""What speaks against a number, found in the record and the predictions alone, each with its own number.

A concern says that a score may be worth less than it seems, not that it is wrong: the verdict does not depend on it.
"""

import math
import re
from collections.abc import Callable

from recipes.data.letters import rouge_remark
from record.names import misleading_names
from record.predictions import Predictions
from record.recipe_datasets import dataset_recipes, templates_of
from record.run_record import Record
from record.scores import BASELINES, METRIC_NAMES, METRICS, Interval
from record.sweep import mean_and_deviation
from record.swept_run import own_run

FEW_ROWS = 100
# Shares of the test rows from which on something is told.
CUT_SHARE, SEEN_SHARE, VERBATIM_SHARE = 0.01, 0.01, 0.01
# Standard deviations (of a Poisson count) above what other rows' prompts hold by chance.
BEYOND_CHANCE = 3
# Base models that their makers published under these ids.
WELL_KNOWN = {
    *(f"google-t5/t5-{size}" for size in ("small", "base", "large", "3b", "11b")),
    *(
        f"google/{family}-{size}"
        for family in ("flan-t5", "t5-v1_1", "mt5", "byt5", "umt5")
        for size in ("small", "base", "large", "xl", "xxl")
    ),
    *(f"Salesforce/codet5-{size}" for size in ("small", "base", "large")),
    *(f"google/madlad400-{size}-mt" for size in ("3b", "7b", "10b")),
    *(f"facebook/nllb-200-{size}" for size in ("distilled-600M", "distilled-1.3B", "1.3B", "3.3B")),
}
LOOK_ALIKES = str.maketrans({"0": "o", "1": "l", "i": "l", "_": "-"})


def find_concerns(record: Record, predictions: Predictions) -> list[str]:
    """The concerns of a scored run, each in one line.

    Parameters:
        predictions: those of all test rows.
    """
    return [line for rule in RULES for line in rule(record, predictions)]


def _prompt_holds_target(record: Record, predictions: Predictions) -> list[str]:
    lines, shared = [], set()
    for recipe in dataset_recipes(record.recipe):
        read = {column for prompt in templates_of(recipe, "prompt") for column in _columns(prompt)}
        answers = templates_of(recipe, "target") + templates_of(recipe, "references")
        shared |= read & {column for answer in answers for column in _columns(answer)}
    if shared:
        lines.append(f"the prompt holds {_listed(sorted(shared))}, which the model is to write")
    prompts, targets = (
        [" ".join(text.lower().split()) for text in texts] for texts in (predictions.prompt, predictions.reference)
    )
    rows, shift = len(targets), len(targets) // 2
    own = sum(target in prompt for target, prompt in zip(targets, prompts, strict=True) if target)
    others = sum(targets[row - shift] in prompts[row] for row in range(rows) if targets[row - shift]) if shift else 0
    if own > max(others + BEYOND_CHANCE * math.sqrt(max(others, 1)), VERBATIM_SHARE * rows):
        lines.append(
            f"the reference stands word for word in the prompt of {_share(own, rows)} test rows; in prompts of other "
            f"rows {others:,} do"
        )
    return lines


def _rows_selected_by_target(record: Record, predictions: Predictions) -> list[str]:
    recipe, dropped, lines = record.recipe, record.data.dropped, []
    written = {"target", *(column for target in templates_of(recipe, "target") for column in _columns(target))}
    for text in recipe.get("length_rules", []):
        if written & set(re.findall(r"\w+", text.partition("(")[2].partition(")")[0])) and dropped.get(text):
            lines.append(
                f"`{text}` selects rows by their target: it dropped {_share(dropped[text], record.data.loaded)}"
            )
    patterns = [pair for one in dataset_recipes(recipe) for pair in (one.get("extract") or {}).items()]
    for column in dict(patterns):
        many = dropped.get(f"extract: no match in {column}")
        read = " ".join(pattern for name, pattern in patterns if name == column)
        if many and (column in written or any(f"<{name}>" in read for name in written)):
            lines.append(
                f"`extract` of {column} selects rows by their target: it dropped {_share(many, record.data.loaded)}"
            )
    return lines


def _few_rows(record: Record, predictions: Predictions) -> list[str]:
    lines = [f"there are only {record.scores.rows:,} test rows"] if record.scores.rows < FEW_ROWS else []
    for name in record.contract.deciding(record.scores.adapter):
        difference = record.scores.difference.get(name)
        if difference is not None and difference.high - difference.low > abs(difference.mean):
            lines.append(
                f"{METRIC_NAMES[name]}: the interval of the difference is {difference.high - difference.low:.4f} wide, "
                f"the difference itself {abs(difference.mean):.4f}"
            )
    return lines


def _outputs_cut(record: Record, predictions: Predictions) -> list[str]:
    scores, limit = record.scores, record.contract.max_new_tokens
    references, lines = record.data.lengths.get("reference"), []
    if scores.base_outputs.cut >= max(1, CUT_SHARE * scores.rows):
        lines.append(
            f"{_share(scores.base_outputs.cut, scores.rows)} outputs of the base model were cut at {limit:,} tokens"
        )
    if references is not None and references.p99 is not None and limit < references.p99:
        lines.append(
            f"outputs end at {limit:,} tokens, and 1 % of the references are longer than {references.p99:,} tokens"
        )
    return lines


def _strange_base(record: Record, predictions: Predictions) -> list[str]:
    base = record.pins.base_model.id
    if base in WELL_KNOWN:
        return []
    folded = base.lower().translate(LOOK_ALIKES)
    twin = next((known for known in sorted(WELL_KNOWN) if one_letter_apart(folded, known.translate(LOOK_ALIKES))), None)
    if twin is not None:
        return [f"the base model {base} is written almost as {twin}, and is another one"]
    return [f"the base model {base} is not one of the {len(WELL_KNOWN)} well-known originals"]


def one_letter_apart(one: str, other: str) -> bool:
    """Whether at most one letter has to be changed, added or left out, in any case of letters."""
    one, other = sorted((one.lower(), other.lower()), key=len)
    same = next((place for place, letter in enumerate(one) if letter != other[place]), len(one))
    return one[same + 1 :] == other[same + 1 :] if len(one) == len(other) else one[same:] == other[same + 1 :]


def _chosen_on_test(record: Record, predictions: Predictions) -> list[str]:
    if not record.recipe.get("select_on_test"):
        return []
    return [f"the published step was chosen by the loss on the {record.scores.rows:,} test rows themselves"]


def _best_of_sweep(record: Record, predictions: Predictions) -> list[str]:
    sweep = record.sweep
    run = own_run(record)
    if sweep is None or run is None or len(sweep.runs) == 1:
        return []
    metric = record.contract.deciding(record.scores.adapter)[0]
    if sweep.score_place(run, metric) > 1 or sweep.loss_place(run) == 1:
        return []
    mean, _ = mean_and_deviation([other.scores[metric] for other in sweep.runs])
    return [
        f"it is the best of {len(sweep.runs):,} runs by {METRIC_NAMES[metric]} on the test rows, and not by its "
        f"validation loss: chosen on them, a score flatters; the mean of all is {mean:.4f}"
    ]


def _official_rows_dropped(record: Record, predictions: Predictions) -> list[str]:
    dropped = record.data.test_dropped
    if not dropped:
        return []
    rows = record.data.test + dropped
    split = ", ".join(dict.fromkeys(str(one.get("test_split")) for one in dataset_recipes(record.recipe)))
    return [
        f"the recipe drops {_share(dropped, rows)} rows of the dataset's own test split `{split}`: scores that others "
        "report are of all of them"
    ]


def _seen_rows(record: Record, predictions: Predictions) -> list[str]:
    seen = sum(record.scores.seen.values())
    many = seen > SEEN_SHARE * record.scores.rows
    return [f"{_share(seen, record.scores.rows)} test rows are in the training data"] if many else []


def _same_as_base(record: Record, predictions: Predictions) -> list[str]:
    if predictions.base != predictions.adapter:
        return []
    return [f"all {len(predictions.base):,} outputs of the adapter are those of the base model"]


def _no_better_than_nearest(record: Record, predictions: Predictions) -> list[str]:
    nearest = record.baselines.get("nearest")
    if nearest is None:
        return []
    return [
        f"{METRIC_NAMES[name]} {_figure(record.scores.adapter[name])} is not shown to be better than "
        f"{_figure(nearest.scores[name])}, which {BASELINES['nearest']} scores"
        for name in record.contract.deciding(record.scores.adapter)
        if name in nearest.difference and not _shown_better(name, nearest.difference[name])
    ]


def _shown_better(metric: str, difference: Interval) -> bool:
    return difference.high < 0 if METRICS[metric].lower_is_better else difference.low > 0


def _metrics_without_rows(record: Record, predictions: Predictions) -> list[str]:
    """Rows lack what a metric needs; before version 5 of the record it then counted 0."""
    contract, scored = record.contract, record.scores.adapter
    return [
        f"{METRIC_NAMES[name]} is not stated: it applies to none of the {record.scores.rows:,} test rows"
        for name, kind in METRICS.items()
        if kind.family in contract.families and name not in scored
    ]


def _hidden_from_rouge(record: Record, predictions: Predictions) -> list[str]:
    if "rouge" not in record.contract.families:
        return []
    remark = rouge_remark(predictions.reference, record.contract.rouge_tokenizer)
    return [remark] if remark else []


def _unchecked_parent(record: Record, predictions: Predictions) -> list[str]:
    # Releases of the first rules do not say.
    entries = (record.leakage or []) if record.data.rules > 1 else []
    lines = [
        f"the release of {entry.adapter[:-28]}, which it continues, "
        + (f"says {entry.verdict} of itself" if entry.verdict else "carries no verdict")
        + ": what it was trained on is its publisher's word"
        for entry in entries
        if entry.adapter is not None and not (entry.verdict or "").startswith("REPRODUCED")
    ]
    # Of several datasets each has its entry.
    return list(dict.fromkeys(lines))


def _misleading_names(record: Record, predictions: Predictions) -> list[str]:
    return misleading_names(record)


def _columns(template: str) -> list[str]:
    return re.findall(r"(?<!\{)\{([\w.]+)\}", template)


def _share(many: int, rows: int) -> str:
    percent = 100 * many / rows
    return f"{many:,} of {rows:,} ({f'{percent:.1f}' if percent >= 0.05 else 'less than 0.1'} %)"


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


RULES: tuple[Callable[[Record, Predictions], list[str]], ...] = (
    _prompt_holds_target,
    _rows_selected_by_target,
    _few_rows,
    _outputs_cut,
    _strange_base,
    _chosen_on_test,
    _best_of_sweep,
    _official_rows_dropped,
    _seen_rows,
    _same_as_base,
    _no_better_than_nearest,
    _metrics_without_rows,
    _hidden_from_rouge,
    _unchecked_parent,
    _misleading_names,
)


def _figure(score: Interval) -> str:
    return f"{score.mean:.{score.decimals}f}"
