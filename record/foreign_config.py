"""The `adapter_config.json` of an adapter that was not made here, made safe to be loaded with PEFT.

An adapter of this project needs few of PEFT's keys (`record.adapter_config`); others' may have any that put other
weights on the base model, and none that change the base model's own, import a module, or size what no bound holds.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from record import strict_json
from record.adapter_config import LORA
from record.errors import UserError, one_line
from record.field_types import Count
from record.published_recipe import Below1, Module, Modules
from record.release_files import ADAPTER_CONFIG_FILE

Rank = Annotated[int, Field(ge=1, le=1024)]
Alpha = Annotated[float, Field(gt=0, le=65_536)]
Tokens = Annotated[list[Count], Field(max_length=100)]
# How weights were drawn that the file then replaces. PEFT 0.21 changes the base model for the other values.
DRAWN = (None, True, False, "gaussian", "orthogonal", "eva")
# Keys that say nothing of the weights, or nothing that loading reads.
SILENT = {"auto_mapping", "eva_config", "inference_mode", "loftq_config", "megatron_core", "peft_version"}


class ForeignConfig(BaseModel):
    """The keys that decide which weights there are. A name is no regular expression: PEFT tries those on every name."""

    model_config = ConfigDict(strict=True, extra="allow", defer_build=True)

    peft_type: Literal["LORA"]
    task_type: Literal["SEQ_2_SEQ_LM"] | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None
    init_lora_weights: bool | str | None = True
    r: Rank
    lora_alpha: Alpha
    lora_dropout: Below1 = 0.0
    target_modules: Module | Modules
    exclude_modules: Module | Modules | None = None
    modules_to_save: Modules | None = None
    use_rslora: bool = False
    use_dora: bool = False
    bias: Literal["none", "all", "lora_only"] = "none"
    rank_pattern: Annotated[dict[Module, Rank], Field(max_length=1_000)] | None = None
    alpha_pattern: Annotated[dict[Module, Alpha], Field(max_length=1_000)] | None = None
    layers_to_transform: Count | Annotated[list[Count], Field(max_length=1_000)] | None = None
    layers_pattern: Module | Modules | None = None
    trainable_token_indices: Tokens | dict[Module, Tokens] | None = None


def read_foreign_config(folder: Path) -> ForeignConfig:
    """The configuration in `folder`, of which every key that asks for something is known.

    Raises:
        `UserError`: there is none, it is not of a LoRA adapter, or asks for what is not scored here.
    """
    what = "the configuration of a LoRA adapter that is scored here"
    config = strict_json.load(folder / ADAPTER_CONFIG_FILE, ForeignConfig, what)
    if config.init_lora_weights not in DRAWN:
        raise UserError(
            f"{ADAPTER_CONFIG_FILE} sets init_lora_weights to {config.init_lora_weights!r}, by which PEFT changes the "
            "base model when it loads the adapter: have it saved by `save_pretrained(path_initial_model_for_weight_"
            "conversion=…)`, as a plain LoRA"
        )
    for key, value in (config.model_extra or {}).items():
        if key not in SILENT and value and value != LORA.get(key):
            raise UserError(
                f"{ADAPTER_CONFIG_FILE} sets {one_line(key, 100)} to {one_line(repr(value), 100)}, which is not scored "
                "here: check a merged export of it with --model"
            )
    return config


def write_safe_config(config: ForeignConfig, folder: Path) -> None:
    """Writes into `folder` what PEFT needs to lay out the adapter's weights, and nothing else."""
    known: dict[str, Any] = {name: getattr(config, name) for name in ForeignConfig.model_fields}
    safe = known | LORA | {"bias": config.bias, "base_model_name_or_path": None, "revision": None}
    (folder / ADAPTER_CONFIG_FILE).write_text(json.dumps(safe), encoding="utf-8")
