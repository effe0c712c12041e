"""The checks of an evaluation-only release: scores of what was not trained here, taken and published by anybody."""

from pathlib import Path
from typing import TYPE_CHECKING

from evaluation import checks
from evaluation.claim import decide
from evaluation.findings import Drift, Findings, first_difference, note
from evaluation.numbers import check_numbers, decide_by_numbers
from evaluation.pinned_names import check_names
from hub.foreign import pull_foreign
from hub.pins import same_repository
from hub.release import refuse_large_weights
from model_cards.card import keep_free_sections
from model_cards.evaluation import render_evaluation_card
from model_cards.fingerprint import renderer
from model_cards.free_text import hidden_by_free_text
from recipes.config import recipe_from_record, recipe_yaml
from recipes.data.stored_tokenizer import languages_of
from recipes.data.tokenizer import load_tokens
from record.errors import UserError, one_line
from record.foreign_config import read_foreign_config
from record.predictions import Predictions
from record.release_files import CARD_FILE, recipe_file
from record.scored_record import EvaluatedRecord
from record.verdict import Level
from scoring.concerns import find_concerns
from scoring.scores import metric_rows

if TYPE_CHECKING:
    from evaluation.loaded import Loaded


def check_evaluation(findings: Findings, folder: Path, record: EvaluatedRecord, level: Level) -> None:
    """Makes every check of the level, in order, and notes in `findings` what each gives.

    Raises:
        `Drift`: what was published and what a check gives differ.
        `UserError`: it cannot be checked: at level train there is nothing to train.
    """
    if level == "train":
        raise UserError("it is evaluation-only: nothing was trained, so nothing is trained again; check it at level "
                        "generate")  # fmt: skip
    note(findings, "lineage", check_source(folder, record))
    tokens = load_tokens(record.pins.base_model, [], languages_of(record.recipe))
    splits, predictions = check_numbers(findings, folder, record, tokens)
    note(findings, "scoring", check_claims(record, predictions))
    unchecked = check_card(folder, record)
    if level == "score":
        decide_by_numbers(findings, record)
    else:
        from evaluation import margins, regenerate

        if level == "prefill":
            margins.refuse_beams(record.contract)
        loaded = load_evaluated(findings, record)
        regenerate.compare(findings, loaded, record, predictions, splits.test, level)
    if unchecked:
        findings.unchecked = "card"
        findings.reason += "; another version rendered the card"
    else:
        note(findings, "card", "the card rendered again: the same")
    concerns = find_concerns(record, predictions) + checks.other_statements(folder, record)
    for concern in concerns:
        print(f"Concern: {one_line(concern)}", flush=True)
    findings.concerns += concerns


def check_source(folder: Path, record: EvaluatedRecord) -> str:
    """Compares the recipe with the record's pins, and these with what the Hub says of them."""
    base, source, recipe = record.pins.base_model, record.evaluated.source, dict(record.recipe)
    if record.pins.more_datasets or record.pins.file is not None:
        raise Drift("lineage", "the record pins several datasets, or own rows, of which no evaluation is taken")
    check_names(record)
    if recipe.get("parent_adapter") or recipe.get("added_tokens"):
        raise Drift("lineage", "the recipe holds a parent adapter or added tokens, which no evaluation takes")
    if (folder / recipe_file(record.name)).read_text(encoding="utf-8") != recipe_yaml(recipe):
        raise Drift("lineage", f"{record.name}.yaml is not the recipe that the record holds")
    checks.check_pins(record)
    return f"scores of {source.id}@{source.revision[:12]} next to {base.id}@{base.revision[:12]}"


def check_claims(record: EvaluatedRecord, predictions: Predictions) -> str:
    """Holds each claim against the published outputs again."""
    rows = metric_rows(predictions, "adapter", record.contract)
    for claim in record.evaluated.claims:
        if claim.metric not in rows:
            raise Drift("scoring", f"the record judges a claim of {claim.metric}, by which nothing is scored")
        again = decide(claim.metric, claim.value, claim.tolerance, rows[claim.metric], record.contract)
        if differs := first_difference(again, claim):
            raise Drift(
                "scoring",
                f"the claim {claim.metric} {claim.value:g}: {differs.where} is {differs.ours}, the record states "
                f"{differs.theirs}",
            )
    return f"{len(record.evaluated.claims)} of the claims judged again, all as recorded"


