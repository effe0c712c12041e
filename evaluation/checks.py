"""What a reproduction checks besides new outputs: files, lineage, test rows, leakage, numbers, and the card.

Every check returns its result in one line, or raises `Drift`. None needs torch.
"""

import json
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset
from huggingface_hub import constants
from tokenizers import Tokenizer

from evaluation.findings import Drift, first_difference
from evaluation.pinned_names import check_names
from hub.pins import name_on_hub, on_a_branch, pin, same_repository
from hub.release import pull_parent
from model_cards.card_check import NotCompared, find_difference, not_compared
from model_cards.fingerprint import same_renderer
from model_cards.free_text import free_texts
from model_cards.statements import stated_otherwise
from recipes.base_model import base_kind, family_of, tokenizer_config
from recipes.config import arguments_from_record, recipe_yaml
from recipes.data.lineage import find_seen_rows
from recipes.data.splits import Splits, build_splits, datasets_of, equals_of, references
from recipes.data.tokenizer import audit
from recipes.expectations import compare
from record import strict_json
from record.adapter_config import LORA, LORA_OF_RECIPE
from record.errors import UserError
from record.field_types import Section
from record.predictions import Predictions, load_predictions
from record.release_files import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    CARD_FILE,
    FORGETTING_FILE,
    PREDICTIONS_FILE,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    VERDICT_FILE,
    evaluation_files,
    recipe_file,
    required_files,
)
from record.run_record import FilePin, Pin, Record
from record.scored_record import AnyScored, ScoredRecord
from record.scores import BASELINES, Contract
from record.swept_run import own_run
from record.verdict import load_verdict, why_unrelated
from scoring.baselines import score_baselines
from scoring.contract import contract_of
from scoring.databases import score_databases
from scoring.scores import score_forgetting, score_predictions

# These have values, and not none, where the recipe is silent.
LORA_DEFAULTS = {"r", "lora_alpha", "lora_dropout", "target_modules"}
# What transformers adds to a tokenizer's configuration when it saves it; its special tokens are tokenizer.json's.
TOKENIZER_SAVED = {"backend", "clean_up_tokenization_spaces", "extra_special_tokens", "is_local", "local_files_only"}

# What any tokenizer may have besides, and by which no text gets other ids.
STORED_SAVED = {"model_input_names", "bos_token", "cls_token", "sep_token", "mask_token", "eos_token", "unk_token",
                "pad_token", "errors", "trim_offsets", "vocab_size"}  # fmt: skip
# What a T5's tokenizer has, and transformers saves, where the base's configuration is silent.
TOKENIZER_DEFAULTS = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "model_max_length": int(1e30),
                      "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "unk_id": 2}  # fmt: skip


def check_files(record: Record) -> None:
    """Compares the names in the record's list with those that every release has."""
    release = required_files(record.name, record.forgetting is not None)
    if record.evaluated is not None:
        release = evaluation_files(record.name)
    if missing := sorted(release - record.files.keys()):
        raise Drift("files", f"the record does not list {', '.join(missing)}")
    if extra := sorted(record.files.keys() - release - ({VERDICT_FILE} if record.evaluated is None else set())):
        raise Drift("files", f"the record lists what is no part of a release: {', '.join(extra)}")


def check_lineage(folder: Path, record: ScoredRecord) -> str:
    """Compares the recipe and the chain with the record's pins, and these with what the Hub says of them."""
    if record.files.get(ADAPTER_FILE) != record.training.adapter_sha256:
        raise Drift("lineage", f"the record lists another {ADAPTER_FILE} than the one that was trained")
    base, recipe = record.pins.base_model, dict(record.recipe)
    check_names(record)
    name, parent = record.recipe.get("parent_adapter"), record.pins.parent_adapter
    if (name is None) != (parent is None):
        raise Drift("lineage", "the recipe and the record's pins differ in whether a parent adapter was continued")
    if name is not None and parent is not None and not _same_parent(name.partition("@")[0], parent):
        raise Drift("lineage", f"the recipe's `parent_adapter` is {name}, the record pins {parent.id}")
    if (folder / recipe_file(record.name)).read_text(encoding="utf-8") != recipe_yaml(recipe):
        raise Drift("lineage", f"{record.name}.yaml is not the recipe that the record holds")
    check_sweep(record)
    check_pins(record)
    return f"trained on {base.id}@{base.revision[:12]}, as the recipe says"


