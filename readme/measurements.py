"""README's tables of what `make bench` measured, rendered from benchmarks/results/*.json."""

import json
from itertools import zip_longest
from pathlib import Path
from typing import Any

UNITS = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}


def kept_results(root: Path) -> dict[str, dict]:
    """What was measured, by the device's file name; the CPU's first."""
    files = sorted((root / "benchmarks" / "results").glob("*.json"), key=lambda path: (path.stem != "cpu", path.stem))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


def speed_tables(root: Path) -> str:
    """Of every device: training beside its peers with its pictures, scoring, growth and the whole job."""
    blocks = []
    for name, result in kept_results(root).items():
        found = {part: kept for part, kept in result["parts"].items() if "missing" not in kept}
        missing = {part: kept["missing"] for part, kept in result["parts"].items() if "missing" in kept}
        if "training" in found:
            blocks += [training_table(result, found["training"]), picture(root, name, "training", "Training speed")]
        if "base" in found:
            blocks.append(base_line(found["base"]))
        if "generation" in found:
            blocks.append(generation_lines(found["generation"]))
        if "growth" in found:
            blocks += [growth_table(found["growth"]), picture(root, name, "growth", "A step by its rows' length")]
        if "data" in found:
            blocks.append(data_table(found["data"]))
        if "machine" in found:
            blocks.append(machine_lines(found["machine"]))
        blocks += [f"Not measured for lack of {what}: {part}." for part, what in missing.items()]
    return "\n\n".join(block for block in blocks if block) or "Not measured yet: `make bench`."


def picture(root: Path, name: str, part: str, alternative: str) -> str:
    """The picture's Markdown, where it was drawn."""
    path = f"docs/benchmarks/{name}-{part}.png"
    return f"![{alternative}, as in the table]({path})" if (root / path).exists() else ""


