"""The npm client, written independently of the Python one: it finds what only the Python clients forgive."""

from pathlib import Path

import npm_clients
import pytest
from client_processes import Clients

from local_hub.testing import Hub

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


@pytest.mark.parametrize("use_xet", ["1", "0"])
def test_npm_client(hub: Hub, clients: Clients, use_xet: str, tmp_path: Path) -> None:
    """Create, upload (by Xet and by LFS), list, download, commit, pull request, delete."""
    found = npm_clients.run(PROGRAM, tmp_path, hub.env(clients.home, hub.token("alice"), USE_XET=use_xet))
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


# The package has functions for a collection's items as well, but exports these three only (src/lib/index.ts).
COLLECTIONS = r"""
import { createCollection, createRepo, deleteCollection, listCollections, whoAmI } from "@huggingface/hub";
const base = { hubUrl: process.env.HF_ENDPOINT, accessToken: process.env.HF_TOKEN };
const list = async () => {
  const found = [];
  const search = { owner: ["acme"], q: "NPM" };
  for await (const item of listCollections({ ...base, search })) found.push([item.title, item.owner.type, item.slug]);
  return found;
};
const found = {};
found.orgs = (await whoAmI(base)).orgs.map((org) => [org.type, org.name]);
found.url = (await createRepo({ ...base, repo: "acme/js" })).repoUrl;
const { slug } = await createCollection({ ...base, collection: { title: "From npm", namespace: "acme" } });
found.listed = await list();
found.same = found.listed[0].pop() === slug;
await deleteCollection({ ...base, slug });
found.left = await list();
console.log(JSON.stringify(found));
"""


def test_organisations_and_collections(hub: Hub, clients: Clients, tmp_path: Path) -> None:
    """A member creates a repository and a collection in the organisation's name."""
    hub.add_org("acme", {"alice": "write"})
    assert npm_clients.run(COLLECTIONS, tmp_path, hub.env(clients.home, hub.token("alice"))) == {
        "orgs": [["org", "acme"]],
        "url": f"{hub.url}/acme/js",
        "listed": [["From npm", "org"]],
        "same": True,
        "left": [],
    }
