"""What level prefill finds, and what it costs: the choices of other models at each place of published outputs.

    python -m benchmarks.prefill [--models FOLDER] [--rounds 5]

The trained model of `benchmarks.prefill_models` answers test rows. At each place of its answers, every substitute says
which token it would have written there; the honest model reads these as if they had been published. Rows are then
drawn again and again, 1,000 tokens each time, and `evaluation.tolerance` decides. Honest outputs are those of the same
weights by the kernels of another library, or in another precision of this machine.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.prefill_models import END, START, Rows, load, train
from benchmarks.shapes import make_model, make_rows
from evaluation.margins import summarize
from evaluation.tolerance import Precision
from record.scores import Contract
from scoring.decoding.margins import Margins, read_margins
from scoring.decoding.slot_decoding import greedy

SLOTS, LONGEST = 64, 40
TOKENS, SIZES, DRAWS = 1_000, (50, 100, 200, 500, 1_000, 2_000), 400
# By what a precision is judged (`evaluation.tolerance.NOISE`).
JUDGED: dict[str, Precision] = {"float32": "float32", "bfloat16": "bfloat16", "int8": "quantized"}
ELSEWHERE = "other kernels"


class Substitute(NamedTuple):
    """What writes in the place of the model that was named.

    Parameters:
        how: given to `benchmarks.prefill_models.load`.
        base: whether the base model's outputs are others, too.
        writes: `other prompt`, `another row's` or `base` where not the weights are others.
    """

    how: dict
    base: bool = False
    writes: str = ""


SUBSTITUTES = {
    "base in int8": Substitute({"precision": "int8"}, base=True),
    "base in NF4": Substitute({"precision": "nf4"}, base=True),
    "base of another revision": Substitute({"base": "base-later"}, base=True),
    "rank 8 in place of 16": Substitute({"adapter": "other-rank"}),
    "alpha halved": Substitute({"scale": 0.5}),
    "alpha 25 % larger": Substitute({"scale": 1.25}),
    "a checkpoint at three quarters of the steps": Substitute({"adapter": "earlier"}),
    "another prompt": Substitute({}, base=True, writes="other prompt"),
    "outputs of other rows": Substitute({}, base=True, writes="another row's"),
    "base in place of the adapter": Substitute({}, writes="base"),
}
HONEST = {
    "float32": {ELSEWHERE: {}},
    "bfloat16": {"in float32": {"precision": "float32"}, ELSEWHERE: {}},
    "int8": {"computed in bfloat16": {"compute": torch.bfloat16}, ELSEWHERE: {}},
}


def places(model: PeftModel, prompts: list, outputs: list, adapter: bool) -> Tensor:
    """Logits at each place of every output, its end included: (tokens, vocabulary)."""
    written = [[*ids, END] if len(ids) < LONGEST else ids for ids in outputs]
    parts = []
    with torch.inference_mode(), contextlib.nullcontext() if adapter else model.disable_adapter():
        for at in range(0, len(prompts), 32):
            rows = range(at, min(at + 32, len(prompts)))
            source = pad_sequence([torch.tensor(prompts[row]) for row in rows], batch_first=True)
            past = pad_sequence([torch.tensor([START, *written[row][:-1]]) for row in rows], batch_first=True)
            logits = model(
                input_ids=source, attention_mask=(source != 0).long(), decoder_input_ids=past, use_cache=False
            ).logits
            parts += [logits[place, : len(written[row])].float() for place, row in enumerate(rows)]
    return torch.cat(parts)


@contextlib.contextmanager
def _kernels_of_another_library() -> Iterator[None]:
    """Matrix products without oneDNN, in the block."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


class Text(NamedTuple):
    """Outputs of one model, the logits of the reader at each of their places, and how many each row has."""

    outputs: list[list[int]]
    logits: Tensor
    lengths: list[int]

    def margins(self, tokens: Tensor) -> list[Margins]:
        """The reader's margins of other tokens, one for each place."""
        top = self.logits.topk(2).values
        short = (top[:, 0] - self.logits.gather(1, tokens[:, None])[:, 0]).double().numpy()
        gaps = (top[:, 0] - top[:, 1]).double().numpy()
        cuts = np.cumsum(self.lengths)[:-1]
        return [Margins(*pair) for pair in zip(np.split(short, cuts), np.split(gaps, cuts), strict=True)]


def rate(margins: list[Margins], precision: Precision, tokens: int, seed: int = 0) -> float:
    """The share of draws of rows, with so many tokens together, whose outputs are refused."""
    rng, refused = np.random.default_rng(seed), 0
    lengths = np.array([len(row.short) for row in margins])
    for _ in range(DRAWS):
        order = rng.integers(len(margins), size=tokens)
        drawn = order[: int(np.searchsorted(np.cumsum(lengths[order]), tokens)) + 1]
        refused += summarize([margins[row] for row in drawn], precision).unlikely(precision)
    return refused / DRAWS


def shown(margins: list[Margins], precision: Precision) -> dict:
    """How often 1,000 tokens are refused, how many are needed for 99 %, and the mean margin."""
    rates = {size: rate(margins, precision, size) for size in SIZES}
    needed = next((size for size in SIZES if all(rates[more] >= 0.99 for more in SIZES if more >= size)), None)
    whole = summarize(margins, precision)
    return {"refused": rates[TOKENS], "tokens_needed": needed, "mean": whole.mean, "limit": whole.limit,
            "exchanged": whole.exchanged / whole.tokens, "tokens": whole.tokens}  # fmt: skip


