"""Templates of prompts and targets: texts with the names of columns in braces."""

import re
import string

from record.errors import UserError

# A column's name, and after dots the names and numbers of the part that is meant: `answers.text.0`.
COLUMN = re.compile(r"(?!\d)\w(?:[\w -]*\w)?(?:\.(?!__)\w(?:[\w -]*\w)?)*")


def template_columns(template: str) -> list[str]:
    """Names of the columns that a template uses.

    Raises:
        `UserError`: a brace is unbalanced, or a field is more than a column or its part (`{a[0]}`, `{a!r}`, `{a:>9}`).
    """
    try:
        parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise UserError(f"the template {template!r} is not valid: {error}") from None
    for _, name, spec, conversion in parts:
        if not COLUMN.fullmatch(name) or spec or conversion:
            raise UserError(f"the template {template!r} is not valid: {{{name}}} is no plain column name")
    return list(dict.fromkeys(name for _, name, _, _ in parts))
