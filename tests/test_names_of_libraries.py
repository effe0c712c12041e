"""Private names of libraries that this project uses: nobody promises that they stay, so tests say when one goes."""

import ast
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = (
    "pubrep",
    "record",
    "hub",
    "recipes",
    "scoring",
    "model_cards",
    "evaluation",
    "push",
    "serving",
    "readme",
    "local_hub",
)


def torch_compiles() -> object:
    import torch

    torch._dynamo.config.recompile_limit  # noqa: B018
    return torch.nn.Linear(1, 1)._compiled_call_impl is None


def softmax_backward() -> object:
    import torch

    return torch.ops.aten._softmax_backward_data


def mkldnn(name: str) -> object:
    import torch

    return getattr(torch.ops.mkldnn, name)


def int8_product() -> object:
    import torch

    return torch._weight_int8pack_mm


def sync_gradients() -> object:
    from accelerate.state import GradientState

    return GradientState._set_sync_gradients


def parser_actions() -> object:
    from trl import ModelConfig, TrlParser

    return TrlParser((ModelConfig,))._actions


def number_of_gpus(tmp_path: Path) -> object:
    from transformers import Seq2SeqTrainingArguments

    arguments = Seq2SeqTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    arguments._n_gpu = 7
    return arguments.n_gpu == 7


def rows_fingerprint() -> object:
    from datasets import Dataset

    return Dataset.from_dict({"a": [1]})._fingerprint


def client_factory() -> object:
    from huggingface_hub.utils._http import default_client_factory

    return default_client_factory()


def repo_id_rule() -> object:
    from huggingface_hub.utils._validators import validate_repo_id

    return validate_repo_id


def assigned(module: str, name: str) -> object:
    """Of an extra, whose objects take a machine to make: whether the code of its module sets the attribute."""
    code = inspect.getsource(pytest.importorskip(module))
    return f"self.{name} = " in code or f"self.{name}: " in code or None


def converter_load() -> object:
    return pytest.importorskip("ctranslate2.converters.converter").Converter._load


def sigstore_errors() -> object:
    """They have no public base class."""
    pytest.importorskip("sigstore")
    from sigstore._internal.fulcio.client import ExpiredCertificate, FulcioClientError
    from sigstore._internal.rekor import RekorClientError

    return ExpiredCertificate, FulcioClientError, RekorClientError


def open_bars() -> object:
    """tqdm's own page names it as the way to find the bars that are open."""
    from tqdm import tqdm

    return tqdm._instances


def metric_method(name: str) -> object:
    import evaluate

    return getattr(evaluate.Metric, name)


def corpus_method(name: str) -> object:
    from sacrebleu.metrics.base import Metric

    return getattr(Metric, name)


# Where each stands, its name there, and what fails without it.
NAMES = {
    ("hub/identity.py", "_internal"): sigstore_errors,
    ("hub/retry.py", "_http"): client_factory,
    ("record/field_types.py", "_validators"): repo_id_rule,
    ("record/signs_of_life.py", "_instances"): open_bars,
    ("recipes/config.py", "_actions"): parser_actions,
    ("recipes/config.py", "_n_gpu"): number_of_gpus,
    ("recipes/data/batches.py", "_fingerprint"): rows_fingerprint,
    ("recipes/training/autograd.py", "_softmax_backward_data"): softmax_backward,
    ("recipes/training/energy.py", "_hardware"): lambda: assigned("codecarbon.emissions_tracker", "_hardware"),
    ("recipes/training/energy.py", "_mode"): lambda: assigned("codecarbon.external.hardware", "_mode"),
    ("recipes/training/trainer.py", "_set_sync_gradients"): sync_gradients,
    ("recipes/training/unpadded_t5.py", "_compiled_call_impl"): torch_compiles,
    ("recipes/training/unpadded_t5.py", "_dynamo"): torch_compiles,
    ("scoring/corpus.py", "_compute_score_from_stats"): lambda: corpus_method("_compute_score_from_stats"),
    ("scoring/corpus.py", "_extract_corpus_statistics"): lambda: corpus_method("_extract_corpus_statistics"),
    ("scoring/decoding/ctranslate.py", "_load"): converter_load,
    ("scoring/decoding/t5_weights.py", "_is_mkldnn_bf16_supported"): lambda: mkldnn("_is_mkldnn_bf16_supported"),
    ("scoring/decoding/t5_weights.py", "_linear_pointwise"): lambda: mkldnn("_linear_pointwise"),
    ("scoring/decoding/t5_weights.py", "_reorder_linear_weight"): lambda: mkldnn("_reorder_linear_weight"),
    ("scoring/rouge.py", "_compute"): lambda: metric_method("_compute"),
    ("scoring/rouge.py", "_info"): lambda: metric_method("_info"),
    ("serving/export/formats.py", "_weight_int8pack_mm"): int8_product,
}


@pytest.mark.parametrize("use", NAMES, ids=lambda use: f"{use[0]} {use[1]}")
def test_the_library_still_has_it(use, tmp_path):
    probe = NAMES[use]
    assert (probe(tmp_path) if probe is number_of_gpus else probe()) is not None


def test_every_private_name_of_a_library_is_listed():
    assert private_names() == NAMES.keys()


def private_names() -> set[tuple[str, str]]:
    """Files with the private attributes of other objects than `self` that stand in them, with the private modules and
    names that they import from libraries, and with the private methods that only a library calls."""
    uses = set()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
            methods = {part.name for node in nodes if isinstance(node, ast.ClassDef) for part in node.body
                       if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)}  # fmt: skip
            called = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
            names = {name for node in nodes for name in names_of(node)} - own | methods - called
            uses |= {(path.relative_to(ROOT).as_posix(), name) for name in names if is_private(name)}
    return uses


def names_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
        return [node.attr]
    if isinstance(node, ast.Import):
        return [part for alias in node.names for part in alias.name.split(".")]
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] not in ROOMS:
        return [*(node.module or "").split("."), *(alias.name for alias in node.names)]
    return []


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
