"""Adapters and models that were not made here: scored, claims on them judged, and those scores repeated by others."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml
from foreign_adapters import BASE, KEYS, adapted, fitted, rouge_l, upload
from huggingface_hub import HfApi, parse_eval_result_entries
from peft import PrefixTuningConfig, get_peft_model
from result_files import compare_all
from safetensors.torch import load_file
from test_levels import ROOT, WITHOUT_TORCH, stranger
from torch import save
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from evaluation.check import command
from evaluation.reproduce import reproduce
from hub.pins import pin
from push.withdraw import withdraw
from record.command_line import run_command
from record.hashes import sha256_published
from record.predictions import load_predictions
from record.run_record import load_record

SCORED = {
    "rank": lambda: adapted(r=4, lora_alpha=16, use_rslora=True, rank_pattern={"SelfAttention.q": 2}),
    "dora": lambda: adapted(use_dora=True),
    "all-linear": lambda: adapted(target_modules="all-linear"),
    "head": lambda: adapted(modules_to_save=["lm_head"]),
}


def check(capsys, *words: str) -> tuple[int, str]:
    """The exit code of a check on the recipe `finance` in small, and what it printed."""
    code = 0
    try:
        run_command(command, [*words, *KEYS], "pubrep check")
    except SystemExit as end:
        code = end.code
    return code, capsys.readouterr().out


def last(printed: str) -> str:
    return printed.splitlines()[-1]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A LoRA adapter made with PEFT alone, its tokenizer, and the folder that `save_pretrained` wrote."""
    model, tokenizer = adapted()
    folder = tmp_path_factory.mktemp("plain")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer, folder


def variant(plain, tmp_path, name: str, edit=dict) -> str:
    """A repository with the plain adapter's files but for its configuration."""
    shutil.copytree(plain[2], tmp_path / name)
    return upload(name, tmp_path / name, edit)


@pytest.fixture(scope="module")
def published(plain, tmp_path_factory):
    """An evaluation-only release of the plain adapter and its folder: the base model's commit is named."""
    folder = tmp_path_factory.mktemp("evaluation")
    commit = pin("model", BASE, "main").revision
    repo_id = variant(plain, folder, "plain", lambda config: config | {"revision": commit})
    words = [repo_id, "--recipe", "finance", "--claim", "rougeL=0.99", "--record", str(folder / "release"),
             "--card", str(folder / "card")]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        run_command(command, [*words, *KEYS], "pubrep check")
    assert end.value.code == 1
    return upload("plain-evaluation", folder / "release"), folder


@pytest.fixture(scope="module")
def test_rows(published):
    predictions = load_predictions(published[1] / "release")
    return list(zip(predictions.prompt, predictions.reference, strict=True))


def judged(capsys, repo_id: str, truth: float, *words: str) -> str:
    """What a check prints that holds a true claim of ROUGE-L and a false one of ROUGE-1 against the scores."""
    claims = ("--claim", f"rougeL={truth:.4f}", "--claim", f"rouge1={truth - 0.2:.4f}")
    code, printed = check(capsys, repo_id, "--recipe", "finance", *claims, *words)
    verdicts = {line.split()[0]: line for line in printed.splitlines()[-2:]}
    assert code == 1 and verdicts.keys() == {"CONFIRMED", "CONTRADICTED"}, printed
    # Transformers' own generate and Google's ROUGE, to the last digit shown.
    assert f"ROUGE-L {truth:.3f} [" in verdicts["CONFIRMED"] and "ROUGE-1 0." in verdicts["CONTRADICTED"]
    return printed


@pytest.mark.parametrize("kind", SCORED)
def test_a_true_claim_is_confirmed_and_a_false_one_contradicted(kind, test_rows, tmp_path, capsys):
    model, tokenizer = SCORED[kind]()
    model.save_pretrained(tmp_path)
    printed = judged(capsys, upload(f"foreign-{kind}", tmp_path), rouge_l(model, tokenizer, test_rows))
    assert "adapter_config.json names no commit" in printed and "the repository holds none" in printed


