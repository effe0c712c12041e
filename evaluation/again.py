"""The expensive half of a reproduction: outputs generated again, and an adapter trained again."""

from pathlib import Path

from evaluation.engines import engine_here
from evaluation.generate import generate, shortfalls
from evaluation.predictions import FORGETTING_FILE, Predictions, load_predictions
from evaluation.score import load_for_scoring, metric_rows, parent_predictions, predict
from evaluation.verdict import DECIDING, TIE, Change, Check, Drift, Found, Verdict, change_interval, equivalent
from recipes.config import recipe_from_record
from recipes.environment import environment
from recipes.errors import UserError
from recipes.hashes import sha256_file
from recipes.model import adapter_numbers, describe
from recipes.pins import ADAPTER_FILE, pull_parent
from recipes.record import METRIC_NAMES, Contract, Environment, Model, Record, Training, load_record

# A new adapter is written here and kept: training may take hours, and started again it continues.
RETRAINED = Path("runs", "retrained")
# The packages that decide which tokens come out.
DECISIVE = ("torch", "transformers", "peft", "tokenizers", "bitsandbytes")


def train_again(verdict: Verdict, record: Record) -> Path:
    """Trains a new adapter from the record alone.

    Returns:
        The new run's folder.

    Raises:
        `Drift`: on the same CPU, threads and versions losses or adapter are others; there every bit is repeatable.
    """
    from recipes.train import train

    folder = RETRAINED / f"{verdict.adapter.replace('/', '--')}@{verdict.revision[:12]}"
    recipe = recipe_from_record(record.name, record.recipe)
    recipe.training.output_dir = str(folder)
    train(recipe, record)
    again = load_record(folder)
    same = again.training.adapter_sha256 == record.training.adapter_sha256
    if not same and again.environment.device.startswith("CPU") and same_stack(again.environment, record.environment):
        losses = [
            (ours.step, ours.loss, theirs.loss)
            for ours, theirs in zip(again.training.history, record.training.history, strict=False)
            if ours != theirs
        ]
        where = f"; the losses part at step {losses[0][0]}" if losses else ""
        raise Drift("training", f"on the same device and versions training gives another adapter{where}")
    if same and (where := _other_course(again.training, record.training)) is not None:
        raise Drift("training", f"training gives the same adapter, but not as the record states: {where}")
    detail = "trained again: " + (
        "the same adapter, bit for bit"
        if same
        else "another adapter, on another device or other versions; its scores decide"
    )
    verdict.checks.append(Check(part="training", outcome="passed", detail=detail))
    print(f"  {detail}", flush=True)
    return folder


def _other_course(again: Training, stated: Training) -> str | None:
    """Where the record of a training that gave the same adapter differs from the one repeated; None if it does not.

    A run that was continued averages its first logged loss over fewer steps: that line is not compared.
    """
    for name in ("steps", "epochs", "seed", "best_step"):
        if getattr(again, name) != getattr(stated, name):
            return f"{name} is {getattr(again, name)}, not {getattr(stated, name)}"
    if len(again.history) != len(stated.history):
        return f"{len(again.history)} lines of losses, not {len(stated.history)}"
    resumed = next((line.step for line in stated.history if line.step > stated.resumed_from > 0), None)
    for ours, theirs in zip(again.history, stated.history, strict=True):
        if ours != theirs and ours.step != resumed:
            return f"the losses part at step {ours.step}"
    return None


def generate_again(verdict: Verdict, found: Found, adapter: Path, test) -> None:
    """Generates with the base model and the adapter in the folder `adapter`, and compares with what was published.

    With the same adapter on the same device and versions tokens must be equal, row by row; else the scores decide.

    Raises:
        `Drift`: outputs or scores are not the published ones.
    """
    record, published = found.record, found.published
    recipe = recipe_from_record(record.name, record.recipe)
    try:
        model, tokenizer, dtype = load_for_scoring(adapter, record, recipe.model)
    except UserError as error:
        raise Drift("weights", str(error)) from error
    contract = _contract_here(record, dtype)
    verdict.environment = environment()
    found_model = describe(model).model_copy(update={"trainable": adapter_numbers(model)})
    _check_sizes(record, found_model, same_stack(verdict.environment, record.environment))
    same_adapter = sha256_file(adapter / ADAPTER_FILE) == record.training.adapter_sha256
    same = same_adapter and contract == record.contract and same_stack(verdict.environment, record.scored_in)
    rows = sample_rows(len(test), verdict.sample, verdict.revision)
    if len(rows) == len(test):
        verdict.sample = None
    compared = published.take(rows)
    fresh, *_ = predict(model, tokenizer, test.select(rows), compared.seen, contract)
    found.fresh, found.rows = fresh, rows
    verdict.rows = {who: differing(compared, fresh, who, rows) for who in ("base", "adapter")}
    verdict.changes = [change for who in ("base", "adapter") for change in changes(compared, fresh, who, contract)]
    print(change_table(verdict.changes), flush=True)
    if contract.num_beams == 1 and not same:
        who = ("base", "adapter") if same_adapter else ("base",)
        _refuse_unlikely(verdict, who, compared, rows, model, tokenizer, contract)
    _decide(verdict, same, len(rows))
    if record.pins.parent_adapter is not None:
        _forgetting_again(verdict, record, load_predictions(found.folder, FORGETTING_FILE), model, tokenizer, same)


