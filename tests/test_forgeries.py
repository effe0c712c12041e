"""Forgeries, each as good as a forger with all of this code can make it: he renders and hashes anew what he changed.

What a check cannot tell stands in `evaluation.limits`, and so in docs/checking.md.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch
from forger import (
    ALL_ROWS,
    as_by_another_renderer,
    check,
    columns,
    config,
    copy_of,
    drawn_anew,
    elsewhere,
    file,
    flattered,
    found_out,
    in_row,
    listed,
    no_safetensors,
    noisy,
    plot_of_other_losses,
    predictions,
    publish,
    published_as,
    record,
    rows,
    said,
    scaled,
    text,
    the_reference,
    unlisted,
    weights,
    with_the_plot,
    without_file,
)  # fmt: skip
from near_ties import chosen, with_beams

import evaluation.retrain
from evaluation import reproduce
from record.release_files import ADAPTER_FILE, RECORD_FILE

REPO = "local-user/forged"


@pytest.fixture(scope="module")
def finance(scored_on_few_rows, tmp_path_factory):
    return published_as("forged", scored_on_few_rows, tmp_path_factory.mktemp("runs") / "finance")


CARD = [
    ("the-score-in-the-table", file("README.md", text("**0.", "**1.")), "files", "README.md"),
    ("the-score-in-the-table-hashed", file("README.md", text("**0.", "**1."), True), "card", "of the card reads"),
    ("model-index", file("README.md", text("value: 0.", "value: 1."), True), "card", "value: 1."),
    (
        "the-base-in-the-metadata",
        file("README.md", text("base_model: google/flan-t5-large", "base_model: google/flan-t5-xl"), True),
        "card",
        "flan-t5-xl",
    ),
    (
        "a-snippet-that-loads-another-repository",
        file("README.md", text(f'(base, "{REPO}")', '(base, "mallory/x")'), True),
        "card",
        "mallory/x",
    ),
    ("leakage-in-the-card", file("README.md", text("### Leakage", "### No leakage"), True), "card", "No leakage"),
    (
        "a-free-section-of-his-own",
        file("README.md", text("### Leakage", "<!-- free: x -->ROUGE-L 0.99<!-- /free -->"), True),
        "card",
        "free: x",
    ),
]

RECORD = [
    ("a-mean", record(scores__adapter__rougeL__mean=lambda was: was + 0.001), "scoring", "adapter.rougeL.mean"),
    ("an-interval", record(scores__base__rouge1__low=0.0), "scoring", "base.rouge1.low"),
    ("the-difference", record(scores__difference__rougeL__mean=0.5), "scoring", "difference.rougeL.mean"),
    ("the-clean-scores-left-out", record(scores__clean=None), "scoring", "clean"),
    ("the-base-outputs", record(scores__base_outputs__empty=300), "scoring", "base_outputs.empty"),
    ("the-stemmer", record(contract__stemmer=False), "scoring", "stemmer"),
    ("narrow-intervals", predictions(lambda found, _: found, contract__confidence=0.5), "scoring", "confidence"),
    ("the-beams", record(contract__num_beams=4), "scoring", "num_beams"),
    ("the-longest-output", record(contract__max_new_tokens=512), "scoring", "max_new_tokens"),
    ("expectations-met", record(expectations__0__verdict="met"), "scoring", "expectations"),
    ("the-hash-of-the-test-rows", record(data__test_sha256="0" * 64), "data", "test_sha256"),
    ("more-training-rows", record(data__train=50_000), "data", "train: "),
    ("a-rule-that-dropped-nothing", record(data__dropped={}), "data", "dropped"),
    ("what-cannot-be-written", record(unwritable__unwritable=lambda was: was + 1), "data", "unwritable"),
    ("no-leakage", record(leakage__0__exact=0, leakage__0__near=0), "leakage", "other copies of test rows than"),
    ("clean-rows", predictions(lambda found, _: replace(found, seen=[""] * len(found.seen))), "leakage", "clean"),
    ("no-miniature", record(pins__base_model__miniature=False, pins__dataset__miniature=False), "lineage", "miniature"),
    ("the-licence", record(pins__dataset__license="cc0-1.0"), "lineage", "license"),
    ("another-base", record(pins__base_model__id="google/flan-t5-base"), "lineage", "flan-t5-base"),
    ("another-dataset", record(recipe__dataset_name="b-mc2/sql-create-context"), "lineage", "dataset_name"),
    (
        "a-renderer-that-spares-the-metadata",
        lambda run, repo_id: as_by_another_renderer(run, repo_id, "base_model: google/", "base_model: mallory/"),
        "card",
        "another base_model",
    ),
    (
        "a-renderer-that-spares-the-table",
        lambda run, repo_id: as_by_another_renderer(run, repo_id, "**0.", "**1."),
        "card",
        "other numbers",
    ),
]

PREDICTIONS = [
    ("bytes", file("predictions.parquet", lambda data: data[:-1] + b"?"), "files", "predictions.parquet"),
    ("no-parquet", file("predictions.parquet", lambda data: b"?" * len(data), True), "data", "parquet"),
    ("rows-swapped", predictions(rows(lambda x: [x[1], x[0], *x[2:]])), "data", "(row 0)"),
    ("a-row-dropped", predictions(rows(lambda x: x[:-1])), "data", "89 rows, but 90"),
    ("a-row-doubled", predictions(rows(lambda x: [*x, x[0]])), "data", "91 rows, but 90"),
    ("a-bad-row-replaced", predictions(rows(lambda x: [x[1], *x[1:]])), "data", "(row 0)"),
    ("other-references", predictions(columns(reference="adapter")), "data", "other references"),
    ("another-prompt", predictions(in_row("prompt", "Say yes.")), "data", "other prompts"),
    ("texts-without-their-tokens", predictions(columns(adapter="reference")), "data", "decode to another text"),
    ("tokens-without-their-texts", predictions(in_row("base_tokens", [7])), "data", "decode to another text"),
    ("tokens-of-no-vocabulary", predictions(in_row("base_tokens", [-7])), "data", "not in the tokenizer's vocabulary"),
    ("outputs-beyond-the-limit", predictions(said("adapter", range(1), lambda *_: [40] * 13)), "data", "more than 12"),
]

FILES = [
    (
        "a-byte-of-the-weights",
        file(ADAPTER_FILE, lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        "files",
        ADAPTER_FILE,
    ),
    (
        "weights-hashed-but-not-trained",
        file(ADAPTER_FILE, lambda data: data[:-1] + bytes([data[-1] ^ 1]), True),
        "lineage",
        ADAPTER_FILE,
    ),
    ("no-plot", file("plots/loss.png", lambda data: None), "files", "plots/loss.png"),
    ("no-plot-nor-its-hash", file("plots/loss.png", lambda data: None, True), "files", "plots/loss.png"),
    ("no-card-in-the-record", file(RECORD_FILE, lambda data: without_file(data, "README.md")), "files", "README.md"),
    ("a-pickle", unlisted("adapter_model.bin", b"\x80\x04."), "files", "adapter_model.bin"),
    ("a-pickle-with-its-hash", listed("adapter_model.bin", b"\x80\x04."), "files", "adapter_model.bin"),
    ("code", unlisted("modeling.py", b"print('mine')"), "files", "modeling.py"),
    (
        "a-plot-of-another-picture",
        lambda run, repo_id: with_the_plot(run, run / "release" / "plots" / "scores.png"),
        "card",
        "plots/loss.png",
    ),
    (
        "a-plot-of-another-run",
        lambda run, repo_id: with_the_plot(run, plot_of_other_losses(run, repo_id)),
        "card",
        "plots/loss.png",
    ),
    (
        "another-recipe",
        file("finance.yaml", text("split_seed: 2137", "split_seed: 1"), True),
        "lineage",
        "finance.yaml",
    ),
    (
        "a-tokenizer-that-reads-otherwise",
        file("tokenizer.json", text('"▁the"', '"▁not"'), True),
        "lineage",
        "tokenizer.json",
    ),
    (
        "a-tokenizer-with-code",
        config("tokenizer_config.json", auto_map={"AutoTokenizer": ["x.T", None]}),
        "lineage",
        "auto_map",
    ),
    (
        "a-tokenizer-of-another-class",
        config("tokenizer_config.json", tokenizer_class="BertTokenizer"),
        "lineage",
        "tokenizer_class",
    ),
    ("a-larger-alpha", config("adapter_config.json", lora_alpha=64), "lineage", "lora_alpha"),
    ("a-smaller-rank", config("adapter_config.json", r=8), "lineage", "sets r to 8"),
    ("modules-of-his-own", config("adapter_config.json", modules_to_save=["lm_head"]), "lineage", "modules_to_save"),
    ("code-for-the-adapter", config("adapter_config.json", auto_map={"AutoModel": "x.M"}), "lineage", "auto_map"),
    (
        "a-base-on-his-disk",
        config("adapter_config.json", base_model_name_or_path="/tmp/base"),
        "lineage",
        "another base",
    ),
    # PEFT then subtracts the first A·B from the base's own weights: the base row gets worse whenever it is generated.
    ("a-base-changed-at-loading", config("adapter_config.json", init_lora_weights="olora"), "lineage", "olora"),
]


@pytest.mark.parametrize(
    ("forge", "part", "told"),
    [
        pytest.param(*case, id=f"{surface}-{name}")
        for surface, cases in (("card", CARD), ("record", RECORD), ("predictions", PREDICTIONS), ("files", FILES))
        for name, *case in cases
    ],
)
def test_a_forgery_is_found_without_a_model(finance, tmp_path, forge, part, told):
    found_out(check(REPO, finance, forge, tmp_path, level="score"), part, told)


@pytest.mark.parametrize(
    ("forge", "part", "told"),
    [
        pytest.param(*case, id=name)
        for name, *case in [
            (
                "random-weights",
                weights(lambda w: {n: torch.randn_like(t) for n, t in w.items()}),
                "weights",
                "outputs differ",
            ),
            ("no-weights", weights(partial(scaled, by=0)), "weights", "outputs differ"),
            ("stronger-weights", weights(partial(scaled, by=3)), "weights", "outputs differ"),
            (
                "weights-of-other-layers",
                weights(lambda w: {n: w[n.replace("encoder", "decoder")].clone() for n in w}),
                "weights",
                "outputs differ",
            ),
            (
                "weights-of-another-shape",
                weights(lambda w: {n: torch.cat([t, t]) for n, t in w.items()}),
                "weights",
                "does not fit",
            ),
            # PEFT loads it into the base model itself: the base row gets worse whenever it is generated.
            (
                "the-base-in-the-adapter-file",
                weights(lambda w: w | {"base_model.model.lm_head.weight": torch.zeros(1280, 64)}),
                "weights",
                "holds other tensors than adapter_config.json asks for: base_model.model.lm_head.weight",
            ),
            ("no-safetensors", no_safetensors, "weights", "is not a safetensors file"),
            ("the-parameters", record(model__trainable=7), "weights", "trainable of the model is 49,152"),
            ("the-memory", record(model__memory_bytes=7), "weights", "memory_bytes"),
            ("one-better-output", predictions(said("adapter", range(1), the_reference)), "weights", "1 of 90 adapter"),
            ("the-right-answers", predictions(flattered), "weights", "adapter outputs differ"),
            (
                "a-base-that-says-nothing",
                predictions(said("base", ALL_ROWS, lambda *_: [])),
                "generation",
                "90 of 90 base",
            ),
            (
                "base-and-adapter-exchanged",
                predictions(
                    columns(base="adapter", adapter="base", base_tokens="adapter_tokens", adapter_tokens="base_tokens")
                ),
                "generation",
                "base outputs",
            ),
            ("the-right-answers-elsewhere", predictions(flattered, scored_in=elsewhere), "weights", "nats"),
            ("the-best-within-1.9-nats-elsewhere", chosen, "weights", "at worst (row"),
            ("a-lie-within-the-noise-elsewhere", predictions(noisy, scored_in=elsewhere), "generation", "nats"),
            (
                "tokens-beyond-the-embedding-elsewhere",
                predictions(
                    said("base", range(1), lambda found, *_: [*found.base_tokens[0][:3], 10**6]), scored_in=elsewhere
                ),
                "generation",
                "inf nats",
            ),
            (
                "other-weights-elsewhere",
                lambda run, repo_id: (
                    weights(partial(scaled, by=-20))(run, repo_id),
                    record(scored_in=elsewhere)(run, repo_id),
                )[1],
                "weights",
                "nats",
            ),
        ]
    ],
)
def test_a_forgery_is_found_by_generating(finance, tmp_path, forge, part, told):
    found_out(check(REPO, finance, forge, tmp_path), part, told)


def test_right_answers_in_the_place_of_beams_are_found(finance, tmp_path):
    run, commit = finance
    forge = with_beams(predictions(said("adapter", ALL_ROWS, the_reference)))
    forged = publish(REPO, commit, run / "release", forge(copy_of(run, tmp_path / "forged"), REPO))
    found_out(reproduce.reproduce(REPO, forged)[0], "weights", "nats in the mean")
    # Of one row neither likelihood nor scores need tell: it is not taken for the same, unless it is, token for token.
    one, _ = reproduce.reproduce(REPO, forged, sample=1)
    undecided = one.verdict == "UNCHECKED" and "too few rows (1)" in one.line
    assert undecided or one.verdict == "DRIFTED" or one.evidence == "tokens", one.line


@pytest.mark.parametrize(
    ("forge", "told"),
    [
        pytest.param(*case, id=name)
        for name, *case in [
            (
                "one-bit-of-the-weights",
                weights(lambda w: w | {min(w): torch.nextafter(w[min(w)], torch.tensor(9.0))}),
                "another adapter",
            ),
            ("lower-losses", record(training__history__0__loss=0.01), "the losses part at step 1"),
            ("another-learning-rate", record(recipe__learning_rate=5e-4), "another adapter; the losses part"),
            ("test-rows-drawn-anew", drawn_anew(recipe__split_seed=1), "another adapter; the losses part"),
        ]
    ],
)
def test_a_forgery_is_found_by_training(finance, tmp_path, monkeypatch, forge, told):
    monkeypatch.setattr(evaluation.retrain, "RETRAINED", tmp_path / "retrained")
    found_out(check(REPO, finance, forge, tmp_path, level="train"), "training", told)


def test_two_forged_outputs_are_found_by_training_too(finance, tmp_path, monkeypatch):
    # Their effect on the scores lies within the noise: it is the tokens that tell.
    monkeypatch.setattr(evaluation.retrain, "RETRAINED", tmp_path / "retrained")
    forge = predictions(said("adapter", range(2), the_reference))
    verdict = check(REPO, finance, forge, tmp_path, level="train")
    found_out(verdict, "weights", "on the same device and versions 2 of 90 adapter outputs differ")
