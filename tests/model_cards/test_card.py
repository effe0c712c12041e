import re
import tempfile

import pytest
from huggingface_hub import ModelCard, ModelCardData, constants

from model_cards.card import WITHOUT_PIPELINE, keep_free_sections, loss_by_epoch, render_card
from model_cards.plots import draw_plots
from record.errors import UserError
from record.release_files import PLOTS
from record.run_record import LossPoint, Unwritable
from record.scores import Interval
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
        numbers = [float(number) for number in re.findall(r"[+-]?\d\.\d{3}(?!\d)", line)]
        scores = record.scores
        expected = [
            getattr(part[name], key)
            for part in (scores.base, scores.adapter, scores.difference)
            for key in ("mean", "low", "high")
        ]
        assert numbers == pytest.approx(expected, abs=5e-4)
    for fact in (
        "9,437,184 of 792,587,264 trained (1.19 %)",
        "1,604,048,896 bytes",
        "a" * 40,
        "b" * 40,
        "d" * 40,
        "c" * 64,
        "make reproduce ADAPTER=someone/adapter",
        "pubrep reproduce someone/adapter --level score",
        "| 1 | 10 | 2.500 | 2.100 |",
        "| 2 | 20 | 1.500 | 1.750 |",
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
        {"epoch": 1, "step": 10, "loss": 2.5, "eval_loss": 2.1},
        {"epoch": 2, "step": 20, "loss": 1.5, "eval_loss": 1.75},
    ]
    # Two steps more, the last of few rows: (10 * 1.5 + 2 * 3.0) / 12.
    record.training.history.append(LossPoint(step=22, epoch=2.0, loss=3.0))
    assert loss_by_epoch(record)[1] == {"epoch": 2, "step": 22, "loss": 1.75, "eval_loss": 1.75}


def test_as_many_digits_as_the_interval_bears(record, predictions):
    record.scores.adapter["rouge1"] = Interval(mean=0.41234, low=0.41194, high=0.41274)
    record.scores.adapter["rougeL"] = Interval(mean=0.41234, low=0.40, high=0.43)
    card = render_card(record, predictions, "someone/adapter")
    assert "| **0.4123** [0.4119,&nbsp;0.4127] |" in card and "| **0.412** [0.400,&nbsp;0.430] |" in card


def test_what_was_not_counted_is_no_zero(record, predictions):
    record.scores.base_outputs.cut = record.scores.adapter_outputs.cut = 0
    record.environment.threads, record.data.dropped = 1, {"empty target": 0, "drop tokens(prompt) > 9": 4}
    card = render_card(record, predictions, "someone/adapter")
    body = card.partition("\n---\n")[2]
    assert ", 1 thread: " in body and "rows cut at" not in body and "| empty rows | 1 (50.0 %) | none |" in body
    assert "empty target" not in body and "| 4 |" in body
    assert re.findall(r"(?<![\d.,])0(?:\.0+)? (?:\(|rows|met|missed|not|more|for|with)|\| 0 \|", body) == []
    record.scores.base_outputs.cut = 1
    assert "tokens | 1 (50.0 %) | none |" in render_card(record, predictions, "someone/adapter")


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


@pytest.fixture
def drawn(record, tmp_path, monkeypatch):
    """Draws the plots; gives each one's axes by the end of its title."""
    figures = []
    monkeypatch.setattr("model_cards.plots.save", lambda figure, **_: figures.append(figure) or b"")

    def draw():
        figures.clear()
        # Without the plots that are kept.
        monkeypatch.setattr(constants, "HF_HOME", tempfile.mkdtemp(dir=tmp_path))
        draw_plots(record, tmp_path)
        axes = [axes for figure in figures for axes in figure.axes]
        return {one.get_title(loc="left").rpartition(": ")[2]: one for one in axes}

    return draw


def test_plots_name_task_and_model_and_begin_at_zero(record, drawn):
    titles = [one.get_title(loc="left") for one in drawn().values()]
    assert titles == [f"Financial question answering, google/flan-t5-large: {what}" for what in ("loss", "scores")]
    assert all(one.get_ylim()[0] == 0 for one in drawn().values())
    training, held_out = drawn()["loss"].get_lines()
    assert [training.get_label(), held_out.get_label()] == ["training, with dropout", "validation"]
    record.pins.base_model.miniature = True
    assert "google/flan-t5-large (a miniature): loss" in drawn()["loss"].get_title(loc="left")


def test_a_last_step_of_few_rows_is_not_the_loss(record, drawn):
    steps = {}
    for rows in (record.batch.effective * 7, record.batch.effective * 7 + 1):
        record.data.train = rows
        steps[rows % 2] = [int(step) for step in drawn()["loss"].get_lines()[0].get_xdata()]
    assert steps == {0: [5, 10, 20], 1: [5, 10]}


def test_plots_are_read_on_white_and_on_black(record, tmp_path):
    import matplotlib.image

    draw_plots(record, tmp_path)
    for name in ("loss", "scores"):
        pixels = matplotlib.image.imread(tmp_path / PLOTS[name]).reshape(-1, 4)
        # Nothing behind: most of the picture is the page.
        assert (pixels[:, 3] == 0).mean() > 0.5
        solid = pixels[pixels[:, 3] == 1][:, :3]
        luminance = (((solid + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        # Contrast as of WCAG 2.2 on white, and on the Hub's dark page, #0b0f19, whose luminance is 0.0048.
        assert len(solid) > 1000 and (1.05 / (luminance + 0.05)).min() > 3
        assert ((luminance + 0.05) / (0.0048 + 0.05)).min() > 3


def test_the_card_says_where_the_tool_is_to_be_had(record, predictions, monkeypatch):
    assert "with this project's tool" in render_card(record, predictions, "someone/adapter")
    monkeypatch.setattr("model_cards.card.PROJECT_URL", "git+https://example.org/project")
    card = render_card(record, predictions, "someone/adapter")
    assert "\nuvx --from git+https://example.org/project pubrep reproduce someone/adapter --level score\n" in card
    assert "this project's tool" not in card
