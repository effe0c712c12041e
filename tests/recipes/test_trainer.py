import json
from unittest.mock import ANY

import pytest
import torch
from family_processes import rows_of
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from torch._dynamo.utils import counters
from torch.nn.functional import cross_entropy
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)
from transformers.trainer_pt_utils import LabelSmoother

from recipes.training.trainer import AdapterTrainer, collate, largest_budget, last_whole_checkpoint, tokens_of
from recipes.training.unpadded_t5 import compile_blocks, make_flat
from record.errors import explanation


def tiny_t5():
    set_seed(0)
    config = T5Config(
        vocab_size=40,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
    )
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, target_modules=["q", "v"])
    return get_peft_model(T5ForConditionalGeneration(config), lora)


def token_mean_loss(outputs, labels, num_items_in_batch):
    """The loss that T5 of transformers 5.23 should have: over the step's real target tokens."""
    logits = outputs["logits"].flatten(0, 1)
    return cross_entropy(logits, labels.flatten(), ignore_index=-100, reduction="sum") / num_items_in_batch


def arguments_for(folder, rows, accumulation, **more):
    return Seq2SeqTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=accumulation,
        # Adam divides rounding by rounding where a gradient is nearly zero.
        optim="sgd",
        learning_rate=1.0,
        max_grad_norm=1.0,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        remove_unused_columns=False,
        seed=5,
        disable_tqdm=True,
        **more,
    )


def trained(trainer):
    """Losses and gradient norms step by step, and the adapter's weights after the last."""
    trainer.train()
    lines = [line for line in trainer.state.log_history if "grad_norm" in line]
    weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad])
    return [line["loss"] for line in lines], [line["grad_norm"] for line in lines], weights


# Twenty rows of very different lengths: two steps of eight and one of four.
LENGTHS = [(9 - n, n) for n in (1, 8, 2, 7, 3, 6, 4, 5)] + [(n, 13 - n) for n in range(1, 13)]


def stock(folder, smoothing=0.0):
    """The stock trainer with one padded batch a step, its loss put right."""
    smoothed = LabelSmoother(smoothing)

    def loss(outputs, labels, num_items_in_batch):
        if smoothing:
            return smoothed(outputs, labels, num_items_in_batch=num_items_in_batch)
        return token_mean_loss(outputs, labels, num_items_in_batch)

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0}, "<pad>")), pad_token="<pad>"
    )
    model = tiny_t5()
    return trained(
        Seq2SeqTrainer(
            model=model,
            args=arguments_for(folder, 8, 1, num_train_epochs=2),
            train_dataset=rows_of(LENGTHS),
            data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
            compute_loss_func=loss,
        )
    )


# A budget and the micro-batches of two epochs, of 160 to 228 tokens in three steps: 8 + 8 + 4 rows.
@pytest.mark.parametrize(
    ("tokens", "fewest", "most", "smoothing"),
    [(None, 6, 6, 0.0), (30, 16, 22, 0.0), (1, 40, 40, 0.0), (30, 16, 22, 0.3)],
)
def test_losses_and_adapter_are_the_stock_trainer_s_however_a_step_is_cut(tmp_path, tokens, fewest, most, smoothing):
    losses, norms, weights = stock(tmp_path, smoothing)
    arguments = arguments_for(tmp_path, 8, 1, num_train_epochs=2, label_smoothing_factor=smoothing)
    trainer = AdapterTrainer(model=tiny_t5(), args=arguments, train_dataset=rows_of(LENGTHS), tokens=tokens)
    micro_batches = []
    trainer.model.register_forward_hook(lambda *_: micro_batches.append(1))
    found_losses, found_norms, found_weights = trained(trainer)
    assert fewest <= len(micro_batches) <= most
    assert len(losses) == 6
    # Logged losses are rounded to four digits by `Trainer`.
    assert found_losses == pytest.approx(losses, rel=1e-5, abs=1e-4)
    assert found_norms == pytest.approx(norms, rel=1e-5)
    assert float((found_weights - weights).norm() / weights.norm()) < 1e-5


