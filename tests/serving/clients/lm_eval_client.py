"""lm-eval: `local-completions`, texts and choices of a task whose `target_delimiter` is the border `</s>`."""

import json
import os
import tempfile
from pathlib import Path

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

folder = Path(tempfile.mkdtemp())
rows = [{"question": os.environ["PROMPT"], "choices": ["yes", os.environ["EXPECTED"]], "label": 1,
         "answer": os.environ["EXPECTED"]}] * 3  # fmt: skip
(folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
shared = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
          "test_split": "test", "doc_to_text": "question"}  # fmt: skip
tasks = {
    "texts": {"output_type": "generate_until", "doc_to_target": "answer", "metric_list": [{"metric": "exact_match"}],
              "generation_kwargs": {"until": ["\n\n"]}},
    "choices": {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "label",
                "target_delimiter": "</s> ", "metric_list": [{"metric": "acc"}]},
    "rolling": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "answer",
                "metric_list": [{"metric": "byte_perplexity"}]},
}  # fmt: skip
for name, task in tasks.items():
    (folder / f"{name}.yaml").write_text(json.dumps({"task": name} | shared | task))
where = {"model": os.environ["MODEL"], "base_url": os.environ["OPENAI_BASE_URL"] + "/completions",
         "tokenizer": os.environ["BASE"]}  # fmt: skip
manager = TaskManager(include_path=str(folder), include_defaults=False)
found = simple_evaluate("local-completions", where, tasks=[*tasks], task_manager=manager, log_samples=True)
samples = found["samples"]
told = {
    "answers": [row["resps"][0][0] for row in samples["texts"]],
    "choices": samples["choices"][0]["filtered_resps"],
    "exact": found["results"]["texts"]["exact_match,none"],
    "perplexity": found["results"]["rolling"]["byte_perplexity,none"],
}
print(json.dumps(told))
