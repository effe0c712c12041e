"""llm: its command, told of the service as its documentation says."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())
model = {"model_name": os.environ["MODEL"], "api_base": os.environ["OPENAI_BASE_URL"], "api_key_name": "openai"}
models = [model | {"model_id": "chat"}, model | {"model_id": "plain", "completion": True}]
(folder / "extra-openai-models.yaml").write_text(json.dumps(models))


def ask(*arguments: str) -> str:
    command = [sys.executable, "-m", "llm", *arguments]
    done = subprocess.run(command, env=os.environ | {"LLM_USER_PATH": str(folder)}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=True)  # fmt: skip
    return done.stdout.removesuffix("\n")


question = os.environ["QUESTION"]
answers = [ask("-m", "chat", question), ask("-m", "chat", "--no-stream", question),
           ask("-m", "plain", os.environ["PROMPT"])]  # fmt: skip
print(json.dumps({"answers": answers}))
