"""The splits that a dataset comes with, as a recipe names them: by name, slice (`train[:10%]`) or sum."""

from datasets import Dataset, DatasetDict, ReadInstruction, concatenate_datasets

from record.errors import UserError, one_line


def read_own_splits(parts: DatasetDict, named: dict[str, str], dataset_id: str) -> list[Dataset]:
    """The rows of each split that a recipe names, in the order of its keys.

    Parameters:
        parts: all splits of the dataset.
        named: by the recipe's key, as `datasets.ReadInstruction.from_spec` reads it.

    Raises:
        `UserError`: there is no such split, it holds no rows, or two of them share rows.
    """
    sizes = {name: len(rows) for name, rows in parts.items()}
    taken: dict[str, list[tuple[int, int, str]]] = {}
    splits = []
    for key, split in named.items():
        try:
            spans = [
                (span.splitname, span.from_ or 0, sizes[span.splitname] if span.to is None else span.to)
                for span in ReadInstruction.from_spec(split).to_absolute(sizes)
            ]
            rows = concatenate_datasets([parts[name].select(range(start, end)) for name, start, end in spans])
        except (ValueError, AssertionError) as error:
            raise UserError(
                f"`{key}: {split}` names no split of {dataset_id}, which has {', '.join(parts)}: "
                f"{one_line(str(error), 200)}"
            ) from None
        if not len(rows):
            raise UserError(f"`{key}: {split}` holds no rows of {dataset_id}: name more of them")
        for name, start, end in spans:
            for first, last, other in taken.setdefault(name, []):
                if start < last and first < end:
                    raise UserError(f"`{other}` and `{key}` both take rows {max(start, first)} to {min(end, last) - 1} "
                                    f"of `{name}`: name splits that share none")  # fmt: skip
            taken[name].append((start, end, key))
        splits.append(rows)
    return splits
