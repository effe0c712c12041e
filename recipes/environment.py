"""Where a run happens: package versions, device, and the commit of this code."""

import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from recipes.summary import size
from record.errors import UserError
from record.project import PACKAGE, __version__
from record.run_record import Environment

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "datasets",
    "tokenizers",
    "evaluate",
    "rouge-score-rs",
    "sqlglot",
    "datasketch",
    "confusable_homoglyphs",
    "huggingface_hub",
    "numpy",
    "bitsandbytes",
)


def describe_environment() -> Environment:
    """What stands in the record about this machine; no host name, user name or path."""
    import torch

    commit, dirty = _code()
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        device=device_name(),
        threads=torch.get_num_threads(),
        processes=torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1,
        packages=versions(),
        code_commit=commit,
        code_dirty=dirty,
    )


def versions() -> dict[str, str]:
    """The versions of those of `PACKAGES` that are installed, and of this one."""
    packages = {PACKAGE: __version__}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return packages


def device_name() -> str:
    """The GPU's name, or the CPU's."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.exists() else []
    )
    return f"CPU {names[0].split(':')[1].strip()}" if names else f"CPU {platform.machine()}"


def reset_peak_memory() -> None:
    """Forgets the GPU's peak so far, so that a cut that memory refused does not count."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_bytes() -> int:
    """Most memory used so far: allocated on the GPU where there is one, else the process's resident set."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_resident_bytes()


def peak_resident_bytes() -> int:
    """Most of the machine's memory that this process has held so far."""
    import resource

    # Linux counts kibibytes, macOS bytes (getrusage(2) of each).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def free_disk(place: Path) -> int:
    """Bytes that are free where a file or folder lies, or would lie."""
    there = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def refuse_full_disk(needed: int, place: Path, cure: str) -> None:
    """Refuses what will not fit on the disk, before hours of work end there.

    Raises:
        `UserError`: it will not.
    """
    if needed > (free := free_disk(place)):
        raise UserError(
            f"the disk is too full: {size(needed)} are needed in {place}, {size(free)} are free: free some space, or "
            f"{cure}"
        )


def free_memory() -> int:
    """Bytes of the machine's memory that this process may still take: what is free, and what its limits leave."""
    import resource

    import psutil

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    free = [psutil.virtual_memory().available]
    if limit != resource.RLIM_INFINITY:
        free.append(max(0, limit - psutil.Process().memory_info().vms))
    # A container's: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        most, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        # What the files it has read take is given back when it is needed.
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        free.append(max(0, most - used + int(stat["inactive_file"])))
    return min(free)


def _code() -> tuple[str | None, bool]:
    root = Path(__file__).parents[1]
    environ = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, env=environ)
        except FileNotFoundError:
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    # Installed, the package may lie in an environment inside somebody's repository, whose commit is not this code's.
    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return None, False
    return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))


def uses_cpu() -> bool:
    """Whether models are run on the CPU here: where accelerate was told so, and where there is nothing else."""
    import torch

    return os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" or not torch.accelerator.is_available()


def leave_together() -> None:
    """Ends what the processes share: one that ends before the others makes them abort.

    They meet once more first: a thread of gloo's that still gives back a tensor of the last collective waits for
    Python's lock, which the process holds while it takes its groups apart, for ever.
    """
    from accelerate import PartialState

    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()
