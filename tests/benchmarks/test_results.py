"""From the command to README: the parts, what is told when one cannot be measured, and the tables."""

import json

import pytest
import torch

from benchmarks.__main__ import FLAT, attempt, cpu_kind, main, slug
from benchmarks.anchors import WAYS
from benchmarks.anchors import measure as measure_anchors
from benchmarks.loss_curves import _train, spread_of
from benchmarks.shapes import make_model
from benchmarks.training import PEFT_LOOP, stock
from readme.render import block, duration, newest_cpu_parts
from recipes.training import dtype


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A root in which `python -m benchmarks --quick` has measured the training and what follows from it."""
    root = tmp_path_factory.mktemp("root")
    folder = root / "benchmarks" / "results"
    parts = ("training", "base", "generation", "exports", "machine", "bfloat16-base", "bfloat16-large")
    main(["--quick", *(f"--only={part}" for part in parts), "--into", str(folder)])
    return root, json.loads((folder / f"{cpu_kind()}.json").read_text())


def test_the_chosen_figures_stand_at_the_top(measured):
    _, result = measured
    assert result.keys() >= {key for keys in FLAT.values() for key in keys}
    assert result["train_vs_best_stock"] == result["parts"]["training"]["train_vs_best_stock"]
    assert result["score_vs_predict"] == result["parts"]["generation"]["score_vs_predict"] > 0
    assert result["rouge_vs_evaluate"] is None
    assert result["parts"]["training"]["versions"].keys() >= {"torch", "transformers", "peft"}


def test_every_contender_was_measured_and_its_padding_is_in_its_order(measured):
    found = measured[1]["parts"]["training"]
    contenders = found["contenders"]
    assert contenders.keys() == {stock(4), stock(8), stock(4, grouped=True), PEFT_LOOP, "ours"}
    for name, contender in contenders.items():
        low, high = contender["tokens_per_second_range"]
        assert 0 < low <= contender["tokens_per_second"] <= high, name
    order = (stock(4, grouped=True), stock(4), stock(8), PEFT_LOOP)
    padding = [contenders[name]["padding_share"] for name in order]
    assert padding == sorted(padding) and padding[0] > 0
    # In batches of one size a few rows decide; ours keeps the least, and larger batches keep more.
    kept = {name: contenders[name]["activation_bytes_per_token"] for name in contenders}
    assert kept["ours"] < min(kept[stock(4)], kept[stock(4, grouped=True)]) and kept[stock(4)] < kept[stock(8)]
    assert found["gradient_relative_error"] < 1e-5
    assert found["best_stock"] in (stock(4), stock(8), stock(4, grouped=True))
    assert found["train_vs_best_stock"] == contenders[found["best_stock"]]["ours_is_faster"]


def test_every_way_writes_the_same_tokens(measured):
    found = measured[1]["parts"]["generation"]
    assert found["equal_rows"] == {"torch": 1.0, "ctranslate2": 1.0, "predict": 1.0}
    told = block("speed", measured[0])
    assert f"{found['tokens']:,} tokens" in told and f"**{found['score_vs_predict']:.1f}x as fast**" in told


def test_every_format_has_a_line(measured):
    root, result = measured
    found = result["parts"]["exports"]
    in_bfloat16 = {"adapter, bfloat16", "merged, bfloat16"} if cpu_kind() != "cpu" else set()
    assert found["ways"].keys() == {"adapter", "merged", "int8", "ct2", "ct2-int8"} | in_bfloat16
    assert found["ways"]["int8"]["bytes"] < 0.65 * found["ways"]["merged"]["bytes"]
    table = block("exports", root)
    shown = [line for line in table.splitlines() if line.startswith(("| the adapter", "| `"))]
    assert len(shown) == len(found["ways"])
    for line, ratio in zip(shown, found["tokens_per_second_ratio"].values(), strict=True):
        assert f"({ratio:.2f})" in line
    assert all("AVX512-BF16" in line for line in shown if "bfloat16" in line)


def test_what_a_cpu_without_vnni_does_has_a_column(measured, tmp_path):
    found = dict(measured[1]["parts"]["exports"], vnni=True)
    slower = {"ways": {}, "tokens_per_second_ratio": dict.fromkeys(found["ways"], 0.25)}
    slower["ways"] = {name: way | {"tokens_per_second": 7.5} for name, way in found["ways"].items()}
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    parts = {"exports": found | {"without_vnni": slower}}
    (results / "cpu.json").write_text(json.dumps({"parts": parts}))
    table = block("exports", tmp_path)
    assert "without VNNI" in table.splitlines()[0] and table.count("| 7.5 (0.25) |") == len(found["ways"])


def test_the_load_is_told(tmp_path):
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    # As `benchmarks.load.measure` gives it, which tests/serving runs.
    load = {
        "clients": 64, "seconds": 60.4, "threads": 2, "requests": 1_000, "statuses": {"200": 998, "429": 2},
        "broken": {"TimeoutError": 1}, "per_second": 16.6, "p50": 0.5, "p95": 1.25, "rss_before": 7e8,
        "rss_after": 7.1e8, "killed": {"restart_seconds": 8.04},
    }  # fmt: skip
    (results / "cpu.json").write_text(json.dumps({"parts": {"load": load}}))
    told = block("load", tmp_path)
    assert "1,000 answers" in told and " 3 failed, 17 a second" in told and "95 % within 1.25 seconds" in told
    assert "from 700 to 710 MB" in told and told.endswith("after 8.0 seconds.")
    waited = {"first": 0.05, "read": 0.03, "step": 0.02, "steps": 1.02}
    load["streams"] = {
        "streams": 5_000, "wrong": 0, "failed": {"OSError: broken": 2}, "first_p50": 0.008, "first_p95": 0.014,
        "first_token": {"size": "base", "others": 31, "alone": waited, "among": waited | {"steps": 1.31}},
    }  # fmt: skip
    (results / "cpu.json").write_text(json.dumps({"parts": {"load": load}}))
    told = block("load", tmp_path)
    assert "5,000 came whole, 2 failed, 0 differed" in told and told.endswith("1.3 among 31 others.")
    assert "long as 1.0 steps of the decoder where a stream is alone (50 ms in all, 30 of them" in told


def test_parts_that_are_not_measured_again_stay(measured):
    root, result = measured
    main(["--quick", "--only", "machine", "--into", str(root / "benchmarks" / "results")])
    again = json.loads((root / "benchmarks" / "results" / f"{cpu_kind()}.json").read_text())
    assert again["parts"]["training"] == result["parts"]["training"]
    assert again["parts"]["machine"]["date"] >= result["parts"]["machine"]["date"]


def test_a_part_that_breaks_costs_none_that_was_measured_before_it(tmp_path, monkeypatch):
    def broken():
        raise RuntimeError("the kernel cannot be compiled")

    monkeypatch.setattr("benchmarks.__main__.measures", lambda *how: {"data": lambda: {"sizes": []}, "growth": broken})
    with pytest.raises(RuntimeError, match="cannot be compiled"):
        main(["--quick", "--only", "data", "--only", "growth", "--into", str(tmp_path)])
    assert json.loads((tmp_path / f"{cpu_kind()}.json").read_text())["parts"].keys() == {"data"}


def test_the_table_says_what_the_json_says(measured):
    root, result = measured
    table = block("speed", root)
    rows = {line.split(" | ")[0].strip("|* "): line for line in table.splitlines()}
    for name, contender in result["parts"]["training"]["contenders"].items():
        line = rows["this project" if name == "ours" else name]
        faster = "" if name == "ours" else f"{contender['ours_is_faster']:.2f}x"
        assert f"| {contender['tokens_per_second']:,.0f} (" in line
        assert f"| {faster} | {contender['padding_share']:.1%} |" in line
    assert "autotrain-advanced 0.8.36 requires transformers==4.48.0" in table
    base = result["parts"]["base"]["contenders"]
    assert f" on {base['ours']['tokens_per_second']:,.0f} tokens a second: " in table
    assert f"{base[stock(4)]['ours_is_faster']:.2f}x as fast as {stock(4)}" in table
    assert (root / "benchmarks" / "results" / f"{cpu_kind()}-training.png").read_bytes().startswith(b"\x89PNG")


def test_bfloat16_is_raced_against_float32_and_stock_in_both(measured):
    root, result = measured
    base, large = (result["parts"][f"bfloat16-{size}"] for size in ("base", "large"))
    stocks = {f"{stock(4)}, {name}" for name in ("float32", "bfloat16")}
    assert base["training"].keys() == {"float32", "bfloat16", *stocks}
    assert large["training"].keys() == {"float32", "bfloat16"} == base["scoring"].keys()
    assert result["train_vs_best_stock_bf16"] == base["training"][f"{stock(4)}, bfloat16"]["bfloat16_is_faster"] > 0
    # Two rounds of a step of 64 rows.
    assert large["epoch_rows_measured"] == 128 and large["finance_epoch_hours_tiny"] > 0
    for part in (base, large):
        # On a CPU that is slow in bfloat16 the large product it is a share of may be the slowest of all.
        assert part["flop_share_of_bfloat16"]["bfloat16"] > 0
        assert part["bf16_train_vs_fp32_tiny"] > 0 < part["bf16_score_vs_fp32_tiny"]
    table = block("bfloat16", root)
    for name, speed in base["training"].items():
        line = next(line for line in table.splitlines() if f"training: {name} |" in line.replace("**", "")[2:]
                    or f"training: **this project, {name}**" in line)  # fmt: skip
        faster = "" if name == "bfloat16" else f"{speed['bfloat16_is_faster']:.2f}x"
        assert f"| {speed['tokens_per_second']:,.0f} (" in line and f"| {faster} | " in line
    assert f"takes FLAN-T5-tiny {large['finance_epoch_hours_tiny']:.1f} hours in bfloat16" in table


def test_losses_in_bfloat16_are_told_next_to_the_seeds_spread(tmp_path):
    seeds = [[4.0, 3.0, 2.0], [4.1, 2.8, 2.0], [3.9, 3.2, 2.1]]
    inside, outside = spread_of(seeds, [4.01, 3.0, 1.98]), spread_of(seeds, [4.01, 4.0, 2.0])
    assert inside["mean_spread"] == pytest.approx((0.2 + 0.4 + 0.1) / 3, abs=1e-5) and inside["outside"] == 0
    assert inside["mean_distance"] == pytest.approx(0.01) and inside["largest_distance"] == pytest.approx(0.02)
    assert outside["outside"] == 1 and outside["largest_distance"] == 1
    common = {"rows_a_step": 8, "scored_rows": 16, "difference": {"mean": 0.0001, "low": -0.002, "high": 0.003}}
    curves = {
        "shape": inside
        | common
        | {"rows_from": "real rows", "size": "small", "score": "loss", "steps_of_the_base": 300}
    }
    curves["miniature"] = outside | common | {"rows_from": "the finance miniature", "score": "ROUGE-L"}
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "cpu-amx-bf16.json").write_text(json.dumps({"parts": {"loss-curves": curves}}))
    told = block("loss_curves", tmp_path)
    assert (
        "4.00 to 2.000 (1.980) | 0.2333 | 0.0100, at most 0.0200 | loss of 16 rows: +0.0001 [-0.0020, +0.0030] |"
        in told
    )
    assert "0 and 1 steps in bfloat16 lie further outside" in told


def test_a_shape_trains_in_both_types_from_the_same_start():
    rows = [{"input_ids": [5, 6, 7, 1], "labels": [8, 9, 1]}, {"input_ids": [7, 1], "labels": [5, 1]}] * 4
    curves, losses = zip(
        *(
            _train(make_model("tiny", dtype=dtype), rows, 4, seed=1, test=rows[:2])
            for dtype in (torch.float32, torch.bfloat16)
        ),
        strict=True,
    )
    assert len(curves[0]) == len(curves[1]) == 2 and len(losses[0]) == 2
    assert curves[0] != curves[1] and curves[1] == pytest.approx(curves[0], rel=0.01)
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_bfloat16_opens_the_headline_once_it_is_measured(tmp_path):
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    base = {"threads": 2, "bf16_train_vs_fp32_base": 3.0, "bf16_score_vs_fp32_base": 1.5}
    base["train_vs_best_stock_bf16"] = 2.4
    large = {"bf16_train_vs_fp32_large": 3.1, "bf16_score_vs_fp32_large": 1.8, "finance_epoch_hours_large": 2.46}
    parts = {"bfloat16-base": base, "bfloat16-large": large}
    (results / "cpu-amx-bf16.json").write_text(json.dumps({"parts": parts}))
    told = block("headline", tmp_path)
    assert "3.00 times as fast as float32 (large 3.10)" in told and "2.40 times the fastest stock trainer" in told
    assert "1.50 times as fast (large 1.80)" in told and "2.5 hours an epoch" in told
    # Figures of two kinds of CPU are not mixed.
    half = {"bfloat16-base": base | {"bf16_train_vs_fp32_base": 1.7, "date": "2026-11-27"}}
    (results / "cpu-avx512-bf16-half.json").write_text(json.dumps({"parts": half}))
    assert block("headline", tmp_path) == told and "of a CPU with AMX, bfloat16" in told


@pytest.mark.parametrize(("has", "gain", "kind"), [({"amx_bf16": True, "avx512_bf16": True}, 8.0, "cpu-amx-bf16"),
                                                   ({"avx512_bf16": True}, 4.5, "cpu-avx512-bf16"),
                                                   ({"avx512_bf16": True}, 2.1, "cpu-avx512-bf16-half"),
                                                   ({"amx_bf16": False}, 1.0, "cpu")])  # fmt: skip
def test_a_cpus_figures_are_those_of_its_kind(monkeypatch, has, gain, kind):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(dtype, "bfloat16_gain", lambda: gain)
    assert cpu_kind() == kind


def test_a_part_is_shown_from_the_cpu_where_it_was_measured_last():
    results = {
        "cpu": {"parts": {"load": {"date": "2026-11-23", "n": 1}, "exports": {"n": 2}}},
        "cpu-amx-bf16": {"parts": {"load": {"date": "2026-11-26", "n": 3}}},
        "cpu-avx512-bf16": {"parts": {"load": {"date": "2026-11-25", "n": 4}}},
        "nvidia-h200": {"parts": {"exports": {"date": "2026-11-27", "n": 5}}},
    }
    assert {name: part["n"] for name, part in newest_cpu_parts(results).items()} == {"load": 3, "exports": 2}


def test_a_missing_package_is_named(tmp_path):
    def measure():
        import no_such_package  # noqa: F401

    assert attempt(measure) == {"missing": "no_such_package"}
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "cpu.json").write_text(json.dumps({"parts": {"generation": {"missing": "no_such_package"}}}))
    assert block("speed", tmp_path) == "Not measured for lack of no_such_package: generation."


def test_a_gpus_figures_are_told_in_units_that_read_well(tmp_path):
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    machine = {
        "size": "large",
        "matmul_flop_per_second": 7.9e14,
        "ours_flop_share": 0.456,
        "stock_flop_share": 0.05,
        "ours_epoch_seconds": 20.4,
        "stock_epoch_seconds": 5400.0,
        "job_seconds": 130.0,
        "small_card": {"card_gib": 12, "fits": True, "peak_bytes": 8_123_456_789},
    }
    gpu = {"device": "NVIDIA H200", "parts": {"machine": machine, "training": {"missing": "peft"}}}
    (results / "nvidia-h200.json").write_text(json.dumps(gpu))
    told = block("speed", tmp_path)
    assert "790 TFLOP/s" in told and "45.6%" in told and "20 seconds" in told and "1.5 hours" in told
    assert "2.2 minutes" in told and "on a card of 12 GiB: fits, with 8.1 GB." in told


@pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning")
def test_a_gpus_figures_stand_next_to_what_others_published(tmp_path):
    anchors = measure_anchors("cpu", 1, "tiny", "tiny", (2,), 24, 8)
    assert anchors["writing"][2]["tokens_per_second"].keys() == WAYS.keys() and "ours" in anchors["training"]
    (flex,) = anchors["not_trained"]
    assert "FlexAttention without dropout" in flex
    # As it is for the size that others timed.
    anchors["writing"] = {32: anchors["writing"][2] | {"tensorrt_llm": 3_312, "base_vs_tensorrt_llm": 1.25}}
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "nvidia-h100.json").write_text(json.dumps({"device": "NVIDIA H100", "parts": {"anchors": anchors}}))
    told = block("speed", tmp_path)
    assert "FLAN-T5-tiny's shape on NVIDIA H100" in told and "| 3,312 | 1.25x |" in told
    assert f"| **this project** | {anchors['training']['ours']['tokens_per_second']:,.0f} | " in told
    assert f"| {flex} | FlexAttention does not support backward on CPU" in told


def test_scoring_is_taken_from_the_results_once_they_hold_it(tmp_path):
    measured = {
        "ours_seconds": 1.0,
        "ours_range": [1, 1],
        "theirs_seconds": 30.0,
        "theirs_range": [30, 30],
        "ratio": 30,
    }
    level = {"dataset_rows": 10, "first_seconds": 9.0, "again_seconds": 8.0, "again_range": [8, 8]}
    found = {"rows": 5, "repeats": 5, "cores": 2, "rouge": measured, "level_score": level}
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    assert block("scoring", tmp_path) == "Not measured yet: `make bench`."
    (results / "cpu.json").write_text(json.dumps({"parts": {"scoring": found}}))
    assert "30x as fast" in block("scoring", tmp_path)


def test_profiles_of_different_lengths_stand_side_by_side(tmp_path):
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    work = {
        "stock": {"wall_seconds": 4.1, "seconds": 4.0, "top": [["aten::mm", 3.0, 10], ["aten::add", 1.0, 2000]]},
        "ours": {"wall_seconds": 2.1, "seconds": 2.0, "top": [["aten::mm", 1.5, 7]]},
    }
    profiles = {"training": work, "generation": work}
    (results / "cpu.json").write_text(json.dumps({"device": "CPU", "parts": {"profiles": profiles}}))
    lines = block("profiles", tmp_path).splitlines()
    assert "| `aten::mm` | 75.0% | 10 | `aten::mm` | 75.0% | 7 |" in lines
    assert "| `aten::add` | 25.0% | 2,000 |  | |  |" in lines


def test_without_the_trainings_figures_nothing_follows_from_them(tmp_path, capsys):
    main(["--quick", "--only", "machine", "--into", str(tmp_path)])
    assert "left out for lack of the training's figures" in capsys.readouterr().out


def test_names_and_durations():
    assert slug("NVIDIA H200") == "nvidia-h200"
    assert [duration(s) for s in (89, 90, 5399, 5400)] == ["89 seconds", "1.5 minutes", "90.0 minutes", "1.5 hours"]
