"""What README, CONTRIBUTING and docs/ tell a reader to type, and how each command is tested."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "AGENTS.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ADAPTER = "local-user/flan-t5-base-sql2text"

# Run by test_newcomer.py in a clean folder, in this order. Next to a command about the real Hub or a stranger's
# adapter stands what is run instead.
RUN = {
    "make lint": None,
    "make train-sql2text HUB=local": None,
    "make evaluate-sql2text HUB=local": None,
    "make publish-sql2text HUB=local": None,
    f"make reproduce ADAPTER={ADAPTER} HUB=local": None,
    "make reproduce ADAPTER=owner/name": f"make reproduce ADAPTER={ADAPTER} HUB=local",
    "make report HUB=local": None,
    'make report ADAPTERS="owner/name owner/other"': f'make report ADAPTERS="{ADAPTER} {ADAPTER}" HUB=local',
    "make readme": None,
    "openssl ecparam -name prime256v1 -genkey -noout -out key.pem": None,
    "openssl pkey -in key.pem -pubout -out public.pem": None,
}
# Run as it stands by a test of its own; `make -n` would run the makes inside it.
ALONE = {"make demo": "tests/test_demo.py"}
# Too slow here, or endless, or in need of GPUs: `make -n` reads them, and the file next to each runs what they call.
READ = {
    "make reproduce ADAPTER=owner/name REVISION=commit LEVEL=score": "tests/test_levels.py",
    "make vouch ADAPTER=owner/name LEVEL=score": "tests/push/test_vouch.py",
    "make check ADAPTER=owner/name RECIPE=finance CLAIM=rougeL=0.2285": "tests/evaluation/test_check.py",
    "make plan-finance": "tests/pubrep/test_plan.py",
    "make publish-finance DRY_RUN=1": "tests/test_demo.py",
    "make publish-finance": "tests/test_demo.py",
    "make publish": "tests/test_demo.py",
    "make publish-finance SIGN=key.pem": "tests/hub/test_signing.py",
    "make reproduce ADAPTER=owner/name VERIFY_KEY=public.pem": "tests/hub/test_signing.py",
    "make publish-finance SIGN_IDENTITY=1": "tests/hub/test_signing.py",
    "make reproduce ADAPTER=owner/name VERIFY_IDENTITY=you@example.com VERIFY_ISSUER=https://accounts.google.com": (
        "tests/hub/test_signing.py"
    ),
    "make train-finance ACCELERATE=recipes/accelerate/ddp.yaml": "tests/recipes/test_parallel.py",
    "make evaluate-finance ACCELERATE=recipes/accelerate/ddp.yaml": "tests/test_scoring_processes.py",
    "make reproduce ADAPTER=owner/name ACCELERATE=recipes/accelerate/ddp.yaml": "tests/test_scoring_processes.py",
    'make compare RECIPES="finance-base finance finance-xl"': "tests/test_every_recipe.py",
    'make sweep-finance SET="seed=1,2,3 lora_r=8,32"': "tests/pubrep/test_sweep.py",
    # AGENTS.md's five, on its recipe.
    "make train-mine HUB=local": "tests/push/test_publish_data.py",
    "make evaluate-mine HUB=local": "tests/push/test_publish_data.py",
    "make publish-data ROWS=.local_hub/runs/mine DATASET=local-user/rows HUB=local": "tests/push/test_publish_data.py",
    "make publish-mine HUB=local": "tests/push/test_publish_data.py",
    "make reproduce ADAPTER=local-user/mine HUB=local": "tests/push/test_publish_data.py",
    "make export-results ADAPTER=owner/name FORMAT=every-eval-ever INTO=results": "tests/test_published.py",
    "make space ADAPTER=owner/name": "tests/serving/test_space.py",
    "make publish-space ADAPTER=owner/name": "tests/serving/test_space.py",
    'make serve ADAPTER="owner/name owner/other@revision runs/finance"': "tests/serving/test_server.py",
    'make export-finance FORMAT="merged int8 ct2 ct2-int8"': "tests/serving/test_export.py",
    "make export ADAPTER=owner/name FORMAT=int8 PUBLISH=1": "tests/serving/test_export.py",
    "make test": ".ci/run",
    "make claims HUB=local": "tests/readme/test_claims.py",
    "make claims CHECK=1 LEVEL=score": "tests/readme/test_claims.py",
    "make bench": "tests/benchmarks/test_contenders.py",
    "make hub": "tests/local_hub/test_processes.py",
    "make conformance": "tests/conformance/test_expected_failures.py",
}
# uvx is not everywhere: the file next to it runs the part from `pubrep` on, installed from a wheel without a clone.
INSTALLED = {"uvx --from ADDRESS pubrep reproduce owner/name --level score": "tests/test_package.py"}
# Others' programs, which speak with the real Hub or a cluster: they know every option that is named.
OPTIONS = {
    "curl http://127.0.0.1:8000/v1/completions --json "
    """'{"model": "owner/name", "prompt": "Answer the financial question. What is a bond?"}'""": "curl --help all",
    "hf auth login": "hf auth login --help",
    "hf download owner/name --local-dir release": "hf download --help",
    "model_signing verify key release --signature release/model.sig --public_key public.pem "
    "--ignore-paths release/.cache": "model_signing verify key --help",
    "model_signing verify sigstore release --signature release/model.sig --ignore-paths release/.cache "
    "--identity you@example.com --identity_provider https://accounts.google.com": (
        "model_signing verify sigstore --help"
    ),
    "hf jobs uv run --timeout 24h --flavor a10g-large --secrets HF_TOKEN recipes/hf_job.py "
    "https://github.com/OWNER/REPOSITORY finance": "hf jobs uv run --help",
}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """Every command in the page's bash blocks, without its comment; scripts are none."""
    told = [block.replace("\\\n", "") for block in blocks(page, "bash") if not block.startswith("#!")]
    lines = [line for block in told for line in block.splitlines()]
    return [command for line in lines if (command := re.sub(r"\s*#.*", "", line))]


def scripts(page: Path) -> list[str]:
    """The bash blocks that are scripts."""
    return [block for block in blocks(page, "bash") if block.startswith("#!")]


def failures() -> list[str]:
    """The lines of docs/failures.md, `…` standing for what varies."""
    return re.findall(r"^\| ``(.+?)`` \|", (ROOT / "docs" / "failures.md").read_text(encoding="utf-8"), re.MULTILINE)