def check_card(folder: Path, record: EvaluatedRecord) -> bool:
    """Renders the card again, and compares all but what people wrote.

    Returns:
        Whether it could not be compared, since another version rendered it.
    """
    published = (folder / CARD_FILE).read_text(encoding="utf-8")
    if hidden := hidden_by_free_text(published):
        raise Drift("card", hidden)
    if published == keep_free_sections(render_evaluation_card(record), published):
        return False
    if record.rendered is not None and record.rendered.code == renderer().code:
        raise Drift("card", "the card is not what the record gives")
    return True


def load_evaluated(findings: Findings, record: EvaluatedRecord) -> "Loaded":
    """Downloads what was scored, holds its bytes and what was assumed of it against the record, and loads it.

    Raises:
        `Drift`: one of them differs.
    """
    from evaluation.loaded import Loaded, contract_here, rounding_of
    from evaluation.tolerance import same_stack
    from recipes.environment import describe_environment
    from recipes.training.dtype import keep_float32
    from scoring.decoding.foreign import load_foreign, refuse_other_tokenizer

    evaluated, base, recipe = record.evaluated, record.pins.base_model, dict(record.recipe)
    refuse_large_weights(base if evaluated.kind == "adapter" else evaluated.source, record.model.total)
    folder, files = pull_foreign(evaluated.source, evaluated.kind)
    if differing := sorted(dict(files.items() ^ evaluated.files.items())):
        raise Drift("files", f"{evaluated.source.id} has other files than were scored: {', '.join(differing)}")
    _check_base_named(folder, record)
    try:
        own = refuse_other_tokenizer(folder, evaluated.kind, evaluated.source, base, recipe)
        model = recipe_from_record(record.name, recipe).model
        keep_float32(model, record, scored=True)
        foreign = load_foreign(folder, evaluated.kind, evaluated.source, base, recipe, model)
    except UserError as error:
        raise Drift("weights", str(error)) from error
    if own != evaluated.own_tokenizer:
        raise Drift("lineage", f"whether {evaluated.source.id} holds a tokenizer is not as the record states")
    size = foreign.size()
    for name in ("trainable", "total", "quantized_layers", "type"):
        if (ours := getattr(size, name)) != (theirs := getattr(record.model, name)):
            raise Drift("weights", f"{name} of the model is {ours}, the record states {theirs}")
    findings.hashes = findings.hashes | files
    note(findings, "files", f"{len(files)} files of {evaluated.source.id}, every hash as recorded")
    contract, here = contract_here(record, foreign.dtype), describe_environment()
    return Loaded(
        foreign.model,
        foreign.tokenizer,
        contract,
        here,
        published_adapter=True,
        repeatable=contract == record.contract and same_stack(here, record.scored_in, contract.dtype),
        rounding=rounding_of(record, contract),
        gains={name: gain.mean for name, gain in record.scores.difference.items()},
        parent_gains={},
        base=foreign.base,
    )


def _check_base_named(folder: Path, record: EvaluatedRecord) -> None:
    """Compares what the repository says of its base model with what the record says that it does."""
    evaluated, base = record.evaluated, record.pins.base_model
    if evaluated.base_named in ("recipe", "option"):
        if evaluated.base_named == "recipe" and evaluated.kind == "adapter":
            raise Drift("lineage", "the record says that the recipe names the base model of an adapter")
        return
    config = read_foreign_config(folder)
    named = config.base_model_name_or_path or ""
    if not named or not same_repository(named, base):
        raise Drift("lineage", f"the adapter names the base model {one_line(named, 100)}, the record pins {base.id}")
    if (config.revision == base.revision) != (evaluated.base_named == "commit"):
        raise Drift("lineage", "whether the adapter names its base model's commit is not as the record states")
