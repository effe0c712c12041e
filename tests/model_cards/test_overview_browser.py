"""The page over several adapters in Chromium: by mouse and keyboard, narrow and wide, light and dark."""

import shutil

import pytest
from contrast import CONTRAST
from npm_clients import install
from overview_entries import HOSTILE, entry

from model_cards.overview import render_overview
from record.predictions import Predictions
from scoring.metrics.rouge import rouge_rows

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: requirements-browser.txt")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
# The test rows of the finance recipe on the real dataset (its `expect`), the largest number that a newcomer meets.
MANY = 4_827


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def show(browser, tmp_path):
    """Opens a page over entries; at the end nothing may have failed in it, nor been loaded besides itself."""
    opened = []

    def show(entries, width=1280, scheme="light", **options):
        path = tmp_path / "report.html"
        path.write_text(render_overview(entries), encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        opened.append((page, said, asked, path))
        page.goto(path.as_uri())
        return page

    yield show
    for page, said, asked, path in opened:
        assert said == [] and asked == [path.as_uri()]
        page.close()


def many(rows: int) -> Predictions:
    """So many rows: in row n the base writes n % 7 of 10 words of the reference, the adapter n % 11 at most 10."""
    words = [f"w{place}" for place in range(10)]
    reference = [" ".join([*words, f"row{row}"]) for row in range(rows)]
    return Predictions(
        prompt=[f"Question {row}, asked in full?" for row in range(rows)],
        reference=reference,
        schema=[""] * rows,
        seen=["exact" if row % 10 == 0 else "" for row in range(rows)],
        base=[" ".join([*words[: row % 7], "basic"]) for row in range(rows)],
        adapter=[" ".join([*words[: row % 11], "tuned"]) for row in range(rows)],
        base_tokens=[[1]] * rows,
        adapter_tokens=[[1]] * rows,
    )


def numbers(page) -> list[int]:
    """The numbers of the rows that are shown."""
    heads = page.locator("#list h3").all_text_contents()
    return [int(head.removeprefix("Test row ").split("ROUGE-L")[0].replace(",", "")) for head in heads]


def test_search_order_and_filter(record, show):
    predictions = many(300)
    page = show([entry(record, predictions)])
    assert page.text_content("#status") == "300 of 300 rows, 1 to 20 shown." and numbers(page) == list(range(20))
    scores = {
        who: rouge_rows(getattr(predictions, who), predictions.reference, stemmer=True)["rougeL"]
        for who in ("base", "adapter")
    }
    gain = {row: round(scores["adapter"][row], 4) - round(scores["base"][row], 4) for row in range(300)}
    for order, key in (
        ("gain", lambda row: -gain[row]),
        ("loss", lambda row: gain[row]),
        ("worst", lambda row: scores["adapter"][row]),
    ):
        page.select_option("#sort", order)
        assert [round(key(row), 9) for row in numbers(page)] == [
            round(key(row), 9) for row in sorted(range(300), key=key)[:20]
        ]
    page.select_option("#sort", "number")
    page.fill("#search", "QUESTION 17")
    assert numbers(page) == [17, *range(170, 180)]
    page.select_option("#seen", "seen")
    assert numbers(page) == [170] and "seen in training: an exact copy" in page.text_content("#list")
    page.fill("#search", "in no row")
    assert numbers(page) == [] and page.text_content("#status") == "None of 300 rows has that text."
    assert page.is_disabled("#next") and page.is_disabled("#previous")


def test_words_that_differ_are_marked(record, predictions, show):
    predictions.reference[0] = "A bond is a loan, nothing more."
    predictions.base[0], predictions.adapter[0] = "A bond", "A bond is a kind loan"
    page = show([entry(record, predictions)])
    cells = page.locator("#list article").nth(0).locator("dd")
    assert cells.locator("del").all_text_contents() == [", nothing more."]
    assert cells.locator("ins").all_text_contents() == ["kind"]
    assert cells.all_text_contents()[1:] == [predictions.reference[0], "A bond", "A bond is a kind loan"]
    # The base's row 1 is empty; the reference's struck words are the adapter's.
    assert page.locator("#list article").nth(1).locator("dd").all_text_contents()[2] == "(empty)"


def test_adapters_are_browsed_one_by_one(record, predictions, show):
    page = show([entry(record, many(30), "a/first"), entry(record, predictions, "a/second")])
    page.select_option("#adapter", label="a/second")
    assert page.text_content("#status") == "2 of 2 rows, 1 to 2 shown."
    assert "What is a bond?" in page.text_content("#list")


def test_it_is_used_by_keyboard_alone(record, show):
    page = show([entry(record, many(60))])
    visited = []
    for _ in range(20):
        page.keyboard.press("Tab")
        visited.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        if visited[-1] == "next":
            break
    # The links, the table that scrolls, its adapter, the form from top to bottom, the pager without `previous`.
    assert visited == ["A"] * 4 + ["DIV", "A", "adapter", "search", "sort", "seen", "page", "next"]
    page.focus("#search")
    page.keyboard.type("question 1")
    assert numbers(page) == [1, *range(10, 20)] and page.is_disabled("#next")
    page.focus("#search")
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.focus("#next")
    page.keyboard.press("Enter")
    assert numbers(page) == list(range(20, 40)) and page.evaluate("document.activeElement.id") == "next"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.focus("#page")
    page.keyboard.press("Control+A")
    page.keyboard.type("9")
    page.keyboard.press("Enter")
    assert numbers(page) == list(range(40, 60)) and page.input_value("#page") == "3"


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window(record, predictions, show, width):
    predictions.base[0] = "w" * 1_500
    predictions.schema[0] = f"CREATE TABLE {'t' * 300} (a INT)"
    record.recipe["title"] = "A title of many words " * 10
    page = show([entry(record, predictions, f"someone/{'long-' * 17}name"), entry(record, predictions)], width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_hostile_text_is_shown_and_does_nothing(record, predictions, show):
    rows = predictions.take([0] * len(HOSTILE))
    rows.prompt = rows.reference = rows.base = rows.adapter = rows.seen = HOSTILE
    page = show([entry(record, rows)])
    title, shown = page.title(), page.locator("#list dd").all_text_contents()
    assert title == "One adapter and its base model"
    for text in HOSTILE[:4]:
        assert shown.count(text) == 4
    assert page.locator("img, #list script, #list b, iframe, textarea").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(record, predictions, show, scheme):
    """WCAG 2.2 A and AA as far as axe-core tells: contrast of all texts, names of all controls, headings, landmarks."""
    axe = install() / "node_modules" / "axe-core" / "axe.min.js"
    local = entry(record, predictions, "local")
    local.commit, local.record.leakage = None, None
    local.record.scores.seen = {"near": 1}
    predictions.schema[0] = "CREATE TABLE t (a INT)"
    # The page's own policy would keep axe out.
    page = show([entry(record, predictions), local], 400, scheme, bypass_csp=True)
    page.evaluate(axe.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert [(item["id"], [node["html"] for node in item["nodes"]][:3]) for item in found["violations"]] == []
    # Where text wraps, floats or stands in a drawing, axe does not tell its contrast.
    ratios = page.evaluate(CONTRAST)
    assert len(ratios) > 100 and [told for ratio, told in ratios if ratio < 4.5] == []
    assert {"<text", "<ins>", "<del>", "<span", "<a hr"} <= {told[:5] for _, told in ratios}
    assert "color-contrast" in {item["id"] for item in found["passes"]}


def test_thousands_of_rows_stay_fast(record, show):
    predictions = many(MANY)
    page = show([entry(record, predictions, f"a/{place}") for place in range(3)])
    milliseconds = page.evaluate("""() => {
      const start = performance.now();
      for (const text of ["question 48", "w9", "no such words", ""]) {
        search.value = text;
        search.dispatchEvent(new Event("input"));
      }
      sort.value = "gain";
      sort.dispatchEvent(new Event("change"));
      next.click();
      adapter.value = "2";
      adapter.dispatchEvent(new Event("change"));
      return performance.now() - start;
    }""")
    # Seven steps; a reader notices a tenth of a second, and a busy machine is some times slower than a quiet one.
    assert milliseconds / 7 < 400
    assert page.text_content("#status") == "4,827 of 4,827 rows, 1 to 20 shown."