def test_a_merged_export_scores_as_its_adapter(plain, test_rows, tmp_path, capsys):
    truth = rouge_l(plain[0], plain[1], test_rows)
    base = AutoModelForSeq2SeqLM.from_pretrained(BASE)
    merged = type(plain[0]).from_pretrained(base, plain[2]).merge_and_unload()
    merged.save_pretrained(tmp_path)
    plain[1].save_pretrained(tmp_path)
    repo_id = upload("foreign-merged", tmp_path)
    assert "the repository names none, the recipe does" in judged(capsys, repo_id, truth, "--model")
    code, printed = check(capsys, repo_id, "--recipe", "finance")
    assert code == 2 and "it holds a full model: add --model" in last(printed)


def test_a_full_model_is_scored_and_its_scores_are_repeated(test_rows, tmp_path, capsys):
    model, tokenizer = fitted(AutoModelForSeq2SeqLM.from_pretrained(BASE), AutoTokenizer.from_pretrained(BASE), 2e-3)
    model.save_pretrained(tmp_path / "model")
    repo_id = upload("foreign-full", tmp_path / "model")
    printed = judged(capsys, repo_id, rouge_l(model, tokenizer, test_rows), "--model", "--base", BASE, "--record",
                     str(tmp_path / "release"))  # fmt: skip
    assert "as whoever checked names it" in printed
    verdict, _ = reproduce(upload("foreign-full-evaluation", tmp_path / "release"))
    assert (verdict.verdict, verdict.evidence) == ("REPRODUCED", "tokens"), verdict.line


def test_another_base_named_gives_another_score(plain, test_rows, tmp_path, capsys):
    # Its layers have the same shapes where the adapter is, but other weights.
    repo_id = variant(plain, tmp_path, "other-base", lambda c: c | {"base_model_name_or_path": "google/flan-t5-base"})
    truth = rouge_l(plain[0], plain[1], test_rows)
    code, printed = check(capsys, repo_id, "--recipe", "finance", "--claim", f"rougeL={truth}")
    assert code == 1 and last(printed).startswith("CONTRADICTED ") and "google/flan-t5-base@" in printed
    code, printed = check(capsys, repo_id, "--recipe", "finance", "--claim", f"rougeL={truth}", "--base", BASE)
    assert code == 0 and last(printed).startswith("CONFIRMED ")


def pickled(folder):
    save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()


def with_tokens(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<sql>", "{"])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "edit", "refusal"),
    [(pickled, {}, "a pickle, which is not read: have it saved again"),
     (with_tokens, {}, "has 2 tokens that google/flan-t5-large lacks (<sql>, {)"),
     (None, {"base_model_name_or_path": "/home/somebody/flan-t5"}, "is no id on the Hub, but a folder of whoever"),
     (None, {"base_model_name_or_path": None}, "names no base model: name it by --base"),
     (None, {"base_model_name_or_path": "google/flan-t5-xl"}, "holds other tensors than adapter_config.json asks for"),
     (None, {"r": 16}, "it is of another base model, or of a larger vocabulary"),
     (None, {"init_lora_weights": "pissa"}, "by which PEFT changes the base model when it loads"),
     (None, {"target_modules": r".*\.(q|v)"}, "is not the configuration of a LoRA adapter that is scored here"),
     (None, {"task_type": "CAUSAL_LM"}, "task_type: Input should be 'SEQ_2_SEQ_LM'"),
     (None, {"megatron_config": {"a": 1}}, "sets megatron_config to {'a': 1}, which is not scored here")],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused_in_one_line(change, edit, refusal, plain, tmp_path, capsys):
    shutil.copytree(plain[2], tmp_path / "adapter")
    if change is not None:
        change(tmp_path / "adapter")
    name = f"refused-{abs(hash(refusal))}"
    code, printed = check(capsys, upload(name, tmp_path / "adapter", lambda c: c | edit), "--recipe", "finance")
    assert code == 2 and last(printed).startswith(f"UNCHECKED local-user/{name} ") and refusal in last(printed), printed


def test_an_adapter_of_another_kind_and_a_model_with_code_or_an_adapter_are_refused(plain, tmp_path, capsys):
    model = AutoModelForSeq2SeqLM.from_pretrained(BASE)
    get_peft_model(model, PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4)).save_pretrained(
        tmp_path / "prefix"
    )
    code, printed = check(capsys, upload("prefix", tmp_path / "prefix"), "--recipe", "finance")
    assert code == 2 and "peft_type: Input should be 'LORA'" in last(printed)
    model.save_pretrained(tmp_path / "code")
    config = json.loads((tmp_path / "code" / "config.json").read_text())
    (tmp_path / "code" / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "own.Model"}}))
    code, printed = check(capsys, upload("code", tmp_path / "code"), "--recipe", "finance", "--model")
    assert code == 2 and "sets `auto_map`: what that loads is not pinned" in last(printed)
    (tmp_path / "code" / "config.json").write_text(json.dumps(config))
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(plain[2] / name, tmp_path / "code" / name)
    code, printed = check(capsys, upload("both", tmp_path / "code"), "--recipe", "finance", "--model")
    assert code == 2 and "holds an adapter next to a full model" in last(printed)


