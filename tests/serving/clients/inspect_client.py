"""inspect-ai: an evaluation of 20 rows, scored by exact match with the answer expected."""

import json
import os
import tempfile

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.scorer import exact

rows = [Sample(input=os.environ["QUESTION"], target=os.environ["EXPECTED"]) for _ in range(20)]
model = "openai-api/here/" + os.environ["MODEL"]
[log] = eval(Task(dataset=rows, scorer=exact()), model=model, log_dir=tempfile.mkdtemp(), display="none")
assert log.status == "success", log.error
told = {"rows": log.results.completed_samples, "accuracy": log.results.scores[0].metrics["mean"].value}
print(json.dumps(told | {"answers": [sample.output.completion for sample in log.samples]}))
