"""What becomes of every key of `Seq2SeqTrainingArguments`, `ModelConfig` and `RecipeArguments` in one's own recipe.

A key is refused here, or cannot change the adapter, or has its effect: `tests/recipes/test_settings.py` trains with a
value other than the default of every key in neither table, and fails for one that a new version of a library brings
until it is decided.
"""

import copy
import importlib.util
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from recipes.mixture import refuse_idle_keys, sources
from recipes.quantization import bring_in_bitsandbytes
from record.errors import UserError, one_line

_OWN_STEP = "training here has a step of its own, without padding, which this does not reach: remove it"
_PUBLISHING = "training uploads nothing: `make publish` does, after scoring"
_SHARDING = "say how processes share the model by `accelerate launch --config_file recipes/accelerate/"
_NO_GENERATION = "training evaluates by the loss alone: `max_new_tokens` and `num_beams` say how scores are generated"
_ROWS = "rows come from the trainer's own loader, whose shares depend on it: remove it"

# Refused with any value but the default, and `do_*` with any: why, and what to do.
REFUSED = {
    # ModelConfig
    "attn_implementation": "training has an attention of its own, without padding: remove it",
    "lora_target_parameters": "LoRA is put on modules: name them in `lora_target_modules`",
    "lora_modules_to_save": "whole modules are not trained: name them in `lora_target_modules`, new tokens in "
                            "`added_tokens`",
    # Seq2SeqTrainingArguments: steps
    "average_tokens_across_devices": "losses are means over all processes' tokens in any case: remove it",
    "optim_target_modules": "no optimizer that trains here reads it: remove it",
    "fp16": "float16 overflows feed-forward layers of base models: use `dtype: bfloat16` (or float32)",
    "use_liger_kernel": _OWN_STEP,
    "liger_kernel_config": _OWN_STEP,
    "use_cache": "the decoder reads whole targets in training, without a cache: remove it",
    "torch_empty_cache_steps": "steps are cut to fit memory by themselves: remove it",
    "auto_find_batch_size": "steps are cut to fit memory by themselves: remove it",
    "debug": _OWN_STEP,
    # Seq2SeqTrainingArguments: evaluation
    "bf16_full_eval": "the validation loss is taken in the model's `dtype`: set that",
    "fp16_full_eval": "float16 overflows feed-forward layers of base models: use `dtype: bfloat16` (or float32)",
    "include_num_input_tokens_seen": "the record counts tokens by itself: remove it",
    "prediction_loss_only": "the validation loss is all that is taken in any case: remove it",
    "eval_do_concat_batches": "the validation loss is a mean over all tokens: remove it",
    "eval_use_gather_object": "the validation loss is a mean over all tokens: remove it",
    "batch_eval_metrics": "the validation loss is a mean over all tokens: remove it",
    "include_for_metrics": "the validation loss is the only metric in training: remove it",
    "label_names": "labels are the tokens of `target`: remove it",
    "predict_with_generate": _NO_GENERATION,
    "generation_max_length": _NO_GENERATION,
    "generation_num_beams": _NO_GENERATION,
    "generation_config": _NO_GENERATION,
    # Seq2SeqTrainingArguments: runs
    "do_train": "`make train-…` trains, and nothing else: remove it",
    "do_eval": "`eval_strategy` says whether the validation loss is taken: remove it",
    "do_predict": "`make evaluate-…` scores the test rows: remove it",
    "resume_from_checkpoint": "a run continues from the last whole checkpoint of its folder by itself: remove it",
    "ignore_data_skip": "a continued run takes the rows that were left: remove it",
    "restore_callback_states_from_checkpoint": "a continued run counts on for `early_stopping_patience` by itself: "
                                               "remove it",
    "save_only_model": "a run could not be continued without its optimizer's state: remove it",
    "push_to_hub": _PUBLISHING,
    "hub_model_id": _PUBLISHING,
    "hub_token": _PUBLISHING,
    "hub_private_repo": _PUBLISHING,
    "hub_strategy": _PUBLISHING,
    "hub_always_push": _PUBLISHING,
    "hub_revision": _PUBLISHING,
    # Seq2SeqTrainingArguments: rows and processes
    "accelerator_config": _ROWS,
    "dataloader_in_order": "rows in another order on every run could not be repeated: remove it",
    "sortish_sampler": "use `train_sampling_strategy: group_by_length`",
    "length_column_name": "`train_sampling_strategy: group_by_length` takes the lengths of the tokens: remove it",
    "parallelism_config": f"{_SHARDING}fsdp.yaml`",
    "fsdp": f"{_SHARDING}fsdp.yaml`",
    "fsdp_config": f"{_SHARDING}fsdp.yaml`",
    "deepspeed": f"{_SHARDING}deepspeed-zero3.yaml`",
}  # fmt: skip
REFUSED_IN_ANY_CASE = {"do_train", "do_eval", "do_predict"}

