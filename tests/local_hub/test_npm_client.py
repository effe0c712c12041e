"""The npm client, written independently of the Python one: it finds what only the Python clients forgive."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from client_processes import Clients

from local_hub import durable
from local_hub.testing import Hub

VERSION = "2.17.5"

PROGRAM = r"""
import {
  commit, countCommits, createBranch, createRepo, deleteRepo, downloadFile, fileDownloadInfo, fileExists, listCommits,
  listFiles, listModels, modelInfo, pathsInfo, repoExists, uploadFiles, whoAmI,
} from "@huggingface/hub";
const hubUrl = process.env.HF_ENDPOINT, accessToken = process.env.HF_TOKEN, repo = "alice/js";
const base = { repo, hubUrl, accessToken };
const big = new Uint8Array(300000).map((_, i) => (i * 7919) % 251);
const text = async (path, more) => await (await downloadFile({ ...base, path, ...more })).text();
const found = {};
found.name = (await whoAmI({ hubUrl, accessToken })).name;
found.url = (await createRepo(base)).repoUrl;
const files = [
  { path: "README.md", content: new Blob(["---\nlicense: mit\n---\n"]) },
  { path: "dir/big.bin", content: new Blob([big]) },
];
found.first = (await uploadFiles({ ...base, files, useXet: process.env.USE_XET === "1" })).commit.oid;
found.list = [];
for await (const file of listFiles({ ...base, recursive: true, expand: true }))
  found.list.push([file.path, file.type, file.size, file.lastCommit.id === found.first]);
const back = new Uint8Array(await (await downloadFile({ ...base, path: "dir/big.bin" })).arrayBuffer());
found.same = back.length === big.length && back.every((byte, i) => byte === big[i]);
found.text = await text("README.md");
found.absent = [await fileExists({ ...base, path: "no.txt" }), await downloadFile({ ...base, path: "no.txt" })];
found.info = (await fileDownloadInfo({ ...base, path: "dir/big.bin" })).size;
found.paths = (await pathsInfo({ ...base, paths: ["dir/big.bin", "no"] })).map((item) => [item.path, item.size]);
await createBranch({ ...base, branch: "work" });
const operations = [
  { operation: "delete", path: "dir/big.bin" },
  { operation: "addOrUpdate", path: "a.txt", content: new Blob(["a"]) },
];
found.second = (await commit({ ...base, operations, title: "Second", parentCommit: found.first })).commit.oid;
try {
  await commit({ ...base, operations: [operations[1]], title: "Stale", parentCommit: found.first });
} catch (error) { found.stale = error.statusCode; }
const proposal = [{ ...operations[1], path: "b.txt" }];
found.pull = (await commit({ ...base, operations: proposal, title: "Pull", isPullRequest: true })).pullRequestUrl;
found.pulled = [];
for await (const file of listFiles({ ...base, revision: "refs/pr/1" })) found.pulled.push(file.path);
found.branch = await text("a.txt", { revision: "main" });
found.titles = [];
for await (const item of listCommits(base)) found.titles.push(item.title);
found.count = await countCommits(base);
found.model = (await modelInfo({ name: repo, hubUrl, accessToken })).id;
found.models = [];
const search = { owner: "alice" };
for await (const model of listModels({ search, hubUrl, accessToken })) found.models.push(model.name);
await deleteRepo(base);
found.exists = await repoExists(base);
console.log(JSON.stringify(found));
"""


@pytest.fixture(scope="module")
def npm_folder() -> Path:
    """A folder with the npm client, kept between runs outside of the project; skips where it cannot be had."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "local_hub_tests" / f"npm-{VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    with durable.locked(folder / "install.lock"):
        if not (folder / "installed").exists():
            package = f"@huggingface/hub@{VERSION}"
            command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), package]
            try:
                done = subprocess.run(command, cwd=folder, text=True, capture_output=True, timeout=120)
            except subprocess.TimeoutExpired:
                pytest.skip("the npm registry did not answer within 120 s")
            if done.returncode:
                pytest.skip(f"npm could not install {package}: {done.stderr.strip().splitlines()[-1:]}")
            (folder / "installed").touch()
    return folder


@pytest.mark.parametrize("use_xet", ["1", "0"])
def test_npm_client(hub: Hub, clients: Clients, npm_folder: Path, use_xet: str, tmp_path: Path) -> None:
    """Create, upload (by Xet and by LFS), list, download, commit, pull request, delete."""
    # The program must lie beside node_modules for node to find the package.
    program = npm_folder / f"{tmp_path.name}-{os.getpid()}.mjs"
    program.write_text(PROGRAM)
    environment = hub.env(clients.home, hub.token("alice"), USE_XET=use_xet)
    try:
        done = subprocess.run(["node", program], env=environment, text=True, capture_output=True, timeout=120)
    finally:
        program.unlink()
    assert done.returncode == 0, done.stderr + (hub.root / "server.log").read_text()
    found = json.loads(done.stdout)
    first, second = found.pop("first"), found.pop("second")
    assert first != second
    assert found == {
        "name": "alice",
        "url": f"{hub.url}/alice/js",
        "list": [
            [".gitattributes", "file", 1519, False],
            ["README.md", "file", 21, True],
            ["dir", "directory", 0, True],
            ["dir/big.bin", "file", 300000, True],
        ],
        "same": True,
        "text": "---\nlicense: mit\n---\n",
        "absent": [False, None],
        "info": 300000,
        "paths": [["dir/big.bin", 300000]],
        "stale": 412,
        "pull": f"{hub.url}/alice/js/discussions/1",
        "pulled": [".gitattributes", "README.md", "a.txt", "b.txt"],
        "branch": "a",
        "titles": ["Second", "Add 2 files", "initial commit"],
        "count": 3,
        "model": "alice/js",
        "models": ["alice/js"],
        "exists": False,
    }
    routes = {request["route"] for request in hub.requests()}
    assert ("xet_shard" in routes, "lfs_put" in routes) == (use_xet == "1", use_xet == "0")
