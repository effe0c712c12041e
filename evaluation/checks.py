"""What a reproduction looks at besides new outputs: files, lineage, test rows, leakage, numbers, and the card.

Every check returns what it found, in one line, or raises `Drift`. None needs torch.
"""

import json
from pathlib import Path
from typing import Any

from evaluation.findings import Drift
from hub.pins import on_a_branch, pin
from hub.release import download, pull_parent
from record import strict_json
from record.adapter_config import LORA
from record.errors import UserError
from record.predictions import Predictions, load_predictions
from record.release_files import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    FORGETTING_FILE,
    PREDICTIONS_FILE,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    VERDICT_FILE,
    recipe_file,
    required_files,
)
from record.run_record import Pin, Record, Section
from record.verdict import ROUNDING, load_verdict, why_unrelated

LORA_OF_RECIPE = {"r": "lora_r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout",
                  "target_modules": "lora_target_modules", "modules_to_save": "lora_modules_to_save",
                  "use_rslora": "use_rslora", "use_dora": "use_dora"}  # fmt: skip
# These have values, and not none, where the recipe is silent.
LORA_DEFAULTS = {"r", "lora_alpha", "lora_dropout", "target_modules"}
# What transformers adds to a tokenizer's configuration when it saves it; its special tokens are tokenizer.json's.
TOKENIZER_SAVED = {"backend", "clean_up_tokenization_spaces", "extra_special_tokens", "is_local", "local_files_only"}


def check_files(record: Record) -> None:
    """Holds the names in the record's list against those that every release has."""
    release = required_files(record.name, record.forgetting is not None)
    if lacking := sorted(release - record.files.keys()):
        raise Drift("files", f"the record does not list {', '.join(lacking)}")
    if more := sorted(record.files.keys() - release - {VERDICT_FILE}):
        raise Drift("files", f"the record lists what is no part of a release: {', '.join(more)}")


def check_lineage(folder: Path, record: Record) -> str:
    """Holds the recipe and the chain against the record's pins, and these against what the Hub says of them."""
    from recipes.config import recipe_yaml

    if record.files.get(ADAPTER_FILE) != record.training.adapter_sha256:
        raise Drift("lineage", f"the record lists another {ADAPTER_FILE} than the one that was trained")
    base = record.pins.base_model
    named = {
        "model_name_or_path": base.id,
        "dataset_name": record.pins.dataset.id,
    }
    for key, pinned in named.items():
        if record.recipe.get(key) != pinned:
            raise Drift("lineage", f"the recipe's `{key}` is {record.recipe.get(key)}, the record pins {pinned}")
    stated, parent = record.recipe.get("parent_adapter"), record.pins.parent_adapter
    if (stated is None) != (parent is None):
        raise Drift("lineage", "the recipe and the record's pins differ in whether a parent adapter was continued")
    if parent is not None and not f"/{parent.id}".endswith(f"/{stated.partition('@')[0]}"):
        raise Drift("lineage", f"the recipe's `parent_adapter` is {stated}, the record pins {parent.id}")
    if (folder / recipe_file(record.name)).read_text(encoding="utf-8") != recipe_yaml(record.recipe):
        raise Drift("lineage", f"{record.name}.yaml is not the recipe that the record holds")
    _check_pins(record)
    return f"trained on {base.id}@{base.revision[:12]}, as the recipe says"


def check_adapter(folder: Path, record: Record, tokens) -> str:
    """Holds the adapter's configuration and its tokenizer against the recipe.

    Parameters:
        tokens: the base model's tokenizer with the recipe's added tokens, from `recipes.data.tokenizer.load_tokens`.
    """
    _check_adapter_config(folder, record, tokens)
    _check_tokenizer(folder, record.pins.base_model, tokens)
    return "the adapter's configuration and tokenizer are the recipe's"


