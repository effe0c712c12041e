"""How long scoring will take: the prompts and the steps of decoding, timed for moments on this device."""

import time

import numpy as np
import torch
from peft import PeftModel

from recipes.families import FAMILIES
from scoring.decoding.generate import PROMPT_TOKENS
from scoring.decoding.slot_decoding import greedy

# Seconds that measuring may take, and tokens that the longer of two measurements writes more than the shorter.
SECONDS, MORE = 4.0, 8


def seconds_to_decode(
    model: PeftModel, prompts: list[list[int]], targets: np.ndarray, most: int, beams: int, rows: int
) -> tuple[float, float]:
    """Seconds that a model takes to answer all prompts: with outputs as long as the targets, and all of them of `most`.

    Parameters:
        prompts: token ids.
        targets: tokens of each target, shape (prompts,).
        most: `max_new_tokens`.
        rows: that are in work at once.
    """
    in_slots = beams == 1 and FAMILIES[model.config.model_type].flat
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    rows = max(1, min(rows, len(prompts)))
    if not in_slots:
        rows = max(1, min(rows, PROMPT_TOKENS // len(prompts[order[-1]])))

    def timed(count: int, tokens: int) -> float:
        chosen = [prompts[order[int((place + 0.5) * len(order) / count)]] for place in range(count)]
        begun = time.perf_counter()
        _decode(model, chosen, tokens, beams, in_slots)
        return time.perf_counter() - begun

    model.eval()
    with torch.inference_mode():
        timed(1, 1)
        # As if no row were cheaper in company: three measurements are to come.
        count = max(1, min(rows, int(SECONDS / 3 / timed(1, MORE))))
        short = min(timed(count, 1), timed(count, 1))
        step = max(0.0, timed(count, 1 + MORE) - short) / MORE

    def whole(lengths: np.ndarray) -> float:
        lengths = np.minimum(lengths, most)
        if in_slots:
            steps = lengths.sum() / count
        else:
            # The rows of a batch wait for its longest.
            batches = [[lengths[row] for row in order[start : start + rows]] for start in range(0, len(order), rows)]
            steps = sum(map(max, batches)) * rows / count
        return float(len(prompts) / count * max(0.0, short - step) + steps * step)

    return whole(targets), whole(np.full(len(prompts), most))


def _decode(model: PeftModel, prompts: list[list[int]], tokens: int, beams: int, in_slots: bool) -> None:
    """Has each prompt answered by so many tokens, whatever the model thinks of `</s>`."""
    if in_slots:
        greedy(model, prompts, tokens, len(prompts), lengths=[tokens] * len(prompts))
        return
    widest = max(map(len, prompts))
    pad = model.config.pad_token_id or 0
    ids = torch.tensor([[*prompt, *[pad] * (widest - len(prompt))] for prompt in prompts], device=model.device)
    mask = torch.tensor([[1] * len(prompt) + [0] * (widest - len(prompt)) for prompt in prompts], device=model.device)
    model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=tokens, num_beams=beams,
        do_sample=False,
    )  # fmt: skip
