"""The page on which an adapter is tried: published to the local Hub, run from what a stranger downloads, and used in
Debian's Chromium."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import npm_clients
import pytest
from huggingface_hub import HfApi, SpaceCard, snapshot_download
from npm_clients import install
from short_runs import SHORT, publish

from evaluation import evaluate
from recipes import train
from record.hashes import sha256_file
from record.predictions import load_predictions
from record.run_record import load_record
from record.verdict import Verdict
from scoring.concerns import find_concerns
from serving.space import publish as publish_space

CHROMIUM = Path("/usr/bin/chromium")
LACKING = [name for name in ("gradio", "playwright") if find_spec(name) is None] + [CHROMIUM] * (not CHROMIUM.exists())
browses = pytest.mark.skipif(bool(LACKING), reason=f"needs {', '.join(map(str, LACKING))} (requirements-space.txt)")

SQL = "local-user/flan-t5-large-text2sql"
SPACE = f"{SQL}-space"
FILES = {"README.md", "answers.py", "app.py", "figures.py", "requirements.txt", "sandbox.py", "space.json",
         "template.py"}  # fmt: skip
HOSTILE = "</script><script>broken=1</script><img src=x onerror=broken=1>${broken=1}{{broken}}"


@pytest.fixture(scope="module")
def sql_run(tmp_path_factory):
    """A published adapter that writes what resembles SQL; and its commit."""
    run = tmp_path_factory.mktemp("runs") / "text2sql"
    # So long that it writes otherwise than its base.
    longer = ("--max_steps", "30", "--max_new_tokens", "40")
    train.main(["--config", "recipes/text2sql.yaml", "--output_dir", str(run), *SHORT, *longer])
    evaluate.main([str(run)])
    return run, publish(run)


@pytest.fixture(scope="module")
def space(sql_run, tmp_path_factory):
    """The Space as a stranger downloads it: its folder and its commit."""
    publish_space.main([SQL])
    commit = HfApi().space_info(SPACE).sha
    folder = tmp_path_factory.mktemp("stranger")
    snapshot_download(SPACE, repo_type="space", revision=commit, local_dir=folder)
    return folder, commit


@contextmanager
def started(command, cwd, environ):
    """The address of a page that `command` serves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = cwd / "page.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=cwd, env=environ | {"GRADIO_SERVER_PORT": str(port)}, stdout=output,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        for _ in range(1_800):
            if "Running on local URL" in log.read_text() or process.poll() is not None:
                break
            time.sleep(0.1)
        assert "Running on local URL" in log.read_text(), log.read_text()[-3000:]
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def sql_page(space, hub):
    """The downloaded Space, run in its own folder with an empty cache, no token, and nothing of this repository."""
    folder, _ = space
    environ = hub.env(folder / "cache")
    environ.pop("PYTHONPATH", None)
    alone = subprocess.run([sys.executable, "-c", "import recipes"], cwd=folder, env=environ, capture_output=True)
    assert b"No module named 'recipes'" in alone.stderr
    with started(["app.py"], folder, environ) as url:
        yield url


