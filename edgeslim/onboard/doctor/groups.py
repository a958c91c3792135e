"""Groups: how much memory and processor time the control groups (cgroup v1 and v2) of this process may use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from edgeslim.onboard.doctor.tree import Tree

_BASE = "/sys/fs/cgroup"


@dataclass(frozen=True, slots=True)
class Groups:
    """The tightest limit of a process's group and of all groups around it; None: not limited, or not told."""

    memory_mib: float | None
    """Of all processes in the group."""
    cores: float | None
    """Processor time a second, s."""


def groups_of(tree: Tree) -> Groups:
    """What a tree of files tells; limits beyond the machine's memory, as version 1 writes "none", are none."""
    paths = _paths(tree)
    memory = [
        value
        for base, own in (("", paths.get("")), ("/memory", paths.get("memory")))
        for folder in _upwards(f"{_BASE}{base}", own)
        for name in ("memory.max", "memory.limit_in_bytes")
        if (value := tree.number(f"{folder}/{name}")) is not None and 0 < value < 1 << 60
    ]
    cores = [
        share
        for base in ("", "/cpu", "/cpu,cpuacct")
        for folder in _upwards(f"{_BASE}{base}", paths.get("cpu" if base else ""))
        if (share := _cores(tree, folder)) is not None
    ]
    return Groups(min(memory) / 2**20 if memory else None, min(cores, default=None))


def _paths(tree: Tree) -> dict[str, str]:
    """Controller ("" of version 2) -> the group of this process."""
    found: dict[str, str] = {}
    for line in tree.text("/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def _upwards(base: str, group: str | None) -> Iterator[str]:
    """Folders of a group and of those around it; in a container often only the last one, the mount, is there."""
    own = PurePosixPath("/", group or "")
    for path in (own, *own.parents):
        yield base + str(path).rstrip("/")


def _cores(tree: Tree, folder: str) -> float | None:
    quota, _, period = tree.line(f"{folder}/cpu.max").partition(" ")
    if not quota:
        quota, period = (tree.line(f"{folder}/cpu.cfs_{name}_us") for name in ("quota", "period"))
    if not (quota.isdecimal() and period.isdecimal() and int(quota) and int(period)):
        return None  # "max", "-1": not limited
    return int(quota) / int(period)
