"""Values of recipe keys that change the adapter, or are refused, and the keys next to which they do."""

BASE = {
    "title": "x", "adapter_name": "x", "model_name_or_path": "local-user/settings-base", "use_peft": True,
    "lora_task_type": "SEQ_2_SEQ_LM", "dataset_name": "local-user/settings-rows", "prompt": "{question}",
    "target": "{answer}", "max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3,
    "save_strategy": "no", "disable_tqdm": True, "tokens_per_micro_batch": 4096,
}  # fmt: skip
EPOCH = {"max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 16}
# The step with the highest validation loss, the first one, is kept instead of the last.
BEST = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "best", "load_best_model_at_end": True,
        "greater_is_better": True, "validation_size": 0.2, "max_steps": 3}  # fmt: skip
SAVED = BEST | {"save_strategy": "steps", "save_steps": 1}
# So fast that the loss rises at the third step and falls again.
LUCKY = BEST | {"greater_is_better": False, "warmup_steps": 8, "learning_rate": 1.0, "max_steps": 6}
OWN = {"train_split": "train", "test_split": "test"}
# Without `validation_split`, some of these are held out.
LAST_ROWS = {"train_split": "train[4:]"}
FOUR_BIT = {"load_in_4bit": True}
EXTRACT = {"prompt": "{word}", "extract": {"question": r"What is (?P<word>\w+)"}}

# A value for each key that changes the adapter, and the keys next to which it does.
EFFECTS = {
    # RecipeArguments
    "dataset_name": ("local-user/settings-others", {}),
    "dataset_config": ("other", {"dataset_name": "local-user/settings-others", "dataset_config": "one"}),
    "dataset_revision": ("first", {}),
    "dataset_splits": (["train"], {}),
    "datasets": ([{"dataset_splits": ["train"]}, {"dataset_name": "local-user/settings-others", "share": 9}], {}),
    "train_split": ("train[:50%]", OWN),
    "validation_split": ("train[:4]", OWN | LAST_ROWS),
    "test_split": ("test[:1]", OWN | LUCKY | {"select_on_test": True, "validation_size": 0.0}),
    "extract": ({"question": r"(?P<word>\d+)"}, EXTRACT),
    "prompt": ("Answer {question}", {}),
    "target": ("{question}", {}),
    "length_rules": (["drop characters(answer) > 17"], {}),
    "test_size": (0.3, {}),
    "validation_size": (0.3, {}),
    "select_on_test": (True, SAVED),
    "split": ("grouped", {}),
    "split_seed": (3, {}),
    "added_tokens": (["<"], {}),
    "early_stopping_patience": (1, LUCKY),
    # ModelConfig
    "model_name_or_path": ("google/flan-t5-base", {}),
    "model_revision": ("first", {}),
    "dtype": ("bfloat16", {}),
    "lora_r": (4, {}),
    "lora_alpha": (64, {}),
    "lora_dropout": (0.5, {}),
    "lora_target_modules": (["k", "wo"], {}),
    "use_rslora": (True, {}),
    "use_dora": (True, {}),
    "load_in_8bit": (True, {}),
    "load_in_4bit": (True, {}),
    "bnb_4bit_quant_type": ("fp4", FOUR_BIT),
    "use_bnb_nested_quant": (True, FOUR_BIT),
    # Seq2SeqTrainingArguments
    "per_device_train_batch_size": (5, {}),
    "gradient_accumulation_steps": (2, {}),
    "num_train_epochs": (2, EPOCH),
    "max_steps": (3, {}),
    "learning_rate": (1e-2, {}),
    "lr_scheduler_type": ("constant", {}),
    "lr_scheduler_kwargs": ({"num_cycles": 2}, {"lr_scheduler_type": "cosine_with_restarts"}),
    "warmup_steps": (2, {}),
    "optim": ("sgd", {}),
    "optim_args": ("momentum=0.9", {"optim": "sgd"}),
    "weight_decay": (0.5, {}),
    "adam_beta1": (0.5, {}),
    "adam_beta2": (0.5, {}),
    "adam_epsilon": (0.1, {}),
    "max_grad_norm": (0.01, {}),
    "label_smoothing_factor": (0.5, {}),
    "neftune_noise_alpha": (10, {}),
    "bf16": (True, {}),
    "eval_strategy": ("epoch", BEST),
    "eval_steps": (3, BEST),
    "eval_delay": (3, BEST),
    "save_strategy": ("best", SAVED | {"save_steps": 3}),
    "save_steps": (3, SAVED),
    "load_best_model_at_end": (True, SAVED | {"load_best_model_at_end": False}),
    "greater_is_better": (False, BEST),
    "seed": (7, {}),
    "data_seed": (7, {}),
    "dataloader_drop_last": (True, EPOCH),
    "train_sampling_strategy": ("group_by_length", {}),
}  # fmt: skip
# Refused for a value that other recipes have: the line.
ONE_VALUE = {
    "use_peft": (False, "only adapters are trained here"),
    "lora_task_type": ("CAUSAL_LM", "is not an encoder-decoder's"),
}
# A chain takes published adapters: `tests/test_every_recipe.py` trains one. Languages are of other base models:
# `tests/recipes/test_families.py` trains with them.
ELSEWHERE = {"parent_adapter", "source_language", "target_language"}
