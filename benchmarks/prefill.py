"""What level prefill finds, and what it costs: what other models would have written, as the named one reads it.

    python -m benchmarks.prefill [--models FOLDER] [--rounds 5]

The model of `benchmarks.prefill_models` reads people's answers, since one that is trained for minutes writes a few
sentences again and again. At each place every substitute says which token it would have written there; the model that
is named reads these as if they had been published. Rows are then drawn again and again, with as many tokens of base
and adapter together, and `evaluation.tolerance` decides. Honest outputs are those of the same weights by the kernels of
another library, or in another precision of this machine.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from peft import PeftModel
from scipy.stats import norm
from torch import Tensor

from benchmarks.prefill_models import START, Rows, bfloat16_by_float32, load, train
from benchmarks.shapes import make_model, make_rows
from evaluation.margins import noise_of, summarize
from evaluation.tolerance import DRAWS as READINGS
from evaluation.tolerance import FALSE_ALARMS, NEAR, NOISE, ROOM, TELLING, Precision
from record.scores import Contract
from record.verdict import Model
from scoring.decoding.margins import Margins, read_margins, read_padded
from scoring.decoding.slot_decoding import greedy
from scoring.decoding.t5_reading import read
from scoring.decoding.t5_weights import weights_of

# Rows that are read at once.
SLOTS, ROWS = 64, 40
TOKENS, SIZES, DRAWS = 1_000, (50, 100, 200, 500, 1_000, 2_000, 5_000), 300
ELSEWHERE = "other kernels"


class Case(NamedTuple):
    """Where an adapter was released, and where it is checked.

    Parameters:
        reader, writer: given to `benchmarks.prefill_models.load`; substitutes are written as `writer` has it.
        judged: by what noise, and `dtype` in what the coarser of the two computes (`evaluation.tolerance.Rounding`).
        honest: what else writes the same, as changes to `writer`, or by the kernels of another library.
    """

    reader: dict
    writer: dict
    judged: Precision
    dtype: str
    honest: dict[str, dict]


FLOAT32, BFLOAT16, INT8 = ({"precision": name} for name in ("float32", "bfloat16", "int8"))
COARSE = {"compute": torch.bfloat16}
CASES = {
    "float32": Case(FLOAT32, FLOAT32, "float32", "float32", {ELSEWHERE: {}}),
    "bfloat16": Case(BFLOAT16, BFLOAT16 | COARSE, "bfloat16", "bfloat16", {ELSEWHERE: {}}),
    "bfloat16, read in float32": Case(FLOAT32, BFLOAT16 | COARSE, "bfloat16", "bfloat16", {"as named": {}}),
    "int8": Case(INT8, INT8, "quantized", "float32", {ELSEWHERE: {}}),
}


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
    "base's next revision": Substitute({"base": "base-later"}, base=True),
    "rank 8, not 16": Substitute({"adapter": "other-rank"}),
    "alpha halved": Substitute({"scale": 0.5}),
    "alpha 25 % larger": Substitute({"scale": 1.25}),
    "checkpoint at 3/4": Substitute({"adapter": "earlier"}),
    "another prompt": Substitute({}, base=True, writes="other prompt"),
    "outputs of other rows": Substitute({}, base=True, writes="another row's"),
    "base as adapter": Substitute({}, writes="base"),
}


class Text(NamedTuple):
    """What one model makes of the rows: its logits at each place of their answers, (tokens, vocabulary)."""

    logits: Tensor
    lengths: list[int]

    def margins(self, tokens: Tensor) -> list[Margins]:
        """The margins of other tokens, one for each place."""
        top = self.logits.topk(2).values
        short = (top[:, 0] - self.logits.gather(1, tokens[:, None])[:, 0]).double().numpy()
        gaps = (top[:, 0] - top[:, 1]).double().numpy()
        cuts = np.cumsum(self.lengths)[:-1]
        return [Margins(*pair) for pair in zip(np.split(short, cuts), np.split(gaps, cuts), strict=True)]

    def noise(self, logits: Tensor) -> dict[str, float]:
        """Standard deviation, in nats, of how far the lead of the likeliest token over the next differs.

        Where the two are far apart nothing is decided by noise: only near-ties count.
        """
        top = self.logits.topk(2)
        lead = top.values[:, 0] - top.values[:, 1]
        other = logits.gather(1, top.indices)
        moved = (other[:, 0] - other[:, 1] - lead).double()[lead < NEAR]
        return {"noise": float(moved.square().mean().sqrt()), "largest": float(moved.abs().max())}


def places(model: PeftModel, rows: Rows, prompts: list, adapter: bool, padded: bool = False) -> Tensor:
    """Logits at each place of every answer, (tokens, vocabulary).

    Parameters:
        padded: by transformers' modules and PyTorch's own products.
    """
    parts = []
    with torch.inference_mode(), contextlib.nullcontext() if adapter else model.disable_adapter():
        weights = weights_of(model)
        for at in range(0, len(prompts), ROWS):
            source = prompts[at : at + ROWS]
            past = [[START, *ids[:-1]] for ids in rows.answers[at : at + ROWS]]
            parts.append(
                read_padded(model, source, past) if padded else weights.head(read(weights, source, past)).float()
            )
    return torch.cat(parts)


def rates(readings: dict[Model, list[Margins]], case: Case, own: dict[Model, float | None], seed: int = 0) -> dict:
    """How often draws of rows are refused, by how many tokens of base and adapter they have together.

    Parameters:
        own: the models' own noise, which is used where a draw has near-ties enough to tell it.

    Returns:
        `refused`, the share of draws of `TOKENS` tokens that are refused; `tokens_needed`, from how many tokens on 99 %
        are.
    """
    rng = np.random.default_rng(seed)
    lengths = sum(np.array([len(row.short) for row in margins]) for margins in readings.values())
    refused = {}
    for size in SIZES:
        count = 0
        for _ in range(DRAWS):
            order = rng.integers(len(lengths), size=size)
            drawn = order[: int(np.searchsorted(np.cumsum(lengths[order]), size)) + 1]
            found = [_summarize([margins[row] for row in drawn], case, own[who]) for who, margins in readings.items()]
            count += any(one.unlikely for one in found)
        refused[size] = count / DRAWS
    needed = next((size for size in SIZES if all(refused[more] >= 0.99 for more in SIZES if more >= size)), None)
    return {"refused": refused[TOKENS], "tokens_needed": needed}


def most_powerful(gaps: np.ndarray, honest: np.ndarray, other: np.ndarray, seed: int = 0) -> float:
    """Of draws of `TOKENS` tokens, how many any rule over the written tokens finds at most, at `FALSE_ALARMS`.

    That is the ratio of the likelihoods of both kinds of noise (Neyman and Pearson 1933), here of normal noise of the
    same size everywhere: by it the two likeliest tokens are exchanged where they are `gaps` nats apart.

    Parameters:
        honest, other: standard deviations of the noise at each place, in nats.
    """
    rng, places = np.random.default_rng(seed), np.random.default_rng(seed).integers(len(gaps), size=(2_000, TOKENS))
    if_exchanged = norm.logsf(gaps / other) - norm.logsf(gaps / honest)
    if_not = norm.logcdf(gaps / other) - norm.logcdf(gaps / honest)

    def evidence(noise: np.ndarray) -> np.ndarray:
        exchanged = rng.random(places.shape) < norm.sf(gaps / noise)[places]
        return np.where(exchanged, if_exchanged[places], if_not[places]).sum(1)

    return float(np.mean(evidence(other) > np.quantile(evidence(honest), 1 - FALSE_ALARMS)))


def _summarize(margins: list[Margins], case: Case, own: float | None):
    near = sum(np.count_nonzero(row.gaps < NEAR) for row in margins)
    return summarize(margins, own if own and near * READINGS >= TELLING else NOISE[case.judged])


def own_noise(case: Case, reader: PeftModel, rows: Rows) -> dict[str, dict[Model, float | None]]:
    """What each model says of its own noise, by kind of text; nothing where the precision alone decides."""
    contract = Contract.model_construct(max_new_tokens=max(map(len, rows.answers)), num_beams=1)
    told: dict[str, dict[Model, float | None]] = {}
    for kind, part in rows.parts.items():
        told[kind] = dict.fromkeys(WHO)
        if case.judged == "float32":
            continue
        for who in WHO:
            text = rows.prompts[part], rows.answers[part]
            margins = read_margins(reader, *text, contract, who == "adapter")
            told[kind][who] = noise_of(reader, *text, margins, contract, who == "adapter", case.dtype)
    return told


def detection(folder: Path) -> dict:
    """By case: what is refused of each substitute's choices and of honest ones, by kind of text, and the noise."""
    rows, found = Rows(), {}
    for name, case in CASES.items():
        reader = load(folder, **case.reader)
        lengths = [len(ids) for ids in rows.answers]
        texts = {who: Text(places(reader, rows, rows.prompts, who == "adapter"), lengths) for who in WHO}
        same = {who: text.margins(text.logits.argmax(1)) for who, text in texts.items()}
        judge = Judge(texts, rows, case, own_noise(case, reader, rows))
        found[name] = {
            "texts": {kind: _describe(same, part) for kind, part in rows.parts.items()},
            "own_noise": judge.own,
            "honest": {honest: judge(folder, Substitute(how, base=True), honest == ELSEWHERE)
                       for honest, how in case.honest.items()},
            "substitutes": {},
        }  # fmt: skip
        (first, *_) = found[name]["honest"].values()
        print(name, judge.own, found[name]["honest"], flush=True)
        for written, substitute in SUBSTITUTES.items():
            if substitute.how.get("precision") == case.writer["precision"]:
                substitute, written = Substitute(FLOAT32, base=True), "base in float32"
            if substitute.writes == "another row's":
                read = {who: _read_next(reader, text, rows, who) for who, text in texts.items()}
                told = judge.by_kind(read)
            else:
                told = judge(folder, substitute)
                for kind, part in rows.parts.items():
                    told[kind]["most"] = _most(same, part, first["noise"], told["noise"])
            found[name]["substitutes"][written] = told
            print(name, written, told, flush=True)
    return found


