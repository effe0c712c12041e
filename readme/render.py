"""Renders the tables of README.md, docs/ and benchmarks/README.md from docs/claims/, the recipes and
benchmarks/results/: no number typed, no Hub asked.

    python -m readme.render

Fills NAME.md.jinja, next to this file, between a page's `<!-- rendered: NAME -->` marks. `readme.claims` brings
docs/claims/ up to date.
"""

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import click
from jinja2 import FileSystemLoader
from markupsafe import Markup
from pydantic import StringConstraints, TypeAdapter, ValidationError

from evaluation.limits import LIMITS
from model_cards.escape import environment
from recipes.families import FAMILIES
from record import strict_json
from record.command_line import Command, run_command
from record.errors import UserError, one_line_errors
from record.field_types import Section
from record.run_record import Record, Sha1, load_record
from record.scores import METRIC_NAMES
from record.verdict import Verdict
from record.whole_file import write_whole

ROOT = Path(__file__).parents[1]
LISTING = "claims.yaml"
CLAIM_FILE = "claim.json"
# As the reference gives them: its ROUGE-Lsum was taken of texts without newlines.
FOUR = ("rouge1", "rouge2", "rougeL", "rougeLsum_flat")
# Kinds of CPU, by the names of their files of figures.
KINDS = {
    "cpu-amx-bf16": "with AMX", "cpu-avx512-bf16": "with AVX512-BF16",
    "cpu-avx512-bf16-half": "with AVX512-BF16 in two halves", "cpu": "without instructions for bfloat16",
}  # fmt: skip
UNITS = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}
RENDERED = re.compile(r"(<!-- rendered: (\w+) -->\n)(.*?)(<!-- /rendered -->)", re.DOTALL)


class Listed(Section):
    """A published adapter in claims.yaml, whose opening comment explains the keys."""

    adapter: Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*/\w[\w.-]*$")]
    revision: str = "main"
    hub: Literal["real", "local"] = "real"
    pictures: bool = False


class Claim(Section):
    """What is kept next to the record: the commit that it was taken from, the last verdict, of this commit or an
    earlier one, and how many other accounts vouch for this release, with how many who found something else.

    None of the two counts was asked for before they were kept.
    """

    commit: Sha1
    verdict: Verdict
    agree: int | None = None
    disagree: int | None = None

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
    """Renders every page with rendered blocks in the folder `root`."""
    for page in pages(root):
        page.write_text(rendered(page.read_text(encoding="utf-8"), root), encoding="utf-8")
    print(f"Rendered {len(pages(root))} pages from {len(kept_records(root))} records and {len(recipes())} recipes")


def pages(root: Path) -> list[Path]:
    """The pages of the folder `root` that hold rendered blocks."""
    candidates = (root / "README.md", *sorted((root / "docs").glob("*.md")), root / "benchmarks" / "README.md")
    return [page for page in candidates if page.is_file() and RENDERED.search(page.read_text(encoding="utf-8"))]


def rendered(page: str, root: Path = ROOT) -> str:
    """A page's text with every rendered block made again.

    Raises:
        `jinja2.TemplateNotFound`: a mark names no template.
    """
    return RENDERED.sub(lambda match: f"{match[1]}{block(match[2], root)}\n{match[4]}", page)


def block(name: str, root: Path = ROOT, **facts: Any) -> str:
    """One rendered block: the template `NAME.md.jinja` filled from what the folder `root` keeps.

    Parameters:
        facts: given to the template in place of those that are kept.
    """
    jinja = environment()
    jinja.loader = FileSystemLoader(Path(__file__).parent)
    jinja.filters |= {"number": number, "duration": duration, "flops": flops, "lines": lines}
    template = jinja.get_template(f"{name}.md.jinja")
    # Functions, so that a template reads only what it shows.
    text = template.render(
        {
            "claims": lambda: kept_claims(root),
            "recipes": lambda: recipe_facts(root),
            "results": lambda: kept_results(root),
            "cpu_parts": lambda: newest_cpu_parts(kept_results(root)),
            "pictures": lambda: {path.stem for path in (root / "docs" / "benchmarks").glob("*.png")},
            "kinds": KINDS,
            "families": family_cells,
            "limits": LIMITS,
            "metric_names": METRIC_NAMES,
            "reference_metrics": FOUR,
            **facts,
        }
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def kept_claims(root: Path) -> list[tuple[Listed, Claim | None, Record | None]]:
    """The listed adapters, each with its claim and its record, where they are kept."""
    entries = [(entry, folder_of(root, entry)) for entry in listed(root)]
    return [
        (entry, claim, load_record(folder) if claim else None)
        for entry, folder in entries
        for claim in [load_claim(folder)]
    ]


def family_cells() -> list[tuple[str, list[str]]]:
    """Each family's name with what is done with its adapters."""
    import yaml

    table = yaml.safe_load(Path(__file__).with_name("families.yaml").read_text(encoding="utf-8"))
    return [(FAMILIES[kind].name, cells) for kind, cells in table.items()]


def recipe_facts(root: Path) -> list[dict[str, Any]]:
    """Of every recipe: its name and keys, what its comment says of hardware and time, and the means of `ours`, the real
    model's kept record, if there is one."""
    trained = [record for record in kept_records(root) if record.evaluated is None]
    real = {record.name: record.scores for record in trained if not record.miniature}
    facts = []
    for name, (head, keys) in recipes().items():
        ours = {
            who: {metric: score.mean for metric, score in getattr(real[name], who).items()}
            for who in ("base", "adapter")
            if name in real
        }
        matches = {key: re.search(rf"# {key}: +(.*?)\.?\n", head) for key in ("Hardware", "Time")}
        comments = {key.lower(): match[1] if match else "not stated" for key, match in matches.items()}
        facts.append({"name": name, "yaml": keys, "ours": ours, **comments})
    return facts


def kept_results(root: Path) -> dict[str, dict]:
    """What `make bench` measured, by the machine's file name; CPUs first."""
    files = sorted(
        (root / "benchmarks" / "results").glob("*.json"), key=lambda path: (not path.stem.startswith("cpu"), path.stem)
    )
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


def newest_cpu_parts(results: dict[str, dict]) -> dict[str, Any]:
    """Every part that was measured on a CPU, from the kind of CPU where that was done last."""
    parts = [part for name, result in results.items() if name.startswith("cpu") for part in result["parts"].items()]
    return dict(sorted(parts, key=lambda part: part[1].get("date", "")))


def lines(file: str) -> int:
    """How many lines a file of the project has."""
    return len((ROOT / file).read_text(encoding="utf-8").splitlines())


def number(value: float, form: str) -> Markup:
    """A number in one of Python's formats."""
    return Markup(format(value, form))


def duration(seconds: float) -> str:
    """In seconds, minutes or hours, whichever reads best."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def flops(rate: float) -> str:
    """Floating-point operations a second, with the largest unit that fits."""
    unit = next((unit for unit, value in UNITS.items() if rate >= value), "")
    return f"{rate / UNITS.get(unit, 1):.0f} {unit}FLOP/s"


if __name__ == "__main__":
    main(sys.argv[1:])
