import re

import pytest
from huggingface_hub import ModelCard, ModelCardData, constants

from model_cards.card import WITHOUT_PIPELINE, keep_free_sections, loss_by_epoch, render_card
from model_cards.plots import draw_plots
from record.errors import UserError
from record.run_record import Unwritable
from record.sweep import Sweep
from record.swept_run import swept_run


def test_every_score_stands_in_the_table_as_recorded(record, predictions):
    card = render_card(record, predictions, "someone/adapter")
    for name, heading in (
        ("rouge1", "ROUGE-1"),
        ("rouge2", "ROUGE-2"),
        ("rougeL", "ROUGE-L"),
        ("rougeLsum", "ROUGE-Lsum"),
    ):
        line = next(line for line in card.splitlines() if line.startswith(f"| {heading} |"))
        numbers = [float(number) for number in re.findall(r"[+-]?\d\.\d{4}", line)]
        scores = record.scores
        expected = [
            getattr(part[name], key)
            for part in (scores.base, scores.adapter, scores.difference)
            for key in ("mean", "low", "high")
        ]
        assert numbers == pytest.approx(expected, abs=5e-5)
    for fact in (
        "9,437,184 of 792,587,264 trained (1.19 %)",
        "1,604,048,896 bytes",
        "a" * 40,
        "b" * 40,
        "d" * 40,
        "c" * 64,
        "make reproduce ADAPTER=someone/adapter",
        "pubrep reproduce someone/adapter --level score",
        "| 1 | 10 | 2.0000 | 2.1000 |",
        "| 2 | 20 | 1.5000 | 1.7500 |",
        "drop characters&#40;output&#41; >= 512".replace(">", "&gt;"),
    ):
        assert fact in card, fact


def test_front_matter_makes_the_round_trip(record, predictions):
    data = ModelCard(render_card(record, predictions, "someone/adapter")).data
    assert (data.base_model, data.library_name, data.license) == ("google/flan-t5-large", "peft", "apache-2.0")
    assert data.model_name == "adapter" and "miniature" not in data.tags
    values = {result.metric_name: result.metric_value for result in data.eval_results}
    assert values == {
        "ROUGE-1": round(record.scores.adapter["rouge1"].mean, 4),
        "ROUGE-2": round(record.scores.adapter["rouge2"].mean, 4),
        "ROUGE-L": round(record.scores.adapter["rougeL"].mean, 4),
        "ROUGE-Lsum": round(record.scores.adapter["rougeLsum"].mean, 4),
    }
    assert {result.dataset_revision for result in data.eval_results} == {"b" * 40}
    again = ModelCardData(**ModelCard(f"---\n{data.to_yaml()}\n---\n").data.to_dict())
    assert again.to_dict() == data.to_dict()


def test_the_card_says_where_transformers_has_no_pipeline(record, predictions):
    from transformers.pipelines import SUPPORTED_TASKS

    assert not set(WITHOUT_PIPELINE) & set(SUPPORTED_TASKS)
    for task in (*WITHOUT_PIPELINE, "table-question-answering"):
        record.recipe["task"] = task
        said = f"no `pipeline` for {task}" in render_card(record, predictions, "someone/adapter")
        assert said == (task in WITHOUT_PIPELINE)


def test_what_the_model_cannot_write_stands_in_the_card(record, predictions):
    record.unwritable = Unwritable(rows=4000, unwritable=254, white_space=3, characters={"<": 254, "|": 1})
    card = render_card(record, predictions, "someone/adapter")
    # 254 / 4,000 = 6.35 %.
    assert "- 6.3 % of the references (254 of 4,000) cannot be written" in card
    assert "which has no token for <code>&lt;</code> (254), <code>&#124;</code> (1); in 3 more" in card
    assert "neither model can write them" in card
    record.recipe["added_tokens"] = ["<"]
    card = render_card(record, predictions, "someone/adapter")
    assert "this adapter and its tokenizer add <code>&lt;</code>." in card and "neither model" not in card


def test_the_card_says_what_rouge_counts_and_what_it_cannot_see(record, predictions):
    card = render_card(record, predictions, "someone/adapter")
    assert "F-measure of words, Porter's stemmer on" in card and "cannot see" not in card
    predictions.reference[0] = "债券是一种贷款。"
    card = render_card(record, predictions, "someone/adapter")
    # 7 Chinese characters beside the 23 letters of the other reference.
    assert "cannot see 23.3 % of the references' letters. Set" in card
    record.contract.rouge_tokenizer, record.contract.stemmer = "characters", False
    card = render_card(record, predictions, "someone/adapter")
    assert "F-measure of characters, Porter's stemmer off" in card and "cannot see" not in card