def check_sweep(record: ScoredRecord) -> None:
    """Looks for this run among those that its sweep lists; of the others nothing is here to be checked."""
    if record.sweep is not None and own_run(record) is None:
        raise Drift("lineage", "the record's sweep does not list this run, or not with its settings and numbers")


def _same_parent(name: str, parent: Pin) -> bool:
    """Whether a recipe's `parent_adapter` is the pinned one; without an owner it is one of the publisher's own."""
    return same_repository(name if "/" in name else f"{parent.id.partition('/')[0]}/{name}", parent)


def check_pins(record: Record) -> None:
    """Asks the Hub again what it says of the pinned commits: licences, and whether they are miniatures."""
    pins = record.pins
    kinds: tuple[tuple[Literal["model", "dataset"], Pin | None], ...] = (
        ("model", pins.base_model),
        *(("dataset", dataset) for dataset in pins.datasets),
        ("model", pins.parent_adapter),
        ("model", None if record.evaluated is None else record.evaluated.source),
    )
    for kind, pinned in kinds:
        if pinned is None or isinstance(pinned, FilePin) or constants.HF_HUB_OFFLINE:
            continue
        commit = f"{pinned.id}@{pinned.revision}"
        on_hub = pin(kind, pinned.id, pinned.revision)
        # It may have been moved since.
        if differs := first_difference(on_hub.model_copy(update={"id": pinned.id}), pinned):
            raise Drift("lineage", f"{differs.where} of {commit} is {differs.ours}, the record states {differs.theirs}")
        if not on_a_branch(pinned):
            raise Drift(
                "lineage", f"{pinned.revision} stands on no branch of {pinned.id}: anybody may have put it there"
            )
    if pins.parent_adapter is not None and pull_parent(pins.parent_adapter).record.pins.base_model != pins.base_model:
        raise Drift("lineage", f"{pins.parent_adapter.id} is an adapter of another base model than the record's")


def check_adapter(folder: Path, record: Record, tokens: Tokenizer) -> str:
    """Compares the adapter's configuration and its tokenizer with the recipe.

    Parameters:
        tokens: the base model's tokenizer with the recipe's added tokens, from `recipes.data.tokenizer.load_tokens`.
    """
    base = record.pins.base_model
    if record.model.type not in (None, kind := base_kind(base)):
        raise Drift("lineage", f"{base.id} is of the type {kind}, the record states {record.model.type}")
    _check_adapter_config(folder, record, tokens)
    _check_tokenizer(folder, record.pins.base_model, tokens)
    return "the adapter's configuration and tokenizer are the recipe's"


def _check_adapter_config(folder: Path, record: Record, tokens: Tokenizer) -> None:
    config, base, recipe = _json(folder / ADAPTER_CONFIG_FILE), record.pins.base_model, dict(record.recipe)
    if (config.get("base_model_name_or_path"), config.get("revision")) != (base.id, base.revision):
        raise Drift(
            "lineage", f"{ADAPTER_CONFIG_FILE} names another base model than the record's {base.id}@{base.revision}"
        )
    expected = {ours: recipe[key] for ours, key in LORA_OF_RECIPE.items() if key in recipe}
    if record.pins.parent_adapter is not None:
        parent = _json(pull_parent(record.pins.parent_adapter).folder / ADAPTER_CONFIG_FILE)
        expected = {key: parent.get(key) for key in LORA_OF_RECIPE}
    ids = [tokens.token_to_id(token) for token in record.recipe.get("added_tokens", [])]
    expected = LORA | expected | {"trainable_token_indices": {"shared": ids, "head": ids} if ids else None}
    elsewhere = {"base_model_name_or_path", "revision", "peft_version"}
    for key in sorted((config.keys() | expected.keys()) - elsewhere):
        theirs, ours = (sorted(x) if isinstance(x, list) else x for x in (config.get(key), expected.get(key)))
        if (theirs or ours) and theirs != ours and key not in LORA_DEFAULTS - expected.keys():
            raise Drift("lineage", f"{ADAPTER_CONFIG_FILE} sets {key} to {theirs}, the recipe gives {ours}")


