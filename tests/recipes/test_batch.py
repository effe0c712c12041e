import pytest

from recipes.batch import fit, plan, smaller
from recipes.errors import UserError
from recipes.record import Batch


class Arguments:
    """What `plan` reads of the training arguments."""

    def __init__(self, per_device, accumulation, processes=1, automatic=False):
        self.per_device_train_batch_size = per_device
        self.gradient_accumulation_steps = accumulation
        self.world_size = processes
        self.auto_find_batch_size = automatic


def cut(per_device, accumulation, processes=1, too_large=()):
    return Batch(per_device=per_device, accumulation=accumulation, processes=processes, too_large=list(too_large))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (Arguments(16, 4), cut(16, 4)),
        (Arguments(16, 4, processes=2), cut(16, 2, 2)),
        (Arguments(16, 4, processes=8), cut(8, 1, 8)),
        (Arguments(16, 4, automatic=True), cut(64, 1)),
    ],
)
def test_the_effective_batch_is_the_recipes_on_any_number_of_processes(arguments, expected):
    assert plan(arguments, None) == expected and expected.effective == 64


def test_a_continued_run_starts_at_the_size_it_had_found():
    found = cut(8, 8, too_large=[64, 32, 16])
    assert plan(Arguments(16, 4, automatic=True), found) == found
    # On another number of processes it does not hold.
    assert plan(Arguments(16, 4, processes=2), found) == cut(16, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (Arguments(16, 4, processes=3), "64 rows cannot be shared by 3 processes"),
        (Arguments(16, 4, processes=2, automatic=True), "works on one process"),
        (Arguments(10, 3, processes=2), "15 rows a process cannot be cut into micro-batches of 10"),
    ],
)
def test_a_batch_that_cannot_be_cut_evenly_is_refused(arguments, told):
    with pytest.raises(UserError, match=told):
        plan(arguments, None)


def test_smaller_sizes_divide_the_share():
    sizes, batch = [], cut(48, 1)
    while batch is not None:
        sizes.append((batch.per_device, batch.accumulation))
        batch = smaller(batch)
    assert sizes == [(48, 1), (24, 2), (12, 4), (6, 8), (3, 16), (1, 48)]


def failing_above(limit, tried):
    def attempt(batch):
        tried.append(batch.per_device)
        if batch.per_device > limit:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return batch

    return attempt


def test_memory_decides_the_size_and_the_effective_batch_stays():
    tried, said = [], []
    found = fit(cut(64, 1), True, failing_above(10, tried), said.append)
    assert tried == [64, 32, 16, 8] and found == cut(8, 8, too_large=[64, 32, 16])
    assert len(said) == 3 and "32 rows, 2 times" in said[0]


def test_a_fixed_size_or_a_single_row_that_does_not_fit_ends_with_a_sentence():
    with pytest.raises(UserError, match="auto_find_batch_size"):
        fit(cut(16, 4), False, failing_above(8, []), print)
    with pytest.raises(UserError, match="micro-batches of 1 rows"):
        fit(cut(4, 1), True, failing_above(0, []), print)


def test_another_error_is_not_taken_for_memory():
    def attempt(batch):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        fit(cut(16, 4), True, attempt, print)