_CARD = "a text for the card"
_SCORING = "read when scores are taken"
_LOG = "what is logged, how and where"
_KEPT = "which checkpoints are kept, and how"
_LOADER = "how rows are read, not which"
_PROCESSES = "how several processes talk to each other"
_RECOMPUTED = "the same numbers, computed twice instead of kept"
_COMPILED = "the same formulas, compiled on a GPU, which rounds in another order"

# Keys that cannot change the adapter, and why.
WITHOUT_EFFECT = {
    # RecipeArguments
    "title": _CARD,
    "adapter_name": "the adapter's name on the Hub",
    "task": _CARD,
    "language": _CARD,
    "sql_schema": _SCORING,
    "sql_database": _SCORING,
    "references": _SCORING,
    "max_new_tokens": _SCORING,
    "num_beams": _SCORING,
    "engine": _SCORING,
    "metrics": _SCORING,
    "rouge_tokenizer": _SCORING,
    "expect": "what the run is compared with",
    "strict": "whether a run that misses `expect` is trained at all",
    "tokens_per_micro_batch": "how a step is cut: its loss is the same mean over the same rows",
    # ModelConfig
    "bnb_4bit_quant_storage": "how 4-bit weights are packed: the same numbers",
    # Seq2SeqTrainingArguments
    "output_dir": "where the run is written",
    "per_device_eval_batch_size": "the validation loss is the same mean over tokens however rows are batched",
    "eval_accumulation_steps": "how often losses leave the device",
    "eval_on_start": "an evaluation before the first step; it leaves the random state as it was",
    "logging_strategy": _LOG,
    "logging_steps": _LOG,
    "logging_first_step": _LOG,
    "log_on_each_node": _LOG,
    "logging_nan_inf_filter": "off in any case: a loss that is no number is shown",
    "log_level": _LOG,
    "log_level_replica": _LOG,
    "disable_tqdm": _LOG,
    "report_to": _LOG,
    "run_name": _LOG,
    "project": _LOG,
    "trackio_space_id": _LOG,
    "trackio_bucket_id": _LOG,
    "trackio_static_space_id": _LOG,
    "skip_memory_metrics": _LOG,
    "metric_for_best_model": "the validation loss is the only metric: `loss` and `eval_loss` both name it",
    "save_total_limit": _KEPT,
    "save_on_each_node": _KEPT,
    "enable_jit_checkpoint": _KEPT,
    "activation_checkpointing": _RECOMPUTED,
    "activation_checkpointing_kwargs": _RECOMPUTED,
    "gradient_checkpointing": _RECOMPUTED,
    "gradient_checkpointing_kwargs": _RECOMPUTED,
    "torch_compile": _COMPILED,
    "torch_compile_backend": _COMPILED,
    "torch_compile_mode": _COMPILED,
    "tf32": "the same formulas on an NVIDIA GPU, which rounds to fewer digits; refused elsewhere",
    "full_determinism": "the same formulas, on a GPU by kernels that round alike in every run",
    "use_cpu": "which device trains",
    "dataloader_num_workers": _LOADER,
    "dataloader_pin_memory": _LOADER,
    "dataloader_persistent_workers": _LOADER,
    "dataloader_prefetch_factor": _LOADER,
    "dataloader_multiprocessing_context": _LOADER,
    "remove_unused_columns": "rows hold their tokens and nothing else",
    "ddp_find_unused_parameters": _PROCESSES,
    "ddp_bucket_cap_mb": _PROCESSES,
    "ddp_broadcast_buffers": _PROCESSES,
    "ddp_static_graph": _PROCESSES,
    "ddp_backend": _PROCESSES,
    "ddp_timeout": _PROCESSES,
    "local_rank": "which of several processes this is: the launcher says it",
}

# Optimizers that need no more of a training step than gradients.
OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop")
OPTIMIZERS_OF_BITSANDBYTES = (
    "adamw_8bit", "adamw_bnb_8bit", "ademamix", "ademamix_8bit", "lion_8bit", "lion_32bit", "paged_adamw_32bit",
    "paged_adamw_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit",
    "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit",
)  # fmt: skip
QUANTIZATION = ("bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage")
# What an optimizer may or may not read.
OPTIMIZER_KEYS = ("adam_beta1", "adam_beta2", "adam_epsilon", "optim_args")


