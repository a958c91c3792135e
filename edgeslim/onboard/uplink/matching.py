"""Matching: which bytes of a new file the old one has already, wherever they lie in it.

Most of an update is where it was: a new head changes bytes in place, and a longer name moves what follows. So a match
is followed at memory speed for as long as it lasts, and taken up again on the same diagonal behind a change. Only bytes
that this does not explain are looked for elsewhere: blocks of the old file are hashed once, and the same hash, taken at
every position of the unexplained part at once, finds them at any shift.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeslim.errors import InputError

U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]
SHORTEST = 32
"""Bytes of a copy: a shorter one costs about as much to name as to send."""
_FIRST, _MOST = 4 << 10, 1 << 20
"""Bytes looked at at once: few behind a match, more the longer nothing is found."""
_MOST_BLOCKS = 4 << 20
"""Of an old file; a larger one is hashed in larger blocks, so that memory stays bounded."""
_FACTOR = 0x9E3779B97F4A7C15
_ONES = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes of the new file that the old one has."""

    new: int
    """Where they begin in the new file."""
    old: int
    """Where they begin in the old file."""
    length: int
    """How many."""


def mapped(path: Path) -> U8:
    """A file's bytes, (n,), read as they are used. Raises InputError."""
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):
                return np.zeros(0, np.uint8)
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def copies(old: U8, new: U8) -> list[Copy]:
    """What of `new` (n,) is in `old` (m,), in the order of `new`, nothing twice; the bytes between are new."""
    found: list[Copy] = []
    blocks: _Blocks | None = None
    at = gap = 0  # looked at so far; explained so far
    shift = 0  # where the same byte lies in the old file, as seen from the new one
    step = _FIRST
    while len(new) - at >= SHORTEST:
        length = _common(new[at:], old[at + shift :]) if 0 <= at + shift < len(old) else 0
        if length >= SHORTEST:
            found.append(Copy(at, at + shift, length))
            at = gap = at + length
            step = _FIRST
            continue
        end = min(len(new), at + step)
        near = _resumed(new, old, at, end, shift)
        far = None
        if (near if near is not None else end) - at >= SHORTEST:
            blocks = blocks or _Blocks(old)
            far = blocks.find(new, at, near if near is not None else end)
        if far is not None:
            start, source = far
            back = _common(new[gap:start][::-1], old[:source][::-1])
            at, shift, step = start - back, source - start, _FIRST
        elif near is not None:
            at, step = near, _FIRST
        elif end == len(new):
            break
        else:  # a run that reaches the end of what was looked at may go on behind it
            at, step = end - SHORTEST + 1, min(2 * step, _MOST)
    return found


def _common(a: U8, b: U8) -> int:
    """How many bytes are equal from the beginning."""
    most = min(len(a), len(b))
    done, step = 0, 1 << 10
    while done < most:
        end = min(most, done + step)
        differ = a[done:end] != b[done:end]
        first = int(differ.argmax())
        if differ[first]:
            return done + first
        done, step = end, min(4 * step, _MOST)
    return most


def _resumed(new: U8, old: U8, at: int, end: int, shift: int) -> int | None:
    """Where in new[at:end] at least SHORTEST bytes are equal on the same diagonal again."""
    begin, end = max(at, -shift), min(end, len(old) - shift)
    if end - begin < SHORTEST:
        return None
    differ = np.flatnonzero(new[begin:end] != old[begin + shift : end + shift])
    starts = np.concatenate([[0], differ + 1])
    lengths = np.concatenate([differ, [end - begin]]) - starts
    long = np.flatnonzero(lengths >= SHORTEST)
    return begin + int(starts[long[0]]) if len(long) else None


class _Blocks:
    """The old file's blocks by their hash."""

    def __init__(self, old: U8) -> None:
        self._old, self._size = old, SHORTEST
        while len(old) // self._size > _MOST_BLOCKS:
            self._size *= 2
        count = len(old) // self._size
        hashes = np.empty(count, np.uint64)
        rows = old[: count * self._size].reshape(count, self._size)
        for i in range(0, count, _FIRST):
            part, width = rows[i : i + _FIRST].astype(np.uint64), 1
            while part.shape[1] > 1:
                part = part[:, ::2] + _power(width) * part[:, 1::2]
                width *= 2
            hashes[i : i + _FIRST] = _mixed(part[:, 0])
        self._hashes, self._where = np.unique(hashes, return_index=True)
        # Most positions have no block: a table of hash beginnings says so without a search.
        self._cut = np.uint64(64 - min(24, max(8, 3 + count.bit_length())))
        self._maybe = np.zeros(1 << (64 - int(self._cut)), bool)
        self._maybe[self._hashes >> self._cut] = True

    def find(self, new: U8, begin: int, end: int) -> tuple[int, int] | None:
        """The first position of new[begin:end] at which a block of the old file begins, and where that one lies."""
        hashes = self._rolling(new[begin : end + self._size - 1])
        here = np.flatnonzero(self._maybe[hashes >> self._cut])
        if not len(here):
            return None
        index = np.searchsorted(self._hashes, hashes[here]).clip(max=len(self._hashes) - 1)
        equal = np.flatnonzero(self._hashes[index] == hashes[here])
        for k in equal.tolist():
            position, source = begin + int(here[k]), self._size * int(self._where[index[k]])
            if np.array_equal(new[position : position + self._size], self._old[source : source + self._size]):
                return position, source
        return None

    def _rolling(self, data: U8) -> U64:
        """The hash of the block that begins at each position, as many as fit."""
        part, width = data.astype(np.uint64), 1
        if len(part) < self._size:
            return part[:0]
        while width < self._size:
            part = part[:-width] + _power(width) * part[width:]
            width *= 2
        return _mixed(part)


def _power(exponent: int) -> U64:
    """A one-element array, whose products wrap round modulo 2^64 without a warning."""
    return np.array([pow(_FACTOR, exponent, _ONES + 1)], np.uint64)


def _mixed(hashes: U64) -> U64:
    """The same hashes with every bit in the leading ones."""
    mixed: U64 = (hashes ^ (hashes >> np.uint64(29))) * _power(3)
    return mixed
