"""Foreign text in every field of record, recipe, predictions and verdict stays text on the card."""

import ast
import re
import shlex
from html.parser import HTMLParser

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from pydantic import ValidationError

from model_cards import card as card_module
from model_cards.card import keep_free_sections, render_card
from model_cards.compare import compare_table
from model_cards.escape import cell
from model_cards.plots import draw_plots
from record.energy import Energy
from record.predictions import Predictions
from record.run_record import Expectation, Lengths, Pin, Record, Unwritable
from record.scores import Forgetting, Interval, SqlCounts
from record.verdict import Check, Verdict

REPO = "someone/adapter"
HOSTILE = [
    "{{7*7}}{% raw %}{% for x in y %}{# x #}",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "---\nlicense: mit\n---\n",
    "| a | b |\n|---|---|",
    "`a` ``b`` ```\n```\n# heading\n~~~\n- item\n1. item\n> quote\n===",
    "[x](javascript:alert(1)) ![y](http://evil.example/y.png) <http://evil.example> www.evil.example",
    "http://evil.example user@evil.example",
    "](javascript:alert(1)) **bold** _it_ ~~no~~ $x^2$ $$y$$ :smile: @someone #1",
    "<!-- free: limits -->x<!-- /free --><!--",
    "\u202egnp.exe\u2066 \u200b\u061c\U000e0041\x00\x1b[31m\r\x85\u2028",
    '\'; rm -rf ~ #\n$(id) `id` \\\n\\N{DASH} \\x41 """',
    "</details></summary></code></td></table>",
    "%s %(x)s {0} {x.__class__}",
    "w" * 100_000,
    "w \n" * 33_000,
]
TAGS = {
    *("h1", "h2", "h3", "p", "a", "img", "pre", "code", "table", "thead", "tbody", "tr", "th", "td"),
    *("strong", "em", "ul", "li", "details", "summary", "br", "blockquote"),
}