def _check_pins(record: Record) -> None:
    """Asks the Hub again what it says of the pinned commits: licences, and whether they are miniatures."""
    from huggingface_hub import constants

    pins = record.pins
    for kind, pinned in (("model", pins.base_model), ("dataset", pins.dataset), ("model", pins.parent_adapter)):
        if pinned is None or constants.HF_HUB_OFFLINE:
            continue
        where, found, stated = first_difference(pin(kind, pinned.id, pinned.revision), pinned) or (None, None, None)
        if where is not None:
            raise Drift("lineage", f"{where} of {pinned.id}@{pinned.revision} is {found}, the record states {stated}")
        if not on_a_branch(pinned):
            raise Drift(
                "lineage", f"{pinned.revision} stands on no branch of {pinned.id}: anybody may have put it there"
            )
    if pins.parent_adapter is not None and pull_parent(pins.parent_adapter).record.pins.base_model != pins.base_model:
        raise Drift("lineage", f"{pins.parent_adapter.id} is an adapter of another base model than the record's")


def _check_adapter_config(folder: Path, record: Record, tokens) -> None:
    config, base = _json(folder / ADAPTER_CONFIG_FILE), record.pins.base_model
    if (config.get("base_model_name_or_path"), config.get("revision")) != (base.id, base.revision):
        raise Drift(
            "lineage", f"{ADAPTER_CONFIG_FILE} names another base model than the record's {base.id}@{base.revision}"
        )
    wanted = {ours: record.recipe[key] for ours, key in LORA_OF_RECIPE.items() if key in record.recipe}
    if record.pins.parent_adapter is not None:
        parent = _json(pull_parent(record.pins.parent_adapter).folder / ADAPTER_CONFIG_FILE)
        wanted = {key: parent.get(key) for key in LORA_OF_RECIPE}
    ids = [tokens.token_to_id(token) for token in record.recipe.get("added_tokens", [])]
    wanted = LORA | wanted | {"trainable_token_indices": {"shared": ids, "head": ids} if ids else None}
    told = {"base_model_name_or_path", "revision", "peft_version"}
    for key in sorted((config.keys() | wanted.keys()) - told):
        found, ours = (sorted(x) if isinstance(x, list) else x for x in (config.get(key), wanted.get(key)))
        if (found or ours) and found != ours and key not in LORA_DEFAULTS - wanted.keys():
            raise Drift("lineage", f"{ADAPTER_CONFIG_FILE} sets {key} to {found}, the recipe gives {ours}")


def _check_tokenizer(folder: Path, base: Pin, tokens) -> None:
    """Holds the published tokenizer, which users of the adapter load, against the one that scores are taken with."""
    # Compared as Python reads it: the Rust reader is off by a last bit in some scores.
    published, ours = _json(folder / TOKENIZER_FILE), json.loads(tokens.to_str())
    if any(published.get(key) != ours[key] for key in ours.keys() - {"version", "truncation", "padding"}):
        raise Drift("lineage", f"{TOKENIZER_FILE} is not the tokenizer of {base.id} with the recipe's added tokens")
    config = _json(folder / TOKENIZER_CONFIG_FILE)
    theirs = _json(download(base.id, TOKENIZER_CONFIG_FILE, base.revision))
    for key, value in config.items():
        if (
            value
            and value != theirs.get(key)
            and not (key in TOKENIZER_SAVED and key != "clean_up_tokenization_spaces")
        ):
            raise Drift("lineage", f"{TOKENIZER_CONFIG_FILE} sets {key} to {value}, {base.id} to {theirs.get(key)}")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = strict_json.parse(path.read_bytes())
    except ValueError as error:
        raise Drift("lineage", f"{path.name} is not JSON: {error}") from None
    return found if isinstance(found, dict) else {}


