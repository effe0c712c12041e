"""The miniature FLAN-T5 checkpoints: their shapes, and their files without any need of torch."""

import json
import math
from pathlib import Path

import numpy as np

from local_hub.miniatures import tokenizer

WEIGHTS = Path(__file__).parent / "weights"

# Five to ten minutes on one core for each model. The cards name this number.
STEPS = 3500

# Each is larger than the one before. Every row of every matrix is whole blocks of 64: bitsandbytes' 4-bit kernels for
# the CPU want that.
SHAPES = {
    "base": {"d_model": 64, "d_ff": 64, "num_layers": 2, "num_heads": 4},
    "large": {"d_model": 64, "d_ff": 128, "num_layers": 2, "num_heads": 4},
    "xl": {"d_model": 64, "d_ff": 128, "num_layers": 3, "num_heads": 4},
    "xxl": {"d_model": 64, "d_ff": 192, "num_layers": 3, "num_heads": 4},
}


def config(name: str) -> dict:
    """config.json of one miniature, with the real FLAN-T5's keys."""
    shape = SHAPES[name]
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "d_ff": shape["d_ff"],
        "d_kv": 16,
        "d_model": shape["d_model"],
        "decoder_start_token_id": 0,
        "dropout_rate": 0.1,
        "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu",
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "is_gated_act": True,
        "layer_norm_epsilon": 1e-06,
        "model_type": "t5",
        "n_positions": 512,
        "num_decoder_layers": shape["num_layers"],
        "num_heads": shape["num_heads"],
        "num_layers": shape["num_layers"],
        "output_past": True,
        "pad_token_id": 0,
        "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": tokenizer.EMBEDDING_ROWS,
    }


def files(name: str) -> dict[str, bytes]:
    """Every file of one model repository but its card, built from the shipped weights and tokenizer."""
    generation = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    return {
        "config.json": pretty(config(name)),
        "generation_config.json": pretty(generation),
        "model.safetensors": in_float32((WEIGHTS / f"{name}.safetensors").read_bytes()),
        "tokenizer.json": (WEIGHTS / "tokenizer.json").read_bytes(),
        **tokenizer.companions(),
    }


def pretty(content: dict) -> bytes:
    """JSON as the transformers library writes it."""
    return (json.dumps(content, indent=2) + "\n").encode()


def header(checkpoint: bytes) -> tuple[dict, int]:
    """The table of contents of a safetensors file, and where its data begins."""
    start = 8 + int.from_bytes(checkpoint[:8], "little")
    return json.loads(checkpoint[8:start]), start


def parameters(checkpoint: bytes) -> int:
    """How many numbers a safetensors file holds."""
    contents, _ = header(checkpoint)
    return sum(math.prod(entry["shape"]) for key, entry in contents.items() if key != "__metadata__")


def in_float32(checkpoint: bytes) -> bytes:
    """The checkpoint in float32, as the real FLAN-T5 is published; shipped in bfloat16 it takes half the room.

    A bfloat16 is the upper half of a float32, so widening one is a shift and needs no torch.
    """
    contents, start = header(checkpoint)
    wide = (np.frombuffer(checkpoint[start:], "<u2").astype("<u4") << 16).tobytes()
    for key, entry in contents.items():
        if key != "__metadata__":
            contents[key] = {**entry, "dtype": "F32", "data_offsets": [2 * offset for offset in entry["data_offsets"]]}
    top = json.dumps(contents, separators=(",", ":")).encode()
    top += b" " * (-len(top) % 8)  # safetensors wants its data aligned
    return len(top).to_bytes(8, "little") + top + wide
