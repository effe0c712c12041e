"""Two hosts on one machine: network namespaces joined by a cable, each of which reaches the local Hub as 127.0.0.1."""

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

# Documentation addresses (RFC 5737), one a host.
ADDRESSES = ("192.0.2.1", "192.0.2.2")
NEW_NETWORK = 0x40000000


def skip_where_none():
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("two hosts are network namespaces, which only root can make, with iproute2")
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"two hosts are network namespaces, which this container may not make: {tried.stderr.strip()}")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextmanager
def two_hosts(endpoint: str):
    """The names of two hosts, which end with the block."""
    names = [f"host{os.getpid()}-{rank}" for rank in (0, 1)]
    cables = [f"pr{os.getpid()}-{rank}" for rank in (0, 1)]
    listening = []
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", cables[0], "netns", names[0], "type", "veth", "peer", "name", cables[1], "netns", names[1])
        for name, cable, address in zip(names, cables, ADDRESSES, strict=True):
            ip("-n", name, "link", "set", cable, "name", "cable")
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")
            listening.append(listen_in(name, urlsplit(endpoint).port))
        yield names
    finally:
        for one in listening:
            one.close()
        for name in names:
            kill(name)
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def kill(name: str) -> None:
    """Ends all processes of a host."""
    pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
    subprocess.run(["kill", "-KILL", *pids], capture_output=True) if pids else None


def start(name: str, rank: int, *words: str, **more: str) -> subprocess.Popen[str]:
    """The launcher on one of the hosts, one process each."""
    launch = ["-m", "recipes.launch", "--config_file", "recipes/accelerate/ddp-multinode.yaml", "--num_processes", "2",
              "--machine_rank", str(rank), "--main_process_ip", ADDRESSES[0]]  # fmt: skip
    root = Path(__file__).parents[1]
    environ = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "cable", "CUDA_VISIBLE_DEVICES": "",
               "PYTHONPATH": f"{root}:{root / 'tests'}"}  # fmt: skip
    command = ["ip", "netns", "exec", name, sys.executable, *launch, *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environ
    )


def listen_in(name: str, port: int) -> socket.socket:
    """A server on the host's own 127.0.0.1 that hands every connection on to ours: a socket stays where it was made."""
    made: list[socket.socket] = []

    def make() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/run/netns", name).open() as space:
            if libc.setns(space.fileno(), NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "setns")
        made.append(socket.create_server(("127.0.0.1", port)))

    maker = threading.Thread(target=make)
    maker.start()
    maker.join()
    threading.Thread(target=accept, args=(made[0], port), daemon=True).start()
    return made[0]


def accept(server: socket.socket, port: int) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        hub = socket.create_connection(("127.0.0.1", port))
        for source, sink in ((client, hub), (hub, client)):
            threading.Thread(target=copy, args=(source, sink), daemon=True).start()


def copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
