"""What an evaluation-only record says, for people: a section for the card of what was scored, and a card of its own."""

from pathlib import Path

import yaml

from model_cards.escape import environment, plain
from model_cards.vouchers import render_vouchers
from record.errors import one_line
from record.release_files import PREDICTIONS_FILE
from record.scored_record import EvaluatedRecord
from record.scores import BASELINES, METRIC_NAMES
from record.vouchers import SECTION as VERDICTS
from record.withdrawals import SECTION as NOTES

BASE_NAMED = {
    "commit": "as adapter_config.json names it",
    "name": "adapter_config.json names no commit: that of the day of the check",
    "recipe": "the repository names none, the recipe does",
    "option": "as whoever checked names it",
}


def assumptions(record: EvaluatedRecord) -> list[str]:
    """What the scores rest on besides the weights, and the repository does not state, one line each."""
    recipe, pins, contract, evaluated = record.recipe, record.pins, record.contract, record.evaluated
    base, dataset, prompt = pins.base_model, pins.dataset, recipe["prompt"]
    share = f"{recipe.get('test_size', 0.1):g} of them drawn with seed {recipe.get('split_seed', 2137)}"
    split = f"its split {recipe['test_split']}" if recipe.get("test_split") else share
    search = "greedily" if contract.num_beams == 1 else f"with {contract.num_beams} beams"
    own = "the repository's has the same tokens" if evaluated.own_tokenizer else "the repository holds none"
    lines = [
        f"base model: {base.id}@{base.revision}, {BASE_NAMED[evaluated.base_named]}",
        f"rows: {record.data.test:,} of {dataset.id}@{dataset.revision[:12]}, {split}",
        f"rules of length: {'; '.join(recipe.get('length_rules') or ['none'])}",
        *(f"prompt: {one}" for one in ([prompt] if isinstance(prompt, str) else prompt)),
        f"reference: {recipe['target']}",
        f"decoding: {search}, {contract.max_new_tokens:,} tokens at most, in {contract.dtype}",
        f"tokenizer: that of {base.id} ({own})",
        "training rows: those of the recipe, for the baselines and for which test rows training has seen",
    ]
    if evaluated.left_out:
        lines.append(f"left out of the recipe: {', '.join(evaluated.left_out)}")
    return [one_line(line, 300) for line in lines]


def render_section(record: EvaluatedRecord) -> str:
    """The section as Markdown; of an id, prompt or column no character acts on the text around it."""
    template = environment().from_string(
        Path(__file__).with_name("evaluation.md.jinja").read_text(encoding="utf-8"),
    )
    return template.render(
        record=record,
        assumed=assumptions(record),
        scores=record.scores,
        base=record.pins.base_model,
        dataset=record.pins.dataset,
        deciding=record.contract.deciding(record.scores.adapter),
        metric_names=METRIC_NAMES,
        baseline_names=BASELINES,
    )


def render_evaluation_card(record: EvaluatedRecord) -> str:
    """The card of an evaluation-only release."""
    front = {
        "tags": ["evaluation-only", *(["miniature"] if record.miniature else [])],
        "datasets": [plain(record.pins.dataset.id)],
    }
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# Evaluation only\n\n{render_section(record)}\n"
        f"This repository holds no weights, but the outputs (`{PREDICTIONS_FILE}`) and the record of these scores. "
        "Anybody repeats them:\n\n```bash\npubrep reproduce OWNER/NAME   # the id of this repository\n```\n\n"
        f"## Verdicts by others\n\n<!-- free: {VERDICTS} -->{render_vouchers([], '')}<!-- /free -->\n\n"
        f"## Notes\n\n<!-- free: {NOTES} -->\n<!-- Write here, between the two marks. -->\n<!-- /free -->\n"
    )
