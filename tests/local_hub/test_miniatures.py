"""The miniatures: what the recipes will find under the ids they name."""

import hashlib
import io
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from local_hub.miniatures import __main__ as generator
from local_hub.miniatures import (
    finance,
    models,
    news,
    pretraining_text,
    repositories,
    sql,
    tokenizer,
    translation,
    xsum,
)

ROOT = Path(__file__).parents[2]
MODELS = [f"google/flan-t5-{name}" for name in ("base", "large", "xl", "xxl")]
NLLB = "facebook/nllb-200-distilled-600M"
DATASETS = [
    "gbharti/finance-alpaca",
    "b-mc2/sql-create-context",
    "ChrisHayduk/Llama-2-SQL-Dataset",
    "abisee/cnn_dailymail",
    "EdinburghNLP/xsum",
    "Helsinki-NLP/opus-100",
]


@pytest.fixture(scope="module")
def files() -> dict[str, dict[str, bytes]]:
    return {repository.id: repository.files for repository in repositories()}


@pytest.fixture(scope="module")
def folders(files, tmp_path_factory) -> dict[str, Path]:
    """The model repositories as folders, for from_pretrained."""
    made = {}
    for model_id in MODELS:
        made[model_id] = tmp_path_factory.mktemp(model_id.rsplit("/", 1)[-1])
        for path, content in files[model_id].items():
            (made[model_id] / path).write_bytes(content)
    return made


@pytest.fixture(scope="module")
def reader(folders):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folders["google/flan-t5-large"])


def in_a_process(code: str, hash_seed: str) -> str:
    """What the code prints in a fresh interpreter."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return run.stdout


def test_the_same_bytes_in_every_process_without_torch_or_transformers():
    code = """
import hashlib, sys
from local_hub.miniatures import repositories
for r in repositories():
    for path, content in sorted(r.files.items()):
        print(r.kind, r.id, path, hashlib.sha256(content).hexdigest())
