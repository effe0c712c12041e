"""`make demo` as a newcomer runs it, and what a stranger can then do with nothing but the published id."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from silences import Seen, watch

from local_hub.server import is_served
from local_hub.testing import running
from pubrep.demo import BEFORE_THE_HUB, FOR_CHECKING, FOR_TRAINING
from record.predictions import load_predictions
from record.run_record import load_record

ADAPTER = "local-user/flan-t5-large-finance"
# Those that are called without `pubrep`, whose verbs tests/pubrep looks at.
MODULES = ["recipes.train", "evaluation.reproduce", "local_hub"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """The root of the local Hub after `make demo`, and what was seen of it."""
    root = tmp_path_factory.mktemp("demo")
    # The variables that point this process at its own Hub would point the demo there too; the rest is a user's shell.
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    command = ["make", "demo", f"LOCAL_HUB_ROOT={root}", f"VENV={sys.prefix}"]
    seen = watch(command, environ, terminal=False)
    assert seen.code == 0, seen.text[-6000:]
    return root, seen


@pytest.fixture(scope="module")
def demo(watched):
    """The root of the local Hub after `make demo`, and what the demo printed."""
    root, seen = watched
    return root, seen.text


@pytest.fixture(scope="module")
def stranger(demo, tmp_path_factory):
    """Runs Python code in an empty folder with an empty cache and no token; returns what it prints."""
    root, _ = demo
    with running(root) as hub:

        def run(code: str) -> str:
            folder = tmp_path_factory.mktemp("stranger")
            environ = hub.env(folder / "cache")
            answer = subprocess.run(
                [sys.executable, "-c", code], cwd=folder, env=environ, capture_output=True, text=True
            )
            assert answer.returncode == 0, answer.stderr
            return answer.stdout.strip()

        yield run


def test_the_last_line_says_reproduced(demo):
    _, printed = demo
    assert re.match(
        rf"REPRODUCED \(miniature\) {ADAPTER}@[0-9a-f]{{40}} ROUGE-L 0\.\d{{3}}: .*token for token; with \d concerns$",
        printed.splitlines()[-1],
    )
    for step in (
        "1/5",
        "2/5",
        "3/5",
        "4/5",
        "5/5",
        "a miniature, not the real model",
        "rows dropped",
        "parameters trainable",
    ):
        assert step in printed
    # In a log: no bars, no bold, and the tables are no wider than a terminal.
    assert "\033" not in printed and "\r" not in printed and len(printed.splitlines()) <= 150
    assert max(len(line) for line in printed.splitlines() if re.match(r"rouge|the target", line)) <= 80
    card = Path(re.search(r"Card: (\S+)", printed)[1])
    assert card.is_file() and (card.parent / "plots" / "loss.png").is_file()


def test_the_demo_is_never_three_seconds_without_a_sign_of_life(watched):
    _, seen = watched
    assert seen.silences[0].owed < 2 and seen.worst.owed < 3, seen.worst


def test_the_verdict_is_seen_on_the_card_and_in_the_report(demo):
    root, printed = demo
    card = (root / "demo" / "finance" / "release" / "README.md").read_text()
    assert "[![publisher says&#58; REPRODUCED at level generate on " in card
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    # As the demo prints them: where HUB=local looks for runs, the demo's lies.
    for command in ("make report HUB=local", "make evaluate-finance HUB=local", "make export-finance HUB=local"):
        assert command in printed or "evaluate" in command
        words = [*command.split(), f"LOCAL_HUB_ROOT={root}", f"VENV={sys.prefix}"]
        answer = subprocess.run(words, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-2000:]
    assert "✓</span> REPRODUCED at level generate on " in (root / "runs" / "report.html").read_text()


def test_every_next_step_that_the_demo_prints_names_the_local_hub(demo):
    _, printed = demo
    steps = re.findall(r"make (?:reproduce|report|export|evaluate|train|publish)\S*(?: [A-Z]+=\S+)*", printed)
    assert len(steps) >= 5 and all("HUB=local" in step for step in steps), steps


def test_the_adapter_beats_its_base_clearly(demo):
    root, _ = demo
    scores = load_record(root / "demo" / "finance").scores
    assert scores.difference["rougeL"].mean >= 0.10
    for name in scores.base:
        assert scores.adapter[name].low > scores.base[name].high


def test_the_cards_snippet_runs_as_printed(demo, stranger):
    run = demo[0] / "demo" / "finance"
    card = (run / "release" / "README.md").read_text()
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    assert stranger(snippet) == load_predictions(run).adapter[0]


def test_peft_loads_it_either_way(stranger):
    code = f"""
from peft import AutoPeftModelForSeq2SeqLM, PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
auto = AutoPeftModelForSeq2SeqLM.from_pretrained("{ADAPTER}").eval()
base = AutoModelForSeq2SeqLM.from_pretrained("google/flan-t5-large")
model = PeftModel.from_pretrained(base, "{ADAPTER}").eval()
tokenizer = AutoTokenizer.from_pretrained("{ADAPTER}")
inputs = tokenizer("Answer the financial question. What is a bond?", return_tensors="pt")
one, other = (m.generate(**inputs, max_new_tokens=40) for m in (auto, model))
with model.disable_adapter():
    bare = model.generate(**inputs, max_new_tokens=40)
