"""Tree: the files in which Linux tells about a machine, under a root that tests replace; none needs to be there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_MOST_BYTES = 1 << 20
"""Of a file that is read: /proc/cpuinfo of 256 cores has half of that."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Files under a root."""

    root: Path = Path("/")
    """"/", or a copy of what another machine tells."""

    def path(self, name: str) -> Path:
        """Where a file of an absolute name lies; what would leave the root stays in it."""
        return self.root.joinpath(*(part for part in PurePosixPath(name).parts if part not in ("/", "..")))

    def text(self, name: str) -> str:
        """A file's printable text without blanks at its ends; empty where it is missing or cannot be read."""
        try:
            with self.path(name).open("rb") as file:
                data = file.read(_MOST_BYTES)
        except (OSError, ValueError):  # sysfs answers "try again", "no such device", "not permitted"
            return ""
        text = data.decode("utf-8", "replace").replace("\0", " ").replace("\t", " ")
        return "".join(c for c in text if c.isprintable() or c == "\n").strip()

    def line(self, name: str) -> str:
        """The same in one line, single blanks between its words, at most 200 characters."""
        return " ".join(self.text(name).split())[:200]

    def number(self, name: str) -> float | None:
        """A file that holds a decimal number and nothing else; None for anything else."""
        text = self.text(name)
        return float(text) if re.fullmatch(r"-?[0-9]{1,20}", text) else None

    def names(self, pattern: str) -> list[str]:
        """Absolute names of the files that a glob pattern finds, numbers in them in their order."""
        try:
            found = [str(PurePosixPath("/", *path.relative_to(self.root).parts)) for path in self._glob(pattern)]
        except OSError:
            return []
        return sorted(found, key=lambda name: [int(p) if p.isdecimal() else p for p in re.split(r"([0-9]+)", name)])

    def exists(self, name: str) -> bool:
        """Whether there is such a file, readable or not."""
        try:
            return self.path(name).exists()
        except OSError:
            return False

    def _glob(self, pattern: str) -> list[Path]:
        return list(self.root.glob(pattern.lstrip("/")))


def count_of(ranges: str) -> int | None:
    """How many cores Linux lists by "0-3,7"; None where that is no such list."""
    if not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*", ranges):
        return None
    total = 0
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        total += max(0, int(last or first) - int(first) + 1)
    return total
