"""What the weights of a base model are computed in on this machine: bfloat16 where that is faster, else float32."""

import time
from collections.abc import Callable
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from trl import ModelConfig

from recipes.base_model import base_config
from recipes.environment import device_name
from record.cache import cached_value, code_of
from record.errors import UserError
from record.run_record import Pin, Record

# How many times as fast as float32's a product in bfloat16 must be. AVX2 alone gives 1/33, AVX512-BF16 4, AMX 7.
FASTER = 1.5
# Numbers a token below which a model's time goes into calls, not products: with 64 a step of training in bfloat16 is
# 1.4 times as fast as in float32, with 128 1.5 times, with 256 2.6 times, where products are 4 times as fast.
NARROW = 256
# Rows, inputs and outputs of the product that is measured: a micro-batch through a layer of FLAN-T5-large.
PRODUCT = (1_024, 1_024, 1_024)


def pick_dtype(name: str, base: Pin) -> torch.dtype:
    """The data type for the base's weights: the requested one where this device gains by it, else float32.

    All processes take what the first one picks.

    Raises:
        `UserError`: the name is of another type; and as `base_config`.
    """
    if name not in ("bfloat16", "float32"):
        raise UserError(f"`dtype: {name}` is not supported: use bfloat16 or float32")
    if name == "float32" or why_float32(base):
        return torch.float32
    return torch.bfloat16


def why_float32(base: Pin) -> str | None:
    """Why bfloat16 gains nothing for the base model on this machine; None where it does."""
    if on_gpu():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return None if native else "this GPU has no bfloat16"
    if (width := _width(base_config(base))) < NARROW:
        return f"the model is {width} numbers wide, and below {NARROW} bfloat16 gains little on CPUs"
    gain = [bfloat16_gain() if PartialState().is_main_process else 0.0]
    if PartialState().num_processes > 1:
        broadcast_object_list(gain)
    return None if gain[0] >= FASTER else f"this CPU multiplies bfloat16 {gain[0]:.2f} times as fast as float32"


def bfloat16_gain() -> float:
    """How many times as fast as in float32 this CPU multiplies in bfloat16; measured once, and kept."""
    here = f"{device_name()}, {torch.get_num_threads()} threads, {torch.__config__.show()}"
    return cached_value("bfloat16-gain", _measured_gain, code_of([_measured_gain, _seconds], []), here)


def _measured_gain() -> float:
    rows, inputs, outputs = PRODUCT
    values, weight = torch.ones(rows, inputs), torch.ones(outputs, inputs)
    pairs = {dtype: (values.to(dtype), weight.to(dtype)) for dtype in (torch.float32, torch.bfloat16)}
    # In turn, the best of each: what else the machine does slows some of them.
    seconds = [
        [_seconds(lambda pair=pair: torch.nn.functional.linear(*pair)) for pair in pairs.values()] for _ in range(4)
    ]
    float32, bfloat16 = map(min, zip(*seconds, strict=True))
    return float32 / bfloat16


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _width(config: dict[str, Any]) -> int:
    """Numbers a token, as the families' configurations name them."""
    part = config.get("encoder", config)
    part = part.get("text_config", part)
    return part.get("d_model") or part.get("hidden_size") or 0


def keep_float32(config: ModelConfig, record: Record, scored: bool) -> None:
    """Sets float32 where the record says that its scores were taken so (`scored`), or its adapter trained so.

    What is checked, served or continued is then computed as it was, on whatever device.
    """
    # The norms of a quantized base are in float32 whatever its products are computed in.
    by_contract = scored or record.model.quantized_layers
    said = (record.contract and record.contract.dtype) if by_contract else record.model.dtype
    if said == "float32":
        config.dtype = said


def on_gpu() -> bool:
    """Whether this process works on a GPU: not where accelerate was told to use the CPU."""
    return PartialState().device.type == "cuda"