def detection(folder: Path) -> dict:
    """By precision: what is refused of each substitute's choices, and of honest ones; the noise between the latter."""
    rows = Rows()
    prompts, found = rows.prompts, {}
    with torch.inference_mode():
        named = load(folder, "float32")
        outputs = {"adapter": greedy(named, prompts, LONGEST, SLOTS)}
        with named.disable_adapter():
            outputs["base"] = greedy(named, prompts, LONGEST, SLOTS)
    for precision, judged in JUDGED.items():
        reader = load(folder, precision)
        texts = {}
        for who, ids in outputs.items():
            lengths = [min(len(one) + 1, LONGEST) for one in ids]
            texts[who] = Text(ids, places(reader, prompts, ids, who == "adapter"), lengths)
        found[precision] = {"honest": {}, "substitutes": {}}
        for name, how in HONEST[precision].items():
            model = load(folder, **({"precision": precision} | how))
            with _kernels_of_another_library() if name == ELSEWHERE else contextlib.nullcontext():
                found[precision]["honest"][name] = {
                    who: honest(text, places(model, prompts, text.outputs, who == "adapter"), judged)
                    for who, text in texts.items()
                }
        for name, substitute in SUBSTITUTES.items():
            if substitute.how.get("precision") == precision:
                substitute = Substitute({"precision": "float32"}, base=True)
                name = "base in float32"
            model = load(folder, **({"precision": precision} | substitute.how))
            found[precision]["substitutes"][name] = {
                who: shown(_read(model, texts[who], rows, who, substitute.writes), judged)
                for who in (("base", "adapter") if substitute.base else ("adapter",))
            }
            print(precision, name, found[precision]["substitutes"][name], flush=True)
    return found


def honest(text: Text, logits: Tensor, precision: Precision) -> dict:
    """What is refused of honest choices, and the standard deviation of the lead of the likeliest token over the next.

    Where the two likeliest are far apart nothing is decided by noise: only places with a lead of a nat at most count.
    """
    top = text.logits.topk(2)
    lead = top.values[:, 0] - top.values[:, 1]
    other = logits.gather(1, top.indices)
    moved = (other[:, 0] - other[:, 1] - lead).double()
    margins = text.margins(logits.argmax(1))
    return shown(margins, precision) | {
        "noise": float(moved.square().mean().sqrt()),
        "noise_of_near_ties": float(moved[lead < 1].square().mean().sqrt()),
        "largest": float(moved.abs().max()),
    }


def _read(model: PeftModel, text: Text, rows: Rows, who: str, writes: str) -> list[Margins]:
    prompts = rows.other_prompts if writes == "other prompt" else rows.prompts
    if writes != "another row's":
        return text.margins(places(model, prompts, text.outputs, who == "adapter" and writes != "base").argmax(1))
    others = [*text.outputs[1:], text.outputs[0]]
    contract = Contract.model_construct(max_new_tokens=LONGEST, num_beams=1)
    return read_margins(model, prompts, others, contract, who == "adapter")


def cost(size: str, rows: int, rounds: int) -> dict:
    """Seconds of generating and of reading for both models, in turns: random weights, at the lengths of real rows."""
    model = make_model(size).eval()
    source, examples = make_rows(rows)
    prompts = [row["input_ids"] for row in examples]
    outputs = [row["labels"][:-1] or row["labels"] for row in examples]
    lengths = [len(ids) for ids in outputs]
    contract = Contract.model_construct(max_new_tokens=max(lengths), num_beams=1)
    seconds: dict[str, list[float]] = {"generate": [], "prefill": []}
    for _ in range(rounds):
        start = time.perf_counter()
        for adapter in (False, True):
            with torch.inference_mode(), contextlib.nullcontext() if adapter else model.disable_adapter():
                greedy(model, prompts, max(lengths), SLOTS, lengths=lengths)
        seconds["generate"].append(time.perf_counter() - start)
        start = time.perf_counter()
        for adapter in (False, True):
            read_margins(model, prompts, outputs, contract, adapter)
        seconds["prefill"].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "lengths": source, "size": size, "rows": rows, "tokens": sum(lengths), "rounds": rounds,
        "seconds": {name: round(median, 2) for name, median in medians.items()},
        "ranges": {name: [round(min(times), 2), round(max(times), 2)] for name, times in seconds.items()},
        "prefill_share": round(medians["prefill"] / medians["generate"], 3),
    }  # fmt: skip


def measure(size: str, rows: int, rounds: int, models: Path | None = None) -> dict:
    """Detection and false alarms by precision, and the cost next to generating.

    Parameters:
        models: a folder of `benchmarks.prefill_models`; trained anew unless given.
    """
    with tempfile.TemporaryDirectory() as folder:
        if models is None:
            models = Path(folder)
            train(models, size, *((4, 1, 2) if size == "tiny" else ()))
        told = json.loads((models / "done.json").read_text(encoding="utf-8"))
        found = detection(models)
    names = {kind: list(dict.fromkeys(name for one in found.values() for name in one[kind]))
             for kind in ("substitutes", "honest")}  # fmt: skip
    return {
        "trained": told, "precisions": found, "names": names["substitutes"], "honest": names["honest"],
        "draws": DRAWS, "drawn_tokens": TOKENS, "cost": cost(size, rows, rounds),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.prefill", description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", default="small")
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))