def _check_tokenizer(folder: Path, base: Pin, tokens: Tokenizer) -> None:
    """Compares the published tokenizer, which users of the adapter load, with the one that scores are taken with."""
    # Compared as Python reads it: the Rust reader is off by a last bit in some scores.
    theirs, ours = _json(folder / TOKENIZER_FILE), json.loads(tokens.to_str())
    if any(theirs.get(key) != ours[key] for key in ours.keys() - {"version", "truncation", "padding"}):
        raise Drift("lineage", f"{TOKENIZER_FILE} is not the tokenizer of {base.id} with the recipe's added tokens")
    config = _json(folder / TOKENIZER_CONFIG_FILE)
    config_of_base = tokenizer_config(base)
    if not family_of(base).t5_tokenizer:
        # It is read as its tokenizer.json stands, whatever class the base model's own names.
        config_of_base["tokenizer_class"] = "TokenizersBackend"
        config_of_base |= {key: value for key, value in config.items() if key in STORED_SAVED - config_of_base.keys()}
    for key, value in config.items():
        expected = config_of_base.get(key, TOKENIZER_DEFAULTS.get(key))
        if key == "tokenizer_class":
            # transformers 5 has one class where there were two.
            expected = str(expected).removesuffix("Fast")
        if value and value != expected and (key not in TOKENIZER_SAVED or key == "clean_up_tokenization_spaces"):
            raise Drift("lineage", f"{TOKENIZER_CONFIG_FILE} sets {key} to {value}, {base.id} to {expected}")


def _json(path: Path) -> dict[str, Any]:
    try:
        value = strict_json.parse(path.read_bytes())
    except ValueError as error:
        raise Drift("lineage", f"{path.name} is not JSON: {error}") from None
    return value if isinstance(value, dict) else {}


def rebuild_splits(record: Record, tokens: Tokenizer, data: Path | None = None) -> Splits:
    """The recipe's splits from the pinned dataset.

    Parameters:
        data: the file of rows, or the folder, that a `FilePin` pins.

    Raises:
        `Drift`: they are not those that the record counts and hashes, or their references can be written otherwise.
    """
    datasets, recipe = record.pins.datasets, arguments_from_record(dict(record.recipe))
    if isinstance(record.pins.dataset, FilePin):
        recipe.dataset_name = str(data)
    splits = build_splits(recipe, datasets, tokens, record.data.rules)
    if differs := first_difference(splits.counts.where_stated(record.data), record.data):
        where = f"{differs.where}: {differs.ours}, not {differs.theirs}"
        names = ", ".join(f"{dataset.id}@{dataset.revision}" for dataset in datasets)
        raise Drift("data", f"{names} gives other rows than the record states ({where})")
    if differs := first_difference(audit(tokens, references(splits)), record.unwritable):
        raise Drift(
            "data",
            f"references that cannot be written: {differs.where} is {differs.ours}, the record states {differs.theirs}",
        )
    return splits


def read_predictions(folder: Path, name: str = PREDICTIONS_FILE, rows: int | None = None) -> Predictions:
    """The published predictions, for so many test rows."""
    try:
        return load_predictions(folder, name, rows)
    except UserError as error:
        raise Drift("data", str(error).replace(f"{folder}/", "")) from error


def check_rows(record: Record, predictions: Predictions, test: Dataset) -> str:
    """Compares the prompts, references and tables in the published predictions with the test rows."""
    for name, theirs, column in (
        ("prompts", predictions.prompt, "prompt"),
        ("references", predictions.reference, "target"),
        ("tables", predictions.schema, "schema"),
        ("further references", predictions.references, "references"),
    ):
        if theirs != (ours := equals_of(test) if column == "references" else test[column][:]):
            if len(theirs) != len(ours):
                raise Drift("data", f"there are predictions for {len(theirs):,} rows, but {len(ours):,} test rows")
            row = _first_row(theirs, ours)
            raise Drift("data", f"the published predictions have other {name} than the dataset (row {row})")
    names = ", ".join(dataset.id for dataset in record.pins.datasets)
    return f"{len(test):,} test rows rebuilt from {names}, as recorded"


