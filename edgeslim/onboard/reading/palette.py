"""Palette: the colours that the numbers of one band stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_EXACT = ("uint8", "uint16")
"""Types whose every value has an entry."""
_INDEX_BYTES = 8


@dataclass(frozen=True, slots=True)
class Palette:
    """A band of indices and its colour table."""

    band: int
    """Number of the band, from 1."""
    table: NDArray[np.uint8]
    """(4, entries + 1): red, green, blue and alpha; the last is transparent, for indices without an entry."""
    exact: bool
    """Whether every value of the band's type has an entry."""

    @property
    def opaque(self) -> bool:
        """True: no pixel can be transparent."""
        return self.exact and bool(self.table[3, :-1].all())

    def index(self, values: NDArray[Any]) -> NDArray[Any]:
        """Entries of values (h, w) of the band."""
        if self.exact:
            return values
        last = self.table.shape[1] - 1
        with np.errstate(invalid="ignore"):  # a NaN is below nothing and above nothing
            return np.where((values >= 0) & (values < last), values, np.intp(last)).astype(np.intp)

    @property
    def index_bytes(self) -> int:
        """Bytes a pixel that `index` needs at most."""
        return 0 if self.exact else 2 * _INDEX_BYTES + 3


def palette_of(dataset: Any, band: int) -> Palette:
    """The palette of a band of an open rasterio dataset; raises what rasterio does where it has no colour table."""
    dtype = dataset.dtypes[band - 1]
    entries = 1 << 8 if dtype == "uint8" else 1 << 16
    table = np.zeros((4, entries + 1), np.uint8)
    for index, colour in dataset.colormap(band).items():
        if 0 <= index < entries:
            table[:, index] = colour
    return Palette(band, table, dtype in _EXACT)
