"""What the measurements of generating, profiling and exporting take part in."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import torch

from benchmarks import export, generation, profiles


def test_the_stock_way_writes_every_row_once_and_the_others_in_every_round(monkeypatch):
    stock, ours = Counter(), Counter()
    predict, greedy = generation.predict, generation.slot_decoding.greedy

    def predicting(model, prompts, lengths, batch_size, device):
        stock.update(map(tuple, prompts))
        return predict(model, prompts, lengths, batch_size, device)

    def decoding(model, prompts, *arguments, **options):
        ours.update(map(tuple, prompts))
        return greedy(model, prompts, *arguments, **options)

    monkeypatch.setattr(generation, "SIZES", {"cpu": (2,)})
    monkeypatch.setattr(generation, "predict", predicting)
    monkeypatch.setattr(generation.slot_decoding, "greedy", decoding)
    found = generation.measure("cpu", 10, 2, "tiny")
    prompts = [tuple(row["input_ids"]) for row in generation.make_rows(10)[1]]
    # The two rows of the only batch size that is tried are written once more for it.
    assert stock == Counter(prompts) + Counter(prompts[:2]) and ours == Counter(2 * prompts)
    assert found["equal_rows"] == dict.fromkeys(found["equal_rows"], 1.0)


def test_a_profile_holds_what_other_threads_did():
    numbers = torch.ones(64, 64)

    def way():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(torch.mm, numbers, numbers).result()

    assert "aten::mm" in [name for name, _, _ in profiles.operators(way)["top"]]


def test_the_exports_are_timed_without_vnni_in_a_process_that_has_none(monkeypatch):
    monkeypatch.setattr(export, "measure", lambda *_: {"vnni": True})
    found = export.measure_both("tiny", 1, 2, 1)["without_vnni"]
    assert found["capability"] == "AVX2" and found["ways"].keys() >= {"adapter", "merged", "int8"}