def check_leakage(record: Record, predictions: Predictions, splits: Splits) -> str:
    """Compares the test rows with the chain's training rows again."""
    seen, leakage = find_seen_rows(splits, record.pins)
    if leakage != record.leakage:
        raise Drift("leakage", "the training rows hold other copies of test rows than the record states")
    if seen != predictions.seen:
        row = _first_row(seen, predictions.seen)
        raise Drift(
            "leakage", f"row {row} is published as {predictions.seen[row] or 'clean'}: it is {seen[row] or 'clean'}"
        )
    many = sum(map(bool, seen))
    return f"{many:,} of {len(seen):,} test inputs or prompts stand in the chain's training rows, as recorded"


def _first_row(one: list[str], other: list[str]) -> int:
    """The number of the first row where two columns of the same length, which differ, do so."""
    return next(row for row, (left, right) in enumerate(zip(one, other, strict=True)) if left != right)


def check_scores(folder: Path, record: AnyScored, predictions: Predictions, tokens: Tokenizer, test: Dataset) -> str:
    """Reads the published tokens as text and scores the texts again, those of the parent's test rows too."""
    recipe, contract, scores = arguments_from_record(dict(record.recipe)), record.contract, record.scores
    check_texts(predictions, PREDICTIONS_FILE, tokens)
    if max(map(len, predictions.base_tokens + predictions.adapter_tokens)) > contract.max_new_tokens:
        raise Drift("data", f"{PREDICTIONS_FILE} holds an output of more than {contract.max_new_tokens} tokens")
    here = contract_of(recipe, contract.dtype, contract.batch_size)
    # Other versions may score the same; whether SQL is scored is the recipe's.
    versions: dict[str, Any] = {"metric_version": contract.metric_version}
    if [*map(_unversioned, here.signatures.items())] == [*map(_unversioned, contract.signatures.items())]:
        versions["signatures"] = contract.signatures
    if record.data.rules == 1:
        versions["without_rows"] = "zero"
    if here.sql is not None and contract.sql is not None:
        versions |= {"sql": contract.sql, "sql_rules": contract.sql_rules}
    if differs := first_difference(here.model_copy(update=versions), contract):
        raise Drift(
            "scoring",
            f"the scoring contract is not the recipe's: {differs.where} is {differs.theirs}, not {differs.ours}",
        )
    seconds = scores.base_outputs.seconds, scores.adapter_outputs.seconds
    scores_here = score_predictions(predictions, contract, *seconds, datasets=datasets_of(test))
    scores_here.databases = score_databases(recipe, record.pins.dataset, test, predictions, contract)
    _check_numbers(scores_here, scores, "the published predictions", here, contract)
    parent = record.pins.parent_adapter
    if (record.forgetting is None) != (parent is None):
        raise Drift("scoring", "an adapter that continues another, and no other, states what was forgotten")
    if record.forgetting is not None and parent is not None:
        forgetting = read_predictions(folder, FORGETTING_FILE)
        _check_parent_rows(forgetting, load_predictions(pull_parent(parent).folder))
        check_texts(forgetting, FORGETTING_FILE, tokens)
        forgetting_here = score_forgetting(forgetting, contract)
        _check_numbers(forgetting_here, record.forgetting, FORGETTING_FILE, here, contract)
    if compare(recipe.expect, record) != record.expectations:
        raise Drift("scoring", "the record's figures do not meet or miss the recipe's expectations as it states")
    return "published predictions scored again: the numbers of the record, to the last digit"


def _unversioned(signature: tuple[str, str]) -> tuple[str, str]:
    """A family and sacrebleu's signature of it, but for sacrebleu's version, which is its last part."""
    return signature[0], signature[1].rpartition("|version:")[0]


