"""`dtype: bfloat16` on a CPU: what decides whether it is computed in, and what a check makes of it.

The miniatures are narrower than what gains by it; here they are told not to be.
"""

import pytest
import torch
from short_runs import publish, train_short

from evaluation import evaluate
from evaluation.loaded import load
from evaluation.reproduce import reproduce
from recipes import environment
from recipes.config import parse_recipe
from recipes.pin_recipe import pin_recipe
from recipes.training import dtype
from record.errors import UserError
from record.project import PACKAGE, __version__
from record.run_record import load_record
from record.scored_record import require_scores


@pytest.fixture(scope="module")
def base(hub):
    return pin_recipe(parse_recipe(["--config", "recipes/finance.yaml"])).base_model


@pytest.fixture
def cpu(monkeypatch):
    """Sets how many times as fast bfloat16 is; every width gains by it."""

    def gains(factor: float) -> None:
        monkeypatch.setattr(dtype, "NARROW", 1)
        monkeypatch.setattr(dtype, "bfloat16_gain", lambda: factor)

    return gains


def test_a_measured_product_decides(base, cpu):
    assert "64 numbers wide" in dtype.why_float32(base)
    assert dtype.pick_dtype("bfloat16", base) == torch.float32
    cpu(1.49)
    assert "1.49 times as fast" in dtype.why_float32(base)
    assert dtype.pick_dtype("bfloat16", base) == torch.float32
    cpu(1.5)
    assert dtype.pick_dtype("bfloat16", base) == torch.bfloat16
    assert dtype.pick_dtype("float32", base) == torch.float32
    with pytest.raises(UserError, match="`dtype: float16` is not supported"):
        dtype.pick_dtype("float16", base)


def test_the_product_is_measured_once(hub, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    first = dtype.bfloat16_gain()
    assert first > 0
    monkeypatch.setattr(torch.nn.functional, "linear", None)
    assert dtype.bfloat16_gain() == first


def test_a_run_in_bfloat16_is_recorded_checked_and_checked_elsewhere(hub, cpu, tmp_path, capsys, monkeypatch):
    cpu(4.0)
    run = train_short(tmp_path / "fast", "--adapter_name", "in-bfloat16")
    assert "in float32, not in bfloat16" not in capsys.readouterr().out
    evaluate.main([str(run)])
    record = load_record(run)
    assert (record.model.dtype, record.contract.dtype) == ("bfloat16", "bfloat16")
    assert record.environment.packages[PACKAGE] == record.scored_in.packages[PACKAGE] == __version__
    # Another version of this package may add up in another order.
    assert load(run, require_scores(record)).repeatable
    with monkeypatch.context() as later:
        later.setattr(environment, "__version__", "99.0")
        assert not load(run, require_scores(record)).repeatable
    publish(run)
    verdict, _ = reproduce("local-user/in-bfloat16")
    assert (verdict.verdict, verdict.evidence) == ("REPRODUCED", "tokens"), verdict.reason
    cpu(0.03)
    capsys.readouterr()
    verdict, found = reproduce("local-user/in-bfloat16")
    assert "outputs were computed in bfloat16, here they are in float32" in capsys.readouterr().out
    # On another kind of CPU tokens need not be equal, but about as likely, and no score may move.
    assert (verdict.verdict, verdict.evidence) == ("REPRODUCED", "statistics"), verdict.reason
    assert any(found.differing.values())
    assert all(change.difference.low <= 0 <= change.difference.high for change in verdict.changes)


def test_losses_in_bfloat16_lie_within_the_spread_of_seeds_in_float32(hub, cpu, tmp_path):
    def losses(name: str, *overrides: str) -> tuple[str, list[float]]:
        record = load_record(train_short(tmp_path / name, "--eval_strategy", "no", "--save_strategy", "no",
                                         "--load_best_model_at_end", "false", *overrides))  # fmt: skip
        return record.model.dtype, [point.loss for point in record.training.history if point.loss is not None]

    slow = [losses(f"seed{seed}", "--seed", str(seed))[1] for seed in (1, 2, 3)]
    cpu(4.0)
    kind, fast = losses("fast", "--seed", "1")
    assert kind == "bfloat16" and len(fast) == 6 and fast != slow[0]
    away = max(abs(a - b) for a, b in zip(fast, slow[0], strict=True))
    assert away < max(max(step) - min(step) for step in zip(*slow, strict=True)) / 4