def generate_row(folder: Path, record: Record) -> None:
    """Generates the first test row's answers with the base model and the published adapter in `folder`.

    Raises:
        `Drift`: they are not the published ones, nor, on another device or other versions, nearly as likely.
    """
    recipe = recipe_from_record(record.name, record.recipe)
    model, tokenizer, dtype = load_for_scoring(folder, record, recipe.model)
    contract = _contract_here(record, dtype)
    same = contract == record.contract and same_stack(environment(), record.scored_in)
    contract = contract.model_copy(update={"batch_size": 1})
    first = load_predictions(folder).take([0])
    for who in ("base", "adapter"):
        published = getattr(first, f"{who}_tokens")
        adapter = who == "adapter"
        fresh, _ = generate(model, tokenizer, first.prompt, contract, adapter)
        if fresh == published:
            continue
        # Alone, a row is not rounded as among others.
        greedy = contract.num_beams == 1
        if shortfalls(model, tokenizer, first.prompt, published, contract, adapter)[0] > TIE if greedy else same:
            raise Drift("weights", f"the {who} output of the first test row is another one")


def _contract_here(record: Record, dtype: str) -> Contract:
    """The record's contract with the engine and the dtype that this machine has. In float32 tokens are the same."""
    asked = record.contract.engine
    engine = engine_here(asked) if dtype == "float32" else "transformers"
    if engine != asked:
        print(f"The record's outputs were generated by {asked}, here {engine} generates", flush=True)
    return record.contract.model_copy(update={"dtype": dtype, "engine": engine})


def _check_sizes(record: Record, found: Model, same: bool) -> None:
    """Holds the record's parameter counts against the model as loaded; its bytes on the same device and versions."""
    names = ["trainable", "total", "quantized_layers"]
    if same and found.dtype == record.model.dtype and not found.quantized_layers:
        names.append("memory_bytes")
    for name in names:
        if getattr(found, name) != getattr(record.model, name):
            raise Drift(
                "weights",
                f"{name} of the model is {getattr(found, name):,}, the record states {getattr(record.model, name):,}",
            )


def _refuse_unlikely(
    verdict: Verdict,
    models: tuple[str, ...],
    compared: Predictions,
    rows: list[int],
    model,
    tokenizer,
    contract: Contract,
) -> None:
    """Refuses outputs that differ and that the same weights write on no device.

    The record itself says where its scores were taken, and so whether tokens must be equal: whoever wants it otherwise
    names another version. Scores alone would then let pass what lies within their noise.
    """
    for who in models:
        numbers = verdict.rows[who]
        there = compared.take([rows.index(number) for number in numbers])
        short = shortfalls(model, tokenizer, there.prompt, getattr(there, f"{who}_tokens"), contract, who == "adapter")
        for number, nats in zip(numbers, short, strict=True):
            if nats > TIE:
                raise Drift(
                    "generation" if who == "base" else "weights",
                    f"the {who} output of row {number} is none that these weights write: they prefer another token by "
                    f"{nats:.1f} nats; {_told(verdict, len(rows))}",
                )


def _told(verdict: Verdict, rows: int) -> str:
    return ", ".join(
        f"{len(numbers):,} of {rows:,} {who} outputs differ (rows {', '.join(map(str, numbers[:5]))}"
        f"{', …' if len(numbers) > 5 else ''})"
        for who, numbers in verdict.rows.items()
        if numbers
    )


