"""The libraries on top of huggingface_hub, and its command line, as their users call them."""

from pathlib import Path

from client_processes import Clients

from local_hub.testing import Hub


def test_command_line(either_hub: Hub, clients: Clients) -> None:
    """`hf upload`, `hf download`, `hf auth whoami`, `hf repos tag`: what went up comes down."""
    source = clients.home / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "w.safetensors").write_bytes(bytes(range(256)) * 400)
    (source / "README.md").write_text("---\nlicense: mit\n---\n")

    assert "alice" in clients.command("auth", "whoami").stdout
    uploaded = clients.command("upload", "alice/cli", str(source), ".", "--commit-message", "From the shell")
    assert uploaded.returncode == 0, uploaded.stderr
    assert clients.command("repos", "tag", "create", "alice/cli", "v1").returncode == 0
    target = clients.home / "target"
    downloaded = clients.command(
        "download", "alice/cli", "--revision", "v1", "--local-dir", str(target), user="bob", role="read"
    )
    assert downloaded.returncode == 0, downloaded.stderr
    for path in ("sub/w.safetensors", "README.md"):
        assert (target / path).read_bytes() == (source / path).read_bytes()
    refused = clients.command("upload", "alice/cli", str(source / "README.md"), "other.md", role="read")
    assert refused.returncode != 0
    assert "403" in refused.stderr + refused.stdout


def test_datasets(either_hub: Hub, clients: Clients) -> None:
    """Rows pushed from one process are loaded, streamed and, from a warm cache, loaded again without the hub."""

    def push():
        from datasets import Dataset, DatasetDict

        train = Dataset.from_list([{"text": f"row {n}", "n": n} for n in range(500)])
        test = Dataset.from_list([{"text": f"test {n}", "n": n} for n in range(50)])
        info = DatasetDict({"train": train, "test": test}).push_to_hub("alice/rows")
        return info.oid

    def load(revision):
        from datasets import load_dataset

        loaded = load_dataset("alice/rows", revision=revision)
        streamed = load_dataset("alice/rows", revision=revision, split="test", streaming=True)
        return {
            "sizes": {name: len(split) for name, split in loaded.items()},
            "sum": sum(loaded["train"]["n"]),
            "last": loaded["test"][49]["text"],
            "streamed": [row["n"] for row in streamed.skip(48)],
        }

    def files(revision):
        from huggingface_hub import HfApi

        return HfApi().list_repo_files("alice/rows", repo_type="dataset", revision=revision)

    def offline(revision):
        from datasets import load_dataset

        return sum(load_dataset("alice/rows", revision=revision, split="train")["n"])

    revision = clients(push, home=clients.home / "writer")
    assert sum(name.endswith(".parquet") for name in clients(files, revision)) == 2
    expected = {"sizes": {"train": 500, "test": 50}, "sum": 124750, "last": "test 49", "streamed": [48, 49]}
    assert clients(load, revision, user=None) == expected
    either_hub.clear_requests()
    assert clients(offline, revision, user=None, HF_HUB_OFFLINE="1") == 124750
    assert either_hub.requests() == []


def test_models_and_adapters(either_hub: Hub, clients: Clients) -> None:
    """A tiny T5 and a LoRA adapter on it go up; a stranger gets the same numbers from both, also offline."""

    def publish():
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import T5Config, T5ForConditionalGeneration

        torch.manual_seed(0)
        config = T5Config(
            vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0
        )
        model = T5ForConditionalGeneration(config).eval()
        base = model.push_to_hub("alice/tiny").oid
        model.config._name_or_path = model.name_or_path = "alice/tiny"
        adapted = get_peft_model(
            model, LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, init_lora_weights=False, revision=base)
        ).eval()
        adapter = adapted.push_to_hub("alice/tiny-lora").oid
        ids = torch.tensor([[5, 6, 7, 1]])
        with torch.no_grad():
            logits = adapted(input_ids=ids, decoder_input_ids=ids).logits
        return [base, adapter, logits.flatten()[::20].tolist()]

    def load(base, adapter):
        import torch
        from peft import AutoPeftModelForSeq2SeqLM, PeftModel
        from transformers import AutoModelForSeq2SeqLM

        ids = torch.tensor([[5, 6, 7, 1]])
        model = PeftModel.from_pretrained(
            AutoModelForSeq2SeqLM.from_pretrained("alice/tiny", revision=base), "alice/tiny-lora", revision=adapter
        )
        same = AutoPeftModelForSeq2SeqLM.from_pretrained("alice/tiny-lora", revision=adapter)
        with torch.no_grad():
            return [
                m.eval()(input_ids=ids, decoder_input_ids=ids).logits.flatten()[::20].tolist() for m in (model, same)
            ]

    # One thread: with more, a machine that runs other tests too spends its time on switching between them.
    base, adapter, logits = clients(publish, home=clients.home / "publisher", OMP_NUM_THREADS="1")
    assert len(set(logits)) > 10
    assert clients(load, base, adapter, user=None, OMP_NUM_THREADS="1") == [logits, logits]
    if either_hub.xet:
        either_hub.clear_requests()
        assert clients(load, base, adapter, user=None, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1") == [logits, logits]
        assert either_hub.requests() == []


def test_downloads_leave_nothing_on_other_hosts(hub: Hub, clients: Clients) -> None:
    """With the environment that the hub gives, the clients look for nothing beyond 127.0.0.1."""

    def client():
        import socket

        asked = []
        original = socket.getaddrinfo

        def noted(host, *arguments, **more):
            asked.append(host)
            return original(host, *arguments, **more)

        socket.getaddrinfo = noted
        from datasets import load_dataset
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo("alice/csv", repo_type="dataset")
        api.upload_file(
            repo_id="alice/csv", repo_type="dataset", path_or_fileobj=b"a,b\n1,2\n3,4\n", path_in_repo="train.csv"
        )
        rows = load_dataset("alice/csv", split="train").to_list()
        return [rows, sorted(set(asked) - {"127.0.0.1"})]

    rows, others = clients(client)
    assert rows == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    # datasets makes this name from HF_ENDPOINT (datasets/utils/_dataset_viewer.py); there is no such host.
    assert others in ([], ["datasets-server.127.0.0.1"])


def test_cache_verification(hub: Hub, clients: Clients) -> None:
    """`hf cache verify` compares a cached snapshot with the hub's own hashes, and finds one byte that changed."""

    def client():
        from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download

        api = HfApi()
        api.create_repo("alice/v")
        files = [CommitOperationAdd("a.txt", b"a"), CommitOperationAdd("w.bin", b"w" * 5000)]
        api.create_commit("alice/v", files, commit_message="x")
        return snapshot_download("alice/v")

    folder = Path(clients(client))
    assert clients.command("cache", "verify", "alice/v").returncode == 0
    file = (folder / "w.bin").resolve()
    file.chmod(0o644)
    file.write_bytes(b"v" + b"w" * 4999)
    wrong = clients.command("cache", "verify", "alice/v")
    assert wrong.returncode != 0
    assert "w.bin" in wrong.stdout + wrong.stderr
