"""Scores a run, publishes it, and has it reproduced and checked, as one of two processes.

`python scored_together.py RUN`; the first process prints the verdicts and the last score.
"""

import sys
from pathlib import Path

from short_runs import FEW_ROWS, publish

from evaluation.check import score
from evaluation.evaluate import evaluate
from evaluation.reproduce import reproduce
from record.errors import one_line_errors
from record.run_record import load_record
from scoring.decoding.processes import dismiss, follow_first

with one_line_errors():
    if not follow_first():
        run = Path(sys.argv[1])
        evaluate(run)
        record = load_record(run)
        adapter = f"local-user/{record.recipe['adapter_name']}"
        publish(run)
        verdicts = [reproduce(adapter, level=level)[0].line for level in ("generate", "prefill")]
        recipe = Path("recipes/finance.yaml")
        checked, _ = score(adapter, "main", recipe, ("--max_new_tokens", "12", *FEW_ROWS), (), 0.005, False, None)
        print(*verdicts, checked.scores.adapter["rougeL"].mean, sep="\n", flush=True)
        dismiss()