def refuse_keys(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuses what no value can give an effect, before anything is built of it.

    Parameters:
        given: the keys of the YAML and of the command line, with their values (of the command line: as texts).
        defaults: of every key of the libraries.

    Raises:
        `UserError`: a key in `REFUSED` has another value than the default.
    """
    for key, cure in REFUSED.items():
        if key in given and (key in REFUSED_IN_ANY_CASE or str(given[key]).lower() != str(defaults[key]).lower()):
            raise UserError(f"`{key}` is refused: {cure}")


def refuse_combinations(arguments: Any, training: Any, model: Any, given: Mapping[str, Any]) -> None:
    """Refuses keys that have no effect with the others, and optimizers that cannot be built here.

    Parameters:
        arguments: the `RecipeArguments`.
        training: the `Seq2SeqTrainingArguments`.
        model: the `ModelConfig`.
        given: the names of the keys that the recipe states.

    Raises:
        `UserError`: one of them.
    """
    quantized = model.load_in_4bit or model.load_in_8bit
    if quantized or training.optim.value in OPTIMIZERS_OF_BITSANDBYTES:
        bring_in_bitsandbytes()
    if quantized and importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("`load_in_4bit` and `load_in_8bit` need bitsandbytes: pip install bitsandbytes")
    defaults = {item.name: item.default for part in (training, model) for item in fields(part)}
    values = {item.name: getattr(part, item.name) for part in (training, model) for item in fields(part)}
    changed = {key for key in given if key in values and values[key] != defaults[key]}
    if (training.activation_checkpointing_kwargs or {}).get("use_reentrant"):
        # T5 of transformers 5.23 never calls `shared`, on which PEFT 0.21 puts the hook that keeps them.
        raise UserError("`use_reentrant: true` loses the gradients of the first layers: remove it")
    if arguments.datasets:
        refuse_idle_keys(arguments)
    own_splits = sources(arguments)[0].own_splits()
    for named, drawn in (("test_split", ("test_size", "split")), ("validation_split", ("validation_size",))):
        if unused := [key for key in drawn if key in given and named in own_splits]:
            raise UserError(f"`{unused[0]}` has no effect with `{named}`, which names the rows: remove one of them")
    if arguments.sql_database is not None and "sql" not in arguments.metric_families():
        raise UserError("`sql_database` has no effect without SQL metrics: set `sql_schema` too, or remove it")
    for rule in arguments.parsed_rules():
        if rule.action == "truncate" and rule.texts[0] not in ("prompt", "target"):
            raise UserError(
                f"length rule {rule.text!r} has no effect: `prompt` and `target` are filled before: cut one of them"
            )
    for key in QUANTIZATION:
        if key in changed and not model.load_in_4bit:
            raise UserError(f"`{key}` has no effect without `load_in_4bit: true`: set that, or remove it")
    schedule = training.lr_scheduler_type.value
    if "warmup_steps" in changed and schedule in ("constant", "reduce_lr_on_plateau", "greedy"):
        raise UserError(f"`warmup_steps` has no effect with `lr_scheduler_type: {schedule}`: remove it")
    if "lr_scheduler_kwargs" in changed and schedule in ("constant", "constant_with_warmup"):
        raise UserError(f"`lr_scheduler_kwargs` has no effect with `lr_scheduler_type: {schedule}`: remove it")
    _refuse_optimizer(training, [key for key in OPTIMIZER_KEYS if key in changed], defaults)
    _refuse_scheduler(training)


def _refuse_optimizer(training: Any, changed: list[str], defaults: Mapping[str, Any]) -> None:
    from torch import nn
    from transformers import Trainer

    name = training.optim.value
    if name not in OPTIMIZERS + OPTIMIZERS_OF_BITSANDBYTES:
        raise UserError(
            f"`optim: {name}` is none that trains here: use one of {', '.join(OPTIMIZERS)}, or bitsandbytes' own, such "
            "as adamw_8bit"
        )
    try:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(training)
        kind([nn.Parameter(nn.Linear(1, 1).weight)], **settings)
    except (ImportError, ValueError, TypeError) as error:
        raise UserError(f"`optim: {name}` cannot be used here: {one_line(str(error), 300)}") from None
    for key in changed:
        without = copy.copy(training)
        setattr(without, key, defaults[key])
        if Trainer.get_optimizer_cls_and_kwargs(without)[1] == settings:
            raise UserError(f"`{key}` has no effect with `optim: {name}`: remove it")


def _refuse_scheduler(training: Any) -> None:
    from torch import nn, optim
    from transformers import get_scheduler

    name = training.lr_scheduler_type.value
    try:
        get_scheduler(name, optim.SGD([nn.Parameter(nn.Linear(1, 1).weight)]), 1, 2, training.lr_scheduler_kwargs or {})
    except (ValueError, TypeError) as error:
        raise UserError(
            f"`lr_scheduler_type: {name}` and `lr_scheduler_kwargs` do not fit: {one_line(str(error), 300)}"
        ) from None