def test_the_stock_trainer_s_own_loss_depends_on_the_cut(tmp_path):
    """Why the loss is taken here: once this fails, transformers has been mended."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0}, "<pad>")), pad_token="<pad>"
    )
    found = []
    for rows, accumulation in ((8, 1), (1, 8)):
        model = tiny_t5()
        found.append(
            trained(
                Seq2SeqTrainer(
                    model=model,
                    args=arguments_for(tmp_path, rows, accumulation, max_steps=1),
                    train_dataset=rows_of(LENGTHS[:8]),
                    data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
                )
            )
        )
    assert found[1][0][0] > 7 * found[0][0][0]


def test_the_validation_loss_is_the_mean_over_tokens(tmp_path):
    rows = rows_of(LENGTHS)
    trainer = AdapterTrainer(
        model=tiny_t5(), args=arguments_for(tmp_path, 8, 1, per_device_eval_batch_size=7), eval_dataset=rows
    )
    model = tiny_t5().eval()
    total = 0.0
    with torch.no_grad():
        for row in rows:
            logits = model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])).logits[0]
            total += float(cross_entropy(logits, torch.tensor(row["labels"]), reduction="sum"))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(total / sum(target for _, target in LENGTHS), rel=1e-6)


def test_noise_and_smoothing_are_of_training_alone(tmp_path):
    rows, found = rows_of(LENGTHS), []
    for more in ({}, {"neftune_noise_alpha": 10.0}, {"label_smoothing_factor": 0.5}):
        arguments = arguments_for(tmp_path, 8, 1, max_steps=2, **more)
        trainer = AdapterTrainer(model=tiny_t5(), args=arguments, train_dataset=rows, eval_dataset=rows)
        untrained = trainer.evaluate()["eval_loss"]
        found.append((untrained, trained(trainer)[2], list(trainer.model.state_dict())))
        assert trainer.evaluate() == trainer.evaluate() | {"eval_runtime": ANY, "eval_samples_per_second": ANY,
                                                           "eval_steps_per_second": ANY}  # fmt: skip
    assert found[0][0] == found[1][0] == found[2][0] and found[0][2] == found[1][2] == found[2][2]
    weights = [weights for _, weights, _ in found]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_process_without_rows_keeps_in_step_and_adds_nothing(tmp_path):
    trainer = AdapterTrainer(model=tiny_t5(), args=arguments_for(tmp_path, 8, 1), train_dataset=rows_of(LENGTHS))
    config, rows = trainer.model.get_base_model().config, rows_of(LENGTHS[:1]).to_list()
    shares = [collate(rows, config, packed=False, processes=2, process=process) for process in (0, 1)]
    assert sorted(len(share["numbers"]) for share in shares) == [0, 1]
    for share in shares:
        loss = trainer.training_step(trainer.model, share)
        sizes = [float(weight.grad.norm()) for weight in trainer.model.parameters() if weight.requires_grad]
        trainer.model.zero_grad()
        assert (float(loss) > 0, any(sizes)) == (bool(len(share["numbers"])),) * 2


def test_label_smoothing_over_several_processes_is_that_of_the_whole_step(tmp_path):
    arguments = arguments_for(tmp_path, 8, 1, label_smoothing_factor=0.3)
    trainer = AdapterTrainer(model=tiny_t5(), args=arguments, train_dataset=rows_of(LENGTHS))
    config, rows, found = trainer.model.get_base_model().config, rows_of(LENGTHS[:8]).to_list(), []
    for processes in (1, 3):
        shares = [collate(rows, config, True, 20, processes, process) for process in range(processes)]
        loss = sum(float(trainer.training_step(trainer.model, share)) for share in shares)
        weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]
        found.append((loss, torch.cat([weight.grad.flatten() for weight in weights])))
        trainer.model.zero_grad()
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert float((found[1][1] - found[0][1]).norm() / found[0][1].norm()) < 1e-5


CPU = torch.device("cpu")


@pytest.fixture
def flat_t5():
    model = tiny_t5()
    make_flat(model)
    return model.train()


@pytest.fixture
def longest():
    return sorted(rows_of(LENGTHS).to_list(), key=tokens_of, reverse=True)[:8]


def test_the_budget_grows_with_memory_and_stops_at_the_whole_step(flat_t5, longest):
    state = torch.random.get_rng_state()
    found = [largest_budget(flat_t5, longest, free, CPU, tried=False) for free in (1, 300_000, 600_000, 10**9)]
    # What is measured draws nothing that training would have drawn.
    assert torch.equal(torch.random.get_rng_state(), state)
    assert found[0] == 13 and found[-1] == 8 * 13
    assert 13 < found[1] < found[2] < 8 * 13 and found[2] in (2 * found[1], 2 * found[1] + 1)


def test_the_budget_of_compiled_layers_is_measured_before_they_are_compiled(flat_t5, longest):
    compiled = tiny_t5()
    make_flat(compiled)
    compile_blocks(compiled, backend="eager")
    counters.clear()
    plain, found = (largest_budget(model, longest, 300_000, CPU, tried=False) for model in (flat_t5, compiled))
    assert found == plain and not counters["stats"]


def test_a_budget_is_tried_with_the_longest_rows(flat_t5, longest, monkeypatch):
    forward, tried = flat_t5.forward, []

    def full_above_40(**batch):
        tokens = batch["input_ids"].numel() + batch["labels"].numel()
        tried.append(tokens)
        if tokens > 40:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(**batch)

    monkeypatch.setattr(flat_t5, "forward", full_above_40)
    assert largest_budget(flat_t5, longest, 10**9, CPU, tried=True) == 26
    # The longest row to measure, then as many of the longest as the budget holds: 104, 52 and 26 tokens.
    assert tried == [13, 104, 52, 26]
    assert all(weight.grad is None for weight in flat_t5.parameters())


def test_a_torn_checkpoint_is_skipped_and_removed(tmp_path, capsys):
    for step, state in ((2, json.dumps({"global_step": 2})), (10, '{"global_st'), (12, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2"]
    assert capsys.readouterr().out.count("removed") == 2
    assert last_whole_checkpoint(tmp_path / "none") is None


def test_torch_compile_is_left_to_the_layers_and_out_on_a_cpu(tmp_path):
    arguments = arguments_for(tmp_path, 4, 1, max_steps=1, torch_compile=True)
    trainer = AdapterTrainer(model=tiny_t5(), args=arguments, train_dataset=rows_of(LENGTHS))
    trainer.train()
    assert trainer.accelerator.state.dynamo_plugin.backend == "NO"
    assert arguments.torch_compile_backend == "inductor"
    assert all(module._compiled_call_impl is None for module in trainer.model.modules())


def test_layers_that_cannot_be_compiled_are_told_in_one_line():
    def backend(graph, inputs):
        raise RuntimeError("no compiler was found")

    with pytest.raises(RuntimeError) as raised:
        torch.compile(torch.sin, backend=backend)(torch.ones(1))
    line = explanation(raised.value)
    assert line.startswith("the model cannot be compiled here: leave out `torch_compile` (") and "no compiler" in line
