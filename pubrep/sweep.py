"""`pubrep sweep`: one recipe with other settings, run after run, into one table; of the runs one is chosen.

Every run is a folder of its own in the sweep's, trained and scored by `pubrep train` and `pubrep evaluate`: so it goes
on where it was, and is published like any other. `plan.json` holds every combination that was ever asked for there: the
card of a published run says of how many it is one.
"""

import fcntl
import itertools
import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

from model_cards.compare import shared_metric
from model_cards.sweep import chosen, draw, group_runs, page, read_scored, text_table
from recipes.settings import WITHOUT_EFFECT
from record import strict_json
from record.command_line import Command, find_recipe, runs
from record.errors import Slip, UserError, make, one_line, one_line_errors, refuse_unwritable
from record.release_files import PREDICTIONS_FILE
from record.run_record import load_record
from record.scores import METRIC_NAMES
from record.signs_of_life import silence
from record.sweep import LARGEST_SWEEP, MOST_KEYS, Sweep, settings_text
from record.swept_run import as_text
from record.trained_run import load_trained_run
from record.whole_file import write_whole

PLAN_FILE = "plan.json"
# Keys that decide which test rows there are, and what a model reads for them: scores of other rows are not comparable.
ROWS = {"dataset_name", "dataset_config", "dataset_revision", "dataset_splits", "datasets", "test_split", "extract",
        "prompt", "target", "length_rules", "test_size", "split", "split_seed"}  # fmt: skip


@dataclass(frozen=True)
class Combination:
    """One run of a sweep: the words that override the recipe's keys, their values as text, and the resolved recipe."""

    words: tuple[str, ...]
    settings: dict[str, str]
    resolved: dict[str, Any]

    @property
    def folder(self) -> str:
        """The name of the run's folder."""
        return "_".join(f"{key}-{re.sub(r'[^0-9A-Za-z.+-]+', '-', value)}" for key, value in self.settings.items())


@click.command(
    cls=Command,
    examples=(
        "pubrep sweep finance --set seed=1,2,3 --set lora_r=8,32",
        "pubrep sweep my-task.yaml --set learning_rate=3e-4,1e-3",
    ),
)
@click.argument("recipe")
@click.option("--set", "settings", multiple=True, required=True, metavar="KEY=A,B", help="A key and its values.")
@click.option("--into", type=click.Path(path_type=Path), help="Folder of the sweep (RUNS/sweep-RECIPE).")
@click.option(
    "--limit",
    type=click.IntRange(2, LARGEST_SWEEP),
    default=100,
    show_default=True,
    help="Largest number of combinations that are meant.",
)
@click.option(
    "--accelerate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="How to launch each training and scoring: a configuration of accelerate.",
)
def sweep(recipe: str, settings: tuple[str, ...], into: Path | None, limit: int, accelerate: Path | None) -> None:
    """Train and score RECIPE with every combination of values, one after another.

    Renders one table and plot: mean and standard deviation over seeds, interval over
    rows. A run that fails is said in one line, and the others go on. Started again
    after an interruption, it continues. The run with the lowest validation loss is
    named at the end; publish it, and its card says of how many runs it is one.
    """
    path = find_recipe(recipe)
    into = into or runs() / f"sweep-{path.stem}"
    launch = [] if accelerate is None else ["--accelerate", str(accelerate)]
    with one_line_errors():
        values = read_settings(settings, limit)
        refuse_unwritable(into)
        # A process of its own: what reads a recipe holds memory of a GPU for as long as it lives.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            combinations = pool.submit(combine, path, values).result()
        into.mkdir(parents=True, exist_ok=True)
        with (into / ".sweeping").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"another sweep is at work in {into}: wait for it") from None
            planned = remember(into, combinations)
            failed = run_all(path, into, combinations, launch, lock.fileno())
        report(into, planned, list(values))
        if failed:
            raise UserError(
                f"{len(failed)} of {len(combinations)} runs failed (see above): the same command tries them again"
            )


def read_settings(words: tuple[str, ...], limit: int) -> dict[str, list[str]]:
    """The values of each key, as they were typed: `seed=1,2,3`.

    Raises:
        `Slip`: one is not of this form, a key or a value is given twice, a key has no effect on the adapter or decides
            the test rows, or there are other combinations than 2 to `limit`.
    """
    values: dict[str, list[str]] = {}
    for word in words:
        key, _, listed = word.partition("=")
        key, texts = key.strip().replace("-", "_"), [text.strip() for text in listed.split(",")]
        if not key or not all(texts):
            raise Slip(f"--set {word} is not KEY=VALUE,VALUE")
        if key in values:
            raise Slip(f"--set {key} is given twice: write all its values in one")
        if twice := next((text for text in texts if texts.count(text) > 1), None):
            raise Slip(f"--set {key} has the value {twice} twice: remove one")
        if key in WITHOUT_EFFECT:
            raise Slip(f"`{key}` has no effect on the adapter ({WITHOUT_EFFECT[key]}): every run would be the same")
        if key in ROWS:
            raise Slip(f"`{key}` decides the test rows, and scores of other rows cannot be compared: sweep another key")
        values[key] = texts
    many = 1
    for texts in values.values():
        many *= len(texts)
    if many < 2:
        raise Slip("a single combination is no sweep: name two values of a key, or use `pubrep train`")
    if len(values) > MOST_KEYS:
        raise Slip(f"a sweep takes up to {MOST_KEYS} keys, not {len(values)}")
    if many > limit:
        more = f"if you mean it, add --limit {many}" if many <= LARGEST_SWEEP else f"{LARGEST_SWEEP:,} are the most"
        raise Slip(f"these are {many:,} combinations, more than {limit:,}: {more}")
    return values