def _decide(verdict: Verdict, same: bool, rows: int) -> None:
    part = "generation" if verdict.rows["base"] else "weights"
    score = next(c.now for c in verdict.changes if (c.model, c.metric) == ("adapter", "rougeL"))
    of = f" for a sample of {rows:,} rows" if verdict.sample else ""
    if not any(verdict.rows.values()):
        verdict.evidence = "tokens"
        verdict.reason = f"ROUGE-L {score:.4f}: all {2 * rows:,} outputs{of} are equal token for token"
    else:
        told = _told(verdict, rows)
        if same:
            verdict.evidence = "tokens"
            raise Drift(part, f"on the same device and versions {told}")
        verdict.evidence = "statistics"
        deciding = [change for change in verdict.changes if change.metric in DECIDING]
        for change in deciding:
            if not equivalent(change.difference):
                raise Drift(
                    part, f"{METRIC_NAMES[change.metric]} of the {change.model} moved by {_moved(change)}; {told}"
                )
        widest = max(max(-change.difference.low, change.difference.high) for change in deciding)
        verdict.reason = (
            f"ROUGE-L {score:.4f}: no score moved{of} on another device, version or adapter (a change of "
            f"{widest:.4f} would have shown); {told}"
        )
    verdict.checks.append(Check(part="generation", outcome="passed", detail=verdict.reason))


def _forgetting_again(verdict: Verdict, record: Record, published: Predictions, model, tokenizer, same: bool) -> None:
    rows = sample_rows(len(published.prompt), verdict.sample, verdict.revision)
    published = published.take(rows)
    fresh = parent_predictions(model, tokenizer, *pull_parent(record.pins.parent_adapter), rows)
    other = differing(published, fresh, "adapter", rows)
    if other and same:
        raise Drift(
            "weights", f"on the same device and versions {len(other):,} outputs for the parent's test rows differ"
        )
    for change in changes(published, fresh, "adapter", record.contract):
        if change.metric in DECIDING and not equivalent(change.difference):
            raise Drift("weights", f"{METRIC_NAMES[change.metric]} on the parent's test rows moved by {_moved(change)}")
    detail = f"{len(rows) - len(other):,} of {len(rows):,} outputs for the parent's test rows are equal"
    verdict.checks.append(Check(part="generation", outcome="passed", detail=detail))
    print(f"  {detail}", flush=True)


def same_stack(here: Environment, there: Environment | None) -> bool:
    """Whether tokens must be equal: the same device and decisive versions, and on a CPU as many threads."""
    return (
        there is not None
        and here.device == there.device
        and (not here.device.startswith("CPU") or here.threads == there.threads)
        and all(here.packages.get(name) == there.packages.get(name) for name in DECISIVE)
    )


def sample_rows(rows: int, sample: int | None, commit: str) -> list[int]:
    """Numbers of the test rows to generate for, in order: all of them, or a sample without replacement.

    The commit seeds the draw: nobody who publishes can know before which rows will be looked at.
    """
    import numpy as np

    if sample is None or sample >= rows:
        return list(range(rows))
    return sorted(np.random.default_rng(int(commit, 16)).choice(rows, sample, replace=False).tolist())


def differing(published: Predictions, fresh: Predictions, who: str, rows) -> list[int]:
    """Numbers of the rows where `who` wrote other tokens."""
    pairs = zip(rows, getattr(published, f"{who}_tokens"), getattr(fresh, f"{who}_tokens"), strict=True)
    return [row for row, old, new in pairs if old != new]


def changes(published: Predictions, fresh: Predictions, who: str, contract: Contract) -> list[Change]:
    """Per metric how the scores of `who` moved."""
    from evaluation.bootstrap import mean

    was, now = metric_rows(published, who, contract), metric_rows(fresh, who, contract)
    return [
        Change(
            model=who,
            metric=name,
            published=mean(was[name]),
            now=mean(now[name]),
            difference=change_interval([b - a for a, b in zip(was[name], now[name], strict=True)]),
        )
        for name in was
    ]


def change_table(changes: list[Change]) -> str:
    """Published and new means and their paired differences as a small plain-text table."""
    lines = [f"\n{'':<30}{'published':>10}{'now':>10}   difference"]
    lines += [f"{c.model:<8}{c.metric:<22}{c.published:>10.4f}{c.now:>10.4f}   {_moved(c)}" for c in changes]
    return "\n".join(lines) + "\n"


def _moved(change: Change) -> str:
    x = change.difference
    return f"{x.mean:+.4f} [{x.low:+.4f}, {x.high:+.4f}]"
