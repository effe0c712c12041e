"""What level prefill finds: margins of outputs that the named models wrote elsewhere, and of outputs of others.

    python -m benchmarks.prefill write MODELS INTO [--precision float32] [--only NAME]
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from benchmarks.prefill_models import Rows, load
from scoring.decoding.slot_decoding import greedy

SLOTS, LONGEST = 32, 48
SUBSTITUTES = {
    "int8": {"precision": "int8"},
    "nf4": {"precision": "nf4"},
    "float32": {"precision": "float32"},
    "bfloat16": {"precision": "bfloat16"},
    "other-rank": {"adapter": "other-rank"},
    "alpha-half": {"scale": 0.5},
    "alpha-more": {"scale": 1.25},
    "earlier": {"adapter": "earlier"},
    "base-later": {"base": "base-later"},
}


def write(models: Path, precision: str, name: str, rows: Rows, test: int) -> dict[str, list[list[int]]]:
    model = load(models, **({"precision": precision} | SUBSTITUTES.get(name, {})))
    prompts = (rows.other_prompts if name == "other-prompt" else rows.prompts)[:test]
    with torch.inference_mode():
        out = {"adapter": greedy(model, prompts, LONGEST, SLOTS)}
        if name not in ("other-rank", "alpha-half", "alpha-more", "earlier"):
            with model.disable_adapter():
                out["base"] = greedy(model, prompts, LONGEST, SLOTS)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("models", type=Path)
    parser.add_argument("into", type=Path)
    parser.add_argument("--precision")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--test", type=int, default=300)
    a = parser.parse_args()
    rows = Rows()
    import time
    for name in a.only or ["honest", "other-prompt", *SUBSTITUTES]:
        if name == a.precision: continue
        path = a.into / f"{a.precision}-{name}.json"
        if path.exists(): continue
        t=time.time()
        path.write_text(json.dumps(write(a.models, a.precision, name, rows, a.test)))
        print(a.precision, name, round(time.time()-t,1), flush=True)
