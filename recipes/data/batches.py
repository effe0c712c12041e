"""Datasets mapped batch by batch, streamed to files that are kept."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset
from record.cache import BATCH, code


def map_batches(rows: "Dataset", function: Callable[..., dict[str, list]], desc: str, **arguments: Any) -> "Dataset":
    """The columns that `function` gives for each batch of `rows`, streamed to a file and kept.

    Parameters:
        function: takes a batch as a dict of columns, and the `arguments`.
    """
    from datasets.fingerprint import Hasher

    # The name under which datasets itself keeps what a dataset has become; it has no public way to it.
    fingerprint = Hasher.hash((rows._fingerprint, code(), function.__name__, arguments))
    return rows.map(
        function,
        batched=True,
        batch_size=BATCH,
        fn_kwargs=arguments,
        remove_columns=rows.column_names,
        new_fingerprint=fingerprint,
        desc=desc,
    )