WHO: tuple[Model, ...] = ("base", "adapter")


def _describe(readings: dict[Model, list[Margins]], part: slice) -> dict:
    gaps = np.concatenate([row.gaps for margins in readings.values() for row in margins[part]])
    return {"tokens": len(gaps), "near": float((gaps < NEAR).mean())}


def _most(same: dict[Model, list[Margins]], part: slice, honest: dict, other: dict) -> float:
    """What of a kind of text is found at most. A model that is not replaced has honest noise."""
    gaps, noises = [], []
    for who, margins in same.items():
        own = np.concatenate([row.gaps for row in margins[part]])
        gaps.append(own)
        noises.append(np.full((2, len(own)), [[honest[who]["noise"]], [other.get(who, honest[who])["noise"]]]))
    return most_powerful(np.concatenate(gaps), *np.concatenate(noises, axis=1))


class Judge(NamedTuple):
    """The models that read, what they make of the rows, and their own noise by kind of text."""

    texts: dict[Model, Text]
    rows: Rows
    case: Case
    own: dict[str, dict[Model, float | None]]

    def __call__(self, folder: Path, substitute: Substitute, padded: bool = False) -> dict:
        """By kind of text how often what is written instead is refused, and the noise between the two.

        A model that is not replaced has written honestly.
        """
        model = load(folder, **(self.case.writer | substitute.how))
        prompts = self.rows.other_prompts if substitute.writes == "other prompt" else self.rows.prompts
        logits = {
            who: places(model, self.rows, prompts, who == "adapter" and substitute.writes != "base", padded)
            for who in (WHO if substitute.base else WHO[1:])
        }
        choices = {who: logits.get(who, text.logits).argmax(1) for who, text in self.texts.items()}
        read = {who: text.margins(choices[who]) for who, text in self.texts.items()}
        return {"noise": {who: self.texts[who].noise(own) for who, own in logits.items()}} | self.by_kind(read)

    def by_kind(self, readings: dict[Model, list[Margins]]) -> dict:
        return {
            kind: rates({who: margins[part] for who, margins in readings.items()}, self.case, self.own[kind])
            for kind, part in self.rows.parts.items()
        }