class Page(HTMLParser):
    """The tags of a page in order, without the breaks that newlines in a text make, and their attributes."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag != "br":
            self.tags.append((tag, sorted(name for name, _ in attrs)))

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")


def page(card: str) -> Page:
    body = ModelCard(card).text
    # As GitHub and the Hub read it: tables, struck text, and HTML as it stands.
    return Page(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(body))


@pytest.fixture
def full(record):
    """A record with every section that there is."""
    some = Interval(mean=0.5, low=0.4, high=0.6)
    record.pins.parent_adapter = Pin(kind="model", id="someone/parent", revision="9" * 40, license="mit")
    record.pins.dataset.license = "mit"
    record.data.truncated, record.data.limits = (
        {"truncate tokens(prompt) > p99": 3},
        {"truncate tokens(prompt) > p99": 7},
    )
    record.data.lengths = {name: Lengths(min=1, mean=2.5, max=4) for name in ("prompt", "target")}
    record.unwritable = Unwritable(rows=20, unwritable=2, white_space=1, characters={"<": 2})
    record.expectations = [Expectation(name="x", expected="y", found="z", verdict="missed")]
    record.forgetting = Forgetting(rows=2, **{part: {"rougeL": some} for part in ("parent", "adapter", "difference")})
    record.scores.sql, record.contract.sql = SqlCounts(not_executable=1, base_empty=0, adapter_empty=0), "sqlglot 1"
    record.energy = Energy(kwh=1, cpu_kwh=0.5, gpu_kwh=0.25, ram_kwh=0.25, co2_grams=662, country="POL", region="x",
                           hardware="GPU y", cpu_measured=False, codecarbon="3.3.2")  # fmt: skip
    # Of some tasks the card says that there is no pipeline; any other text is none of them.
    record.recipe |= {"task": "other", "load_in_4bit": True, "added_tokens": ["<"], "dataset_config": "all"}
    return record


@pytest.fixture
def verdict(full):
    return Verdict(verdict="DRIFTED", reason="why", adapter=REPO, revision="7" * 40, level="generate", sample=1,
                   evidence="tokens", moved="generation", checks=[Check(part="card", outcome="failed", detail="x")],
                   environment=full.environment, date="2026-11-23T09:00:00+00:00")  # fmt: skip


def poisoned(model, text: str, keep: tuple[str, ...] = ()):
    """A copy with the text in every string, and key of free names, that the schema lets pass."""
    found = model.model_dump()

    def fits() -> bool:
        try:
            type(model).model_validate(found)
        except ValidationError:
            return False
        return True

    def poison(part, where: str) -> None:
        for key in list(part) if isinstance(part, dict) else range(len(part)):
            value, place = part[key], f"{where}.{key}"
            if isinstance(value, dict | list):
                poison(value, place)
            elif isinstance(value, str) and place not in keep:
                part[key] = text
                part[key] = text if fits() else value
            if isinstance(part, dict) and where in (".data.dropped", ".environment.packages", ".unwritable.characters"):
                part[text] = part.pop(key)
                if not fits():
                    part[key] = part.pop(text)

    poison(found, "")
    assert fits()
    return type(model).model_validate(found)


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_stays_text(full, predictions, verdict, text, monkeypatch):
    # Which concerns there are differs: here one each.
    monkeypatch.setattr(card_module, "find_concerns", lambda record, predictions: ["a concern"])
    honest = render_card(full, predictions, REPO, verdict=verdict)
    record, said = poisoned(full, text), poisoned(verdict, text)
    # A key of the recipe that nothing reads.
    full.recipe["key"], record.recipe[text] = "value", record.recipe.pop("learning_rate")
    texts = {name: [text, text] for name in ("prompt", "reference", "base", "adapter")}
    hostile = Predictions(**predictions.__dict__ | texts)
    monkeypatch.setattr(card_module, "find_concerns", lambda record, predictions: [text])
    card = render_card(record, hostile, REPO, verdict=said)

    ours, theirs = page(honest), page(card)
    assert theirs.tags == ours.tags
    assert {tag if isinstance(tag, str) else tag[0] for tag in theirs.tags} <= TAGS | {f"/{tag}" for tag in TAGS}
    links = [value for name, value in theirs.attributes if name in ("href", "src")]
    safe = r"#[\w-]+|[\w./%~'-]+|https://huggingface\.co/[\w./%~-]+"
    assert links and all(re.fullmatch(safe, link) for link in links), links
    outside = re.sub(r"```.*?```|\]\([^)]*\)", "", ModelCard(card).text, flags=re.DOTALL)
    assert not re.search(r"(?i)www\.|http://|\{\{|\{%|\{#|[\x00-\x08\x0b-\x1f\u200b-\u200f\u2028-\u202e]", outside)
    assert len(card.encode()) < 400_000

    data, known = ModelCard(card).data.to_dict(), ModelCard(honest).data.to_dict()
    assert shape(data) == shape(known)
    assert data["tags"][:2] == known["tags"][:2] and data["base_model_relation"] == "adapter"

    snippet = ast.parse(re.search(r"```python\n(.*?)\n```", card, re.DOTALL)[1])
    constants = [node.value for node in ast.walk(snippet) if isinstance(node, ast.Constant)]
    strings = [value for value in constants if isinstance(value, str)]
    assert strings.count(REPO) == 2 and any(text.startswith(string.removesuffix(" …")) for string in strings)
    commands = re.findall(r"```bash\n(.*?)\n```", card, re.DOTALL)
    assert shlex.split(commands.pop(2)) == ["pubrep", "reproduce", REPO, "--level", "score"]
    assert shlex.split(commands[0]) == shlex.split(commands[1]) == ["make", "reproduce", f"ADAPTER={REPO}"]
    assert len(shlex.split(commands[2].replace("\\\n", " "))) == 12

    # Of the free sections, and of these alone, people's texts are taken.
    assert keep_free_sections(card, card) == card
    assert len(re.findall("<!-- free: ", card)) == 4
    table = Page(MarkdownIt("commonmark").enable("table").render(compare_table([record], "rougeL")))
    assert table.tags == Page(MarkdownIt("commonmark").enable("table").render(compare_table([full], "rougeL"))).tags


def test_an_address_is_parted_before_github_reads_it():
    assert cell("user@evil.example") == "user&#64;<!-- -->evil.example"
    assert cell("owner/name@main") == "owner/name&#64;main"


def shape(part):
    """Keys and lengths of nested metadata."""
    if isinstance(part, dict):
        return {key: shape(value) for key, value in part.items()}
    return [shape(value) for value in part] if isinstance(part, list) else None


@pytest.mark.parametrize(
    "written",
    [
        "A <!-- free: intended use -->nested<!-- free: x -->",
        "---\nlicense: mit\n---",
        "{{7*7}} \\1 \\g<0>",
        "```\nopen",
        "<details>",
    ],
)
def test_what_people_wrote_moves_nothing_else(record, predictions, written):
    card = render_card(record, predictions, REPO)
    limits = re.compile("(<!-- free: limits -->).*?(<!-- /free -->)", re.DOTALL)
    edited = limits.sub(lambda match: f"{match[1]}{written}{match[2]}", card)
    again = render_card(record, predictions, REPO, previous=edited)
    assert again == edited and render_card(record, predictions, REPO, previous=again) == again
    assert ModelCard(again).data.to_dict() == ModelCard(card).data.to_dict()


def test_a_dollar_in_a_name_starts_no_formula(record, tmp_path):
    record.recipe["adapter_name"] = "$\\frac{$ \x00\u202e" + "n" * 100_000
    draw_plots(record, tmp_path)


def test_a_record_is_a_record(full):
    assert Record.model_validate_json(full.to_bytes()) == full