@pytest.fixture(scope="module")
def run_page(hub, scored_run, tmp_path_factory):
    """A run's folder, run as `make space` does; its title and the first test row are hostile."""
    run = shutil.copytree(scored_run, tmp_path_factory.mktemp("runs") / "finance")
    record, rows = load_record(run), load_predictions(run)
    record.recipe["title"] = HOSTILE
    record.save(run)
    prompt = f"Answer the financial question. {HOSTILE}"
    replace(rows, prompt=[prompt, *rows.prompt[1:]], reference=[HOSTILE, *rows.reference[1:]]).save(run)
    found = Verdict(
        verdict="REPRODUCED", adapter="someone/adapter", revision="7" * 40, level="score", evidence="numbers",
        date="2026-11-23T09:00:00+00:00", adapter_sha256=record.training.adapter_sha256,
        predictions_sha256=sha256_file(run / "predictions.parquet"),
    )  # fmt: skip
    (run / "verdict.json").write_text(found.model_dump_json())
    folder = tmp_path_factory.mktemp("here")
    environ = hub.env(folder / "cache") | {"PYTHONPATH": str(Path.cwd())}
    with started(["-m", "pubrep", "space", str(run)], folder, environ) as url:
        yield url


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Opens an address; afterwards the page must have asked nobody else for anything, and not have failed."""
    asked, failed, pages = [], [], []

    def opened(url, width=1280):
        page = chromium.new_page(viewport={"width": width, "height": 900})
        pages.append(page)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto(url)
        page.get_by_role("button", name="Run").wait_for()
        return page

    yield opened
    for page in pages:
        page.close()
    assert not [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))]
    assert not failed


def shows(page, box, text):
    page.wait_for_function("([box, text]) => document.querySelector(`#${box} textarea`).value == text", arg=[box, text])


def choose(page, number, reference):
    """Picks an example and waits for its texts."""
    if not page.get_by_role("radio").first.is_visible():
        page.get_by_role("button", name="Examples from the test split").click()
    page.get_by_role("radio").nth(number).check()
    shows(page, "reference", reference)


def run(page, start=lambda page: page.get_by_role("button", name="Run").click()):
    """Runs, and waits for other answers than those that stand there."""
    page.evaluate("document.querySelectorAll('#adapter-outcome p').forEach(old => old.className = 'old')")
    start(page)
    page.locator("#adapter-outcome p:not(.old)").get_by_text(" tokens").wait_for()


def test_the_space_is_one_commit_and_the_same_again(sql_run, space, capsys):
    folder, commit = space
    assert {path.name for path in folder.iterdir() if path.is_file()} - {".gitattributes", "page.log"} == FILES
    assert json.loads((folder / "space.json").read_text()) == {
        "adapter": SQL,
        "revision": sql_run[1],
        "verdict": None,
        "concerns": find_concerns(load_record(sql_run[0]), load_predictions(sql_run[0])),
    }
    assert len(HfApi().list_repo_commits(SPACE, repo_type="space")) == 2
    publish_space.main([SQL])
    assert f"Unchanged: {HfApi().endpoint}/spaces/{SPACE} at commit {commit}" in capsys.readouterr().out
    assert HfApi().space_info(SPACE).sha == commit
    card = SpaceCard.load(folder / "README.md").data
    assert (card.sdk, card.sdk_version, card.app_file) == ("gradio", publish_space.pinned("gradio"), "app.py")
    assert card.models == [SQL, "google/flan-t5-large"] and card.title == "Text to SQL"


def test_what_somebody_else_put_there_stays(sql_run, capsys):
    api, taken = HfApi(), "local-user/another-space"
    api.create_repo(taken, repo_type="space", space_sdk="gradio")
    api.upload_file(path_or_fileobj=b"print(1)", path_in_repo="main.py", repo_id=taken, repo_type="space")
    for arguments, said in (
        ([SQL, "--space", taken], f"{taken} exists and is another Space"),
        ([str(sql_run[0])], "is a folder: publish the adapter"),
        (["local-user/nothing"], "no such repository"),
        (["google/flan-t5-large"], "holds no record.json"),
    ):
        with pytest.raises(SystemExit):
            publish_space.main(arguments)
        assert said in capsys.readouterr().err
    assert api.list_repo_files(taken, repo_type="space") == [".gitattributes", "README.md", "main.py"]


def test_a_port_that_is_taken_is_refused_in_a_line(capsys):
    pytest.importorskip("gradio", reason="no gradio: requirements-space.txt")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit):
            publish_space.space.main(["someone/adapter", "--port", str(port)], standalone_mode=False)
    assert re.fullmatch(
        rf"error: cannot listen on port {port}: .*: choose another with --port\n", capsys.readouterr().err
    )


def test_the_space_installs_the_versions_that_are_tested():
    def pins(path):
        return dict(re.findall(r"^([\w-]+)==(\S+)", Path(path).read_text(), re.MULTILINE))

    tested = pins("requirements.txt") | pins("requirements-space.txt")
    installs = pins("serving/space/page/requirements.txt")
    assert {name: version for name, version in installs.items() if name != "pyarrow"}.items() <= tested.items()
    # datasets brings pyarrow.
    import pyarrow

    assert installs["pyarrow"] == pyarrow.__version__


@browses
def test_base_and_adapter_answer_side_by_side(sql_run, sql_page, visit):
    rows = load_predictions(sql_run[0])
    page = visit(sql_page)
    for row in range(2):
        choose(page, row, rows.reference[row])
        run(page)
        assert page.locator("#base textarea").input_value() == rows.base[row]
        assert page.locator("#adapter textarea").input_value() == rows.adapter[row]
    assert rows.base[:2] != rows.adapter[:2]
    result = page.locator("#reference-outcome")
    assert result.locator("pre").inner_text().split() == rows.reference[1].split()
    assert result.locator("tbody tr").count() > 0
    page.get_by_role("button", name="The tables with their rows").click()
    page.locator("#tables").get_by_text("These rows are made up").wait_for()
    assert page.locator("#tables table").count() == rows.schema[1].count("CREATE TABLE")
    pins = load_record(sql_run[0]).pins
    paths = [f"{SQL}/tree/{sql_run[1]}", f"{pins.base_model.id}/tree/{pins.base_model.revision}",
             f"datasets/{pins.dataset.id}/tree/{pins.dataset.revision}"]  # fmt: skip
    linked = page.locator("a").evaluate_all("links => links.map(link => new URL(link.href).pathname)")
    assert linked == [f"/{path}" for path in paths]
    # With all that a run shows: tables, queries as parsed, rows.
    page.evaluate((install() / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
    # Colours on their way from one theme to the other are of neither.
    page.add_style_tag(content="* { transition: none !important }")
    for dark in (False, True):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert [(item["id"], [node["html"] for node in item["nodes"]][:3]) for item in found["violations"]] == []
    assert "color-contrast" in {item["id"] for item in found["passes"]}
    for width in (400, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        for dark in (False, True):
            page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
            for tab in ("Numbers", "Try it"):
                page.get_by_role("tab", name=tab).click()
                page.wait_for_timeout(600)
                page.screenshot(path=f"/tmp/pages_plots/space-{tab[:3]}-{width}-{dark}.png", full_page=True)


@browses
def test_the_numbers_are_the_cards(sql_run, sql_page, visit):
    found = load_record(sql_run[0])
    for width in (400, 1280):
        page = visit(sql_page, width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.get_by_role("tab", name="Numbers").click()
        rows = page.get_by_role("row").filter(has=page.get_by_role("cell", name="ROUGE-L", exact=True))
        for place, compared in enumerate((found.scores, found.scores.clean)):
            for interval in (compared.base["rougeL"], compared.adapter["rougeL"]):
                assert f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]" in rows.nth(place).inner_text()
        for concern in find_concerns(found, load_predictions(sql_run[0])):
            assert page.get_by_role("listitem").filter(has_text=concern).count() == 1
        page.get_by_text("No check of these numbers is published with the adapter yet").wait_for()
        page.get_by_text("Loss during training").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@browses
def test_what_is_asked_during_an_answer_comes_next(sql_run, sql_page, visit):
    rows, page = load_predictions(sql_run[0]), visit(sql_page)
    assert rows.adapter[0] != rows.adapter[1]
    for row in range(2):
        choose(page, row, rows.reference[row])
        page.get_by_role("button", name="Run").click()
    shows(page, "adapter", rows.adapter[1])


CONNECT = """
import { Client } from "@gradio/client";
const page = await Client.connect(process.env.PAGE);
console.log(JSON.stringify((await page.predict("/answers", { prompt: process.env.PROMPT })).data));
"""


@pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio (requirements-space.txt)")
def test_a_program_gets_both_answers(sql_run, sql_page, tmp_path):
    from gradio_client import Client

    rows = load_predictions(sql_run[0])
    both, prompt = (rows.base[0], rows.adapter[0]), rows.prompt[0]
    page = Client(sql_page, verbose=False)
    assert list(page.view_api(return_format="dict")["named_endpoints"]) == ["/answers"]
    assert page.predict(prompt=prompt, api_name="/answers") == both
    environ = {"PATH": "/usr/bin:/bin", "PAGE": sql_page, "PROMPT": prompt}
    assert npm_clients.run(CONNECT, tmp_path, environ, {"@gradio/client": "2.7.0"}) == [*both]


@browses
def test_hostile_sql_is_answered_with_a_sentence(space, sql_page, visit):
    page = visit(sql_page)
    page.locator("#box-0 textarea").fill("How many?")
    page.locator("#box-1 textarea").fill("CREATE TABLE pet (name VARCHAR)")
    outcome = page.locator("#reference-outcome")
    for query, said in {
        "ATTACH DATABASE 'stolen.db' AS s": "This is no query: only a single SELECT is run.",
        "SELECT name FROM pragma_table_info('pet')": "nothing else is allowed",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c": "stopped after 2 s",
        "SELECT nmae FROM pet": "The query does not run on these tables: no such column: nmae.",
    }.items():
        page.locator("#reference textarea").fill(query)
        run(page)
        outcome.get_by_role("alert").filter(has_text=said).wait_for()
    page.locator("#reference textarea").fill(f"SELECT '{HOSTILE}' AS a")
    run(page)
    outcome.get_by_role("cell", name=HOSTILE).wait_for()
    page.locator("#rows textarea").fill("DROP TABLE pet")
    run(page)
    outcome.get_by_role("alert").filter(has_text="The rows cannot be made: ").wait_for()
    assert page.evaluate("typeof broken") == "undefined" and not list(space[0].glob("*.db"))


@browses
def test_a_keyboard_suffices(sql_page, visit):
    page = visit(sql_page, width=400)

    def tab_to(selector):
        for _ in range(25):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"no Tab leads to {selector}")

    tab_to("button[role=tab][aria-selected=false]")
    page.keyboard.press("Enter")
    page.get_by_text("Scores on").wait_for()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    tab_to("button.label-wrap")
    page.keyboard.press("Enter")
    page.locator("#example input").first.wait_for()
    tab_to("#example input")
    page.keyboard.press("Space")
    page.wait_for_function("document.querySelector('#reference textarea').value != ''")
    tab_to("#box-0 textarea")
    page.keyboard.type("Say: ")
    run(page, start=lambda page: page.keyboard.press("Shift+Enter"))
    tab_to("#run, #run button")
    run(page, start=lambda page: page.keyboard.press("Enter"))
    tab_to(".try-scroll")


@browses
def test_what_strangers_wrote_is_shown_as_text(run_page, visit):
    page = visit(run_page)
    assert page.title() == HOSTILE and page.get_by_role("heading", level=1).inner_text() == HOSTILE
    choose(page, 0, HOSTILE)
    assert page.locator("#box-0 textarea").input_value() == HOSTILE
    run(page)
    page.get_by_role("tab", name="Numbers").click()
    page.get_by_text("Check: REPRODUCED at level score on 2026-11-23, of commit 777777777777.").wait_for()
    page.get_by_text("Loss during training").wait_for()
    assert page.evaluate("typeof broken") == "undefined"


@browses
def test_too_long_an_input_is_told(run_page, visit):
    page = visit(run_page)
    box, notes = page.locator("#box-0 textarea"), page.locator("#notes")
    page.get_by_role("button", name="Run").click()
    notes.get_by_text("Type something first.").wait_for()
    box.fill("money " * 700)
    run(page)
    notes.get_by_text(
        re.compile(r"The input has [\d,]+ tokens\. All are read, but the adapter was trained on")
    ).wait_for()
    box.fill("money " * 3000)
    page.get_by_role("button", name="Run").click()
    notes.get_by_text(re.compile(r"at most 1,024 are taken\. Shorten it\.")).wait_for()
    assert page.locator("#base textarea").input_value() == ""
