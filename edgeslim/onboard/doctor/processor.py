"""Processor: its name, its cores, how many of them this process may use, and what they can do."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from edgeslim.onboard.doctor.groups import Groups
from edgeslim.onboard.doctor.tree import Tree, count_of

_ARM_CORES = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xC07): "Cortex-A7",
    (0x41, 0xC09): "Cortex-A9",
    (0x41, 0xC0F): "Cortex-A15",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4B): "Cortex-A78C",
    (0x41, 0xD4D): "Cortex-A715",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x4E, 0x003): "Denver 2",
    (0x4E, 0x004): "Carmel",
    (0x51, 0x802): "Kryo 3XX Gold",
    (0x51, 0x803): "Kryo 3XX Silver",
    (0x51, 0x804): "Kryo 4XX Gold",
    (0x51, 0x805): "Kryo 4XX Silver",
}
"""Implementer and part of /proc/cpuinfo -> core, as util-linux names them (sys-utils/lscpu-arm.c)."""
_ISA = {
    "x86": {
        **{name: name for name in ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16")},
        **{name: name for name in ("avx512_fp16", "amx_int8", "amx_bf16")},
    },
    "arm": {
        "neon": "asimd|neon",
        "fp16": "asimdhp",
        "dotprod": "asimddp",
        "i8mm": "i8mm",
        "bf16": "bf16",
        "sve": "sve",
        "sve2": "sve2",
        "sme": "sme",
    },
}
"""Family -> feature that a kernel of a runtime may need -> its names in /proc/cpuinfo."""
_CPU = "/sys/devices/system/cpu"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Cores of one kind."""

    name: str
    """"Cortex-A76"; on x86 empty: the processor's name says it."""
    cores: int
    """How many are online."""
    max_mhz: float | None
    """Highest clock that the hardware has, MHz; None: not told."""

    def __str__(self) -> str:
        clock = "" if self.max_mhz is None else f" at {self.max_mhz / 1e3:.3g} GHz"
        return f"{self.cores}x {self.name or 'core'}{clock}"


@dataclass(frozen=True, slots=True)
class Processor:
    """What computes, and how much of it this process may use."""

    name: str
    """As it calls itself; of ARM cores, which do not, the clusters' names; empty: not told."""
    present: int | None
    """Logical cores that the machine has; None: not told."""
    online: int | None
    """Of them, those that are switched on."""
    allowed: int | None
    """Of them, those that this process may run on (affinity, cpuset)."""
    quota_cores: float | None
    """Processor time that the control group may use, in cores; None: not limited."""
    clusters: tuple[Cluster, ...]
    """Kinds of core, the largest clock first; empty: not told."""
    features: tuple[str, ...]
    """Instruction sets that matter here and that it has."""
    lacks: tuple[str, ...]
    """Those of its family that it has not; empty, too, where nothing is told."""

    @property
    def usable_cores(self) -> float | None:
        """What the work of this process can be spread over; None: not told."""
        known = [n for n in (self.present, self.online, self.allowed, self.quota_cores) if n is not None]
        return min(known, default=None)


def processor_of(tree: Tree, groups: Groups) -> Processor:
    """What a tree of files tells."""
    info = tree.text("/proc/cpuinfo")
    blocks = [block for block in re.split(r"\n\s*\n", info) if re.search(r"^processor\s*:", block, re.MULTILINE)]
    clusters = _clusters(tree, blocks)
    named = next((name for block in blocks if (name := _value(block, "model name"))), "")
    kinds = ", ".join(dict.fromkeys(cluster.name for cluster in clusters if cluster.name))
    features, lacks = _features(info)
    allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)", tree.text("/proc/self/status"), re.MULTILINE)
    return Processor(
        # The kernel calls every ARM core "ARMv8 Processor rev 1 (v8l)".
        name=kinds or ("" if named.startswith("ARMv") else named),
        present=count_of(tree.text(f"{_CPU}/present")) or len(blocks) or None,
        online=count_of(tree.text(f"{_CPU}/online")) or len(blocks) or None,
        allowed=count_of(allowed[1]) if allowed else None,
        quota_cores=groups.cores,
        clusters=clusters,
        features=features,
        lacks=lacks,
    )


def _clusters(tree: Tree, blocks: list[str]) -> tuple[Cluster, ...]:
    found: Counter[tuple[str, float | None]] = Counter()
    for block in blocks:
        core = _value(block, "processor")
        khz = tree.number(f"{_CPU}/cpu{core}/cpufreq/cpuinfo_max_freq") if core.isdecimal() else None
        found[_core_name(block), None if khz is None else khz / 1e3] += 1
    ordered = sorted(found.items(), key=lambda item: (-(item[0][1] or 0), item[0][0]))
    return tuple(Cluster(name, cores, mhz) for (name, mhz), cores in ordered)


def _core_name(block: str) -> str:
    try:
        implementer, part = (int(_value(block, key), 16) for key in ("CPU implementer", "CPU part"))
    except ValueError:
        return ""
    return _ARM_CORES.get((implementer, part), f"Arm core {implementer:#x}/{part:#x}")


def _features(info: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    for family, key in (("x86", "flags"), ("arm", "Features")):
        # What every core has: a process may be moved between them.
        lines = [set(line.split()) for line in re.findall(rf"^{key}\s*:(.*)$", info, re.MULTILINE)]
        if lines:
            common = set.intersection(*lines)
            has = {name: bool(common & set(names.split("|"))) for name, names in _ISA[family].items()}
            return tuple(n for n, there in has.items() if there), tuple(n for n, there in has.items() if not there)
    return (), ()


def _value(block: str, key: str) -> str:
    found = re.search(rf"^{key}\s*:(.*)$", block, re.MULTILINE)
    return " ".join(found[1].split())[:100] if found else ""
