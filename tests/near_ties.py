"""What another device's rounding writes, and a forger who chooses among what it might have written.

Every function gives a forgery as those of `forger`.
"""

from pathlib import Path
from unittest.mock import patch

import torch
from forger import ALL_ROWS, Forgery, drawn_anew, edit_record, elsewhere, generate, predictions, record, said

from recipes.config import recipe_from_record
from record.predictions import load_predictions
from record.run_record import load_record
from scoring.decoding.predict import load_for_scoring
from scoring.metrics.rouge import rouge_rows


def chosen(run, repo_id):
    """The best of what the adapter nearly writes: one token of a row exchanged for another within 1.9 nats of the best.

    What follows is what the adapter writes after that token, and the record names another version of torch.
    """
    found = load_record(run)
    recipe = recipe_from_record(found.name, found.recipe)
    model, tokenizer, _ = load_for_scoring(run, found, recipe.model)
    rows = load_predictions(run)
    some = ALL_ROWS[:20]
    written = [nearly_written(model, tokenizer, found.contract, rows, row) for row in some]
    return predictions(said("adapter", some, lambda _, tokens, row: written[row]), scored_in=elsewhere)(run, repo_id)


@torch.inference_mode()
def nearly_written(model, tokenizer, contract, rows, row):
    """The output for one row, of those that part from the likeliest at one token, that ROUGE-L likes best."""
    start, end = model.generation_config.decoder_start_token_id, model.generation_config.eos_token_id
    ids = [*rows.adapter_tokens[row], end][: contract.max_new_tokens]
    batch = tokenizer(rows.prompt[row], return_tensors="pt")
    logits = model(**batch, decoder_input_ids=torch.tensor([[start, *ids[:-1]]])).logits[0]
    others = (logits > logits.amax(1, keepdim=True) - 1.9).nonzero().tolist()
    outputs = [rows.adapter_tokens[row]]
    for place, token in others:
        past = [start, *ids[:place], token]
        while past[-1] != end and len(past) <= contract.max_new_tokens:
            past.append(model(**batch, decoder_input_ids=torch.tensor([past])).logits[0, -1].argmax().item())
        outputs.append([token for token in past[1:] if token != end])
    texts = [tokenizer.decode(output, skip_special_tokens=True) for output in outputs]
    scores = rouge_rows(texts, [rows.reference[row]] * len(texts), contract.stemmer)["rougeL"]
    return outputs[max(range(len(texts)), key=scores.__getitem__)]


def with_beams(change: Forgery) -> Forgery:
    """Draws, generates and scores with two beams under another version of torch, and then makes the change."""

    def forge(run: Path, repo_id: str) -> Path:
        drawn_anew(recipe__num_beams=2, contract__num_beams=2, scored_in=elsewhere)(run, repo_id)
        return change(run, repo_id)

    return forge


def rounded_otherwise(noise, beams=1, dtype="float32"):
    """What a device with other rounding writes: every weight of the base off by a share of itself, `noise` in root mean
    square; the record says that it computed in `dtype`."""

    def forge(run, repo_id):
        edit_record(run, recipe__num_beams=beams, contract__num_beams=beams, contract__dtype=dtype)
        found = load_record(run)
        torch.manual_seed(1)
        load = load_for_scoring

        def loaded(*arguments):
            model, *others = load(*arguments)
            with torch.no_grad():
                for weight in model.parameters():
                    weight.mul_(1 + noise * torch.randn_like(weight))
            return model, *others

        with patch("forger.load_for_scoring", loaded):
            generate(run, found)
        return record(scored_in=elsewhere)(run, repo_id)

    return forge
