"""Times greedy generation side by side with `Seq2SeqTrainer.predict`, on FLAN-T5 of a true shape with random weights.

    python -m benchmarks.generation [--device cpu] [--rows 1000] [--repeats 5] [--size small]

All write the same number of tokens for each row, its reference's: `</s>` is forbidden before and ends the row there.
The stock way is measured at its best: of several batch sizes the fastest counts, and its rows carry no labels, so that
no loss is computed on the way. It gets its rows in random order, as `Seq2SeqTrainer` takes them from a test split. Its
batches do not touch each other, so it writes each row once, some of the batches in every round; the others write all
rows in every round.
"""

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from random import Random

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)
from transformers.utils import logging

from benchmarks.shapes import make_model, make_rows
from scoring.decoding import slot_decoding

SIZES = {"cpu": (32, 64, 128), "cuda": (64, 128, 256)}
# Rows in work at once: with more, less of the last rows' time is shared, and a CPU gains nothing.
SLOTS = {"cpu": 64, "cuda": 512}
SAMPLE = 20
START, END = 0, 1


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.generation", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", default="small")
    print(json.dumps(measure(**vars(parser.parse_args(argv))), indent=1))


# All contenders take turns in one loop, so that the machine's noise meets them alike.
def measure(device: str, rows: int, repeats: int, size: str) -> dict:
    """Seconds of every way, and how many times faster than the stock one ours are.

    Returns:
        `score_vs_predict`, `score_ct2_vs_predict` (None without CTranslate2): the stock way's seconds for all rows over
        the median of ours; `score_equal_rows`, the share of a sample whose tokens equal those of `generate` at batch 1,
        in the engine where it is least; and what they came from.
    """
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = make_model(size, dtype=dtype).to(device).eval()
    # The predictions' `max_length` of 20 next to `max_new_tokens` is worth a line a call to transformers.
    logging.set_verbosity_error()
    source, examples = make_rows(rows)
    prompts = [row["input_ids"] for row in examples]
    lengths = [max(1, len(row["labels"]) - 1) for row in examples]
    longest, slots = max(lengths), SLOTS[device]

    def torch_engine() -> list[list[int]]:
        return slot_decoding.greedy(model, prompts, longest, slots, lengths=lengths)

    ways: dict[str, Callable[[], list[list[int]]]] = {"torch": torch_engine}
    if device == "cpu" and importlib.util.find_spec("ctranslate2"):
        from scoring.decoding import ctranslate

        ways["ctranslate2"] = lambda: ctranslate.greedy(model, True, prompts, longest, slots, lengths=lengths)
    with torch.inference_mode():
        tried, few = {}, min(rows, SIZES[device][-1])
        for batch in SIZES[device]:
            took, _ = _seconds(partial(predict, model, prompts[:few], lengths[:few], batch, device))
            tried[batch] = sum(lengths[:few]) / took
        best = max(tried, key=tried.get)
        batches = [range(at, min(at + best, rows)) for at in range(0, rows, best)]
        outputs, seconds = {"predict": {}}, {name: [] for name in (*ways, "predict")}
        for number in range(repeats):
            for name, way in ways.items():
                took, answers = _seconds(way)
                seconds[name].append(took)
                outputs[name] = dict(enumerate(answers))
            for batch in batches[number::repeats]:
                inputs, ends = ([values[row] for row in batch] for values in (prompts, lengths))
                took, answers = _seconds(partial(predict, model, inputs, ends, best, device))
                seconds["predict"].append(took)
                outputs["predict"] |= zip(batch, answers, strict=True)
        sample = sorted(Random(0).sample(range(rows), min(SAMPLE, rows)))
        alone = [generate_alone(model, prompts[row], lengths[row]) for row in sample]
    equal = {
        name: sum(answers[row] == one for row, one in zip(sample, alone, strict=True)) / len(sample)
        for name, answers in outputs.items()
    }
    whole = {name: statistics.median(seconds[name]) for name in ways} | {"predict": sum(seconds["predict"])}
    ct2 = whole.get("ctranslate2")
    return {
        "lengths": source,
        "size": size,
        "device": device,
        "rows": rows,
        "rounds": repeats,
        "tokens": sum(lengths),
        "slots": slots,
        "score_vs_predict": round(whole["predict"] / whole["torch"], 2),
        "score_ct2_vs_predict": ct2 and round(whole["predict"] / ct2, 2),
        "score_equal_rows": min(equal.values()),
        "equal_rows": equal,
        "rows_per_second": round(rows / whole["torch"], 2),
        "seconds": {name: round(seconds, 4) for name, seconds in whole.items()},
        "ranges": {name: [round(min(seconds[name]), 2), round(max(seconds[name]), 2)] for name in ways},
        "tokens_per_second_by_batch_size": {batch: round(speed, 1) for batch, speed in tried.items()},
        "best_batch_size": best,
    }


class Lengths(LogitsProcessor):
    """Ends each row of a batch at its own length, and not before.

    Parameters:
        lengths: of all rows, in the order in which their batches come.
    """

    def __init__(self, lengths: list[int]):
        self.lengths, self.next = lengths, 0

    def __call__(self, input_ids, scores):
        rows, step = len(input_ids), input_ids.shape[1] - 1
        if step == 0:
            self.now = torch.tensor(self.lengths[self.next : self.next + rows], device=scores.device)
            self.next += rows
        ended = self.now <= step
        scores.masked_fill_(ended[:, None], -torch.inf)
        scores[:, END] = torch.where(ended, 0.0, -torch.inf).to(scores.dtype)
        return scores


def predict(model, prompts: list[list[int]], lengths: list[int], batch_size: int, device: str) -> list[list[int]]:
    """What `Seq2SeqTrainer.predict` writes: stock, but that its rows end where they should."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            folder, per_device_eval_batch_size=batch_size, predict_with_generate=True, use_cpu=device == "cpu",
            report_to="none", disable_tqdm=True,
        )  # fmt: skip
        trainer = Seq2SeqTrainer(model, arguments, data_collator=_pad)
        output = trainer.predict(
            [{"input_ids": prompt} for prompt in prompts],
            max_new_tokens=max(lengths) + 1,
            logits_processor=LogitsProcessorList([Lengths(lengths)]),
        )
    return [_cut(ids) for ids in output.predictions.tolist()]


def _pad(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    return {"input_ids": padded, "attention_mask": (padded != START).long()}


def generate_alone(model, prompt: list[int], length: int) -> list[int]:
    """What `generate` writes for one row by itself."""
    how = GenerationConfig(
        max_new_tokens=length + 1, do_sample=False, decoder_start_token_id=START, pad_token_id=START, eos_token_id=END
    )
    ids = torch.tensor([prompt], device=model.device)
    output = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=how,
        logits_processor=LogitsProcessorList([Lengths([length])]),
    )  # fmt: skip
    return _cut(output[0].tolist())


def _cut(ids: list[int]) -> list[int]:
    """Without the decoder start token, and up to `</s>`."""
    return ids[1 : ids.index(END)]


def _seconds(way: Callable[[], list]) -> tuple[float, list]:
    start = time.perf_counter()
    result = way()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
