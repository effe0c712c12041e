"""Runs huggingface_hub's own tests against a local Hub: how far it answers as the real one does.

    python tests/conformance/run.py [pytest's options]

The tests come with the source distribution of the pinned huggingface_hub, and run in a venv of their own, both in
CONFORMANCE_CACHE (~/.cache/pubrep-conformance unless set). `expected_failures.yaml` lists what fails, and why.
Exit 0: all else passes, nothing that is listed does, and at least `LEAST` tests passed.
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import yaml

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from local_hub import durable  # noqa: E402
from local_hub.testing import running  # noqa: E402

LEAST = 1_250
# Products of the company that are no repositories.
LEFT_OUT = ("bucket", "inference", "jobs", "sandbox", "kernels", "copy_files", "generate_cli_reference")
# A folder without permissions, which root may write to all the same.
DESELECTED = "tests/test_utils_cache.py::TestTryDeletePath::test_delete_path_on_local_folder_with_wrong_permission"


def main(options: list[str]) -> None:
    cache = Path(os.environ.get("CONFORMANCE_CACHE") or Path.home() / ".cache" / "pubrep-conformance")
    suite, python = prepare(cache)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        run_suite(suite, python, report, options, Path(folder))
        results = read_report(report)
    sys.exit(judge(results, read_expected()))


def read_expected() -> dict[str, list[str]]:
    """The tests that are known to fail, by the reason."""
    return yaml.safe_load((HERE / "expected_failures.yaml").read_text(encoding="utf-8"))


def pinned_version() -> str:
    """The version of huggingface_hub that the project pins."""
    (version,) = re.findall(r"^huggingface_hub==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE | re.I)
    return version


def prepare(cache: Path) -> tuple[Path, Path]:
    """Downloads the tests and makes their venv where they are missing: the tests' folder, and the venv's Python."""
    version = pinned_version()
    home = cache / version
    suite, python = home / f"huggingface_hub-{version}" / "tests", home / "venv" / "bin" / "python"
    name = f"huggingface_hub=={version}"
    if not (home / "ready").exists():
        home.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", name, "-r", HERE / "requirements.txt"], check=True)
        subprocess.run([*pip, "download", "--no-binary", ":all:", "--no-deps", "--dest", home, name], check=True)
        with tarfile.open(home / f"huggingface_hub-{version}.tar.gz") as archive:
            archive.extractall(home, filter="data")
        (home / "ready").touch()
    (suite / "conftest.py").write_bytes((HERE / "suite_conftest.py").read_bytes())
    (suite / "__init__.py").touch()
    return suite, python


def constant(suite: Path, name: str) -> str:
    """What the tests call a user, an organisation or a token of theirs."""
    (value,) = re.findall(rf'^{name} = "(.*)"$', (suite / "testing_constants.py").read_text(), re.MULTILINE)
    return value


def run_suite(suite: Path, python: Path, report: Path, options: list[str], folder: Path) -> None:
    """Runs the tests against a local Hub that has their users."""
    names = {prefix + "USER": prefix + "TOKEN" for prefix in ("", "OTHER_", "ENTERPRISE_")}
    users = {constant(suite, user): constant(suite, token) for user, token in names.items()}
    owner, org = constant(suite, "ENTERPRISE_USER"), constant(suite, "ENTERPRISE_ORG")
    left_out = [f"--ignore-glob=*test_*{word}*.py" for word in LEFT_OUT]
    with running(folder / "hub", users=users, orgs={org: {owner: "admin"}, "valid_org": {}}) as hub:
        hub.make_private_by_default(org)
        tokens = {user: {"write": token, "read": f"{token}-read"} for user, token in users.items()}
        durable.write_json(hub.root / "users.json", tokens, mode=0o600)
        # Nothing else of whoever runs them: the tests look at proxies, colours, and names of programs around them.
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "NO_COLOR": "1",
                       "COLUMNS": "200", "HF_HOME": str(folder / "home"), "HF_ENDPOINT": hub.url,
                       "HF_TOKEN": ""}  # fmt: skip
        command = [python, "-m", "pytest", "tests", "-o", "addopts=", "-o", "asyncio_mode=auto", "-q", "-n", "auto",
                   "-m", "not production and not inference", "--timeout", "120", "--tb=short",
                   f"--junitxml={report}", "--deselect", DESELECTED]  # fmt: skip
        subprocess.run([*command, *left_out, *options], cwd=suite.parent, env=environment, check=False)


def read_report(report: Path) -> dict[str, str]:
    """The outcome of each test, `passed`, `failed` or `skipped`, by its name: `test_x.py::Class::test_y`."""
    results = {}
    for case in ElementTree.parse(report).iter("testcase"):
        _, _, place = case.attrib["classname"].partition("tests.")
        file, _, inside = place.partition(".")
        name = "::".join(filter(None, [f"{file}.py", inside.replace(".", "::"), case.attrib["name"]]))
        tags = {child.tag for child in case}
        results[name] = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
    return results


def judge(results: dict[str, str], expected: dict[str, list[str]]) -> int:
    """Compares the outcomes with the listed failures and prints both; the exit code."""
    listed = {name for tests in expected.values() for name in tests}
    failed = {name for name, outcome in results.items() if outcome == "failed"}
    passed = {name for name, outcome in results.items() if outcome == "passed"}
    _print("fail, and are not listed", failed - listed)
    _print("are listed as failing, and pass", listed & passed)
    _print("are listed, and are no tests", listed - results.keys())
    for reason, tests in expected.items():
        print(f"{len(failed.intersection(tests)):>6,} fail as listed: {reason}")
    print(
        f"{len(passed):>6,} passed, {len(failed):,} failed, {len(results) - len(passed) - len(failed):,} were skipped"
    )
    wrong = failed - listed or listed & passed or listed - results.keys() or len(passed) < LEAST
    return 1 if wrong else 0


def _print(what: str, names: Iterable[str]) -> None:
    if names := sorted(names):
        print(f"{len(names)} tests {what}:", *names, sep="\n  ")


if __name__ == "__main__":
    main(sys.argv[1:])