print(one.tolist() == other.tolist(), one.tolist() != bare.tolist(), sum("lora" in name for name in model.state_dict()))
"""
    # 2 encoder and 2 decoder blocks, the decoder's with self- and cross-attention: 6 q and 6 v, with an A and a B each.
    assert stranger(code) == "True True 24"


def test_the_demo_loads_what_takes_long_and_no_client_of_a_hub_before_it_knows_where_the_hub_is():
    code = f"""
import sys
import pubrep.demo as demo
for names in {BEFORE_THE_HUB, FOR_TRAINING, FOR_CHECKING}:
    demo.load(names)
    print([name for name in ("torch", "peft", "matplotlib", "huggingface_hub", "datasets") if name in sys.modules])
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    everything = ["torch", "peft", "huggingface_hub", "datasets"]
    expected = [["torch"], everything, [everything[0], "peft", "matplotlib", *everything[2:]]]
    assert answer.stdout.splitlines() == list(map(str, expected)), answer.stderr


def test_the_demo_ends_where_a_step_fails(tmp_path):
    code = """
import pubrep.demo as demo
from pubrep.__main__ import main
demo.BEFORE_THE_HUB = demo.FOR_TRAINING = demo.FOR_CHECKING = ()
demo.STEPS = {"Score": ["evaluate", "finance"], "Reproduce": ["reproduce", "a/b"]}
main(["demo"])
"""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environ |= {"LOCAL_HUB_ROOT": str(tmp_path)}
    answer = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 1 and "2/2" not in answer.stdout, answer.stdout
    (line,) = answer.stderr.splitlines()
    assert line.startswith("error: ") and "holds no record.json" in line
    # The Hub has ended, too: nobody serves the root any more.
    assert not is_served(tmp_path)


@pytest.mark.parametrize("module", MODULES)
def test_help_is_printed_without_heavy_imports(module):
    command = [sys.executable, "-X", "importtime", "-m", module, "--help"]
    answers = []

    def seconds() -> float:
        answers.append(subprocess.run(command, capture_output=True, text=True))
        # The entries are cumulative only in nesting order: the self times add up to the whole.
        micros = re.findall(r"^import time: +(\d+) \|", answers[-1].stderr, re.MULTILINE)
        return sum(map(int, micros)) / 1e6

    # The fastest of three: other tests keep the cores busy.
    assert any(seconds() < 1 for _ in range(3))
    answer = answers[0]
    assert answer.returncode == 0 and module in answer.stdout
    imported = {
        line.rpartition("|")[2].strip() for line in answer.stderr.splitlines() if line.startswith("import time:")
    }
    assert not imported & {"torch", "transformers", "datasets", "trl", "peft", "evaluate", "matplotlib.pyplot"}


def test_make_help_names_every_target():
    listed = subprocess.run(["make", "help"], capture_output=True, text=True, check=True).stdout
    for target in (
        "demo",
        "test",
        "lint",
        "hub",
        "train-R",
        "evaluate-R",
        "publish-R",
        "publish",
        "reproduce",
        "claims",
        "report",
    ):
        assert re.search(rf"^{target} +\w", listed, re.MULTILINE), target


# Last: it publishes another release. test_newcomer.py trains and evaluates by hand.
def test_the_commands_work_by_hand_on_the_local_hub(demo, tmp_path):
    root, _ = demo
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}

    def make(*words: str) -> Seen:
        command = ["make", *words, "HUB=local", f"LOCAL_HUB_ROOT={root}", f"VENV={sys.prefix}"]
        seen = watch(command, environ, terminal=True)
        # Never three seconds without a sign of life.
        assert seen.worst.owed < 3, (words, seen.worst)
        return seen

    early = make("publish", f"RUNS={tmp_path}")
    assert early.code != 0 and "holds no record.json: train a recipe into it first" in early.text
    record = load_record(root / "demo" / "finance")
    record.training.seconds += 1
    record.save(root / "demo" / "finance")
    answer = make("publish")
    assert answer.code == 0, answer.text
    commit = re.search(rf"Published {ADAPTER}@([0-9a-f]{{40}})", answer.text)[1]
    dry = make("publish-finance", "DRY_RUN=1")
    assert dry.code == 0 and "would hold, in one commit" in dry.text
    again = make("reproduce", f"ADAPTER={ADAPTER}", f"REVISION={commit}")
    assert again.code == 0 and last_line(again).startswith(f"REPRODUCED (miniature) {ADAPTER}@{commit}")
    unknown = make("reproduce", "ADAPTER=local-user/unknown")
    assert unknown.code == 2 and last_line(unknown).startswith("UNCHECKED local-user/unknown no such repository")


def last_line(seen: Seen) -> str:
    """The last line of a command; make adds one of its own where it failed, which tells of a make around it."""
    return [line for line in seen.lines if line and not re.match(r"make(\[\d+\])?: \*\*\*", line)][-1]
