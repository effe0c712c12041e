"""A stranger's `adapter_config.json`, looked at before PEFT reads it.

PEFT 0.21 does much on demand: some values of `init_lora_weights` change the base model's weights at every loading,
`megatron_core` and `auto_mapping` name modules to import, a single text for `target_modules` is a regular expression
that is tried on every module's name, and `r` sizes what is allocated. An adapter of this project needs none of that.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from record import strict_json
from record.errors import UserError, first_problem
from record.field_types import Count, Line
from record.published_recipe import Below1, Module, Modules
from record.run_record import Pin

CONFIG_FILE = "adapter_config.json"
MAX_CONFIG_BYTES = 2**20
# What stands in every adapter_config.json of this project beside the recipe's own figures; all else is empty there.
LORA = {"bias": "none", "inference_mode": True, "init_lora_weights": True, "megatron_core": "megatron.core",
        "peft_type": "LORA", "qalora_group_size": 16, "task_type": "SEQ_2_SEQ_LM"}  # fmt: skip


class AdapterConfig(BaseModel):
    """The keys whose values differ from adapter to adapter."""

    model_config = ConfigDict(strict=True, extra="allow")

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
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no {CONFIG_FILE}")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise UserError(f"{CONFIG_FILE} is larger than {MAX_CONFIG_BYTES:,} bytes: it is not read")
    try:
        found = AdapterConfig.model_validate(strict_json.parse(path.read_bytes()))
    except ValidationError as error:
        raise UserError(f"{CONFIG_FILE} is none of a LoRA adapter: {first_problem(error)}") from None
    except ValueError as error:
        raise UserError(f"{CONFIG_FILE} cannot be read: {error}") from None
    for key, value in (found.model_extra or {}).items():
        if value != LORA[key] if key in LORA else value:
            raise UserError(f"{CONFIG_FILE} sets {key} to {value!r}, which no adapter of this project does")
    if (found.base_model_name_or_path, found.revision) != (base.id, base.revision):
        raise UserError(
            f"{CONFIG_FILE} names the base model {found.base_model_name_or_path}@{found.revision}, "
            f"the record {base.id}@{base.revision}: the adapter belongs to one of them only"
        )
    return found.model_dump()
