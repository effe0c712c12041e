"""The files that a release consists of: which there are, who writes them, and how large each may be."""

import re
from pathlib import Path

RECORD_FILE = "record.json"
CARD_FILE = "README.md"
ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
# A base model's tokenizer where it has no tokenizer.json.
SENTENCEPIECE_FILE = "spiece.model"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
PREDICTIONS_FILE = "predictions.parquet"
# The columns of the predictions for the parent adapter's test rows, `base` holding what the parent wrote.
FORGETTING_FILE = "forgetting.parquet"
# A release may carry the verdict on an earlier commit of the same adapter and predictions.
VERDICT_FILE = "verdict.json"
SIGNATURE_FILE = "model.sig"
PLOTS = {"verdict": "plots/verdict.png", "loss": "plots/loss.png", "scores": "plots/scores.png"}

# What a release takes from the run's folder as it is. `training_args.bin` and checkpoints there are pickles.
RUN_FILES = (ADAPTER_CONFIG_FILE, ADAPTER_FILE, TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, PREDICTIONS_FILE)
# What the Hub writes into a new repository.
HUB_WRITTEN = {".gitattributes"}
# The signed record states the hash of the card but for its free sections, which people may edit.
UNSIGNED_FILES = (CARD_FILE, *HUB_WRITTEN, SIGNATURE_FILE)
# Suffixes of what people put into a repository to show it on the card; no library loads it.
BESIDE_THE_CARD = {".md", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".pdf"}
# Results of others, merged from pull requests (https://huggingface.co/docs/hub/eval-results).
COMMUNITY_RESULTS = re.compile(r"\.eval_results/[^/]+\.ya?ml")
# Verdicts by others, merged from pull requests: who checked, and when (`record.vouchers`).
VOUCHER_FILE = re.compile(r"verdicts/[A-Za-z0-9][\w.-]{0,95}-\d{8}T\d{6}Z\.json", re.ASCII)
# Bytes that a published file may have, by its name or its suffix: many times what an honest one has.
LARGEST_FILES = {RECORD_FILE: 16 * 2**20, CARD_FILE: 2 * 2**20, TOKENIZER_FILE: 64 * 2**20,
                 SENTENCEPIECE_FILE: 16 * 2**20, ".json": 2**20,
                 ".yaml": 2**20, ".png": 8 * 2**20, ".parquet": 256 * 2**20, ".safetensors": 16 * 2**30}  # fmt: skip


def recipe_file(name: str) -> str:
    """The file that holds the recipe `name`."""
    return f"{name}.yaml"


def required_files(name: str, forgetting: bool) -> set[str]:
    """Every file that the record of a release lists, but for `VERDICT_FILE`, which it may list.

    Parameters:
        name: the recipe's.
        forgetting: whether the record holds scores of the parent adapter's test rows.
    """
    files = {CARD_FILE, *RUN_FILES, recipe_file(name), *PLOTS.values()}
    return files | {FORGETTING_FILE} if forgetting else files


def evaluation_files(name: str) -> set[str]:
    """Every file that the record of an evaluation-only release lists.

    Parameters:
        name: the recipe's.
    """
    return {CARD_FILE, PREDICTIONS_FILE, recipe_file(name)}


def may_lie_beside(path: str) -> bool:
    """Whether a file may lie next to a release: the Hub or its community added it, and no library loads it."""
    return (
        path in HUB_WRITTEN
        or Path(path).suffix.lower() in BESIDE_THE_CARD
        or COMMUNITY_RESULTS.fullmatch(path) is not None
        or VOUCHER_FILE.fullmatch(path) is not None
    )


def largest_size(path: str) -> int:
    """How many bytes the published file `path` may have."""
    return LARGEST_FILES.get(path, LARGEST_FILES.get(Path(path).suffix, 2**20))
