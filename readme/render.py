"""Renders README.md's tables from docs/claims/, the recipes and benchmarks/results/: no number typed, no Hub asked.

    python -m readme.render

Writes the tables between README.md's `<!-- rendered: NAME -->` marks anew. `readme.claims` brings docs/claims/ up
to date.
"""

import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import click
from pydantic import StringConstraints, TypeAdapter, ValidationError

from model_cards.escape import cell, shorten
from readme.measurements import exports_table, load_lines, profile_tables, scoring_table, speed_tables
from record import strict_json
from record.command_line import Command, run_command
from record.errors import UserError, one_line_errors
from record.run_record import METRIC_NAMES, Record, Scores, Section, Sha1, load_record
from record.verdict import Verdict
from record.whole_file import write_whole

ROOT = Path(__file__).parents[1]
LISTING = "claims.yaml"
CLAIM_FILE = "claim.json"
# As the reference gives them: its ROUGE-Lsum was taken of texts without newlines.
FOUR = ("rouge1", "rouge2", "rougeL", "rougeLsum_flat")
RENDERED = re.compile(r"(<!-- rendered: (\w+) -->\n)(.*?)(<!-- /rendered -->)", re.DOTALL)


class Listed(Section):
    """A published adapter in claims.yaml, whose opening comment explains the keys."""

    adapter: Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*/\w[\w.-]*$")]
    revision: str = "main"
    hub: Literal["real", "local"] = "real"
    pictures: bool = False


class Claim(Section):
    """What is kept beside the record: the commit that it was taken from, and the last verdict, of this commit or an
    earlier one."""

    commit: Sha1
    verdict: Verdict

    def save(self, folder: Path) -> None:
        """Writes `claim.json`, without the numbers of the rows that differ: the verdict's reason counts them."""
        text = self.model_dump_json(indent=1, exclude={"verdict": {"rows"}})
        write_whole(folder / CLAIM_FILE, f"{text}\n".encode())


@click.command(cls=Command, examples=("pubrep readme",))
def command() -> None:
    """Render README's tables from docs/claims, the recipes and the benchmarks.

    No number is typed, and no Hub is asked.
    """
    with one_line_errors():
        render(ROOT)


def main(argv: list[str]) -> None:
    run_command(command, argv, "python -m readme.render")


def listed(root: Path) -> list[Listed]:
    """The adapters that claims.yaml lists.

    Raises:
        `UserError`: it is not such a list, or names an adapter twice.
    """
    import yaml

    try:
        content = yaml.safe_load((root / LISTING).read_text(encoding="utf-8")) or []
        entries = TypeAdapter(list[Listed]).validate_python(content)
    except yaml.YAMLError as error:
        raise UserError(f"{LISTING} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f" {part}" for part in first["loc"])
        raise UserError(f"{LISTING} is not a list of adapters as its comment shows:{where}: {first['msg']}") from None
    ids = [entry.adapter for entry in entries]
    for adapter in ids:
        if ids.count(adapter) > 1:
            raise UserError(f"{LISTING} lists {adapter} twice: keep one")
    return entries


def folder_of(root: Path, entry: Listed) -> Path:
    """Where an adapter's record and last verdict are kept."""
    return root / "docs" / "claims" / entry.adapter.replace("/", "--")


def load_claim(folder: Path) -> Claim | None:
    """The claim kept in `folder`, if there is one.

    Raises:
        `UserError`: the file there is not a claim.
    """
    path = folder / CLAIM_FILE
    return strict_json.load(path, Claim, "a claim as `make claims` keeps it") if path.is_file() else None


def kept_records(root: Path = ROOT) -> list[Record]:
    """The kept records of the listed adapters."""
    folders = [folder_of(root, entry) for entry in listed(root)]
    return [load_record(folder) for folder in folders if load_claim(folder) is not None]


def recipes() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every recipe's opening comment and keys, by name."""
    import yaml

    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "recipes").glob("*.yaml"))}
    return {name: (text.partition("\ntitle:")[0], yaml.safe_load(text)) for name, text in texts.items()}


def render(root: Path) -> None:
    """Renders README.md and benchmarks/README.md in the folder `root`."""
    for readme in filter(Path.is_file, (root / "README.md", root / "benchmarks" / "README.md")):
        readme.write_text(rendered(readme.read_text(encoding="utf-8"), root), encoding="utf-8")
    print(f"Rendered {readme.name} from {len(kept_records(root))} records and {len(recipes())} recipes")


def rendered(readme: str, root: Path = ROOT) -> str:
    """A README with every rendered table made anew.

    Raises:
        `KeyError`: a mark names no table.
    """
    tables = {
        "results": results_table, "recipes": recipes_table, "scoring": scoring_table, "speed": speed_tables,
        "profiles": profile_tables, "exports": exports_table, "load": load_lines,
    }  # fmt: skip
    return RENDERED.sub(lambda match: f"{match[1]}{tables[match[2]](root)}\n{match[4]}", readme)