def combine(path: Path, values: dict[str, list[str]]) -> list[Combination]:
    """Every combination, held against the recipe.

    Raises:
        `Slip`: one is no recipe that trains, or two of them are the same.
    """
    from recipes.config import parse_recipe

    combinations: list[Combination] = []
    for texts in itertools.product(*values.values()):
        words = tuple(word for key, text in zip(values, texts, strict=True) for word in (f"--{key}", *text.split()))
        try:
            resolved = parse_recipe(["--config", str(path), *words]).resolved
        except UserError as error:
            named = settings_text(dict(zip(values, texts, strict=True)))
            raise Slip(f"{named}: {error}") from None
        settings = {key: as_text(resolved.get(key)) for key in values}
        one = Combination(words, settings, resolved)
        if any(one.resolved == other.resolved or one.folder == other.folder for other in combinations):
            raise Slip(f"two combinations are {settings_text(settings)}: remove a value")
        combinations.append(one)
    return combinations


def remember(into: Path, combinations: list[Combination]) -> list[str]:
    """Adds the combinations to the sweep's plan; the folders of all that were ever asked for, the oldest first.

    Raises:
        `UserError`: the folder holds a sweep over other keys.
    """
    plan, keys = into / PLAN_FILE, list(combinations[0].settings)
    known = strict_json.read(plan, "the plan of a sweep") if plan.is_file() else {"keys": keys, "runs": []}
    if sorted(known["keys"]) != sorted(keys):
        raise UserError(f"{into} holds a sweep over {', '.join(known['keys'])}: choose another folder (--into)")
    known["runs"] = list(dict.fromkeys([*known["runs"], *(one.folder for one in combinations)]))
    if len(known["runs"]) > LARGEST_SWEEP:
        raise UserError(f"{into} would hold more than {LARGEST_SWEEP:,} runs: choose another folder (--into)")
    write_whole(plan, json.dumps(known, indent=1).encode())
    folders: list[str] = known["runs"]
    return folders


def run_all(path: Path, into: Path, combinations: list[Combination], launch: list[str], lock: int) -> list[str]:
    """Trains and scores what is not yet, one process at a time; the settings of the runs that failed.

    Parameters:
        lock: the open file whose lock ends with the last process that holds it: a run that outlives this process keeps
            other sweeps off.
    """
    failed = []
    for number, one in enumerate(combinations, 1):
        run, named = into / one.folder, settings_text(one.settings)
        if is_scored(run, one):
            print(f"{number}/{len(combinations)}  {named}: scored already", flush=True)
            continue
        print(f"{number}/{len(combinations)}  {named}", flush=True)
        train = ["train", str(path), "--output_dir", str(run), *launch, *one.words]
        for verb, words in (("training", train), ("scoring", ["evaluate", str(run), *launch])):
            if code := run_verb(words, lock):
                line = one_line(f"failed: {named} ({verb} ended with exit code {code}, see above)")
                print(line, file=sys.stderr, flush=True)
                failed.append(named)
                break
    return failed


def run_verb(words: list[str], lock: int) -> int:
    """Runs a verb of pubrep to its end; its exit code.

    After Ctrl-C or SIGTERM, both of which reach the verb, this process ends with 130.
    """
    stops: list[int] = []
    process = subprocess.Popen([sys.executable, "-m", "pubrep", *words], pass_fds=[lock])

    def stop(number: int, _: object) -> None:
        stops.append(number)
        if number == signal.SIGTERM:
            process.terminate()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    with silence():
        code = process.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    if stops:
        print("interrupted: the same command continues", file=sys.stderr, flush=True)
        sys.exit(130)
    return code if code >= 0 else 128 - code


def is_scored(run: Path, one: Combination | None = None) -> bool:
    """Whether a folder holds a run, trained to its end and scored, and of this combination."""
    try:
        record = load_trained_run(run)
    except UserError:
        return False
    # Where only the Hub's own names differ from the recipe's, training says so again, and costs no more than its start.
    same = one is None or dict(record.recipe) == one.resolved
    return same and record.scores is not None and (run / PREDICTIONS_FILE).is_file()


def report(into: Path, planned: list[str], keys: list[str]) -> None:
    """Writes the sweep into the record of each scored run, `sweep.md` and `sweep.png`, and prints its table.

    Raises:
        `UserError`: no run is scored, or their scores cannot be compared.
    """
    folders = [into / folder for folder in planned if is_scored(into / folder)]
    if not folders:
        raise UserError("no run of this sweep was trained and scored to its end: see above")
    scored = read_scored(folders, keys)
    listed = Sweep(combinations=len(planned), runs=[one.run for one in scored])
    for one in scored:
        record = load_record(one.folder)
        if record.sweep != listed:
            record.sweep = listed
            record.save(one.folder)
    metric = shared_metric([one.record for one in scored])
    groups = group_runs(scored, metric)
    write_whole(into / "sweep.md", page(scored, groups, metric, len(planned)).encode())
    write_whole(into / "sweep.png", draw(scored, metric))
    first = scored[0].record
    base = first.scores.base[metric]
    print(f"\n{METRIC_NAMES[metric]} on {first.scores.rows:,} test rows{' (a miniature)' if first.miniature else ''}, "
          f"{len(scored)} of {len(planned)} runs; base model {base.figure(base.mean)}\n")  # fmt: skip
    print(f"{text_table(groups)}\n")
    print(f"Page: {into / 'sweep.md'}   plot: {into / 'sweep.png'}", flush=True)
    if best := chosen(scored):
        print(f"Lowest validation loss, {best.run.validation_loss:.4f}: {settings_text(best.run.settings)}\n"
              f"Publish it: {make(f'publish-{best.folder.name} RUNS={into}')}", flush=True)  # fmt: skip
    else:
        print("Not every run has a validation loss to choose by: publish one, and its card says so", flush=True)