def rebuild_splits(record: Record, tokens):
    """The recipe's splits from the pinned dataset.

    Raises:
        `Drift`: they are not those that the record counts and hashes, or their references can be written otherwise.
    """
    from recipes.config import arguments_from_record
    from recipes.data.splits import build_splits, references
    from recipes.data.tokenizer import audit

    recipe = arguments_from_record(record.recipe)
    dataset = record.pins.dataset
    splits = build_splits(recipe, dataset, tokens)
    where, found, stated = first_difference(splits.counts.where_stated(record.data), record.data) or (None, None, None)
    if where is not None:
        raise Drift(
            "data",
            f"{dataset.id}@{dataset.revision} gives other rows than the record states ({where}: {found}, not {stated})",
        )
    where, found, stated = first_difference(audit(tokens, references(splits)), record.unwritable) or (None, None, None)
    if where is not None:
        raise Drift("data", f"references that cannot be written: {where} is {found}, the record states {stated}")
    return splits


def read_predictions(folder: Path, name: str = PREDICTIONS_FILE, rows: int | None = None) -> Predictions:
    """The published predictions, for so many test rows."""
    try:
        return load_predictions(folder, name, rows)
    except UserError as error:
        raise Drift("data", str(error).replace(f"{folder}/", "")) from error


def check_rows(record: Record, predictions: Predictions, test) -> str:
    """Holds the prompts, references and tables beside the published predictions against the test rows."""
    for name, published, column in (
        ("prompts", predictions.prompt, "prompt"),
        ("references", predictions.reference, "target"),
        ("tables", predictions.schema, "schema"),
    ):
        if published != (rebuilt := test[column][:]):
            if len(published) != len(rebuilt):
                raise Drift(
                    "data", f"there are predictions for {len(published):,} rows, but {len(rebuilt):,} test rows"
                )
            row = next(row for row, pair in enumerate(zip(published, rebuilt, strict=True)) if pair[0] != pair[1])
            raise Drift("data", f"the published predictions stand beside other {name} than the dataset's (row {row})")
    return f"{len(test):,} test rows rebuilt from {record.pins.dataset.id}, as recorded"


def check_leakage(record: Record, predictions: Predictions, splits) -> str:
    """Compares the test inputs with the chain's training inputs again."""
    from recipes.data.lineage import find_seen_rows

    seen, leakage = find_seen_rows(splits, record.pins)
    if leakage != record.leakage:
        raise Drift("leakage", "the test rows stand among the training rows otherwise than the record states")
    if seen != predictions.seen:
        row = next(row for row, pair in enumerate(zip(seen, predictions.seen, strict=True)) if pair[0] != pair[1])
        raise Drift(
            "leakage", f"row {row} is published as {predictions.seen[row] or 'clean'}: it is {seen[row] or 'clean'}"
        )
    many = sum(map(bool, seen))
    return f"{many:,} of {len(seen):,} test inputs stand in the chain's training rows, as recorded"


def check_scores(folder: Path, record: Record, predictions: Predictions, tokens) -> str:
    """Reads the published tokens as text and scores the texts again, those of the parent's test rows too."""
    from recipes.config import arguments_from_record
    from recipes.expectations import compare
    from scoring.contract import contract_of
    from scoring.scores import score_forgetting, score_predictions

    stated, recipe = record.contract, arguments_from_record(record.recipe)
    ours = contract_of(recipe, stated.dtype, stated.batch_size)
    _check_texts(predictions, PREDICTIONS_FILE, tokens)
    if max(map(len, predictions.base_tokens + predictions.adapter_tokens)) > stated.max_new_tokens:
        raise Drift("data", f"{PREDICTIONS_FILE} holds an output of more than {stated.max_new_tokens} tokens")
    versions = {"metric_version": stated.metric_version, "sql": stated.sql}
    if (ours.sql is None) != (stated.sql is None) or ours.model_copy(update=versions) != stated:
        where, here, there = first_difference(ours, stated)
        raise Drift("scoring", f"the scoring contract is not the recipe's: {where} is {there}, not {here}")
    published = record.scores
    seconds = published.base_outputs.seconds, published.adapter_outputs.seconds
    _same_numbers(
        score_predictions(predictions, stated, *seconds), published, "the published predictions", ours, stated
    )
    if (record.forgetting is None) != (record.pins.parent_adapter is None):
        raise Drift("scoring", "an adapter that continues another, and no other, states what was forgotten")
    if record.forgetting is not None:
        forgetting = read_predictions(folder, FORGETTING_FILE)
        _check_parent_rows(forgetting, load_predictions(pull_parent(record.pins.parent_adapter).folder))
        _check_texts(forgetting, FORGETTING_FILE, tokens)
        _same_numbers(score_forgetting(forgetting, stated), record.forgetting, FORGETTING_FILE, ours, stated)
    if compare(recipe.expect, record) != record.expectations:
        raise Drift("scoring", "the recipe's expectations, held against the record's figures, come out otherwise")
    return "published predictions scored again: the numbers of the record, to the last digit"