def results_table(root: Path) -> str:
    """The listed adapters: scores with intervals and the last verdict; below, why one is not REPRODUCED."""
    entries = listed(root)
    lines = [
        "| adapter | base model | test rows | score | base | adapter | difference | last verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for entry in entries:
        folder = folder_of(root, entry)
        claim = load_claim(folder)
        if claim is None:
            lines.append(f"| {cell(entry.adapter)} | | | | | | | not asked for yet: `make claims` |")
            continue
        lines += results_rows(entry, claim, load_record(folder))
        if claim.verdict.verdict != "REPRODUCED":
            notes.append(f"- {cell(entry.adapter)}: {claim.verdict.verdict}, {cell(shorten(claim.verdict.reason))}")
    if all(entry.hub == "local" for entry in entries):
        notes.append("No adapter is published on the real Hub yet.")
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def results_rows(entry: Listed, claim: Claim, record: Record) -> list[str]:
    """One adapter's lines of the results table, one a score; what comes from its record is untrusted text."""
    scores, base = record.scores, record.pins.base_model
    adapter = cell(entry.adapter)
    if entry.hub == "real":
        adapter = f"[{adapter}](https://huggingface.co/{entry.adapter}/tree/{claim.commit})"
    adapter += f"<br>{cell(record.recipe.get('title', ''))} ({cell(record.name)})"
    model = f"{'a miniature of ' if record.miniature else ''}{cell(base.id)}"
    model += f"<br>{record.model.total - record.model.trainable:,} parameters"
    seen = sum(scores.seen.values())
    seen = (
        "not compared with the training rows"
        if record.leakage is None
        else f"{seen:,} ({100 * seen / max(scores.rows, 1):.1f} %) seen in training"
    )
    rows = [_results_row(adapter, model, f"{scores.rows:,}<br>{seen}", "rougeL", scores, verdict_cell(claim))]
    if scores.sql is not None:
        runnable = f"{scores.rows - scores.sql.not_executable:,} whose reference runs"
        rows.append(_results_row("", "", runnable, "sql_execution_match", scores, ""))
    return rows


def _results_row(adapter: str, model: str, rows: str, metric: str, scores: Scores, verdict: str) -> str:
    base, tuned, difference = (part[metric] for part in (scores.base, scores.adapter, scores.difference))
    intervals = [f"{x.mean:.4f} [{x.low:.4f}, {x.high:.4f}]" for x in (base, tuned)]
    intervals.append(f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]")
    return f"| {' | '.join([adapter, model, rows, METRIC_NAMES[metric], *intervals, verdict])} |"


def verdict_cell(claim: Claim) -> str:
    """The last verdict with its level, date and commit, and whether the Hub holds another commit now."""
    verdict = claim.verdict
    told = verdict.verdict if verdict.verdict == "REPRODUCED" else f"**{verdict.verdict}**"
    told += f" ({verdict.moved})" if verdict.moved else ""
    commit = verdict.revision or claim.commit
    if commit != claim.commit:
        told += " of an earlier commit"
    cells = [told, f"level {verdict.level}, {verdict.date[:10]}", f"`{commit[:12]}`"]
    if commit != claim.commit:
        cells.append(f"now `{claim.commit[:12]}`, not checked")
    return "<br>".join(cells)


def recipes_table(root: Path) -> str:
    """Every recipe: what it trains, the reference's scores, what is known of this project's own, hardware, command."""
    real = {record.name: record for record in kept_records(root) if not record.miniature}
    lines = [
        "| recipe | trains | the reference: base → adapter (ROUGE-1/2/L/Lsum) "
        "| here, on the real model | hardware | time | command |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (head, keys) in recipes().items():
        published = keys.get("expect", {}).get("published", {})
        theirs = " → ".join(_four(published[who]) for who in ("base", "adapter")) if published else "none"
        ours = "not yet run"
        if name in real:
            scores = (getattr(real[name].scores, who) for who in ("base", "adapter"))
            ours = " → ".join(_four({metric: score[metric].mean for metric in FOUR}) for score in scores)
        found = (re.search(rf"# {key}: +(.*?)\.?\n", head) for key in ("Hardware", "Time"))
        hardware, time = (match[1] if match else "not stated" for match in found)
        what = f"{keys['model_name_or_path'].partition('/')[2]} on {keys['dataset_name']}"
        if keys.get("parent_adapter"):
            what += f", continuing {keys['parent_adapter']}"
        lines.append(f"| {name} | {what} | {theirs} | {ours} | {hardware} | {time} | `make train-{name}` |")
    return "\n".join(lines)


def _four(scores: dict[str, float]) -> str:
    return " / ".join(f"{scores[metric]:.4f}".lstrip("0") for metric in FOUR)


if __name__ == "__main__":
    main(sys.argv[1:])
