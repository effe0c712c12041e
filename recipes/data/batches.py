"""Datasets mapped batch by batch, streamed to files that stay in the cache of `datasets`."""

from collections.abc import Callable
from typing import Any

from datasets import Dataset, Features
from datasets.fingerprint import Hasher

from recipes import length_rules
from recipes.data import columns, tokenizer
from recipes.templates import template_columns
from record.cache import BATCH, code_of


def code() -> str:
    """The hash of all that decides what the functions of `recipes.data.columns` give."""
    parts = (columns, tokenizer, length_rules, template_columns)
    return code_of(parts, ["datasets", "regex", "tokenizers"])


def map_batches(
    rows: Dataset,
    function: Callable[..., dict[str, list]],
    desc: str,
    features: Features | None = None,
    **arguments: Any,
) -> Dataset:
    """The columns that `function` gives for each batch of `rows`, streamed to a file that the next run reads again.

    Parameters:
        function: one of `recipes.data.columns`; takes a batch as a dict of columns, and the `arguments`.
        features: the kinds of the new columns, where one bears the name of an old one of another kind.
    """
    # The name under which datasets itself stores what a dataset has become; it has no public way to it. It knows a
    # function by its name: after a change of the code it would give what the old code had made.
    fingerprint = Hasher.hash((rows._fingerprint, code(), function.__name__, arguments))
    return rows.map(
        function,
        batched=True,
        batch_size=BATCH,
        fn_kwargs=arguments,
        features=features,
        remove_columns=rows.column_names,
        new_fingerprint=fingerprint,
        desc=desc,
    )
