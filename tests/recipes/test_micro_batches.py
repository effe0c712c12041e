import random

import pytest

from recipes.training.micro_batches import cut, fit_memory, plan, smaller
from record.errors import UserError
from record.run_record import Batch


class Arguments:
    """What `plan` reads of the training arguments."""

    def __init__(self, per_device, accumulation, processes=1):
        self.per_device_train_batch_size = per_device
        self.gradient_accumulation_steps = accumulation
        self.world_size = processes


def batch_of(share, processes=1, tokens=None, too_large=()):
    return Batch(per_device=share, accumulation=1, processes=processes, tokens=tokens, too_large=list(too_large))


@pytest.mark.parametrize("processes", [1, 2, 8])
def test_the_effective_batch_is_the_recipes_on_any_number_of_processes(processes):
    planned = plan(Arguments(16, 4, processes), None, 500)
    assert planned == batch_of(64 // processes, processes, tokens=500) and planned.effective == 64


def test_a_continued_or_repeated_run_takes_the_budget_that_was_found():
    found = batch_of(64, tokens=700, too_large=[2800, 1400])
    assert plan(Arguments(16, 4), found, None) == found
    # On another number of processes it does not hold.
    assert plan(Arguments(16, 4, processes=2), found, None) == batch_of(32, 2)
    # A record before version 3 has none: its steps were cut by rows.
    by_rows = Batch(per_device=16, accumulation=4, processes=1, too_large=[64, 32])
    assert plan(Arguments(16, 4), by_rows, None) == batch_of(64)


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(UserError, match="64 rows cannot be shared by 3 processes"):
        plan(Arguments(16, 4, processes=3), None, None)


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("tokens", [None, 1, 90, 400, 10**6])
def test_a_step_is_cut_whole_within_the_budget_and_evenly(processes, tokens):
    lengths = [random.Random(seed).randint(2, 100) for seed in range(50)]
    shares = cut(lengths, processes, tokens)
    assert sorted(row for share in shares for rows in share for row in rows) == list(range(50))
    # As many micro-batches on each process: with sharded weights they go through the model in step.
    assert len(shares) == processes and len({len(share) for share in shares}) == 1
    batches = [rows for share in shares for rows in share]
    assert tokens is None or all(len(rows) <= 1 or sum(lengths[row] for row in rows) <= tokens for rows in batches)
    assert sum(not rows for rows in batches) < processes
    if tokens is None or tokens >= 400:
        loads = [sum(lengths[row] for rows in share for row in rows) for share in shares]
        assert max(loads) - min(loads) <= max(lengths)
        # No more micro-batches than the tokens need, but for one a process.
        fewest = max(processes, sum(lengths) / tokens) if tokens else processes
        assert len(batches) < fewest + 2 * processes


def test_more_processes_than_rows_leave_some_without():
    assert sorted(map(len, (rows for share in cut([5, 9], 3, None) for rows in share))) == [0, 1, 1]


def test_smaller_budgets_end_at_the_longest_row():
    budgets, batch = [], batch_of(48, tokens=1000)
    while batch is not None:
        budgets.append(batch.tokens)
        batch = smaller(batch, longest=130)
    assert budgets == [1000, 500, 250, 125]


def failing_above(limit, tried):
    def attempt(batch):
        batch.tokens = batch.tokens or 3000
        tried.append(batch.tokens)
        if batch.tokens > limit:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return batch

    return attempt


def test_memory_decides_the_budget_and_the_effective_batch_stays():
    tried, said = [], []
    found = fit_memory(batch_of(64), 50, "row 7", False, failing_above(800, tried), said.append)
    assert tried == [3000, 1500, 750] and found == batch_of(64, tokens=750, too_large=[3000, 1500])
    assert len(said) == 2 and "3,000 tokens at once: 1,500" in said[0]


@pytest.mark.parametrize(
    ("batch", "longest", "fixed"),
    [
        (batch_of(64, tokens=900), 50, True),
        (batch_of(32, 2, tokens=900), 50, False),
    ],
)
def test_a_fixed_budget_or_several_processes_end_with_a_sentence(batch, longest, fixed):
    with pytest.raises(UserError, match=r"micro-batches of 900 tokens: set a smaller `tokens_per_micro_batch`"):
        fit_memory(batch, longest, "row 7", fixed, failing_above(0, []), print)


@pytest.mark.parametrize("tokens", [900, None])
def test_where_memory_does_not_suffice_for_one_row_it_is_named(tokens):
    def attempt(batch):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(UserError, match=r"for row 7 alone, which has 900 tokens: drop such rows by `length_rules`"):
        fit_memory(batch_of(64, tokens=tokens), 900, "row 7", False, attempt, print)


def test_another_error_is_not_taken_for_memory():
    def attempt(batch):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        fit_memory(batch_of(64), 50, "row 7", False, attempt, print)
