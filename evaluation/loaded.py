"""Base model and adapter, loaded as a record says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.findings import Drift
from evaluation.tolerance import Rounding, same_stack
from recipes.base_model import base_kind
from recipes.config import recipe_from_record
from recipes.environment import describe_environment
from recipes.training.model import adapter_numbers, size_of
from record.errors import UserError
from record.hashes import sha256_file
from record.release_files import ADAPTER_FILE
from record.run_record import Environment, Record
from record.scored_record import AnyScored, ScoredRecord
from record.scores import Contract
from record.verdict import Model
from scoring.decoding.predict import load_for_scoring
from scoring.engines import engine_here

MODELS: tuple[Model, ...] = ("base", "adapter")


@dataclass(frozen=True)
class Loaded:
    """Base model and adapter, loaded as the record says.

    `tokenizer` is the base model's. `contract` is the record's with the engine and dtype of this machine. `repeatable`
    is whether tokens must be equal: the published adapter on the same device and versions. `gains` and `parent_gains`
    are the published differences adapter − base by metric, for the test rows and for the parent's. `rounding` is the
    coarser one of where the outputs were written and of here. `base` is the base model where `model` is no adapter on
    it, but a full model.
    """

    model: Any
    tokenizer: Any
    contract: Contract
    environment: Environment
    published_adapter: bool
    repeatable: bool
    rounding: Rounding
    gains: dict[str, float]
    parent_gains: dict[str, float]
    base: Any = None

    def of(self, who: Model) -> tuple[Any, bool]:
        """The model that writes as `who`, and whether with all that it is: else without its adapter."""
        if self.base is not None:
            return (self.base if who == "base" else self.model), True
        return self.model, who == "adapter"


def load(adapter: Path, record: ScoredRecord) -> Loaded:
    """Loads the base model and the adapter in the folder `adapter`.

    Raises:
        `Drift`: the adapter does not fit the base model.
    """
    recipe = recipe_from_record(record.name, dict(record.recipe))
    try:
        model, tokenizer, dtype = load_for_scoring(adapter, record, recipe.model)
    except UserError as error:
        raise Drift("weights", str(error)) from error
    contract, here = contract_here(record, dtype), describe_environment()
    published_adapter = sha256_file(adapter / ADAPTER_FILE) == record.training.adapter_sha256
    same = contract == record.contract and same_stack(here, record.scored_in, contract.dtype)
    return Loaded(
        model,
        tokenizer,
        contract,
        here,
        published_adapter,
        repeatable=published_adapter and same,
        rounding=rounding_of(record, contract),
        gains={name: gain.mean for name, gain in record.scores.difference.items()},
        parent_gains={name: gain.mean for name, gain in record.forgetting.difference.items()}
        if record.forgetting
        else {},
    )


def check_sizes(record: Record, loaded: Loaded) -> None:
    """Compares the record's parameter counts with the model as loaded; its bytes on the same device and versions.

    Raises:
        `Drift`: one of them differs.
    """
    model = size_of(loaded.model, base_kind(record.pins.base_model)).model_copy(
        update={"trainable": adapter_numbers(loaded.model)}
    )
    names = ["trainable", "total", "quantized_layers"]
    same = same_stack(loaded.environment, record.environment, model.dtype)
    if same and model.dtype == record.model.dtype and not model.quantized_layers:
        names.append("memory_bytes")
    for name in names:
        if getattr(model, name) != getattr(record.model, name):
            raise Drift(
                "weights",
                f"{name} of the model is {getattr(model, name):,}, the record states {getattr(record.model, name):,}",
            )


def rounding_of(record: AnyScored, here: Contract) -> Rounding:
    """How the record's outputs and those of this machine, whose contract is `here`, are rounded."""
    dtype = "bfloat16" if "bfloat16" in (here.dtype, record.contract.dtype) else here.dtype
    if record.model.quantized_layers:
        return Rounding("quantized", dtype)
    if dtype == "bfloat16":
        return Rounding("bfloat16", dtype)
    return Rounding("tf32" if record.recipe.get("tf32") else "float32", dtype)


def contract_here(record: AnyScored, dtype: str) -> Contract:
    """The record's contract with the engine and the dtype that this machine has. In float32 tokens are the same."""
    if dtype != record.contract.dtype:
        print(f"The record's outputs were computed in {record.contract.dtype}, here they are in {dtype}", flush=True)
    engine_there = record.contract.engine
    engine = engine_here(engine_there) if dtype == "float32" else "transformers"
    if engine != engine_there:
        print(f"The record's outputs were generated by {engine_there}, here {engine} generates", flush=True)
    return record.contract.model_copy(update={"dtype": dtype, "engine": engine})