def training_table(result: dict, training: dict) -> str:
    """A line a contender: its speed, how many times as fast this project is, its padding and its memory."""
    versions = ", ".join(f"{name} {training['versions'][name]}" for name in ("torch", "transformers", "peft"))
    gpu = result["device"] != "CPU"
    device = result["device"] if gpu else f"{training['threads']} CPU threads"
    lines = [
        f"FLAN-T5-{training['size']}'s shape, random weights, LoRA r=32 on q and v, {training['dtype']}, on {device}; "
        f"{training['rows_a_step']} rows an optimizer step, with the lengths of {training['lengths_from']}; medians of "
        f"{training['rounds']} interleaved rounds ({versions}, {training['date']}).",
        "",
        "| training | tokens a second (range) | this project is faster by | padding in linear layers "
        f"| kept for the backward pass, a token |{' peak memory |' if gpu else ''}",
        f"|---|---|---|---|---|{'---|' if gpu else ''}",
    ]
    ordered = sorted(training["contenders"].items(), key=lambda item: -item[1]["tokens_per_second"])
    for name, measured in ordered:
        low, high = measured["tokens_per_second_range"]
        faster = "" if name == "ours" else f"{measured['ours_is_faster']:.2f}x"
        cells = [
            "**this project**" if name == "ours" else name,
            f"{measured['tokens_per_second']:,.0f} ({low:,.0f} to {high:,.0f})",
            faster,
            f"{measured['padding_share']:.1%}",
            f"{kept / 1e3:,.0f} kB" if (kept := measured["activation_bytes_per_token"]) else "not measured",
            *([f"{measured['peak_bytes'] / 1e9:.1f} GB"] if gpu else []),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for name, why in training["not_measured"].items():
        lines.append(f"| {name} | not measured | | | |{' |' if gpu else ''}")
        lines += ["", f"{why}, which cannot be installed beside these versions."]
    error = training["gradient_relative_error"]
    lines += [
        "",
        f"The gradient of this project's step differs from the stock one's by {error:.0e} of its length (float32).",
    ]
    return "\n".join(lines)


def base_line(training: dict) -> str:
    """The same race on a larger shape, in a sentence."""
    others = [
        f"{measured['ours_is_faster']:.2f}x as fast as {name}"
        for name, measured in training["contenders"].items()
        if name != "ours"
    ]
    return (
        f"With FLAN-T5-{training['size']}'s shape this project trains on "
        f"{training['contenders']['ours']['tokens_per_second']:,.0f} tokens a second: {', '.join(others)}; medians of "
        f"{training['rounds']}."
    )


def generation_lines(found: dict) -> str:
    """How scoring compares with `Seq2SeqTrainer.predict`: a sentence each about the work, the ratios, the equality."""
    told = [
        f"Generating the answers of {found['rows']:,} rows ({found['tokens']:,} tokens, each row as many as its "
        f"reference has): `Seq2SeqTrainer.predict` at its best batch size, {found['best_batch_size']}, takes "
        f"{found['seconds']['predict']:.0f} seconds, this project {found['seconds']['torch']:.0f}, "
        f"**{found['score_vs_predict']:.1f}x as fast**"
    ]
    if found["score_ct2_vs_predict"] is not None:
        told.append(
            f", and with `engine: ctranslate2` {found['seconds']['ctranslate2']:.0f}, "
            f"{found['score_ct2_vs_predict']:.1f}x (its conversion included)"
        )
    told.append(
        f"; medians of {found['rounds']}. Of a sample {found['score_equal_rows']:.0%} are, token for token, what "
        "`generate` writes for a row alone."
    )
    return "".join(told)


def exports_table(root: Path) -> str:
    """Speed and memory of the formats for CPU hosts, a line each."""
    found = kept_results(root).get("cpu", {}).get("parts", {}).get("exports")
    if found is None or "missing" in found:
        return "Not measured yet: `make bench`."
    bare = found.get("without_vnni")
    lines = [
        f"| FLAN-T5-{found['size']}'s shape, {found['threads']} CPU threads, a row at a time | tokens a second (ratio) "
        f"|{' without VNNI |' if bare else ''} latency p50 (p95) | memory for the model (ratio) | on disk |",
        f"|---|---|---|---|---|{'---|' if bare else ''}",
    ]
    for name, way in found["ways"].items():
        cells = [
            "the adapter on its base model" if name == "adapter" else f"`{name}`",
            *(
                f"{one['ways'][name]['tokens_per_second']:.1f} ({one['tokens_per_second_ratio'][name]:.2f})"
                for one in (found, bare)
                if one
            ),
            f"{way['p50']:.2f} s ({way['p95']:.2f} s)",
            f"{way['model_bytes'] / 1e6:,.0f} MB ({found['model_bytes_ratio'][name]:.2f})",
            f"{way['bytes'] / 1e6:,.0f} MB{' beside the base' if name == 'adapter' else ''}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    rows, tokens = found["ways"]["adapter"]["rows"], found["tokens"]
    lines += [
        "",
        f"Random weights, {rows} rows of {tokens} written tokens, every format in turn, on a CPU "
        f"{'with' if found['vnni'] else 'without'} instructions for products of 8-bit numbers (VNNI)."
        + (" Without VNNI: the same CPU, its libraries kept to AVX2." if bare else ""),
    ]
    return "\n".join(lines)


def load_lines(root: Path) -> str:
    """The service under load: errors, answers a second, latency, memory, and how soon it is back after a kill."""
    found = kept_results(root).get("cpu", {}).get("parts", {}).get("load")
    if found is None or "missing" in found:
        return "Not measured yet: `make bench`."
    failed = found["requests"] - found["statuses"].get("200", 0) + sum(found["broken"].values())
    killed = found["killed"]
    return (
        f"{found['clients']} clients at once for {found['seconds']:.0f} seconds, on {found['threads']} cores that they "
        f"share with the service: {found['requests']:,} answers of up to 32 tokens by a miniature's model, {failed} "
        f"failed, {found['per_second']:.0f} a second, half within {found['p50']:.2f} and 95 % within "
        f"{found['p95']:.2f} seconds; the process grew from {found['rss_before'] / 1e6:.0f} to "
        f"{found['rss_after'] / 1e6:.0f} MB. Killed under the same load and started again, it answered after "
        f"{killed['restart_seconds']:.1f} seconds."
    )


def growth_table(growth: dict) -> str:
    """Seconds and memory by length, two processes beside one, and the projection to many GPUs."""
    lines = [
        "| length of the rows | seconds of a step | the stock trainer's | kept for the backward pass | the stock's |",
        "|---|---|---|---|---|",
    ]
    for line in growth["length"]:
        cells = [f"{line['length']:,}", f"{line['ours_seconds']:.3g}", f"{line['stock_seconds']:.3g}"]
        cells += [f"{line[f'{who}_bytes'] / 1e6:,.0f} MB" for who in ("ours", "stock")]
        lines.append(f"| {' | '.join(cells)} |")
    ranks, paper = growth.get("ranks"), growth["projection"]
    if ranks:
        lines += [
            "",
            f"Two processes of one thread each, sharing {ranks['cores']} cores, are {ranks['speedup_of_two']:.2f}x "
            "as fast as one.",
        ]
    nodes = ", ".join(f"{8 * int(n):,} GPUs {found['efficiency']:.1%}" for n, found in paper["nodes"].items())
    lines += [
        "",
        f"On paper ([`benchmarks/growth.py`](benchmarks/growth.py)) FLAN-T5-{paper['model']} with "
        f"{paper['rows_a_gpu']} rows a GPU, a step of {1e3 * paper['one_gpu_step_seconds']:.0f} ms ({paper['from']}) "
        f"and {paper['gradient_bytes'] / 1e6:.1f} MB of gradients keeps of its speed: {nodes}.",
    ]
    return "\n".join(lines)


def data_table(data: dict) -> str:
    """Seconds and memory of preparing a dataset, by its rows: the first time and again."""
    lines = [
        f"| rows to prepare, on {data['cores']} cores | seconds the first time (again) | of these, leakage "
        "| peak memory (again) |",
        "|---|---|---|---|",
    ]
    for size in data["sizes"]:
        first, again = size["first"], size["again"]
        spent, later = sum(first["seconds"].values()), sum(again["seconds"].values())
        lines.append(
            f"| {size['rows']:,} | {spent:.1f} ({later:.1f}) | {first['seconds']['leakage']:.1f} | "
            f"{first['peak_bytes'] / 1e6:,.0f} MB ({again['peak_bytes'] / 1e6:,.0f} MB) |"
        )
    return "\n".join(lines)


def machine_lines(machine: dict) -> str:
    """The share of the machine's rate that is used, and what an epoch and the job take at the measured speeds."""
    rate = machine["matmul_flop_per_second"]
    unit = next((unit for unit, value in UNITS.items() if rate >= value), "")
    found = [
        f"Of the machine's own {rate / UNITS.get(unit, 1):.0f} {unit}FLOP/s in a plain matrix product, training uses "
        f"{machine['ours_flop_share']:.1%} (the best stock trainer {machine['stock_flop_share']:.1%}). An epoch of the "
        f"finance recipe's 43,441 rows takes FLAN-T5-{machine['size']} {duration(machine['ours_epoch_seconds'])} at "
        f"that speed (stock {duration(machine['stock_epoch_seconds'])})"
    ]
    if "job_seconds" in machine:
        found.append(f", two epochs and the scoring of both models {duration(machine['job_seconds'])}")
    found.append("; extrapolated from the rounds.")
    if card := machine.get("small_card"):
        told = f"fits, with {card['peak_bytes'] / 1e9:.1f} GB" if card["fits"] else "does not fit"
        found.append(f" A step of the longest rows on a card of {card['card_gib']} GiB: {told}.")
    return "".join(found)


def duration(seconds: float) -> str:
    """In seconds, minutes or hours, whichever reads best."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def profile_tables(root: Path) -> str:
    """Of every device: the operators that take the most time by themselves, the stock way and this project's."""
    blocks = []
    for result in kept_results(root).values():
        for work in ("training", "generation") if "profiles" in result["parts"] else ():
            found = result["parts"]["profiles"][work]
            stock, ours = found["stock"], found["ours"]
            lines = [
                f"{work.capitalize()} on {result['device']}: stock {stock['wall_seconds']:.1f} s, this project "
                f"{ours['wall_seconds']:.1f} s under the profiler.",
                "",
                "| stock | share | calls | this project | share | calls |",
                "|---|---|---|---|---|---|",
            ]
            for pair in zip_longest(stock["top"], ours["top"]):
                cells = [
                    f"`{one[0]}` | {one[1] / whole['seconds']:.1%} | {one[2]:,}" if one else " | | "
                    for one, whole in zip(pair, (stock, ours), strict=True)
                ]
                lines.append(f"| {' | '.join(cells)} |")
            blocks.append("\n".join(lines))
    return "\n\n".join(blocks) or "Not measured yet: `make bench`."


def scoring_table(root: Path) -> str:
    """What `make bench` measured of ROUGE and of checking at LEVEL=score."""
    found = kept_results(root).get("cpu", {}).get("parts", {}).get("scoring")
    if found is None:
        return "Not measured yet: `make bench`."
    rouge, level = found["rouge"], found["level_score"]
    return "\n".join(
        [
            f"| on {found['cores']} CPU cores, medians of {found['repeats']} | seconds (range) | |",
            "|---|---|---|",
            f"| ROUGE with intervals, {found['rows']:,} pairs, here | {_seconds(rouge, 'ours')} | "
            f"{rouge['ratio']:.0f}x as fast |",
            f"| the same as `evaluate` does it: `rouge-score`, then its bootstrap | {_seconds(rouge, 'theirs')} | |",
            f"| `make reproduce LEVEL=score`, {found['rows']:,} test of {level['dataset_rows']:,} rows, warm cache | "
            f"{_seconds(level, 'again')} | the first time, with an empty cache: {level['first_seconds']:.1f} |",
        ]
    )


def _seconds(measured: dict[str, Any], name: str) -> str:
    low, high = measured[f"{name}_range"]
    return f"{measured[f'{name}_seconds']:.2f} ({low:.2f} to {high:.2f})"
