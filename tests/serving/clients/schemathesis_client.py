"""schemathesis: requests made up from the OpenAPI document, right ones and wrong ones; no answer may be a 5xx."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.request import urlopen

address, folder = os.environ["OPENAI_BASE_URL"].removesuffix("/v1"), Path(tempfile.mkdtemp())
document = json.load(urlopen(f"{address}/openapi.json"))
# A model's name that is made up would be answered with 404, whatever else is in the request; and many long answers on
# a busy machine with 504, rightly.
few = {"type": "integer", "minimum": 1, "maximum": 4}
for body in ("Completion", "Chat"):
    properties = document["components"]["schemas"][body]["properties"]
    properties |= {"model": {"enum": [os.environ["MODEL"]]}, "n": few, "max_tokens": few}
    document["components"]["schemas"][body]["required"].append("max_tokens")
document["components"]["schemas"]["Chat"]["properties"]["max_completion_tokens"] = few
(folder / "openapi.json").write_text(json.dumps(document))
options = ["--checks", "not_a_server_error", "--max-examples", "4", "--seed", "1", "--no-color"]
done = subprocess.run(
    [sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", address, *options,
     "-H", f"Authorization: Bearer {os.environ['OPENAI_API_KEY']}"],
    capture_output=True, text=True, cwd=folder,
)  # fmt: skip
assert done.returncode == 0, done.stdout
told = {"operations": r"Tested: (\d+)", "cases": r"(\d+) generated"}
print(json.dumps({name: int(re.search(pattern, done.stdout)[1]) for name, pattern in told.items()}))
