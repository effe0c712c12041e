"""An adapter trained again from its record alone."""

from pathlib import Path

from evaluation.findings import Drift
from evaluation.tolerance import same_stack
from recipes.config import recipe_from_record
from record.errors import UserError
from record.run_record import Training, load_record
from record.scored_record import ScoredRecord
from scoring.decoding.processes import on_all

# A new adapter is written here and kept: training may take hours, and started again it continues.
RETRAINED = Path("runs", "retrained")


def retrain(adapter: str, commit: str, record: ScoredRecord, data: Path | None = None) -> tuple[Path, str]:
    """Trains a new adapter from the record alone.

    Parameters:
        data: the rows, where the record pins a file by its sha256 alone.

    Returns:
        The new run's folder, and how its adapter compares with the published one, in one line.

    Raises:
        `Drift`: on the same CPU, threads and versions losses or adapter are others; there every bit is repeatable.
    """
    folder = RETRAINED / f"{adapter.replace('/', '--')}@{commit[:12]}"
    on_all(_train, folder, record, data)
    again = load_record(folder)
    if again.training is None or again.batch is None:
        raise UserError(f"{folder} is not trained to its end: run this again, it continues")
    ours, theirs = again.training, record.training
    same = ours.adapter_sha256 == theirs.adapter_sha256
    dtype = again.model.dtype
    alike = dtype == record.model.dtype and same_stack(again.environment, record.environment, dtype)
    # What was trained before the record said so of its environment says so of its batch.
    alike = alike and record.batch is not None and again.batch.processes == record.batch.processes
    if not same and alike and again.environment.device.startswith("CPU"):
        pairs = zip(ours.history, theirs.history, strict=False)
        step = next((mine.step for mine, published in pairs if mine != published), None)
        where = "" if step is None else f"; the losses part at step {step}"
        raise Drift("training", f"on the same device and versions training gives another adapter{where}")
    if same and (difference := _other_course(ours, theirs)) is not None:
        raise Drift("training", f"training gives the same adapter, but not as the record states: {difference}")
    detail = "trained again: " + (
        "the same adapter, bit for bit"
        if same
        else "another adapter, on another device or other versions; its scores decide"
    )
    return folder, detail


def _train(folder: Path, record: ScoredRecord, data: Path | None) -> None:
    from recipes.train import train

    recipe = recipe_from_record(record.name, dict(record.recipe))
    recipe.training.output_dir = str(folder)
    if data is not None:
        recipe.arguments.dataset_name = str(data)
    train(recipe, record)


def _other_course(ours: Training, theirs: Training) -> str | None:
    """Where the record of a training that gave the same adapter differs from the one repeated; None if it does not.

    A run that was continued averages its first logged loss over fewer steps: that line is not compared.
    """
    for name in ("steps", "epochs", "seed", "best_step"):
        if getattr(ours, name) != getattr(theirs, name):
            return f"{name} is {getattr(ours, name)}, not {getattr(theirs, name)}"
    if len(ours.history) != len(theirs.history):
        return f"{len(ours.history)} lines of losses, not {len(theirs.history)}"
    continued = next((line.step for line in theirs.history if line.step > theirs.resumed_from > 0), None)
    for mine, published in zip(ours.history, theirs.history, strict=True):
        if mine != published and mine.step != continued:
            return f"the losses part at step {mine.step}"
    return None