def _check_texts(predictions: Predictions, name: str, tokens) -> None:
    """Only tokens are generated again: the texts, which are scored and read, must be what the tokens say."""
    for who in ("base", "adapter"):
        ids, texts = getattr(predictions, f"{who}_tokens"), getattr(predictions, who)
        # T5's embedding has more rows than its tokenizer has tokens. A model may write those above; they read as "".
        strange = next((row for row, one in enumerate(ids) if any(token < 0 for token in one)), None)
        if strange is not None:
            raise Drift("data", f"{name}: the {who} tokens of row {strange} are none of the tokenizer's")
        for row, (text, read) in enumerate(zip(texts, tokens.decode_batch(ids), strict=True)):
            if text != read.strip():
                raise Drift("data", f"{name}: the {who} tokens of row {row} read otherwise than its text")


def _check_parent_rows(forgetting: Predictions, published: Predictions) -> None:
    mine = (forgetting.prompt, forgetting.reference, forgetting.schema, forgetting.base, forgetting.base_tokens)
    parent = (published.prompt, published.reference, published.schema, published.adapter, published.adapter_tokens)
    if mine != parent:
        raise Drift("data", f"{FORGETTING_FILE} does not hold the parent's published rows")


def _same_numbers(again: Section, stated: Section, what: str, ours, contract) -> None:
    difference = first_difference(again, stated)
    if difference is not None:
        where, found, there = difference
        versions = [f"{c.metric} {c.metric_version}" + (f", {c.sql}" if c.sql else "") for c in (ours, contract)]
        under = f" (scored with {versions[0]}, there with {versions[1]})" if versions[0] != versions[1] else ""
        raise Drift("scoring", f"{what} give {where} {_shown(found)}, the record states {_shown(there)}{under}")


def check_card(adapter: str, folder: Path, record: Record, predictions: Predictions) -> tuple[bool, str]:
    """Renders card and plots anew and compares them with the published ones, with the verdict that a release may carry.

    Returns:
        Whether all of them could be compared, and what was found.
    """
    from model_cards.card_check import find_difference
    from model_cards.fingerprint import same_renderer

    try:
        verdict = load_verdict(folder)
    except UserError as error:
        raise Drift("card", str(error).replace(f"{folder}/", "")) from error
    if verdict is not None and (reason := why_unrelated(verdict, adapter, record, folder)):
        raise Drift("card", f"{VERDICT_FILE} does not belong here: {reason}")
    difference = find_difference(adapter, folder, record, predictions, verdict)
    if difference is not None:
        raise Drift("card", difference)
    if same_renderer(record):
        return True, "card and plots rendered again: the same, but for what people wrote"
    return (
        False,
        "of the card only metadata and scores were compared: the record names another version that rendered it",
    )


def first_difference(one: Any, other: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """The first place where two sections, or plain values, differ by more than rounding: its name and both values."""
    if isinstance(one, Section) and isinstance(other, Section):
        one, other = one.model_dump(), other.model_dump()
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            place = f"{where}.{key}".lstrip(".")
            found = first_difference(one.get(key), other.get(key), place)
            if found is not None:
                return found
        return None
    if isinstance(one, float) and isinstance(other, int | float):
        return None if abs(one - other) <= ROUNDING else (where, one, other)
    return None if one == other else (where, one, other)


def _shown(value: Any) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)
