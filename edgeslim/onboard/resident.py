"""Resident memory: how much this process has had, and how its allocator is kept from scattering it.

Imports nothing of the reading of scenes, which a process that only runs the network does without.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

LOADING_BLOCK_BYTES = 128 << 10
"""Blocks mapped by themselves while a network is loaded: what its file was unpacked into goes back at once."""
RUNNING_BLOCK_BYTES = 4 << 20
"""The same while tiles stream: smaller ones are used again instead of being cleared by the system each time."""


def map_blocks_from(count_bytes: int) -> None:
    """Make glibc map blocks of at least so many bytes by themselves and give them back when they are freed.

    Of what it does not map it keeps as much free at the end of a heap: the system would clear it each time anew. Its
    own rule raises that size whenever such a block is freed, so copies of weights and buffers of megabytes end up
    scattered over the heaps of all threads, and the peak differs from run to run. Does nothing with another allocator.
    """
    if (library := _glibc()) is not None:
        trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # malloc.h
        library.mallopt(mmap_threshold, count_bytes)
        library.mallopt(trim_threshold, count_bytes)
        library.mallopt(arena_max, 2)


def give_back() -> None:
    """Give what was freed back to the system, so that what is resident is what is in use."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def highest_bytes() -> int:
    """Highest resident memory of this process so far."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
