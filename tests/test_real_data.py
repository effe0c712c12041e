"""The loop on real input: real public rows, the real T5 tokenizer, a model of T5-small's shape with random weights.

Needs the folder that the environment variable REAL_DATA names; skipped without it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local_hub.miniatures import Repository
from local_hub.testing import running
from record.run_record import load_record

pytestmark = pytest.mark.skipif("REAL_DATA" not in os.environ, reason="REAL_DATA names no folder with real rows")

DATASET = "gbharti/finance-alpaca"
# In one process: each would load PyTorch first.
PUBLISHER = """
import sys
from evaluation import evaluate
from push import publish
from recipes import train

run = sys.argv[1]
train.main([
    "--config", "recipes/finance.yaml", "--output_dir", run, "--max_steps", "10", "--per_device_train_batch_size", "4",
    "--gradient_accumulation_steps", "1", "--eval_steps", "10", "--save_steps", "10", "--max_new_tokens", "4",
])
evaluate.main([run])
publish.main([run])
"""


def t5_small(tokenizer: Path, folder: Path) -> dict[str, bytes]:
    """A randomly initialised T5 of T5-small's shape (d_model 512, 6 + 6 layers, 32,128 rows), its head untied."""
    import torch
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(vocab_size=32_128, d_model=512, d_kv=64, d_ff=1024, num_layers=6, num_heads=8,
                      feed_forward_proj="gated-gelu", decoder_start_token_id=0)  # fmt: skip
    model = T5ForConditionalGeneration(config)
    # transformers 5 ties the head of a model made from a config; FLAN-T5's own is untied.
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.05)
    model.config.tie_word_embeddings = False
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_loop_on_real_rows(tmp_path):
    real = Path(os.environ["REAL_DATA"])
    rows = real / "hub" / "datasets" / DATASET
    repositories = [
        Repository("model", "google/flan-t5-large", t5_small(real / "tokenizer", tmp_path / "t5")),
        Repository("dataset", DATASET, {path.name: path.read_bytes() for path in rows.iterdir()}),
    ]
    with running(tmp_path / "hub", repositories) as hub:
        # Beside other tests, a second thread waits for its core more than it computes.
        environ = hub.env(tmp_path / "home", hub.token("local-user")) | {"OMP_NUM_THREADS": "1"}

        def process(*words: str) -> str:
            answer = subprocess.run([sys.executable, *words], env=environ, capture_output=True, text=True)
            assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-2000:]
            return answer.stdout

        run = tmp_path / "finance"
        process("-c", PUBLISHER, str(run))
        printed = process("-m", "evaluation.reproduce", "local-user/flan-t5-large-finance")
    assert printed.splitlines()[-1].startswith("REPRODUCED local-user/flan-t5-large-finance@")
    record = load_record(run)
    # The rule keeps 4,110 of the 5,000 rows, 4 of them without an answer: counted with Python's len() over the file.
    assert (record.data.loaded, sum(record.data.dropped.values()), record.data.test) == (5_000, 894, 411)
    # q and v of 18 attentions, A (512 × 32) and B (32 × 512) each.
    assert record.model.trainable == 18 * 2 * 2 * 512 * 32
    assert not record.miniature and record.training.steps == 10
    losses = [point.loss for point in record.training.history if point.loss is not None]
    assert losses[-1] < losses[0]