@pytest.mark.parametrize(
    ("words", "slip"),
    [(("--claim", "rougeL=28.99"), "scores are from 0 to 1: write 0.2899 for 28.99 %"),
     (("--claim", "accuracy=0.5"), "is no claim: write METRIC=SCORE"),
     (("--claim", "bleu=0.5"), "the recipe scores rouge only: add sacrebleu to its `metrics`"),
     (("--max_new_tokes", "12"), "unknown key `max_new_tokes`: did you mean `max_new_tokens`?"),
     (("--record", "tests"), "tests is not empty: name a new folder")],
)  # fmt: skip
def test_slips_cost_no_generation(words, slip, published, capsys):
    code, printed = check(capsys, "local-user/plain", "--recipe", "finance", *words)
    assert code == 2 and slip in last(printed) and "test rows" not in printed


def test_keys_alone_are_a_recipe(published, capsys):
    keys = ("--dataset_name", "gbharti/finance-alpaca", "--target", "{output}", "--prompt",
            "Answer the financial question. {instruction} {input}")  # fmt: skip
    code, printed = check(capsys, "local-user/plain", *keys)
    rouge = load_record(published[1] / "release").scores.adapter["rougeL"].mean
    assert code == 0 and last(printed).startswith("SCORED local-user/plain@") and f"rougeL {rouge:.3f} [" in printed
    code, printed = check(capsys, "local-user/plain")
    assert code == 2 and "the recipe lacks `dataset_name`" in last(printed)


def test_the_section_and_the_hub_s_result_file_state_the_record_s_scores(published):
    folder = published[1]
    record = load_record(folder / "release")
    (file,) = (folder / "card" / ".eval_results").iterdir()
    entries = parse_eval_result_entries(yaml.safe_load(file.read_text()))
    assert {entry.task_id: entry.value for entry in entries} == {
        name: record.scores.adapter[name].mean for name in record.scores.shown()
    }
    assert {entry.dataset_id for entry in entries} == {"gbharti/finance-alpaca"}
    section = (folder / "card" / "section.md").read_text()
    assert f"| ROUGE-L 0.99 ± 0.005 | {record.scores.adapter['rougeL'].mean:.3f} [" in section
    assert "CONTRADICTED" in section and section in (folder / "release" / "README.md").read_text()


def test_the_scores_leave_in_every_format_under_the_name_of_what_was_scored(published, tmp_path):
    repo_id, folder = published
    record, predictions = load_record(folder / "release"), load_predictions(folder / "release")
    source = record.evaluated.source
    compare_all(repo_id, tmp_path, record, predictions, (source.id, source.revision))


