"""The page of all kept verdicts: what stands in it, and how it looks in Chromium, narrow and wide, light and dark."""

import shutil

import pytest
from contrast import CONTRAST
from html_page import Page

from readme.history import HISTORY_FILE, History, PastVerdict, age, load_history, render_claims
from readme.render import Claim
from record.errors import UserError
from record.verdict import Verdict

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DATE = "2026-11-0{}T12:00:00+00:00"
LONG = "w" * 250


@pytest.fixture
def root(record, tmp_path):
    """A folder with the history of one adapter, another one's that has none yet, and one that nothing is known of."""
    (tmp_path / "claims.yaml").write_text("- {adapter: a/first}\n- {adapter: a/second}\n- {adapter: a/third}\n")
    verdict = Verdict(verdict="REPRODUCED", adapter="a/first", level="prefill", date=DATE.format(3), revision="1" * 40)
    past = [
        PastVerdict(date=DATE.format(3), verdict="REPRODUCED", reason="all equal", level="prefill", commit="1" * 40,
                    device="CPU x"),
        PastVerdict(date=DATE.format(2), checker="carol", verdict="DRIFTED", moved="generation", level="generate",
                    reason=f"<b>6 of 12 outputs differ</b> {LONG}", sample=12, commit="1" * 40, device="GPU y",
                    rows={"adapter": "3, 5 and 4 more"}),
        PastVerdict(date=DATE.format(1), checker="bob", verdict="REPRODUCED", reason="numbers", level="score",
                    commit="1" * 40, signed_by="key 0123456789ab"),
        PastVerdict(date="2020-01-01T00:00:00+00:00", verdict="UNCHECKED", reason="out of reach", level="score",
                    commit=None),
    ]  # fmt: skip
    for name, claim in (
        ("first", Claim(commit="2" * 40, verdict=verdict, agree=1, disagree=1)),
        ("second", Claim(commit="1" * 40, verdict=verdict)),
    ):
        folder = tmp_path / f"docs/claims/a--{name}"
        folder.mkdir(parents=True)
        claim.save(folder)
        record.save(folder)
    history = History(verdicts=past, parts=["carol: other outputs of the adapter in row 3, 5 and 4 more"])
    (tmp_path / "docs/claims/a--first" / HISTORY_FILE).write_text(history.model_dump_json())
    return tmp_path


def test_it_tells_age_agreement_and_every_verdict(root):
    html = render_claims(root)
    page = Page(html)
    for text in (
        f"REPRODUCED at level prefill, {age(DATE.format(3))}, of the commit",
        "of the commit 111111111111; now it is 222222222222, which is not checked.",
        "1 of 2 other accounts that checked this release found what is published, 1 did not.",
        "Whether others vouch for it was not asked yet.",
        "Nothing is known of it yet: make claims asks the Hub.",
        "<b>6 of 12 outputs differ</b>",
    ):
        assert text in page.text, text
    assert "days ago" in page.text and "<b>6" not in html
    (row,) = [row for row in page.rows if row and row[0].strip().startswith("2026-11-01")]
    assert [" ".join(cell.split()) for cell in row[1:3]] == [
        "bob signed by the key 0123456789ab", "REPRODUCED numbers",
    ]  # fmt: skip


def test_a_damaged_history_is_one_line(root):
    folder = root / "docs/claims/a--first"
    (folder / HISTORY_FILE).write_text('{"verdicts": [{}]}')
    with pytest.raises(UserError, match="is not a history as `make claims` keeps it"):
        load_history(folder)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(root, tmp_path, scheme):
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: requirements-browser.txt")
    path = tmp_path / "claims.html"
    path.write_text(render_claims(root), encoding="utf-8")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        asked = []
        for width in (400, 1280):
            # The page's own policy lets no script in.
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
            page.on("request", lambda request: asked.append(request.url))
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") == width
            ratios = page.evaluate(CONTRAST)
            assert len(ratios) > 40 and [told for ratio, told in ratios if ratio < 4.5] == []
        browser.close()
    assert asked == 2 * [path.as_uri()]
