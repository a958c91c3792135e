"""System: the board, its operating system, its memory and storage."""

from __future__ import annotations

import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from edgeslim.errors import EdgeslimError
from edgeslim.jetpack import JetPack, jetpacks
from edgeslim.onboard.doctor.groups import Groups
from edgeslim.onboard.doctor.tree import Tree

_MODELS = ("/proc/device-tree/model", "/sys/firmware/devicetree/base/model")
_DMI = "/sys/class/dmi/id"
_NOT_SAID = re.compile(r"to be filled|default string|system (product|manufacturer)|not (specified|applicable)", re.I)
"""What firmware holds where nobody wrote a name."""
_CONTAINERS = ("docker", "kubepods", "containerd", "podman", "lxc", "garden", "nspawn")


@dataclass(frozen=True, slots=True)
class Memory:
    """What the machine has, and what this process may have of it. MiB; None: not told, or not limited."""

    total_mib: float | None
    """That Linux sees: what firmware and GPU keep is not in it."""
    available_mib: float | None
    """That could be given out now without swapping."""
    limit_mib: float | None
    """Of the control group, where it is below the total."""
    swap_mib: float | None
    """Swap space, on storage or compressed."""

    @property
    def usable_mib(self) -> float | None:
        """The smaller one of total and limit."""
        return min((value for value in (self.total_mib, self.limit_mib) if value is not None), default=None)


@dataclass(frozen=True, slots=True)
class System:
    """Board and operating system; a text is empty where nothing tells it."""

    board: str
    """As its firmware calls it (device tree or DMI): "Raspberry Pi 5 Model B Rev 1.0"."""
    architecture: str
    """Instruction set: "x86_64", "aarch64"."""
    name: str
    """Operating system."""
    kernel: str
    """Its release."""
    jetpack: str
    """NVIDIA's software for Jetson boards: release and Jetson Linux."""
    container: str
    """Its kind, where this is one."""
    virtual: bool
    """Whether a hypervisor is under it."""
    libc: str
    """Library and version, which wheels are built for."""
    python: str
    """Version."""


def system_of(tree: Tree, machine: str | None = None) -> System:
    """What a tree of files tells; `machine` is the instruction set, that of this machine if None."""
    vendor, product = (
        text if (text := tree.line(f"{_DMI}/{name}")) and not _NOT_SAID.search(text) else ""
        for name in ("sys_vendor", "product_name")
    )
    board = next((text for name in _MODELS if (text := tree.line(name))), "")
    named = re.search(r"^PRETTY_NAME=\"?([^\"\n]*)", tree.text("/etc/os-release"), re.MULTILINE)
    return System(
        board=board or (product if product.startswith(vendor) else f"{vendor} {product}"),
        architecture=tree.line("/proc/sys/kernel/arch") or machine or platform.machine(),
        name=named[1].strip()[:100] if named else platform.system(),
        kernel=tree.line("/proc/sys/kernel/osrelease"),
        jetpack=_jetpack(tree),
        container=_container(tree),
        virtual=bool(re.search(r"^flags\s*:.*\bhypervisor\b", tree.text("/proc/cpuinfo"), re.MULTILINE)),
        libc=" ".join(platform.libc_ver()).strip(),
        python=platform.python_version(),
    )


def memory_of(tree: Tree, groups: Groups) -> Memory:
    """What a tree of files tells."""
    rows = dict(re.findall(r"^(\w+):\s*([0-9]{1,15}) kB", tree.text("/proc/meminfo"), re.MULTILINE))
    total, available, swap = (
        int(rows[key]) / 1024 if key in rows else None for key in ("MemTotal", "MemAvailable", "SwapTotal")
    )
    limit = groups.memory_mib
    return Memory(total, available, None if limit is None or (total or limit + 1) <= limit else limit, swap)


def disk_free_mb(folder: Path) -> float | None:
    """Free in the storage that holds a folder, MB; None: not told."""
    try:
        return shutil.disk_usage(folder).free / 1e6
    except (OSError, ValueError):
        return None


def _jetpack(tree: Tree) -> str:
    found = re.search(r"R([0-9]{1,3}) \(release\), REVISION: ([0-9.]{1,9})", tree.text("/etc/nv_tegra_release"))
    if found is None:
        return ""
    linux = f"{found[1]}.{found[2]}"
    try:
        cards: tuple[JetPack, ...] = jetpacks()
    except EdgeslimError:  # a damaged installation; what the board says is still of use
        cards = ()
    known = [card.name.removeprefix("JetPack ") for card in cards if f"{linux}.".startswith(f"{card.l4t.value}.")]
    return f"{' or '.join(known) or 'no card of it'} (Jetson Linux {linux})"


def _container(tree: Tree) -> str:
    if tree.exists("/run/.containerenv"):
        return "podman"
    told = re.search(r"(?:^| )container=(\S{1,40})", tree.text("/proc/1/environ"))
    if told:
        return told[1]
    if tree.exists("/.dockerenv"):
        return "docker"
    groups = tree.text("/proc/1/cgroup")
    return next((kind for kind in _CONTAINERS if kind in groups), "")