def test_a_miniature_says_so(record, predictions):
    record.pins.base_model.miniature = True
    card = render_card(record, predictions, "someone/adapter")
    assert "**This is a miniature.**" in card and "miniature" in ModelCard(card).data.tags


def test_what_people_wrote_is_kept(record, predictions):
    card = render_card(record, predictions, "someone/adapter")
    edited = re.sub(
        r"(<!-- free: intended use -->).*?(<!-- /free -->)", r"\1\nFor \\d tests {{x}}.\n\2", card, flags=re.DOTALL
    )
    record.scores.rows = 12_345
    again = render_card(record, predictions, "someone/adapter", previous=edited)
    assert "For \\d tests {{x}}." in again and "12,345" in again
    assert keep_free_sections(card, "no marks here") == card


def test_a_swept_run_says_its_place_whatever_was_chosen_by(record, predictions):
    own = swept_run(record, ["seed", "lora_r"])
    loss, better = own.validation_loss, {metric: score + 0.01 for metric, score in own.scores.items()}
    assert loss == 1.75
    other = own.model_copy(update={"settings": {"seed": "1", "lora_r": "8|<b>"}, "scores": better,
                                   "validation_loss": 1.5})  # fmt: skip
    record.sweep = Sweep(combinations=3, runs=[own, other])
    card = render_card(record, predictions, "me/finance")
    assert "### One of 3 runs" in card and "of which 2 were trained and scored to their end" in card
    assert "Its validation loss is number 2 from the lowest" in card and "it is number 2 from the best of 2" in card
    assert "| 1 | 8&#124;&lt;b&gt; | 1.5000 |" in card and "<b>" not in card
    record.sweep.runs[1].validation_loss = None
    assert "No validation loss of all of them was taken" in render_card(record, predictions, "me/finance")
    # A sweep that does not list the run as it is says nothing: `check_sweep` tells of it.
    record.sweep.runs[0].validation_loss = 0.1
    assert "### One of" not in render_card(record, predictions, "me/finance")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"lora_r": "8"}}, "have settings of the same keys"),
        ({"scores": {"bleu": 0.1}}, "are scored by the same metrics"),
        ({"adapter_sha256": "f" * 64}, "lists settings twice"),
    ],
)
def test_a_sweep_whose_runs_do_not_belong_together_is_refused(record, change, said):
    own = swept_run(record, ["seed"])
    with pytest.raises(ValueError, match=said):
        Sweep(combinations=2, runs=[own, own.model_copy(update=change)])


def test_losses_come_by_epoch(record):
    assert loss_by_epoch(record) == [
        {"epoch": 1, "step": 10, "loss": 2.0, "eval_loss": 2.1},
        {"epoch": 2, "step": 20, "loss": 1.5, "eval_loss": 1.75},
    ]


def test_an_unscored_run_has_no_card(record, predictions):
    record.scores = None
    with pytest.raises(UserError, match="make evaluate-finance"):
        render_card(record, predictions, "someone/adapter")


def test_the_same_record_gives_the_same_plots(record, tmp_path, monkeypatch):
    first = [(tmp_path / path).read_bytes() for path in draw_plots(record, tmp_path)]
    assert first == [(tmp_path / path).read_bytes() for path in draw_plots(record, tmp_path)]
    # Without the plots that are kept.
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "empty"))
    assert first == [(tmp_path / path).read_bytes() for path in draw_plots(record, tmp_path)]
    record.scores.adapter["rouge1"].mean += 0.1
    assert first != [(tmp_path / path).read_bytes() for path in draw_plots(record, tmp_path)]
    assert all(png.startswith(b"\x89PNG") for png in first)


def test_the_card_says_where_the_tool_is_to_be_had(record, predictions, monkeypatch):
    assert "with this project's tool" in render_card(record, predictions, "someone/adapter")
    monkeypatch.setattr("model_cards.card.PROJECT_URL", "git+https://example.org/project")
    card = render_card(record, predictions, "someone/adapter")
    assert "\nuvx --from git+https://example.org/project pubrep reproduce someone/adapter --level score\n" in card
    assert "this project's tool" not in card
