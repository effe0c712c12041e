"""An adapter trained again from its record alone."""

from pathlib import Path

from evaluation.findings import Drift
from evaluation.tolerance import same_stack
from recipes.config import recipe_from_record
from record.run_record import Record, Training, load_record

# A new adapter is written here and kept: training may take hours, and started again it continues.
RETRAINED = Path("runs", "retrained")


def retrain(adapter: str, commit: str, record: Record) -> tuple[Path, str]:
    """Trains a new adapter from the record alone.

    Returns:
        The new run's folder, and how its adapter compares with the published one, in one line.

    Raises:
        `Drift`: on the same CPU, threads and versions losses or adapter are others; there every bit is repeatable.
    """
    from recipes.train import train

    folder = RETRAINED / f"{adapter.replace('/', '--')}@{commit[:12]}"
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
    return folder, detail


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