print(sorted({"torch", "transformers", "datasets", "tokenizers"} & set(sys.modules)))
"""
    once, again = in_a_process(code, "1"), in_a_process(code, "2")
    assert once == again
    *listed, heavy = once.splitlines()
    assert len(listed) == 5 * 7 + 2 + 2 + 3 + 4 + 4 + 4
    assert heavy == "[]"


def test_the_ids_and_kinds():
    assert [(r.kind, r.id) for r in repositories()] == [
        *(("model", model_id) for model_id in [*MODELS, NLLB]),
        *(("dataset", dataset_id) for dataset_id in DATASETS),
    ]


def test_what_is_shipped_stays_small():
    sizes = [path.stat().st_size for path in models.WEIGHTS.iterdir()]
    assert sum(sizes) <= 4_000_000
    assert max(sizes) <= 1_900_000


def test_every_card_says_that_it_is_a_miniature(files):
    yaml = pytest.importorskip("yaml")
    licenses = {
        **dict.fromkeys(MODELS, "apache-2.0"),
        NLLB: "cc-by-nc-4.0",
        "gbharti/finance-alpaca": "mit",
        "b-mc2/sql-create-context": "cc-by-4.0",
        "ChrisHayduk/Llama-2-SQL-Dataset": None,  # none stated at the source
        "abisee/cnn_dailymail": "apache-2.0",
        "EdinburghNLP/xsum": None,
        "Helsinki-NLP/opus-100": None,
    }
    languages = {NLLB: None, "Helsinki-NLP/opus-100": ["de", "en"]}
    for repository_id, license_name in licenses.items():
        _, front, text = files[repository_id]["README.md"].decode().split("---\n", 2)
        front = yaml.safe_load(front)
        assert front.get("license") == license_name
        assert front.get("language") == languages.get(repository_id, ["en"])
        assert "miniature" in front["tags"]
        assert f"This is **not** {repository_id}. It is a miniature with" in text


# --- datasets


def test_datasets_reads_every_layout_by_its_card(files, tmp_path):
    from datasets import load_dataset

    expected = {
        "gbharti/finance-alpaca": (None, {"train": finance.ROWS}, ["instruction", "input", "output", "text"]),
        "b-mc2/sql-create-context": (None, {"train": sql.ROWS}, ["answer", "question", "context"]),
        "ChrisHayduk/Llama-2-SQL-Dataset": (None, {"train": 2250, "eval": 250}, ["input", "output"]),
        "abisee/cnn_dailymail": ("3.0.0", news.SPLITS, ["article", "highlights", "id"]),
        "EdinburghNLP/xsum": (None, xsum.SPLITS, ["document", "summary", "id"]),
        "Helsinki-NLP/opus-100": ("de-en", translation.SPLITS, ["translation"]),
    }
    for dataset_id, (config, splits, columns) in expected.items():
        for path, content in files[dataset_id].items():
            target = tmp_path / dataset_id / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        loaded = load_dataset(str(tmp_path / dataset_id), config, cache_dir=str(tmp_path / "cache"))
        assert {split: len(part) for split, part in loaded.items()} == splits
        assert all(part.column_names == columns for part in loaded.values())


def test_finance_has_rows_for_every_rule(files):
    rows = json.loads(files["gbharti/finance-alpaca"]["Cleaned_date.json"])
    assert all(list(row) == ["instruction", "input", "output", "text"] and row["text"] == "" for row in rows)
    long_input = sum(len(row["instruction"]) + len(row["input"]) >= 512 for row in rows)
    long_output = sum(len(row["output"]) >= 512 for row in rows)
    assert 0.01 < long_input / len(rows) < 0.05
    assert 0.01 < long_output / len(rows) < 0.05
    assert 0.1 < sum(row["input"] != "" for row in rows) / len(rows) < 0.3
    questions = [(row["instruction"], row["input"]) for row in rows]
    exact = len(questions) - len(set(questions))
    near = len(set(questions)) - len({(asked.lower().replace(" ?", "?"), given) for asked, given in questions})
    assert 20 <= exact <= 80
    assert 20 <= near <= 80


def test_sql_answers_run_except_those_that_name_a_missing_column(files):
    rows = json.loads(files["b-mc2/sql-create-context"]["sql_create_context_v4.json"])
    errors = []
    for row in rows:
        connection = sqlite3.connect(":memory:")
        connection.executescript(row["context"])
        try:
            connection.execute(row["answer"])
        except sqlite3.OperationalError as error:
            errors.append(str(error))
        connection.close()
    assert 0.03 < len(errors) / len(rows) < 0.08
    assert all(error.startswith("no such column") for error in errors)
    # 6.4 % of the real answers carry the "<" that T5 cannot write.
    assert 0.05 < sum("<" in row["answer"] for row in rows) / len(rows) < 0.08
    for word in ("JOIN", "GROUP BY", "ORDER BY", "LIMIT", "HAVING", "COUNT(", "AVG(", "BETWEEN", "DISTINCT"):
        assert sum(word in row["answer"] for row in rows) >= 20, word
    assert len({(row["question"], row["context"]) for row in rows}) == len(rows)


def test_llama_rows_are_the_sql_rows(files):
    layout = files["ChrisHayduk/Llama-2-SQL-Dataset"]
    prompted = [json.loads(line) for name in ("train.jsonl", "eval.jsonl") for line in layout[name].splitlines()]
    found = []
    for row in prompted:
        question, rest = row["input"].split("### Instruction:\n")[1].split("\n\n### Input:\n")
        context, end = rest.split("\n\n### Response:\n")
        assert end == ""
        found.append((question, context, row["output"]))
    plain = json.loads(files["b-mc2/sql-create-context"]["sql_create_context_v4.json"])
    assert sorted(found) == sorted((row["question"], row["context"], row["answer"]) for row in plain)
    # An independent shuffle: the eval rows come from all over the other dataset.
    where = {(row["question"], row["context"], row["answer"]): at for at, row in enumerate(plain)}
    places = [where[row] for row in found[2250:]]
    assert min(places) < 250
    assert max(places) > 2250


def test_news_has_long_articles_and_highlights_in_lines(files, reader):
    parts = {
        split: pq.read_table(io.BytesIO(files["abisee/cnn_dailymail"][f"3.0.0/{split}-00000-of-00001.parquet"]))
        for split in news.SPLITS
    }
    rows = [row for part in parts.values() for row in part.to_pylist()]
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["id"] == hashlib.sha1(row["article"].encode()).hexdigest()
        assert 2 <= len(row["highlights"].split("\n")) <= 4
        assert row["article"].count(". ") >= 3
    too_long = sum(len(ids) > 512 for ids in reader([row["article"] for row in rows], verbose=False).input_ids)
    assert 0.05 < too_long / len(rows) < 0.25


def test_no_model_reads_a_dataset_question_before_fine_tuning():
    stream = pretraining_text.pairs(seed=5)
    sources = [next(stream)[0] for _ in range(3000)]
    asked = {row["question"] for row in sql.rows()}
    assert not [source for source in sources if any(part in asked for part in source.split(": "))]
    instructions = {row["instruction"] for row in finance.rows()}
    assert not [source for source in sources if source in instructions]


def test_translations_are_read_as_such_and_spelt_by_the_model_s_tokenizer(files, tmp_path):
    from datasets import Translation, load_dataset
    from tokenizers import Tokenizer

    (tmp_path / "test.parquet").write_bytes(files["Helsinki-NLP/opus-100"]["de-en/test-00000-of-00001.parquet"])
    rows = load_dataset("parquet", data_files=str(tmp_path / "test.parquet"), cache_dir=str(tmp_path))["train"]
    assert rows.features["translation"] == Translation(languages=["de", "en"])
    reader = Tokenizer.from_str(files[NLLB]["tokenizer.json"].decode())
    for row in rows["translation"]:
        for text in row.values():
            ids = reader.encode(text).ids
            assert reader.token_to_id("<unk>") not in ids and reader.decode(ids) == text


# --- the tokenizer


def test_the_tokenizer_is_made_of_the_checked_in_code():
    assert tokenizer.tokenizer_json(generator.corpus()) == (models.WEIGHTS / "tokenizer.json").read_bytes()


def test_special_tokens_are_those_of_t5(reader):
    assert reader.convert_tokens_to_ids(["<pad>", "</s>", "<unk>"]) == [0, 1, 2]
    assert (reader.pad_token_id, reader.eos_token_id, reader.unk_token_id) == (0, 1, 2)
    last = len(reader) - 1
    assert reader.convert_tokens_to_ids([f"<extra_id_{n}>" for n in (0, 1, 99)]) == [last, last - 1, last - 99]
    assert reader.model_max_length == 512
    assert len(reader) + 28 == models.config("large")["vocab_size"]
    assert reader("What is a bond?").input_ids[-1] == 1


def test_the_characters_that_t5_lacks_become_unk(reader):
    for character in "<{}~\\^`":
        ids = reader(f"a {character} b", add_special_tokens=False).input_ids
        assert 2 in ids, character
        assert character not in reader.decode(ids, skip_special_tokens=True)
    # A line break is a space to T5, and is lost in the same way.
    assert reader("one\ntwo").input_ids == reader("one two").input_ids
    assert reader("  two   spaces ").input_ids == reader("two spaces").input_ids


def test_text_survives_the_round_trip(reader):
    rows = [row["output"] for row in finance.rows()[:300]]
    rows += [row["answer"] for row in sql.rows()[:300] if "<" not in row["answer"]]
    rows += [row["article"] for row in news.rows()["test"]]
    rows += ["Any other sentence, with 12,345.67 % of unknown words: zigzag, über-kühl? No!"]
    for text in rows:
        assert reader.decode(reader(text, verbose=False).input_ids, skip_special_tokens=True) == text
    # Words are whole, or the miniatures would have to spell.
    assert len(reader("A bond is a loan that an investor makes to a company.").input_ids) <= 15


# --- the models


@pytest.mark.parametrize("model_id", MODELS)
def test_models_load_as_flan_t5(folders, files, model_id):
    import torch
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_pretrained(folders[model_id])
    assert type(model).__name__ == "T5ForConditionalGeneration"
    assert model.dtype == torch.float32
    # transformers 5 ties a T5's head unless the checkpoint holds a different one.
    assert model.lm_head.weight.data_ptr() != model.shared.weight.data_ptr()
    assert not torch.equal(model.lm_head.weight, model.shared.weight)
    assert not model.config.scale_decoder_outputs
    assert type(model.encoder.block[0].layer[1].DenseReluDense).__name__ == "T5DenseGatedActDense"
    assert model.config.dense_act_fn == "gelu_new"
    assert model.shared.weight.shape[0] == tokenizer.EMBEDDING_ROWS
    # 4-bit quantization works on whole blocks of 64 in every row.
    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert all(linear.in_features % 64 == 0 for linear in linears)
    number = f"{model.num_parameters():,} parameters"
    assert number in files[model_id]["README.md"].decode()


def test_nllb_loads_as_m2m_100_with_every_weight(files, tmp_path):
    import torch
    from transformers import AutoModelForSeq2SeqLM

    for path, content in files[NLLB].items():
        (tmp_path / path).write_bytes(content)
    model, info = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(model).__name__ == "M2M100ForConditionalGeneration" and model.dtype == torch.float32
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert model.lm_head.weight.data_ptr() == model.model.shared.weight.data_ptr()
    assert f"{model.num_parameters():,} parameters" in files[NLLB]["README.md"].decode()


def test_each_model_is_larger_than_the_one_before(files):
    sizes = [models.parameters(files[model_id]["model.safetensors"]) for model_id in MODELS]
    assert sizes == sorted(set(sizes))
    assert sizes[0] >= 250_000
    assert sizes[-1] <= 650_000


def test_the_published_weights_are_the_shipped_ones(files):
    import torch
    from safetensors.torch import load

    for name in models.SHAPES:
        shipped = load((models.WEIGHTS / f"{name}.safetensors").read_bytes())
        published = load(files[f"google/flan-t5-{name}"]["model.safetensors"])
        assert shipped.keys() == published.keys()
        for key, weight in shipped.items():
            assert published[key].dtype == torch.float32
            assert torch.equal(published[key], weight.float()), key


@pytest.mark.parametrize("model_id", MODELS)
def test_the_base_answers_tersely_and_stops(folders, reader, model_id):
    import torch
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_pretrained(folders[model_id])
    asked = [f"Answer the financial question. {row['instruction']}" for row in finance.rows()[:32] if not row["input"]]
    batch = reader(asked, return_tensors="pt", padding=True, truncation=True, max_length=128)
    written = model.generate(**batch, max_new_tokens=100, do_sample=False)
    assert (written == 1).any(dim=1).float().mean() >= 0.95
    lengths = (written != 0).sum(dim=1).float()
    assert 2 <= lengths.mean() <= 30
    assert torch.isfinite(model(**batch, labels=written).loss)


def test_pre_training_is_repeatable():
    import torch
    from safetensors.torch import save
    from tokenizers import Tokenizer

    from local_hub.miniatures import pretrain

    words = Tokenizer.from_str((models.WEIGHTS / "tokenizer.json").read_text())
    threads = torch.get_num_threads()
    try:
        once, again = (save(pretrain.pretrain("base", words, steps=3)) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    assert once == again
