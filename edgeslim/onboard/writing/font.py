"""Font: a 5x8 bitmap font for printable ASCII, so that a quicklook needs no text library on board."""

from __future__ import annotations

import unicodedata

import numpy as np
from numpy.typing import NDArray

# One glyph is five columns, left to right, a byte each; the lowest bit is the top row, the highest a descender.
_GLYPHS = bytes.fromhex(
    "0000000000"
    "00005f0000"
    "0007000700"
    "147f147f14"
    "242a7f2a12"
    "2313086462"
    "3649562050"
    "0000070000"
    "001c224100"
    "0041221c00"
    "14083e0814"
    "08083e0808"
    "0050300000"
    "0808080808"
    "0060600000"
    "2010080402"
    "3e5149453e"
    "00427f4000"
    "4261514946"
    "2141454b31"
    "1814127f10"
    "2745454539"
    "3c4a494930"
    "0171090503"
    "3649494936"
    "064949291e"
    "0036360000"
    "0056360000"
    "0814224100"
    "1414141414"
    "0041221408"
    "0201510906"
    "324979413e"
    "7e1111117e"
    "7f49494936"
    "3e41414122"
    "7f4141221c"
    "7f49494941"
    "7f09090901"
    "3e4149497a"
    "7f0808087f"
    "00417f4100"
    "2040413f01"
    "7f08142241"
    "7f40404040"
    "7f020c027f"
    "7f0408107f"
    "3e4141413e"
    "7f09090906"
    "3e4151215e"
    "7f09192946"
    "4649494931"
    "01017f0101"
    "3f4040403f"
    "1f2040201f"
    "3f4038403f"
    "6314081463"
    "0708700807"
    "6151494543"
    "007f414100"
    "0204081020"
    "0041417f00"
    "0402010204"
    "4040404040"
    "0001020400"
    "2054545478"
    "7f48444438"
    "3844444420"
    "384444487f"
    "3854545418"
    "087e090102"
    "18a4a4a47c"
    "7f08040478"
    "00447d4000"
    "4080847d00"
    "7f10284400"
    "00417f4000"
    "7c04180478"
    "7c08040478"
    "3844444438"
    "fc24242418"
    "18242418fc"
    "7c08040408"
    "4854545420"
    "043f444020"
    "3c4040207c"
    "1c2040201c"
    "3c4030403c"
    "4428102844"
    "1ca0a0a07c"
    "4464544c44"
    "0008364100"
    "00007f0000"
    "0041360800"
    "1008081008"
)
GLYPH_ROWS = 8
"""Rows of a glyph, the last one for descenders."""
_SPACE_COLUMNS = 3


def _columns(character: str) -> bytes:
    index = ord(character) - 32
    columns = _GLYPHS[5 * index : 5 * index + 5]
    if character == " ":
        return bytes(_SPACE_COLUMNS)
    return columns if character.isdigit() else columns.strip(b"\0")  # digits keep one width: columns of numbers align


def plain(text: str) -> str:
    """`text` in printable ASCII: accents dropped, the rest as "?"."""
    folded = unicodedata.normalize("NFKD", text.replace("×", "x").replace("²", "2").replace("…", "..."))
    letters = (c for c in folded if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "?" for c in letters)


def text_mask(text: str, size: int = 2) -> NDArray[np.bool_]:
    """Where ink goes: (8 * size, width), one font pixel being `size` x `size`."""
    packed = b"\0".join(_columns(c) for c in plain(text)) or b"\0"
    columns = np.frombuffer(packed, np.uint8)
    mask = (columns[None, :] >> np.arange(GLYPH_ROWS)[:, None]) & 1
    result: NDArray[np.bool_] = mask.astype(bool).repeat(size, axis=0).repeat(size, axis=1)
    return result
