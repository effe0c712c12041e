"""The part of a recipe that decides scores: rows, prompt, decoding and metrics, for what was not trained by it."""

import tempfile
from dataclasses import fields
from pathlib import Path

import yaml

from recipes.config import Recipe, RecipeArguments, parse_recipe, recipe_from_record
from record.run_record import Pin

# Of these, only training knows; an adapter from elsewhere has no parent and no added tokens that a recipe could know.
OF_TRAINING = {"parent_adapter", "added_tokens", "expect", "strict", "tokens_per_micro_batch",
               "early_stopping_patience", "select_on_test"}  # fmt: skip
# Keys of the two other parts that decide scores, or that every recipe must have.
DECIDING = {"model_name_or_path", "model_revision", "dtype", "load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type",
            "use_bnb_nested_quant", "bnb_4bit_quant_storage", "use_peft", "lora_task_type",
            "per_device_eval_batch_size"}  # fmt: skip
# What a recipe made of keys alone has besides them.
SILENT = {"use_peft": True, "lora_task_type": "SEQ_2_SEQ_LM", "dtype": "float32", "report_to": "none"}


def parse_keys(path: Path | None, keys: list[str], name: str) -> Recipe:
    """The recipe in the YAML file `path`, or made of `keys` (`--key value`) alone; they override it.

    Parameters:
        name: a plain name for a recipe that has no file.

    Raises:
        `Slip`: as `recipes.config.parse_recipe`.
    """
    if path is not None:
        return parse_recipe(["--config", str(path), *keys])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{name}.yaml")
        # The base model's name is set by `scoring_recipe`.
        file.write_text(yaml.safe_dump({"title": name, "adapter_name": name, "model_name_or_path": "a/b"} | SILENT))
        return parse_recipe(["--config", str(file), *keys])


def scoring_recipe(recipe: Recipe, base: Pin, name: str) -> tuple[Recipe, list[str]]:
    """The recipe for scores of `name` on the base model `base`, and which keys that it sets do not hold for these."""
    keep = {item.name for item in fields(RecipeArguments)} - OF_TRAINING | DECIDING
    resolved = {key: value for key, value in recipe.resolved.items() if key in keep}
    resolved |= {"adapter_name": name, "model_name_or_path": base.id, "model_revision": base.revision}
    left_out = [key for key in ("parent_adapter", "added_tokens") if recipe.resolved.get(key)]
    return recipe_from_record(recipe.name, resolved), left_out
