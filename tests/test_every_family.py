"""Every family's tiny model from training to REPRODUCED, its exports, its Space and the service."""

import contextlib
import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import CommitOperationAdd, HfApi
from short_runs import publish
from tiny_families import LANGUAGES, ROWS, base_of

from evaluation import evaluate
from evaluation.reproduce import reproduce
from recipes import train
from recipes.base_model import family_of
from recipes.families import FAMILIES
from recipes.training.model import load_tokenizer
from record.errors import UserError
from record.predictions import load_predictions
from record.run_record import load_record
from serving.export.formats import answers, write
from serving.export.make import export_contract, from_run, merged, refuse_format
from serving.loading import load
from serving.space.page import answers as page
from serving.space.publish import lay_out

TABLE = yaml.safe_load(Path("readme/families.yaml").read_text())
# T5 and mT5 are trained by most other tests.
KINDS = [kind for kind in FAMILIES if kind not in ("t5", "mt5")]
FORMATS = ("merged", "int8", "ct2")


@pytest.fixture(scope="module")
def rows():
    HfApi().create_repo("local-user/family-rows", repo_type="dataset", exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    operation = CommitOperationAdd("rows.jsonl", lines)
    HfApi().create_commit("local-user/family-rows", [operation], commit_message="Rows", repo_type="dataset")


def recipe_of(kind, folder, **keys):
    source, target = LANGUAGES.get(kind, (None, None))
    content = {
        "title": "sums", "adapter_name": f"tiny-{kind}-sums", "model_name_or_path": f"local-user/tiny-{kind}",
        "use_peft": True, "lora_task_type": "SEQ_2_SEQ_LM", "dataset_name": "local-user/family-rows",
        "prompt": "{question}", "target": "{answer}", "max_steps": 3, "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no",
        "disable_tqdm": True, "max_new_tokens": 5, "tokens_per_micro_batch": 256, "split": "random",
        "split_seed": 1, "source_language": source, "target_language": target,
    }  # fmt: skip
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (content | keys).items() if value is not None}))
    return str(path)


@pytest.mark.parametrize("kind", KINDS)
def test_from_training_to_reproduced(kind, rows, tmp_path):
    base, run, cells = base_of(kind, tmp_path), tmp_path / "run", set(TABLE[kind])
    train.main(["--config", recipe_of(kind, tmp_path), "--output_dir", str(run)])
    evaluate.main([str(run)])
    record = load_record(run)
    assert record.model.type == kind and record.training.steps == 3
    targets = json.loads((run / "adapter_config.json").read_text())["target_modules"]
    assert sorted(targets) == sorted(FAMILIES[kind].lora_targets)
    tokenizer = load_tokenizer(base, [], LANGUAGES.get(kind))
    if FAMILIES[kind].language == "first":
        target = tokenizer.convert_tokens_to_ids(LANGUAGES[kind][1])
        assert {ids[0] for ids in load_predictions(run).adapter_tokens} == {target}
    exported(run, record, tokenizer, cells, tmp_path)
    served(run, cells)
    on_a_page(kind, run, tmp_path)
    commit = publish(run)
    verdict, _ = reproduce(f"local-user/tiny-{kind}-sums", commit)
    assert (verdict.verdict, verdict.level) == ("REPRODUCED", "generate"), verdict.reason
    if kind in ("m2m_100", "t5gemma"):
        # The one begins with a token that is forced on it, the other with its decoder's own.
        verdict, _ = reproduce(f"local-user/tiny-{kind}-sums", commit, level="prefill")
        assert (verdict.verdict, verdict.evidence) == ("REPRODUCED", "margins"), verdict.reason
    card = HfApi().hf_hub_download(f"local-user/tiny-{kind}-sums", "README.md", revision=commit)
    assert f"encoder-decoder ({FAMILIES[kind].name})" in Path(card).read_text()
    quantized(kind, cells, tmp_path)


def exported(run, record, tokenizer, cells, folder):
    """The exports write what the adapter wrote, in 8 bits nearly so; the others are refused in one line."""
    source, predictions = from_run(run), load_predictions(run)
    base = record.pins.base_model
    for form in FORMATS:
        if form not in cells:
            with pytest.raises(UserError) as line:
                refuse_format(form, base.id, family_of(base))
            assert "\n" not in str(line.value)
            continue
        refuse_format(form, base.id, family_of(base))
        write(form, merged(source, tokenizer), tokenizer, folder / form)
        contract = export_contract(record.contract, form)
        outputs = answers(form, folder / form, tokenizer, predictions.prompt, contract)
        assert outputs == predictions.adapter_tokens or form == "int8", form
        assert len(outputs) == len(predictions.prompt)


def served(run, cells):
    """The service loads it, or says in one line what to do."""
    if "service" in cells:
        assert run.name in load([str(run)]).by_id
        return
    with pytest.raises(UserError, match="which the service does not decode: export the adapter") as line:
        load([str(run)])
    assert "\n" not in str(line.value)


def on_a_page(kind, run, folder):
    """The Space's own code writes what was scored."""
    (folder / "space").mkdir()
    config, predictions = lay_out(str(run), "main", folder / "space"), load_predictions(run)
    # The page loads the model whole: PEFT puts LoRA on the part for images too, which the adapter has nothing for.
    unseen = pytest.warns(UserWarning, match="vision_tower") if FAMILIES[kind].images else contextlib.nullcontext()
    with unseen:
        models = page.load(page.fetch(config))
    for adapter, texts in ((False, predictions.base), (True, predictions.adapter)):
        assert page.answer(models, predictions.prompt[0], adapter).text == texts[0]
    assert page.too_long(models, "much " * 90)[1].startswith("The input has ")


def quantized(kind, cells, folder):
    """A base in 4 bits is trained on."""
    assert "qlora" in cells
    run, keys = folder / "quantized", {"load_in_4bit": True, "max_steps": 2, "dtype": "float32"}
    train.main(["--config", recipe_of(kind, folder, **keys), "--output_dir", str(run)])
    record = load_record(run)
    assert record.model.quantized_layers > 0 and record.training.steps == 2
    assert all(point.loss for point in record.training.history if point.loss is not None)


def test_what_a_family_cannot_take_is_refused_before_training(rows, tmp_path, capsys):
    for kind, keys, line in (
        ("bart", {"prompt": "{question}" * 19}, "has 96 positions: set `length_rules` (`truncate"),
        ("bart", {"max_new_tokens": 97}, "set `max_new_tokens` to 96 at most"),
        ("bart", {"neftune_noise_alpha": 5}, "`neftune_noise_alpha` has no effect on BART"),
        ("bart", {"torch_compile": True}, "`torch_compile` has no effect on BART"),
        ("longt5", {"engine": "ctranslate2"}, "`engine: ctranslate2` does not decode LongT5"),
        ("longt5", {"added_tokens": ["<"]}, "`added_tokens` has no effect on LongT5"),
        ("byt5", {"added_tokens": ["<"]}, "`added_tokens` are for tokenizers like T5's"),
    ):
        base_of(kind, tmp_path)
        with pytest.raises(SystemExit):
            train.main(["--config", recipe_of(kind, tmp_path, **keys), "--output_dir", str(tmp_path / "run")])
        assert line in capsys.readouterr().err.strip().splitlines()[-1]
