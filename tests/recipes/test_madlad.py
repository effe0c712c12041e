"""MADLAD, a T5 v1.1 whose prompts begin with the language to write: the recipe that docs/trying.md shows."""

import json

import pytest
import transformers
import yaml
from huggingface_hub import CommitOperationAdd, HfApi
from readme_commands import ROOT, blocks
from short_runs import publish
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from evaluation import evaluate
from evaluation.reproduce import reproduce
from hub.pins import pin
from local_hub.miniatures import models, translation
from recipes import train
from recipes.data.tokenizer import encode, load_tokens
from record.predictions import load_predictions
from record.run_record import load_record

BASE = "google/madlad400-3b-mt"
# Languages are pieces like any others, but for a score of 0; the special tokens stand as T5's.
PIECES = ["<pad>", "</s>", "<unk>", "<2de>", "<2en>"]


def shown_recipe():
    shown = (yaml.safe_load(block) for block in blocks(ROOT / "docs" / "trying.md", "yaml"))
    return next(keys for keys in shown if keys.get("model_name_or_path") == BASE)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny T5 v1.1 with random weights and pieces for languages."""
    folder = tmp_path_factory.mktemp("madlad")
    content = json.loads(models.files("base")["tokenizer.json"])
    plain = [[piece, score] for piece, score in content["model"]["vocab"] if not piece.startswith("<")]
    content["model"]["vocab"] = [[piece, 0.0] for piece in PIECES] + plain
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in PIECES]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0}))
    transformers.set_seed(0)
    rows = len(content["model"]["vocab"])
    config = T5Config(vocab_size=rows, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4,
                      decoder_start_token_id=0, feed_forward_proj="gated-gelu", tie_word_embeddings=False)  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    HfApi().create_repo("local-user/tiny-madlad", exist_ok=True)
    operations = [CommitOperationAdd(path.name, path) for path in folder.iterdir()]
    HfApi().create_commit("local-user/tiny-madlad", operations, commit_message="A MADLAD with random weights")
    return pin("model", "local-user/tiny-madlad", "main")


def test_the_language_is_one_token_in_the_prompt_as_transformers_reads_it(base):
    tokens = load_tokens(base, [])
    ids = encode(tokens, ["<2de> Anna waits at the market."])[0]
    # As any other word, it has the mark of a word's beginning before it.
    assert (
        ids[:2] == [tokens.token_to_id("▁"), tokens.token_to_id("<2de>")]
        and ids[-1] == 1
        and tokens.token_to_id("<unk>") not in ids
    )
    theirs = AutoTokenizer.from_pretrained(base.id, revision=base.revision)
    assert theirs("<2de> Anna waits at the market.").input_ids == ids


def test_the_shown_recipe_goes_from_training_to_reproduced(base, tmp_path):
    path = tmp_path / "madlad-en-de.yaml"
    path.write_text(yaml.safe_dump(shown_recipe() | {"model_name_or_path": base.id}))
    short = ["--max_steps", "2", "--max_new_tokens", "5", "--logging_steps", "1", "--disable_tqdm", "true",
             "--per_device_train_batch_size", "8"]  # fmt: skip
    train.main(["--config", str(path), "--output_dir", str(tmp_path / "run"), *short])
    evaluate.main([str(tmp_path / "run")])
    record, predictions = load_record(tmp_path / "run"), load_predictions(tmp_path / "run")
    pairs = translation.rows()["test"]
    assert predictions.prompt == [f"<2de> {pair['en']}" for pair in pairs]
    assert predictions.reference == [pair["de"] for pair in pairs] and set(record.scores.base) == {"chrf", "bleu"}
    commit = publish(tmp_path / "run")
    verdict, _ = reproduce(f"local-user/{shown_recipe()['adapter_name']}", commit)
    assert (verdict.verdict, verdict.level) == ("REPRODUCED", "generate"), verdict.reason
