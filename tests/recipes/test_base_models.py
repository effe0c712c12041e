"""Base models as they are published: which tokenizers and weights are read, and what is said of the others."""

import json
import os
from pathlib import Path

import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi
from sentencepiece import sentencepiece_model_pb2
from short_runs import publish, train_short
from transformers import AutoTokenizer, MT5Config, MT5ForConditionalGeneration

from evaluation import evaluate
from evaluation.checks import _check_tokenizer
from evaluation.reproduce import reproduce
from hub.pins import pin
from local_hub.miniatures import models
from recipes.config import parse_recipe
from recipes.data.tokenizer import encode, load_tokens
from recipes.training.model import load_base, load_tokenizer, trained_length
from record.errors import UserError
from scoring.decoding.slot_decoding import greedy

REAL_DATA = os.environ.get("REAL_DATA")
FILES = {name: content for name, content in models.files("base").items() if name != "model.safetensors"}
CONTENT = json.loads(FILES["tokenizer.json"])
TEXTS = ["Hello, world", "a < b", " two  spaces\n\nand\ta line ", "</s> <extra_id_3>x<pad>", "ﬁne ½ e\u0301", "",
         "Überweisung 今天", "special <sep> piece", "x<sep>y"]  # fmt: skip


def spiece(pieces=(), table=b"", kind=1):
    """The miniature's vocabulary as a SentencePiece model, with further `pieces` and their kinds."""
    model = sentencepiece_model_pb2.ModelProto()
    plain = [(piece, score, 1) for piece, score in CONTENT["model"]["vocab"] if "<extra_id" not in piece]
    for piece, score, number in [*plain, *pieces]:
        special = {"<unk>": 2, "<pad>": 3, "</s>": 3}.get(piece, number)
        model.pieces.add(piece=piece, score=score, type=special)
    model.trainer_spec.model_type, model.trainer_spec.unk_id = kind, 2
    model.normalizer_spec.precompiled_charsmap = table
    return model.SerializeToString()


def config(**keys):
    """The miniature's tokenizer_config.json with other keys; None removes one."""
    content = json.loads(FILES["tokenizer_config.json"]) | keys
    return json.dumps({key: value for key, value in content.items() if value is not None}).encode()


def content(**parts):
    return json.dumps(CONTENT | parts).encode()


def base_of(name, changes, folder):
    """A repository of the miniature's files with `changes`; None leaves a file out."""
    repo = f"local-user/base-{name.replace(' ', '-').replace(',', '')}"
    HfApi().create_repo(repo, exist_ok=True)
    files = {path: data for path, data in (FILES | changes).items() if data is not None}
    for path, data in files.items():
        (folder / path).write_bytes(data)
    HfApi().create_commit(repo, [CommitOperationAdd(path, folder / path) for path in files], commit_message="base")
    return pin("model", repo, "main")


BARE = {"tokenizer.json": None, "tokenizer_config.json": None, "special_tokens_map.json": None}
READ = {
    "plain": {},
    "only spiece.model": {"tokenizer.json": None, "spiece.model": spiece()},
    "nothing but spiece.model": BARE | {"spiece.model": spiece()},
    "both": {"spiece.model": spiece([("other", -3.0, 1)])},
    # As mT5's is published.
    "no sentinels": {"tokenizer.json": None, "special_tokens_map.json": None, "spiece.model": spiece(),
                     "tokenizer_config.json": config(extra_ids=0, additional_special_tokens=None)},
    "a symbol of its own": BARE | {"spiece.model": spiece([("<sep>", 0.0, 4)])},
    "no class": {"tokenizer_config.json": config(tokenizer_class=None)},
    "the class of an older transformers": {"tokenizer_config.json": config(tokenizer_class="T5TokenizerFast")},
    "a normalizer that T5Tokenizer leaves out": {"tokenizer.json": content(normalizer={"type": "Lowercase"})},
}  # fmt: skip


def same_ids(base, folder):
    slow, fast = AutoTokenizer.from_pretrained(base.id, revision=base.revision), load_tokens(base, [])
    assert slow(TEXTS)["input_ids"] == [row.ids for row in fast.encode_batch(TEXTS)] == encode(fast, TEXTS)
    assert load_tokenizer(base, ["<"])("a < b")["input_ids"] == load_tokens(base, ["<"]).encode("a < b").ids
    # As a release is checked.
    (folder / "saved").mkdir()
    for added in ([], ["<"]):
        load_tokenizer(base, added).save_pretrained(folder / "saved")
        _check_tokenizer(folder / "saved", base, load_tokens(base, added))