def test_others_repeat_the_scores_and_nothing_is_trained_again(published, hub, tmp_path):
    repo_id, folder = published
    code = f"{WITHOUT_TORCH}\nreproduce.main(sys.argv[1:])"
    answer = stranger(hub, tmp_path, repo_id, "--level", "score", code=code)
    assert answer.returncode == 0 and last(answer.stdout).startswith(f"REPRODUCED (miniature) {repo_id}@"), answer
    verdict, _ = reproduce(repo_id)
    assert (verdict.verdict, verdict.evidence) == ("REPRODUCED", "tokens"), verdict.line
    assert verdict.adapter_sha256 == load_record(folder / "release").evaluated.files["adapter_model.safetensors"]
    verdict, _ = reproduce(repo_id, level="train")
    assert verdict.verdict == "UNCHECKED" and "nothing was trained, so nothing is trained again" in verdict.reason


def test_other_verbs_say_in_one_line_that_nothing_was_trained(published, tmp_path, hub):
    repo_id, folder = published
    for said, words in (
        ("is evaluation-only: it holds scores of local-user/plain, no weights", ("serve", repo_id)),
        ("which was not trained here: publish it by `hf upload", ("evaluate", str(folder / "release"))),
    ):
        answer = subprocess.run(
            [sys.executable, "-m", "pubrep", *words], capture_output=True, text=True, cwd=tmp_path,
            env=hub.env(tmp_path, hub.token("local-user"), PYTHONPATH=str(ROOT)),
        )  # fmt: skip
        assert answer.returncode == 1 and said in last(answer.stderr) and "Traceback" not in answer.stderr, (
            answer.stderr
        )


def test_a_bad_evaluation_is_withdrawn_and_notes_on_its_card_are_no_drift(published):
    repo_id = upload("withdrawn-evaluation", published[1] / "release")
    withdraw(f"{repo_id}@main", "the prompt was another one")
    verdict, _ = reproduce(repo_id, level="score")
    assert verdict.verdict == "REPRODUCED", verdict.line
    commit = HfApi().list_repo_commits(repo_id)[1].commit_id
    verdict, _ = reproduce(repo_id, commit, level="score")
    assert "its publisher has withdrawn it: the prompt was another one" in verdict.concerns


FORGED = {
    "scores": (lambda record: record["scores"]["adapter"]["rougeL"].update(mean=0.9), "scoring", "score"),
    "a claim": (lambda record: record["evaluated"]["claims"][0].update(verdict="CONFIRMED"), "scoring", "score"),
    "the prompt": (lambda record: record["recipe"].update(prompt="{instruction}"), "lineage", "score"),
    "what was read": (lambda record: record["evaluated"]["files"].pop("tokenizer.json"), "files", "generate"),
    "the base": (lambda record: record["evaluated"].update(base_named="name"), "card", "score"),
    "the tokenizer": (lambda record: record["evaluated"].update(own_tokenizer=False), "card", "score"),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_changed_evaluation_drifts(what, published, tmp_path):
    change, part, level = FORGED[what]
    shutil.copytree(published[1] / "release", tmp_path / "forged")
    path = tmp_path / "forged" / "record.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    verdict, _ = reproduce(upload("forged-evaluation", tmp_path / "forged"), level=level)
    assert (verdict.verdict, verdict.moved) == ("DRIFTED", part), verdict.line


def test_what_the_repository_does_not_say_drifts_though_the_card_fits(published, tmp_path):
    from model_cards.evaluation import render_evaluation_card
    from record.scored_record import require_evaluation

    for name, change in {"base": {"base_named": "name"}, "tokenizer": {"own_tokenizer": False}}.items():
        folder = shutil.copytree(published[1] / "release", tmp_path / name)
        record = load_record(folder)
        record.evaluated = record.evaluated.model_copy(update=change)
        (folder / "README.md").write_text(render_evaluation_card(require_evaluation(record)))
        record.files["README.md"] = sha256_published(folder / "README.md")
        record.save(folder)
        verdict, _ = reproduce(upload("forged-card", folder))
        assert (verdict.verdict, verdict.moved) == ("DRIFTED", "lineage"), verdict.line
