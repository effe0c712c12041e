"""Tokenizers of repositories without a tokenizer.json: the ids of transformers' own classes, and what is refused."""

import json

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from tiny_families import tokenizer_files
from transformers import AutoTokenizer

from hub.pins import pin
from recipes.base_model import base_kind
from recipes.data.tokenizer import encode, load_tokens
from recipes.training.model import load_tokenizer
from record.errors import UserError

TEXTS = ["Hello, world", "a < b", " two  spaces\n\nand\ta line ", "</s> <extra_id_1>x<pad>", "ﬁne ½ e\u0301", "",
         "Überweisung 今天", "special <mask> piece", "x<sep>y", "🙂 is it"]  # fmt: skip
TYPES = {"byt5": "t5", "codet5": "t5", "mbart50": "mbart"}


def repository(kind, folder, **changes):
    """The family's files without weights, as `changes` leave them: None takes one out."""
    tokenizer_files(kind, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": TYPES.get(kind, kind)}))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files = {name: content for name, content in (files | changes).items() if content is not None}
    repo = f"local-user/files-{kind}{len(changes)}"
    HfApi().create_repo(repo, exist_ok=True)
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    HfApi().create_commit(repo, operations, commit_message="A tokenizer")
    return pin("model", repo, "main")


@pytest.mark.parametrize("kind", ["byt5", "bart", "codet5", "mbart50", "pegasus"])
def test_the_ids_are_those_of_transformers_own_class(kind, tmp_path):
    base = repository(kind, tmp_path)
    languages = ("en_XX", "de_DE") if kind == "mbart50" else None
    theirs, ours = AutoTokenizer.from_pretrained(base.id), load_tokens(base, [], languages)
    assert type(theirs).__name__ != "TokenizersBackend" and base_kind(base) == kind
    assert theirs(TEXTS)["input_ids"] == encode(ours, TEXTS)
    if languages:
        theirs.src_lang, theirs.tgt_lang = languages
        assert theirs(text_target=TEXTS)["input_ids"] == encode(ours, TEXTS, targets=True)
    # What is published is read back as such.
    load_tokenizer(base, [], languages).save_pretrained(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert saved(TEXTS)["input_ids"] == encode(ours, TEXTS)
    assert saved.decode(encode(ours, ["Überweisung 3"])[0], skip_special_tokens=True).strip().endswith("weisung 3")


def test_a_text_of_bytes_that_ends_amid_a_character_loses_no_other(tmp_path):
    tokens = load_tokens(repository("byt5", tmp_path), [])
    assert tokens.decode(tokens.encode("grün für ü").ids[:-2]) == "grün für \ufffd"


@pytest.mark.parametrize(
    ("kind", "changes", "line"),
    [
        ("marian", {"tokenizer.json": None}, "one vocabulary for sources and one for targets, which one file cannot"),
        ("m2m_100", {"tokenizer.json": None}, "holds no tokenizer.json: save one in a copy of it"),
        ("bart", {"vocab.json": b"[]"}, "the tokenizer's files of local-user/files-bart1 are not read: a part is"),
        ("pegasus", {"spiece.model": b"\xff" * 40}, "it is no SentencePiece model"),
        ("mbart50", {"tokenizer_config.json": b"[]"}, "tokenizer_config.json of local-user/files-mbart501 cannot be"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_to_do(kind, changes, line, tmp_path):
    base = repository(kind, tmp_path, **changes)
    with pytest.raises(UserError) as refusal:
        load_tokens(base, [], ("en_XX", "de_DE") if kind.startswith("m") and kind != "marian" else None)
    assert line in str(refusal.value) and "\n" not in str(refusal.value)
