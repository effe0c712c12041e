"""Renders the tables and pictures of README.md from run records and recipes; no number in them is typed.

    python -m model_cards.readme [.local_hub/demo/finance ...]

Keeps the record of each scored run named in `docs/records/`, with its plots, and writes the tables between README.md's
`<!-- rendered: NAME -->` marks anew. With Chromium at hand it also takes a picture of the card.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from model_cards.plots import draw_plots
from recipes.errors import one_line_errors
from recipes.record import RECORD_FILE, Record, load_record

ROOT = Path(__file__).parents[1]
# As the reference gives them: its ROUGE-Lsum was taken of texts without newlines.
FOUR = ("rouge1", "rouge2", "rougeL", "rougeLsum_flat")
RECORDS = ROOT / "docs" / "records"
RENDERED = re.compile(r"(<!-- rendered: (\w+) -->\n)(.*?)(<!-- /rendered -->)", re.DOTALL)
STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 900px; margin: 24px auto; color: #1f2328 }
table { border-collapse: collapse; margin: 12px 0 }
td, th { border: 1px solid #d1d9e0; padding: 5px 10px }
blockquote { border-left: 4px solid #d1d9e0; margin: 0; padding: 0 12px; color: #59636e }
code, pre { background: #f0f2f4; border-radius: 4px; padding: 2px 5px }
pre { padding: 12px; overflow: auto }
img { max-width: 100% }
"""


def main(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    with one_line_errors():
        for run in map(Path, argv):
            keep(run)
        readme = ROOT / "README.md"
        readme.write_text(rendered(readme.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"Rendered {readme.name} from {len(kept_records())} records and {len(recipes())} recipes")


def keep(run: Path) -> None:
    """Keeps a scored run's record and pictures in docs/."""
    record = load_record(run)
    folder = RECORDS / record.name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / RECORD_FILE, folder / RECORD_FILE)
    draw_plots(record, folder)
    picture(run / "release" / "README.md", folder / "card.png")


def picture(card: Path, png: Path) -> None:
    """A picture of the card's first screen, if there is a card and Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or not card.is_file():
        print("No Chromium or no published card: the card's picture stays as it is")
        return
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(card.read_text(encoding="utf-8").split("\n---\n", 1)[1])
    page = f"<base href='{card.parent.resolve().as_uri()}/'><style>{STYLE}</style>{body}"
    with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as file:
        file.write(f"<!doctype html><meta charset=utf-8>{page}")
        file.flush()
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=980,1150", f"--screenshot={png}"]
        subprocess.run([chromium, *options, Path(file.name).as_uri()], check=True, capture_output=True)


def kept_records() -> list[Record]:
    """The records in docs/records/, by name."""
    return [load_record(path.parent) for path in sorted(RECORDS.glob(f"*/{RECORD_FILE}"))]


def recipes() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every recipe's opening comment and keys, by name."""
    import yaml

    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "recipes").glob("*.yaml"))}
    return {name: (text.partition("\ntitle:")[0], yaml.safe_load(text)) for name, text in texts.items()}


def rendered(readme: str) -> str:
    """README.md with every rendered table made anew.

    Raises:
        `KeyError`: a mark names no table.
    """
    tables = {"results": results_table, "recipes": recipes_table}
    return RENDERED.sub(lambda match: f"{match[1]}{tables[match[2]]()}\n{match[4]}", readme)


def results_table() -> str:
    """The kept runs: ROUGE-L of base model and adapter, with intervals."""
    lines = [
        "| run | base model | test rows | ROUGE-L base | ROUGE-L adapter | difference |",
        "|---|---|---|---|---|---|",
    ]
    for record in kept_records():
        scores = record.scores
        cells = [f"{x.mean:.4f} [{x.low:.4f}, {x.high:.4f}]" for x in
                 (scores.base["rougeL"], scores.adapter["rougeL"], scores.difference["rougeL"])]  # fmt: skip
        label = "a miniature of " if record.miniature else ""
        lines.append(
            f"| {record.name} | {label}{record.pins.base_model.id} ({record.model.total - record.model.trainable:,} "
            f"parameters) | {scores.rows:,} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def recipes_table() -> str:
    """Every recipe: what it trains, the reference's scores, what is known of this project's own, hardware, command."""
    real = {record.name: record for record in kept_records() if not record.miniature}
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
        hardware, time = (re.search(rf"# {key}: +(.*?)\.?\n", head)[1] for key in ("Hardware", "Time"))
        what = f"{keys['model_name_or_path'].partition('/')[2]} on {keys['dataset_name']}"
        if keys.get("parent_adapter"):
            what += f", continuing {keys['parent_adapter']}"
        lines.append(f"| {name} | {what} | {theirs} | {ours} | {hardware} | {time} | `make train-{name}` |")
    return "\n".join(lines)


def _four(scores: dict[str, float]) -> str:
    return " / ".join(f"{scores[metric]:.4f}".lstrip("0") for metric in FOUR)


if __name__ == "__main__":
    main(sys.argv[1:])