def _read_next(model: PeftModel, text: Text, rows: Rows, who: Model) -> list[Margins]:
    """The margins of the next row's choices, as if they had been published for this one."""
    choices = [part.tolist() for part in text.logits.argmax(1).split(text.lengths)]
    longest = max(text.lengths)
    contract = Contract.model_construct(max_new_tokens=longest, num_beams=1)
    read = read_margins(model, rows.prompts, [*choices[1:], choices[0]], contract, who == "adapter")
    return [Margins(row.short[:-1], row.gaps[:-1]) if len(row.short) > 1 else row for row in read]


def cost(size: str, rows: int, rounds: int) -> dict:
    """Seconds of generating and of reading for both models, in turns: random weights, at the lengths of real rows.

    By the clock, and of the CPU's cores: on a machine with other work these tell more.
    """
    model = make_model(size).eval()
    source, examples = make_rows(rows)
    prompts = [row["input_ids"] for row in examples]
    outputs = [row["labels"][:-1] or row["labels"] for row in examples]
    lengths = [len(ids) for ids in outputs]
    contract = Contract.model_construct(max_new_tokens=max(lengths), num_beams=1)

    def generate(adapter: bool) -> None:
        with torch.inference_mode(), contextlib.nullcontext() if adapter else model.disable_adapter():
            greedy(model, prompts, max(lengths), SLOTS, lengths=lengths)

    def prefill(adapter: bool) -> None:
        read_margins(model, prompts, outputs, contract, adapter)

    seconds, of_cpu = ({"generate": [], "prefill": []} for _ in range(2))
    for _ in range(rounds):
        for name, way in (("generate", generate), ("prefill", prefill)):
            start, busy = time.perf_counter(), time.process_time()
            for adapter in (False, True):
                way(adapter)
            seconds[name].append(time.perf_counter() - start)
            of_cpu[name].append(time.process_time() - busy)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    busy = {name: statistics.median(times) for name, times in of_cpu.items()}
    return {
        "lengths": source, "size": size, "rows": rows, "tokens": sum(lengths), "rounds": rounds,
        "seconds": {name: round(median, 2) for name, median in medians.items()},
        "ranges": {name: [round(min(times), 2), round(max(times), 2)] for name, times in seconds.items()},
        "prefill_share": round(medians["prefill"] / medians["generate"], 3),
        "prefill_share_of_cpu": round(busy["prefill"] / busy["generate"], 3),
    }  # fmt: skip


def measure(size: str, rows: int, rounds: int, models: Path | None = None) -> dict:
    """Detection and false alarms by precision and kind of text, and the cost next to generating.

    Parameters:
        models: a folder of `benchmarks.prefill_models`; trained anew unless given.
    """
    with tempfile.TemporaryDirectory() as folder:
        if models is None:
            models = Path(folder)
            train(models, size, *((4, 1, 4) if size == "tiny" else ()))
        told = json.loads((models / "done.json").read_text(encoding="utf-8"))
        with bfloat16_by_float32():
            found = detection(models)
    sizes = (size,) if size == "tiny" else (size, "base")
    return {
        "trained": told, "precisions": found, "draws": DRAWS, "drawn_tokens": TOKENS, "near": NEAR, "room": ROOM,
        "cost": [cost(one, rows, rounds) for one in sizes],
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.prefill", description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", default="small")
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))
