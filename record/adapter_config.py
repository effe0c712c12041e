"""A stranger's `adapter_config.json`, looked at before PEFT reads it.

PEFT 0.21 does much on demand: some values of `init_lora_weights` change the base model's weights at every loading,
`megatron_core` and `auto_mapping` name modules to import, a single text for `target_modules` is a regular expression
that is tried on every module's name, and `r` sizes what is allocated. An adapter of this project needs none of it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from record import strict_json
from record.errors import UserError
from record.field_types import Count, Line
from record.published_recipe import Below1, Module, Modules
from record.release_files import ADAPTER_CONFIG_FILE
from record.run_record import Pin

# What stands in every adapter_config.json of this project next to the recipe's own figures; all else is empty there.
LORA = {"bias": "none", "inference_mode": True, "init_lora_weights": True, "megatron_core": "megatron.core",
        "peft_type": "LORA", "qalora_group_size": 16, "task_type": "SEQ_2_SEQ_LM"}  # fmt: skip

# Its keys by which a recipe says what its adapter is like, with the recipe's names for them.
LORA_OF_RECIPE = {"r": "lora_r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout",
                  "target_modules": "lora_target_modules", "modules_to_save": "lora_modules_to_save",
                  "use_rslora": "use_rslora", "use_dora": "use_dora"}  # fmt: skip


class AdapterConfig(BaseModel):
    """The keys whose values differ from adapter to adapter."""

    model_config = ConfigDict(strict=True, extra="allow", defer_build=True)

    base_model_name_or_path: str
    revision: str
    peft_version: Line | None = None
    r: Annotated[int, Field(ge=1, le=1024)]
    lora_alpha: Annotated[float, Field(ge=1, le=65_536)]
    lora_dropout: Below1
    target_modules: Module | Modules
    modules_to_save: Modules | None = None
    use_rslora: bool = False
    use_dora: bool = False
    trainable_token_indices: dict[Literal["shared", "head"], Annotated[list[Count], Field(max_length=100)]] | None = (
        None
    )


def check_adapter_config(folder: Path, base: Pin) -> dict[str, Any]:
    """The `adapter_config.json` in `folder`, safe to be loaded with PEFT, and on this base model.

    Raises:
        `UserError`: there is none, it asks for what no adapter of this project asks for, or names another base model.
    """
    config = strict_json.load(folder / ADAPTER_CONFIG_FILE, AdapterConfig, "the configuration of a LoRA adapter")
    for key, value in (config.model_extra or {}).items():
        if value != LORA[key] if key in LORA else value:
            raise UserError(f"{ADAPTER_CONFIG_FILE} sets {key} to {value!r}, which no adapter of this project does")
    if (config.base_model_name_or_path, config.revision) != (base.id, base.revision):
        raise UserError(
            f"{ADAPTER_CONFIG_FILE} names the base model {config.base_model_name_or_path}@{config.revision}, "
            f"the record {base.id}@{base.revision}: the adapter belongs to one of them only"
        )
    return config.model_dump()