@pytest.mark.parametrize("case", READ)
def test_the_ids_are_those_of_auto_tokenizer(case, tmp_path):
    base = base_of(case, READ[case], tmp_path)
    same_ids(base, tmp_path)
    stated = case not in ("nothing but spiece.model", "a symbol of its own")
    assert AutoTokenizer.from_pretrained(base.id).model_max_length == (512 if stated else int(1e30))
    # The miniature's config.json states 512, too.
    assert trained_length(base, load_tokenizer(base, [])) == 512


@pytest.mark.skipif(REAL_DATA is None, reason="REAL_DATA names no folder with real rows")
def test_the_real_table_of_characters_is_read_out_of_a_spiece_model(tmp_path):
    import base64

    real = json.loads(Path(REAL_DATA, "tokenizer/tokenizer.json").read_text())
    steps = real["normalizer"].get("normalizers", [real["normalizer"]])
    table = base64.b64decode(next(step for step in steps if step["type"] == "Precompiled")["precompiled_charsmap"])
    same_ids(base_of("real table", BARE | {"spiece.model": spiece(table=table)}, tmp_path), tmp_path)


OTHER_CLASS = config(tokenizer_class="PreTrainedTokenizerFast")
REFUSED = {
    "nothing": (BARE, "holds neither tokenizer.json nor spiece.model: save the first in a copy of it"),
    "NFKC": ({"tokenizer_config.json": OTHER_CLASS}, "not as a T5's (its normalizer, pre_tokenizer): its ids could"),
    "lower case": ({"tokenizer_config.json": OTHER_CLASS, "tokenizer.json": content(normalizer={"type": "Lowercase"})},
                   "set `tokenizer_class: T5Tokenizer`"),
    "BPE": (BARE | {"spiece.model": spiece(kind=2)}, "its SentencePiece model is not a Unigram"),
    "no model": (BARE | {"spiece.model": b"\xff" * 40}, "it is no SentencePiece model"),
    "cut off": (BARE | {"spiece.model": spiece()[:-9000]}, "it is no SentencePiece model"),
    "too many sentinels": ({"tokenizer.json": None, "spiece.model": spiece(), "tokenizer_config.json":
                            config(extra_ids=10**9)}, "`extra_ids`"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_other_tokenizers_are_refused_before_training(case, tmp_path):
    changes, line = REFUSED[case]
    with pytest.raises(UserError) as refusal:
        load_tokenizer(base_of(case, changes, tmp_path), [])
    assert line in str(refusal.value) and "\n" not in str(refusal.value)


def test_weights_that_are_only_a_pickle_are_refused_with_what_to_do(tmp_path):
    pickle = tmp_path / "pytorch_model.bin"
    torch.save({"lm_head.weight": torch.zeros(1280, 64)}, pickle)
    base = base_of("pickle", {"pytorch_model.bin": pickle.read_bytes()}, tmp_path)
    with pytest.raises(UserError) as refusal:
        load_base(base, parse_recipe(["--config", "recipes/finance.yaml"]).model)
    assert "holds no weights as safetensors" in str(refusal.value) and "`model_revision`" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_mt5_with_only_a_spiece_model_is_trained_published_and_reproduced(tmp_path):
    torch.manual_seed(0)
    shape = {"vocab_size": 1280, "d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    shape = MT5Config(**shape, decoder_start_token_id=0)
    MT5ForConditionalGeneration(shape).save_pretrained(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert json.loads(files["config.json"])["model_type"] == "mt5"
    base = base_of("mt5", files | BARE | {"spiece.model": spiece()}, tmp_path)
    model = MT5ForConditionalGeneration.from_pretrained(base.id).eval()
    prompts = [[5, 9, 30, 1], [700, 1], [8] * 20 + [1]]
    whole = [model.generate(torch.tensor([ids]), max_new_tokens=9, do_sample=False)[0, 1:].tolist() for ids in prompts]
    with torch.inference_mode():
        outputs = greedy(model, prompts, 9, 2)
    assert outputs == [ids[: ids.index(1)] if 1 in ids else ids for ids in whole]
    overrides = ("--model_name_or_path", base.id, "--max_new_tokens", "4", "--adapter_name", "tiny-mt5")
    run = train_short(tmp_path / "finance", *overrides)
    evaluate.main([str(run)])
    commit = publish(run)
    verdict, _ = reproduce("local-user/tiny-mt5", commit)
    assert verdict.verdict == "REPRODUCED", verdict.reason
