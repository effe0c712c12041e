# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "regex==2026.11.15",
#     "datasets==5.2.0",
#     "numpy==2.4.6",
#     "tokenizers==0.23.3",
#     "rouge-score-rs==0.2.1",
#     "sacrebleu==2.6.0",
#     "sqlglot==30.30.0",
#     "datasketch==2.0.0",
#     "confusable_homoglyphs==3.3.1",
#     "scipy==1.17.1",
#     "pydantic==2.14.3",
#     "Jinja2==3.1.6",
#     "matplotlib==3.11.2",
#     "huggingface_hub==2.4.0",
#     "click==8.5.1",
#     "markdown-it-py==4.3.0",
#     "justhtml==3.16.0",
#     "torch==2.13.0",
#     "transformers==5.23.0",
#     "peft==0.21.2",
#     "sentencepiece==0.2.3",
#     "protobuf==7.36.2",
#     "trl==1.16.0",
#     "accelerate==1.15.0",
#     "bitsandbytes==0.50.2",
#     "evaluate==0.4.6",
# ]
# ///
"""Trains, scores and publishes one recipe on Hugging Face Jobs.

    hf jobs uv run --timeout 24h --flavor a10g-large --secrets HF_TOKEN recipes/hf_job.py REPOSITORY_URL RECIPE [COMMIT]

The header above carries the requirements of this project's requirements.txt that a job needs; a test keeps them equal.
"""

import os
import subprocess
import sys
import tempfile


def main(url: str, recipe: str, commit: str = "HEAD") -> None:
    """Clones the code and runs the three steps of `make train-R evaluate-R publish-R`."""
    os.chdir(tempfile.mkdtemp())
    launch = ["-m", "accelerate.commands.launch", "--quiet", "--config_file", "recipes/accelerate/gpu.yaml"]
    steps = [
        ["git", "clone", "--quiet", url, "."],
        ["git", "checkout", "--quiet", commit],
        [sys.executable, *launch, "-m", "recipes.train", "--config", f"recipes/{recipe}.yaml", "--output_dir", "run"],
        [sys.executable, "-m", "evaluation.evaluate", "run"],
        [sys.executable, "-m", "push.publish", "run"],
    ]
    for step in steps:
        if (code := subprocess.run(step).returncode) != 0:
            sys.exit(code)


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
