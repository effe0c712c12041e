"""Which columns of a dataset, and which parts of nested ones, a recipe names, and whether they hold texts."""

from typing import Any

from datasets import ClassLabel, Dataset, Json, LargeList, List, Translation, Value

from recipes.config import RecipeArguments
from recipes.templates import template_columns
from record.errors import UserError


def used_fields(
    rows: Dataset, recipe: RecipeArguments, dataset_id: str, rules: int
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The columns and parts of columns that the recipe names, each with its path; the names of classes among them.

    Raises:
        `UserError`: there is no such column or part, it holds no texts, or a rule cuts what the prompt holds already.
    """
    templates = (*recipe.prompt, recipe.target, recipe.sql_schema or "", recipe.sql_database or "")
    names = [column for template in templates for column in template_columns(template)]
    for rule in recipe.parsed_rules():
        names += [text for text in rule.texts if text not in ("prompt", "target")]
        if rules > 1 and rule.action == "truncate" and rule.texts[0] not in ("prompt", "target"):
            raise UserError(f"length rule {rule.text!r} comes after the prompt is filled: cut `prompt` or `target`")
    fields, labels = {}, {}
    for name in names:
        fields[name] = path = _path(rows, name, dataset_id)
        if rules > 1:
            part = _kind_of(rows, path)
            check_text(part, name)
            if isinstance(part, ClassLabel) and part.names:
                labels[name] = part.names
    return fields, labels


def reference_fields(rows: Dataset, recipe: RecipeArguments, dataset_id: str) -> dict[str, list[str]]:
    """As the first of `used_fields`, those of `references`: there a template of one column may name a list of texts."""
    fields = {}
    for template in recipe.references:
        names = template_columns(template)
        for name in names:
            fields[name] = path = _path(rows, name, dataset_id)
            part = _kind_of(rows, path)
            if isinstance(part, ClassLabel):
                raise UserError(f"`references` names the classes `{name}`: only the target may be one")
            check_text(part.feature if len(names) == 1 and isinstance(part, List | LargeList) else part, name)
    return fields


def _path(rows: Dataset, name: str, dataset_id: str) -> list[str]:
    path = [name] if name in rows.column_names else name.split(".")
    if path[0] not in rows.column_names:
        raise UserError(
            f"{dataset_id} has no column `{path[0]}`, but {', '.join(rows.column_names)}: "
            "correct `prompt`, `target`, `references`, `sql_schema`, `sql_database` or `length_rules`"
        )
    return path


def _kind_of(rows: Dataset, path: list[str]) -> Any:
    part = rows.features[path[0]]
    for number, step in enumerate(path[1:], 1):
        part = _part_of(part, step, ".".join(path[:number]))
    return part


def _part_of(kind: Any, step: str, name: str) -> Any:
    """The kind of a part of a column.

    Raises:
        `UserError`: the column has no such part.
    """
    if isinstance(kind, List | LargeList) and step.isdecimal():
        return kind.feature
    if isinstance(kind, Translation):
        kind = dict.fromkeys(kind.languages, Value("string"))
    if isinstance(kind, dict) and step in kind:
        return kind[step]
    if isinstance(kind, Json):
        return kind
    raise UserError(f"`{name}` has no part `{step}`{_parts_of(kind, name)}")


def check_text(kind: Any, name: str) -> None:
    """Refuses a column whose cells are no texts, numbers or dates."""
    simple = isinstance(kind, Value) and "binary" not in kind.dtype
    if not (simple or isinstance(kind, ClassLabel | Json)):
        parts = _parts_of(kind, name)
        raise UserError(f"`{name}` is no text{parts}" if parts else f"`{name}` holds {type(kind).__name__}, no text")


def _parts_of(kind: Any, name: str) -> str:
    if isinstance(kind, List | LargeList):
        return f" but a list: name an item of it, the first is {{{name}.0}}"
    if isinstance(kind, Translation):
        kind = dict.fromkeys(kind.languages)
    if isinstance(kind, dict):
        return f" but has parts: name one of {', '.join(f'{{{name}.{part}}}' for part in kind)}"
    return ""
