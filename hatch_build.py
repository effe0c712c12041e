"""The package's requirements, read from the requirement files when it is built: a version is pinned in one place."""

from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

# Each works with a model: PyTorch and the like come along.
WITH_TRAIN = ("serve", "space", "energy", "ctranslate2")
EXTRAS_OF_THEIR_OWN = ("space", "signing", "energy", "ctranslate2", "browser")


class PinnedRequirements(MetadataHookInterface):
    """What stands under `base` in requirements.txt is what the package needs; other headings and files are extras."""

    def update(self, metadata: dict) -> None:
        parts = pins_by_heading(Path(self.root) / "requirements.txt")
        for extra in EXTRAS_OF_THEIR_OWN:
            parts[extra] = pins(Path(self.root) / f"requirements-{extra}.txt")
        metadata["dependencies"] = parts.pop("base")
        for extra in WITH_TRAIN:
            parts[extra].insert(0, f"{metadata['name']}[train]")
        parts["dev"].insert(0, f"{metadata['name']}[train,serve,{','.join(EXTRAS_OF_THEIR_OWN)}]")
        metadata["optional-dependencies"] = parts


def pins_by_heading(path: Path) -> dict[str, list[str]]:
    """The pins under each heading, a comment `# name: what for` that follows an empty line, by that name."""
    blocks = path.read_text(encoding="utf-8").split("\n\n# ")[1:]
    return {block.partition(":")[0]: pins_of(block) for block in blocks}


def pins(path: Path) -> list[str]:
    """The pins of a file."""
    return pins_of(path.read_text(encoding="utf-8"))


def pins_of(text: str) -> list[str]:
    return [line.partition("#")[0].strip() for line in text.splitlines() if "==" in line and not line.startswith("#")]
