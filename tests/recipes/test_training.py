import json

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)

from recipes.training import last_whole_checkpoint, token_mean_loss


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


def one_step(tmp_path, batch, accumulation):
    """One optimizer step over the same eight rows, of very different lengths, cut into micro-batches."""
    generator = torch.Generator().manual_seed(1)
    lengths = [1, 8, 2, 7, 3, 6, 4, 5]
    rows = Dataset.from_list(
        [
            {
                "input_ids": torch.randint(3, 40, (9 - n,), generator=generator).tolist(),
                "labels": torch.randint(3, 40, (n,), generator=generator).tolist(),
            }
            for n in lengths
        ]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0}, "<pad>")), pad_token="<pad>"
    )
    model = tiny_t5()
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        learning_rate=1e-2,
        max_grad_norm=1.0,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        seed=5,
        disable_tqdm=True,
    )
    trainer = Seq2SeqTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        compute_loss_func=token_mean_loss,
    )
    trainer.train()
    line = next(line for line in trainer.state.log_history if "grad_norm" in line)
    weights = torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
    return line["loss"], line["grad_norm"], weights


def test_a_step_does_not_depend_on_how_it_is_cut(tmp_path):
    # transformers 5.23's own loss gives 4 and 8 times the loss and gradient here (T5 ignores num_items_in_batch).
    loss, norm, weights = one_step(tmp_path, 8, 1)
    for batch, accumulation in ((4, 2), (2, 4), (1, 8)):
        other_loss, other_norm, other_weights = one_step(tmp_path, batch, accumulation)
        assert other_loss == pytest.approx(loss, rel=1e-4)
        assert other_norm == pytest.approx(norm, rel=1e-4)
        torch.testing.assert_close(other_weights, weights, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_mean_over_real_tokens():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 2, -100], [4, -100, -100]])
    log_probabilities = logits.log_softmax(-1)
    by_hand = -(log_probabilities[0, 0, 1] + log_probabilities[0, 1, 2] + log_probabilities[1, 0, 4])
    torch.testing.assert_close(token_mean_loss({"logits": logits}, labels), by_hand / 3)
    torch.testing.assert_close(token_mean_loss({"logits": logits}, labels, num_items_in_batch=10), by_hand / 10)


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