def check_baselines(record: AnyScored, predictions: Predictions, splits: Splits) -> str:
    """Scores again what answers without a model; of a record that does not hold it the numbers are added to it."""
    baselines = score_baselines(splits, predictions, record.contract)
    if record.data.rules == 1:
        record.baselines = baselines
        return "what answers without a model was scored; this version of the record does not hold it"
    for name, baseline in baselines.items():
        if differs := first_difference(baseline, record.baselines.get(name)):
            raise Drift(
                "scoring",
                f"{BASELINES[name]}, gives {differs.where} {_digits(differs.ours)}, the record "
                f"states {_digits(differs.theirs)}",
            )
    return f"the scores of {len(baselines)} answers without a model, as recorded"


def check_texts(predictions: Predictions, name: str, tokens: Tokenizer) -> None:
    """Only tokens are generated again: the texts, which are scored and read, must be what the tokens say."""
    for who in ("base", "adapter"):
        ids, texts = getattr(predictions, f"{who}_tokens"), getattr(predictions, who)
        # T5's embedding has more rows than its tokenizer has tokens. A model may write those above; they read as "".
        strange = next((row for row, one in enumerate(ids) if any(token < 0 for token in one)), None)
        if strange is not None:
            raise Drift("data", f"{name}: the {who} tokens of row {strange} are not in the tokenizer's vocabulary")
        for row, (text, decoded) in enumerate(zip(texts, tokens.decode_batch(ids), strict=True)):
            if text != decoded.strip():
                raise Drift(
                    "data", f"{name}: the {who} tokens of row {row} decode to another text than the published one"
                )


def _check_parent_rows(forgetting: Predictions, published: Predictions) -> None:
    mine = (forgetting.prompt, forgetting.reference, forgetting.schema, forgetting.base, forgetting.base_tokens)
    parent = (published.prompt, published.reference, published.schema, published.adapter, published.adapter_tokens)
    if mine != parent:
        raise Drift("data", f"{FORGETTING_FILE} does not hold the parent's published rows")


def _check_numbers(ours: Section, theirs: Section, what: str, here: Contract, there: Contract) -> None:
    if differs := first_difference(ours, theirs):
        versions = [
            f"{c.metric} {c.metric_version}"
            + (f", {c.sql}" if c.sql else "")
            + "".join(f", {s}" for s in c.signatures.values())
            for c in (here, there)
        ]
        under = f" (scored with {versions[0]}, there with {versions[1]})" if versions[0] != versions[1] else ""
        values = f"{_digits(differs.ours)}, the record states {_digits(differs.theirs)}"
        raise Drift("scoring", f"{what} give {differs.where} {values}{under}")


def _digits(value: Any) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def explain_name(named: str, adapter: str) -> str:
    """Why a card may state another id than that of its repository, in a few words."""
    if constants.HF_HUB_OFFLINE:
        return f"its card names {named}"
    if name_on_hub("model", named) == adapter:
        return f"published as {named}, which the Hub calls {adapter} now"
    return f"its card names {named}, of which this is a copy"


def check_card(adapter: str, folder: Path, record: Record, predictions: Predictions) -> tuple[NotCompared | None, str]:
    """Renders card and plots again, with the verdict that a release may carry, and compares them with the published.

    Returns:
        What could not be compared, and the result in one line.
    """
    try:
        verdict = load_verdict(folder)
    except UserError as error:
        raise Drift("card", str(error).replace(f"{folder}/", "")) from error
    if verdict is not None and (reason := why_unrelated(verdict, adapter, record, folder)):
        raise Drift("card", f"{VERDICT_FILE} does not belong here: {reason}")
    difference = find_difference(adapter, folder, record, predictions, verdict)
    if difference is not None:
        raise Drift("card", difference)
    rest = not_compared(adapter, folder, record, predictions, verdict)
    if rest is not None:
        return rest, rest.why
    if same_renderer(record):
        return None, "card and plots rendered again: the same, but for what people wrote"
    return None, "another version rendered the card: every number, row count and name that it shows is the record's"


def other_statements(folder: Path, record: Record) -> list[str]:
    """What people wrote on the published card that states another value of a metric than the record, one line each."""
    texts = free_texts((folder / CARD_FILE).read_text(encoding="utf-8"))
    return [
        f"in `{name}` of the card, {line}" for name, text in texts.items() for line in stated_otherwise(text, record)
    ]
